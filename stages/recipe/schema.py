"""What a recipe may hold: one frozen pydantic model per section, and one named check per rule that spans several fields.

What a section is stands in `data.section`; a broken rule says both values. A check that needs two sections (a stage and `launch`, say)
stands in `Recipe`. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from omnistage.data.errors import unknown_name
from omnistage.data.records import Modality
from omnistage.data.section import Count, CountOrZero, NumberOrZero, Positive, Section, Text
from omnistage.rl.heads.spec import HeadSpec
from omnistage.stages.recipe.choices import (
    SHARDED,
    Aggregation,
    Control,
    Loss,
    Part,
    Prompt,
    Reference,
    ScaleRewards,
    SharedPrefix,
)
from omnistage.stages.recipe.gate import FIGURE, Gate, Place
from omnistage.stages.recipe.gate import check as check_gate
from omnistage.stages.recipe.keeping import Keep
from omnistage.stages.recipe.model import LANGUAGE_ATTENTION, Lora, Model
from omnistage.stages.recipe.reward_use import RewardUse
from omnistage.stages.recipe.rollout import Rollout
from omnistage.stages.recipe.rollout import check_launch as check_rollout_launch
from omnistage.stages.recipe.rollout import check_stage as check_rollout_stage
from omnistage.stages.recipe.source import Source
from omnistage.stages.recipe.surroundings import Launch, RunMedia, Synth

TOWERS_AND_LANGUAGE: frozenset[Part] = frozenset({"vision", "audio", "language"})


class HeldOut(Section):
    """What a model is measured on."""

    data: list[Source] = Field(min_length=1, description="held-out files")

    @field_validator("data")
    @classmethod
    def held_out_is_not_chosen_by_a_model(cls, data: list[Source]) -> list[Source]:
        for source in data:
            if source.pass_rate is not None:
                raise ValueError(f"{source.path} has a pass_rate; what a model is measured on must not be chosen by what a model answers")
        return data


class Measurement(HeldOut):
    """What is measured, and how answers are drawn."""

    batch_size: Count = Field(64, description="prompts per forward pass")
    max_new_tokens: Count = Field(1024, description="longest answer, in tokens; an answer that is cut off is wrong")
    controls: list[Control] = Field(default=[], description="measure again with media blanked, swapped with another record's, or shuffled")
    samples: CountOrZero = Field(0, description="answers sampled at temperature 1 of each item, beside the greedy one (pass@k, maj@n)")
    benchmark: Text = Field("choice", description="what an answer is worth, and which figures are made (docs/evaluation.md)")
    ask: list[Text] = Field(default=[], description="further ways to ask that the benchmark knows (asr, guided)")
    head: Text | None = Field(None, description="head that is read where numbers or poses are asked for; null: the only one")

    @field_validator("benchmark")
    @classmethod
    def benchmark_is_known(cls, name: str) -> str:
        # Imported here: a recipe without a benchmark need not wait for it.
        from omnistage.stages.benchmarks import registry

        if name != "choice" and name not in registry.BENCHMARKS:
            raise ValueError(unknown_name("benchmark", name, registry.BENCHMARKS))
        return name


class Evaluation(Measurement):
    """The measurement that is repeated after every training stage; its controls are made once, after the last one."""

    # Controls cost as much as the measurement itself, so that a run makes them once, of its last model.
    before: bool = Field(True, strict=True, description="measure the starting model too")


class Choice(HeldOut):
    """By what one of a stage's checkpoints, or its last weights, becomes the stage's model: validation data, which nothing else uses."""

    figure: Text | None = Field(None, description=FIGURE)
    batch_size: Count = Field(64, description="prompts per forward pass")
    max_new_tokens: Count = Field(1024, description="longest answer, in tokens; an answer that is cut off is wrong")


class Named(Section):
    """What every stage has."""

    name: str = Field(pattern=r"^[a-z0-9_]+$", description="unique name; names the stage's folder")


class Training(Named):
    """What every stage that changes weights has."""

    data: list[Source] = Field(min_length=1, description="training files")
    start: Text | None = Field(None, description="earlier stage whose model this one starts from; null: the last one before it that trains")
    freeze: list[Part] | None = Field(None, description="parts whose weights do not change; null: the model's")
    lora: Lora | None = Field(None, description="adapters of this stage; null: the model's")
    learning_rate: Positive = Field(description="peak learning rate")
    steps: Count | None = Field(None, description="optimizer steps; give this or epochs")
    epochs: Positive | None = Field(None, description="passes over the data; give this or steps")
    save_every: Count | None = Field(None, description="steps between checkpoints; null: only the finished model")
    keep: Keep | None = Field(None, description="checkpoints that stay; null: the newest 2, with choose all of them until one is chosen")
    choose: Choice | None = Field(
        None, description="the best checkpoint by validation data becomes the stage's model; null: the last weights"
    )
    evaluate: bool = Field(True, strict=True, description="repeat the run's evaluation after this stage")
    gate: Gate | None = Field(None, description="what the evaluation after this stage must show for the run to go on; null: nothing")
    trainer: dict[str, Any] = Field(default={}, description="further fields of TRL's config for this kind of stage")

    @model_validator(mode="after")
    def steps_or_epochs(self) -> Self:
        if self.steps is None and self.epochs is None:
            raise ValueError("has neither steps nor epochs; give exactly one")
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"steps is {self.steps} and epochs is {self.epochs:g}; give exactly one (the other null)")
        return self

    @model_validator(mode="after")
    def what_is_kept_by_is_logged(self) -> Self:
        if self.keep is not None and self.keep.best and self.keep.by == "reward" and not isinstance(self, GrpoStage):
            raise ValueError("keep.best is given and keep.by is 'reward', which only grpo stages log; name a figure such as loss")
        return self

    @model_validator(mode="after")
    def there_is_a_checkpoint_to_choose(self) -> Self:
        if self.choose is not None and self.save_every is None:
            raise ValueError("choose is given and save_every is null; give save_every: one of its checkpoints is chosen")
        if self.choose is not None and self.steps is not None and self.save_every is not None and self.save_every >= self.steps:
            raise ValueError(
                f"choose is given, save_every is {self.save_every} and steps is {self.steps}; save_every must be smaller, "
                "else there is nothing but the last weights"
            )
        return self

    @field_validator("trainer")
    @classmethod
    def trainer_keys_are_not_ours(cls, trainer: dict[str, Any]) -> dict[str, Any]:
        for key in trainer:
            if not key.isidentifier():
                raise ValueError(f"has the key {key!r}, which cannot name a field of TRL's config")
            if key in cls.model_fields:
                raise ValueError(f"sets {key!r}, which is a field of the stage itself; set it there")
        return trainer


class SftStage(Training):
    """Supervised cold start on demonstrations."""

    kind: Literal["sft"] = Field(description="kind of stage")
    batch_size: Count = Field(16, description="demonstrations per optimizer step, over all processes")


class DynamicSampling(Section):
    """Prompts whose completions are all worth the same are replaced by others before a step learns (arXiv 2503.14476, section 3.2)."""

    rounds: Count = Field(description="most times that a step draws further prompts; what then has no spread stays")


class GrpoStage(Training):
    """Group-relative policy optimization (arXiv 2402.03300) on one modality, with others mixed in by weight."""

    kind: Literal["grpo"] = Field(description="kind of stage")
    modality: Modality = Field(description="the stage's own modality")
    rewards: list[RewardUse] = Field(min_length=1, description="reward functions; their weighted sum is the reward")
    num_generations: Annotated[int, Field(strict=True, ge=2)] = Field(8, description="completions per prompt (G)")
    prompts_per_step: Count = Field(8, description="prompts per optimizer step, over all processes (P)")
    beta: NumberOrZero = Field(0.0, description="weight of the KL term")
    reference: Reference = Field("none", description="anchor of the KL term; default: none when beta is 0, else stage_start")
    temperature: Positive = Field(1.0, description="sampling temperature")
    top_k: CountOrZero = Field(0, description="sample from the k likeliest tokens; 0: from all")
    max_completion_length: Count = Field(256, description="longest completion, in tokens")
    dynamic_sampling: DynamicSampling | None = Field(
        None, description="replace prompts whose completions are all worth the same; null: keep them (they teach nothing)"
    )
    per_device_batch: Count | None = Field(
        None, description="completions per forward pass of one process; null: whole groups, as many as tokens_per_forward holds"
    )
    tokens_per_forward: Count = Field(65536, description="most tokens of a forward pass where per_device_batch is null")
    aggregation: Aggregation = Field(
        "sum_then_normalize", description="several rewards: sum, then normalize in each group; or normalize each, then sum"
    )
    rollout: Rollout = Field(default=Rollout(), description="what draws the completions: the policy, or vLLM")
    keep_rollouts: bool = Field(True, strict=True, description="record every completion with its rewards in the stage's folder")
    loss: Loss = Field("dapo", description="how token losses are averaged")
    scale_rewards: ScaleRewards = Field("group", description="which standard deviation divides the advantages")
    shared_prefix: SharedPrefix = Field(
        "auto", description="compute a group's prompt once (docs/performance.md); off: once for each completion"
    )
    iterations: Count = Field(1, description="optimizer passes over each batch of rollouts")

    @field_validator("shared_prefix", mode="before")
    @classmethod
    def off_is_a_word(cls, given: Any) -> Any:
        """YAML reads a bare `off` as false."""
        return "off" if given is False else given

    @model_validator(mode="before")
    @classmethod
    def reference_follows_beta(cls, given: Any) -> Any:
        if isinstance(given, dict) and "reference" not in given:
            return {**given, "reference": "none" if given.get("beta", 0) == 0 else "stage_start"}
        return given

    @model_validator(mode="after")
    def reference_goes_with_beta(self) -> Self:
        if (self.reference == "none") != (self.beta == 0):
            raise ValueError(f"reference is {self.reference!r} and beta is {self.beta:g}; reference must be 'none' exactly when beta is 0")
        return self

    @field_validator("rewards")
    @classmethod
    def rewards_have_names_of_their_own(cls, rewards: list[RewardUse]) -> list[RewardUse]:
        names = [use.label or use.name.rpartition(":")[2] for use in rewards]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"has two that are logged as {twice[0]!r}; give one of them a label")
        return rewards

    @model_validator(mode="after")
    def groups_stay_whole_or_are_cut_evenly(self) -> Self:
        batch, group = self.per_device_batch, self.num_generations
        if batch is not None and batch % group and group % batch:
            raise ValueError(
                f"per_device_batch is {batch} and num_generations is {group}; "
                "one must be a multiple of the other (a forward pass takes whole groups, or an equal slice of one)"
            )
        return self

    @model_validator(mode="after")
    def checkpoints_fall_between_rollouts(self) -> Self:
        # A checkpoint holds no rollouts: one in the middle of their reuse could not go on with the same ones.
        if self.save_every is not None and self.save_every % self.iterations:
            raise ValueError(
                f"save_every is {self.save_every} and iterations is {self.iterations}; save_every must be a multiple of iterations"
            )
        return self

    @model_validator(mode="after")
    def a_source_has_the_modality(self) -> Self:
        given = [source.modality for source in self.data]
        if None not in given and self.modality not in given:
            held = ", ".join(sorted({str(modality) for modality in given}))
            raise ValueError(f"modality is '{self.modality}' and its sources hold {held}; at least one must hold '{self.modality}'")
        return self

    @model_validator(mode="after")
    def rollout_fits(self) -> Self:
        check_rollout_stage(self)
        return self

    @property
    def completions_per_step(self) -> int:
        """P x G, over all processes."""
        return self.prompts_per_step * self.num_generations


class HeadMeasurement(HeldOut):
    """What a head is measured on after its stage."""

    batch_size: Count = Field(32, description="prompts per forward pass")
    max_new_tokens: Count = Field(64, description="longest answer of a head at a token, in tokens; one without the token is a miss")
    body: Text | None = Field(None, description="your own SMPL or SMPL-X file, whose lengths turn poses into millimetres; null: ours")
    controls: list[Control] = Field(default=[], description="measure again with media blanked, or swapped with another record's")


class HeadStage(Training):
    """Supervised training of a head: numbers from a hidden state of the policy (docs/heads.md)."""

    kind: Literal["head"] = Field(description="kind of stage")
    head: HeadSpec = Field(
        description="the head; one of that name that the model carries goes on, if all but the losses is alike; else a new one"
    )
    batch_size: Count = Field(16, description="records per optimizer step, over all processes")
    head_learning_rate: Positive | None = Field(None, description="peak learning rate of the head; null: as all else")
    answers: list[Text] = Field(
        default=["It is {token}."], min_length=1, description="what a record without a response is answered with, at a token; {token} is it"
    )
    evaluation: HeadMeasurement | None = Field(None, description="measured after the stage; null: not at all")

    @model_validator(mode="after")
    def checkpoints_of_a_head_are_not_chosen(self) -> Self:
        if self.choose is not None:
            raise ValueError("choose is given and kind is 'head'; what a head says is not among the run's figures; allowed: sft, grpo")
        return self

    @model_validator(mode="after")
    def answers_hold_the_token(self) -> Self:
        for answer in self.answers if self.head.token is not None else []:
            if answer.count("{token}") != 1:
                raise ValueError(f"answers has {answer!r}, which must hold {{token}} once")
        return self


class EvaluateStage(Named, Measurement):
    """A measurement of its own, of the model that the stage before it left."""

    kind: Literal["evaluate"] = Field(description="kind of stage")


Stage = Annotated[SftStage | GrpoStage | HeadStage | EvaluateStage, Field(discriminator="kind")]


class Recipe(Section):
    """One whole run. `${run_dir}` inside a `path` or a `media_root` stands for the run directory."""

    run_dir: Text = Field(description="folder of the run, relative to the working directory")
    seed: CountOrZero = Field(0, description="seed of the weights that are made, of the order of records and of the sampling")
    model: Model = Field(description="the policy")
    media: RunMedia = Field(default=RunMedia(), description="how clips are decoded")
    prompt: Prompt = Field("think_answer", description="wording of questions; plain: as they stand, answered without tags")
    synth: Synth | None = Field(None, description="render clips with known answers first")
    launch: Launch = Field(default=Launch(), description="processes and engine")
    evaluation: Evaluation | None = Field(None, description="measured after every training stage")
    stages: list[Stage] = Field(min_length=1, description="stages in order; each starts from the model that the one before it wrote")

    @model_validator(mode="after")
    def names_are_unique(self) -> Self:
        first: dict[str, int] = {}
        for index, stage in enumerate(self.stages):
            if stage.name in first:
                raise ValueError(f"stages[{first[stage.name]}] and stages[{index}] are both named {stage.name!r}; names must be unique")
            first[stage.name] = index
        return self

    @model_validator(mode="after")
    def starts_are_earlier(self) -> Self:
        earlier: list[str] = []
        for index, stage in enumerate(self.stages):
            if not isinstance(stage, Training):
                continue
            if stage.start is not None and stage.start not in earlier:
                told = f"allowed: {', '.join(earlier)}" if earlier else "there is none before it"
                raise ValueError(f"stages[{index}] ({stage.name}): start is {stage.start!r}, which is no earlier stage that trains; {told}")
            earlier.append(stage.name)
        return self

    @model_validator(mode="after")
    def gates_have_their_measurements(self) -> Self:
        measured: dict[str, bool] = {}
        for index, stage in enumerate(self.stages):
            if not isinstance(stage, Training):
                continue
            start = stage.start or next(reversed(measured), None)
            known = measured[start] if start is not None else self.evaluation is not None and self.evaluation.before
            if stage.gate is not None:
                place = Place(f"stages[{index}] ({stage.name})", start, known)
                check_gate(stage.gate, place, has_evaluation=self.evaluation is not None, evaluate=stage.evaluate)
            measured[stage.name] = stage.evaluate
        return self

    @model_validator(mode="after")
    def checkpoints_can_be_read(self) -> Self:
        for index, stage in enumerate(self.stages):
            if isinstance(stage, Training) and stage.choose is not None and self.launch.engine == "zero3":
                where = f"stages[{index}] ({stage.name})"
                told = "its checkpoints are spread over the ranks and load as no model"
                raise ValueError(f"{where}: choose is given and launch.engine is 'zero3'; {told}; allowed: single, ddp, fsdp2, zero2")
        return self

    @model_validator(mode="after")
    def slices_are_not_scaled(self) -> Self:
        if self.launch.engine == "fsdp2" and self.model.dtype == "float16":
            raise ValueError("model.dtype is 'float16' and launch.engine is 'fsdp2'; dtype must be auto, bfloat16 or float32")
        return self

    @model_validator(mode="after")
    def batches_divide(self) -> Self:
        processes, name = self.launch.world, self.launch.world_name
        for index, stage in enumerate(self.stages):
            where = f"stages[{index}] ({stage.name})"
            if isinstance(stage, SftStage | HeadStage):
                _must_divide(f"{where}: batch_size", stage.batch_size, name, processes)
            elif isinstance(stage, GrpoStage):
                _must_divide(f"{where}: prompts_per_step", stage.prompts_per_step, name, processes)
                if stage.per_device_batch is not None:
                    total = f"{where}: prompts_per_step x num_generations"
                    divisor = stage.per_device_batch * processes
                    _must_divide(total, stage.completions_per_step, f"per_device_batch x {name}", divisor)
        return self

    @model_validator(mode="after")
    def rollouts_can_be_launched(self) -> Self:
        for index, stage in enumerate(self.stages):
            if isinstance(stage, GrpoStage):
                check_rollout_launch(f"stages[{index}] ({stage.name})", stage.rollout, self.launch.engine, self.launch.world)
        return self

    @model_validator(mode="after")
    def attention_can_share(self) -> Self:
        for index, stage in enumerate(self.stages):
            if isinstance(stage, GrpoStage) and stage.shared_prefix not in ("auto", "off") and self.model.attention == "eager":
                where = f"stages[{index}] ({stage.name})"
                raise ValueError(
                    f"{where}: shared_prefix is {stage.shared_prefix!r} and model.attention is 'eager', which cannot share; "
                    "shared_prefix must be auto or off (both score plainly), or the attention another one"
                )
        return self

    @model_validator(mode="after")
    def something_trains(self) -> Self:
        for index, stage in enumerate(self.stages):
            # A head may be trained alone.
            if isinstance(stage, SftStage | GrpoStage) and TOWERS_AND_LANGUAGE <= set(self.freeze_of(stage)):
                where = f"stages[{index}] ({stage.name})"
                raise ValueError(
                    f"{where}: freeze names vision, audio and language; nothing is left to train (adapters go to parts that are not frozen)"
                )
        return self

    @model_validator(mode="after")
    def adapters_fit(self) -> Self:
        trained_before = False
        for index, stage in enumerate(self.stages):
            if not isinstance(stage, Training):
                continue
            where, lora = f"stages[{index}] ({stage.name})", self.lora_of(stage)
            if lora is not None and lora.targets == LANGUAGE_ATTENTION and "language" in self.freeze_of(stage):
                raise ValueError(f"{where}: freeze names language, and lora.targets match nothing else; nothing is left to train")
            if lora is not None and trained_before and isinstance(stage, GrpoStage) and stage.reference == "base":
                raise ValueError(
                    f"{where}: reference is 'base' and lora is given; adapters are held to the model under them, 'stage_start'"
                )
            trained_before = True
        return self

    @model_validator(mode="after")
    def heads_can_learn(self) -> Self:
        for index, stage in enumerate(self.stages):
            if not isinstance(stage, HeadStage):
                continue
            where = f"stages[{index}] ({stage.name})"
            if stage.head.token is not None and self.lora_of(stage) is not None and self.launch.engine in SHARDED:
                told = "peft cannot save a token's rows from sharded weights; allowed: single, ddp, zero2"
                raise ValueError(f"{where}: lora is given, the head is at a token and launch.engine is {self.launch.engine!r}; {told}")
            rows = stage.batch_size // (self.launch.world * int(stage.trainer.get("gradient_accumulation_steps", 1)))
            if rows < 2 and {term.name for term in stage.head.losses} <= {"correlation", "text"}:
                told = f"a forward pass takes {rows} record of the {stage.batch_size} in batch_size, and a correlation needs at least 2"
                raise ValueError(f"{where}: losses has nothing but 'correlation'; {told}")
        return self

    def freeze_of(self, stage: Training) -> list[Part]:
        """Parts that this stage freezes: its own setting, else the model's."""
        return self.model.freeze if stage.freeze is None else stage.freeze

    def lora_of(self, stage: Training) -> Lora | None:
        """Adapters of this stage: its own setting, else the model's."""
        return self.model.lora if stage.lora is None else stage.lora

    def stage_dir(self, name: str) -> Path:
        """Folder of a stage in the run directory, `NN-name`, NN counted from 01. Raises `KeyError` for a name that is not in the recipe."""
        for number, stage in enumerate(self.stages, start=1):
            if stage.name == name:
                return Path(self.run_dir) / f"{number:02d}-{name}"
        raise KeyError(name)


def _must_divide(what: str, total: int, by: str, divisor: int) -> None:
    if total % divisor:
        raise ValueError(f"{what} is {total} and {by} is {divisor}; the first must be a multiple of the second")
