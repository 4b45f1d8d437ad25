"""The head stage: numbers from a hidden state, learned from records that say them."""

from __future__ import annotations

from pathlib import Path

from trl import SFTConfig

from omnistage.data.records import Record
from omnistage.rl import head_trainer
from omnistage.rl.encoding import Encoder
from omnistage.rl.policy import thinker_of
from omnistage.rl.sampler import Pool
from omnistage.stages import presentation, sft, training
from omnistage.stages.recipe.schema import HeadStage, Recipe


def config(stage: HeadStage, recipe: Recipe, out: Path, rows: int, seed: int) -> SFTConfig:
    """TRL's config for the stage; `batch_size` counts the records of one optimizer step over all processes. Raises `RecipeError`."""
    return sft.config(stage, recipe, out, rows, seed)


def check(stage: HeadStage, records: list[Record]) -> None:
    """Raises `InputError` for records that the head cannot learn from, or be measured on."""
    head_trainer.check_records(records, stage.head, stage.answers)


def run(
    stage: HeadStage, recipe: Recipe, out: Path, start: training.Start, encoder: Encoder, rows: tuple[list[Record], list[Pool]]
) -> None:
    """Train from `start` and leave `out/model`, which carries the head."""
    records, pools = rows
    args = config(stage, recipe, out, len(records), start.seed)
    model = training.load(stage, recipe, start)
    adapter = training.adapter(stage, recipe)
    if stage.head.token is not None:
        row = head_trainer.learn_token(thinker_of(model), encoder.processor, stage.head.token)
        if adapter is not None:
            # Else the row of a token that nobody has met stays as it was drawn.
            adapter.trainable_token_indices = {"embed_tokens": [row], "lm_head": [row]}
    trainer = head_trainer.HeadTrainer(
        model,
        stage.head,
        answers=stage.answers,
        head_learning_rate=stage.head_learning_rate,
        args=args,
        records=records,
        pools=pools,
        encoder=encoder,
        peft_config=adapter,
        callbacks=training.callbacks(out, stage.name),
    )
    training.train(trainer, out, encoder.processor, presentation.of_recipe(recipe))
