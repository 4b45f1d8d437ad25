"""The GRPO stage: one modality, with others mixed in by weight."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trl import GRPOConfig

from omnistage.data.errors import RecipeError
from omnistage.data.records import Record
from omnistage.rewards import base, registry, rollouts
from omnistage.rl.encoding import Encoder
from omnistage.rl.grpo_trainer import OmniGRPOTrainer
from omnistage.rl.sampler import Pool
from omnistage.rl.vllm_rollout import requirements
from omnistage.rl.vllm_rollout.generation import Settings
from omnistage.stages import presentation, samples, training
from omnistage.stages.recipe.batching import batching
from omnistage.stages.recipe.schema import GrpoStage, Recipe


def rewards_of(stage: GrpoStage) -> list[Any]:
    """The stage's reward functions.

    Raises:
        InputError: a reward is unknown, cannot be loaded, or does not take its settings.
    """
    rewards = [registry.load(use.spec()) for use in stage.rewards]
    names = [reward.__name__ for reward in rewards]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise RecipeError(f"stages.{stage.name}.rewards: two call themselves {twice[0]!r}; give one of them a label")
    return rewards


def config(stage: GrpoStage, recipe: Recipe, out: Path, rows: int, seed: int) -> GRPOConfig:
    """TRL's config for the stage."""
    batch = batching(recipe, stage)
    # TRL counts each pass over a batch of rollouts as a step; only every `iterations`th draws new prompts.
    steps = stage.steps or stage.iterations * training.steps_of(stage, rows, stage.prompts_per_step)
    settings = training.common_settings(stage, recipe.model, recipe.launch, out, steps=steps, seed=seed)
    ours = {
        "per_device_train_batch_size": batch.per_device,
        "gradient_accumulation_steps": batch.passes,
        "num_generations": stage.num_generations,
        "max_completion_length": stage.max_completion_length,
        "temperature": stage.temperature,
        "top_k": stage.top_k,
        "beta": stage.beta,
        "loss_type": stage.loss,
        "scale_rewards": stage.scale_rewards,
        "num_iterations": stage.iterations,
        "multi_objective_aggregation": stage.aggregation,
        "reward_weights": [use.weight for use in stage.rewards],
    }
    return training.built(GRPOConfig, stage, ours | settings)


def check_refills(stage: GrpoStage, pools: Sequence[Pool]) -> None:
    """Raises `RecipeError` when `dynamic_sampling` could never draw a prompt that a step does not hold already."""
    most = max(len(pool.rows) for pool in pools)
    if stage.dynamic_sampling is not None and most <= stage.prompts_per_step:
        raise RecipeError(
            f"stages.{stage.name}: dynamic_sampling is given, prompts_per_step is {stage.prompts_per_step} and no source has more than "
            f"{most} records of one modality; there would be no further prompt to draw"
        )


def check_rollout(stage: GrpoStage) -> None:
    """Raises `InputError` when vLLM is to draw and is not there, or a reward asks for completions of other prompts."""
    if stage.rollout.engine != "vllm":
        return
    where = f"stages.{stage.name}.rollout.engine"
    for reward in rewards_of(stage):
        if "shuffled" in base.about(reward).needs:
            raise RecipeError(f"{where} is 'vllm' and reward {reward.__name__!r} needs completions of shuffled clips; allowed here: policy")
    requirements.check(where)


def check_drawn(stage: GrpoStage, records: Sequence[Record]) -> None:
    """Raises `RecipeError` for a record that vLLM cannot be asked: a video that is heard."""
    for record in records if stage.rollout.engine == "vllm" else ():
        if any(ref.kind == "video" and ref.sound is not None for ref in record.media):
            told = "vLLM reads interleaved video and sound at other positions; allowed: rollout.engine policy"
            raise RecipeError(f"{record.source}: the video is heard and stages.{stage.name}.rollout.engine is 'vllm'; {told}")


def vllm_settings(stage: GrpoStage) -> Settings | None:
    """How vLLM draws, None where the policy does."""
    given = stage.rollout
    if given.engine != "vllm":
        return None
    return Settings(
        mode=given.mode,
        gpu_memory=given.gpu_memory,
        tensor_parallel=given.tensor_parallel,
        max_model_length=given.max_model_length,
        sleep=given.sleep,
        base_url=given.server_url,
        host=given.server_host,
        port=given.server_port,
        group_port=given.group_port,
        timeout_s=given.timeout_s,
    )


def reference_folder(stage: GrpoStage, start: training.Start) -> str | None:
    """Folder of the KL reference, None without one."""
    if stage.reference == "none":
        return None
    return start.base if stage.reference == "base" else start.model


def run(
    stage: GrpoStage, recipe: Recipe, out: Path, start: training.Start, encoder: Encoder, rows: tuple[list[Record], list[Pool]]
) -> None:
    """Train from `start` and leave `out/model`."""
    records, pools = rows
    args = config(stage, recipe, out, len(records), start.seed)
    rewards, log = rewards_of(stage), training.RunLog(out, stage.name)
    weights = {reward.__name__: use.weight for reward, use in zip(rewards, stage.rewards, strict=True)}
    logged = samples.Samples(stage.name, weights, encoder.shape.limits, args.max_steps)
    recorder = samples.recorder(partial(rollouts.write, out / "rollouts"), logged, lambda: log.writer)
    trainer = OmniGRPOTrainer(
        training.load(stage, recipe, start),
        rewards,
        args=args,
        records=records,
        pools=pools,
        encoder=encoder,
        reference=reference_folder(stage, start),
        shared_prefix=stage.shared_prefix,
        refill_rounds=stage.dynamic_sampling.rounds if stage.dynamic_sampling else 0,
        vllm_settings=vllm_settings(stage),
        recorder=recorder if stage.keep_rollouts else None,
        peft_config=training.adapter(stage, recipe),
        callbacks=list(training.callbacks(out, stage, log)),
    )
    # Rollouts read their clips within the step.
    log.waited = lambda: trainer.waited_s
    training.train(trainer, out, encoder.processor, presentation.of_recipe(recipe), stage)
