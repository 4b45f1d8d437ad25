"""The supervised stage: a cold start on demonstrations."""

from __future__ import annotations

from pathlib import Path

from trl import SFTConfig

from omnistage.data.errors import RecipeError
from omnistage.data.records import Record
from omnistage.rl.encoding import Encoder
from omnistage.rl.sampler import Pool
from omnistage.rl.sft_trainer import OmniSFTTrainer
from omnistage.stages import presentation, training
from omnistage.stages.recipe.schema import HeadStage, Recipe, SftStage


def config(stage: SftStage | HeadStage, recipe: Recipe, out: Path, rows: int, seed: int) -> SFTConfig:
    """TRL's config for the stage; `batch_size` counts the demonstrations of one optimizer step over all processes.

    Raises:
        RecipeError: batch_size is not divisible by processes x gradient_accumulation_steps.
    """
    share = recipe.launch.world * int(stage.trainer.get("gradient_accumulation_steps", 1))
    if stage.batch_size % share:
        raise RecipeError(
            f"stages.{stage.name}: batch_size is {stage.batch_size}, processes x gradient_accumulation_steps is {share}; "
            "the first must be a multiple of the second"
        )
    steps = training.steps_of(stage, rows, stage.batch_size)
    settings = training.common_settings(stage, recipe.model, recipe.launch, out, steps=steps, seed=seed)
    return training.built(SFTConfig, stage, settings | {"per_device_train_batch_size": stage.batch_size // share})


def run(stage: SftStage, recipe: Recipe, out: Path, start: training.Start, encoder: Encoder, rows: tuple[list[Record], list[Pool]]) -> None:
    """Train from `start` and leave `out/model`."""
    records, pools = rows
    args = config(stage, recipe, out, len(records), start.seed)
    trainer = OmniSFTTrainer(
        training.load(stage, recipe, start),
        args=args,
        records=records,
        pools=pools,
        encoder=encoder,
        peft_config=training.adapter(stage, recipe),
        callbacks=training.callbacks(out, stage),
    )
    training.train(trainer, out, encoder.processor, presentation.of_recipe(recipe), stage)
