"""The head stage: numbers from a hidden state, learned from records that say them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trl import SFTConfig

from omnistage.data.errors import InputError
from omnistage.data.records import Record
from omnistage.rl import head_trainer
from omnistage.rl.encoding import Encoder
from omnistage.rl.heads import carried
from omnistage.rl.policy import thinker_of
from omnistage.rl.sampler import Pool
from omnistage.stages import presentation, sft, training
from omnistage.stages.main_process import say
from omnistage.stages.recipe.schema import HeadStage, Recipe


def config(stage: HeadStage, recipe: Recipe, out: Path, rows: int, seed: int) -> SFTConfig:
    """TRL's config for the stage; `batch_size` counts the records of one optimizer step over all processes. Raises `RecipeError`."""
    return sft.config(stage, recipe, out, rows, seed)


def check(stage: HeadStage, records: list[Record]) -> None:
    """Raises `InputError` for a name that no head can have, and for records that the head cannot learn from."""
    try:
        carried.check_name(stage.head.name)
    except InputError as error:
        raise InputError(f"stages.{stage.name}.head: {error}") from error
    head_trainer.check_records(records, stage.head, stage.answers)


def check_token(stage: HeadStage, tokenizer: Any) -> None:
    """Raises `InputError` for a token that the first model's tokenizer cannot have as one of its own."""
    if stage.head.token is None:
        return
    try:
        head_trainer.check_token(tokenizer, stage.head.token)
    except InputError as error:
        raise InputError(f"stages.{stage.name}.head.anchor: {error}") from error


def run(
    stage: HeadStage, recipe: Recipe, out: Path, start: training.Start, encoder: Encoder, rows: tuple[list[Record], list[Pool]]
) -> None:
    """Train from `start` and leave `out/model`, which carries the head."""
    records, pools = rows
    args = config(stage, recipe, out, len(records), start.seed)
    model = training.load(stage, recipe, start)
    adapter = training.adapter(stage, recipe)
    before = carried.heads_of(model).get(stage.head.name)
    if before is not None and not stage.head.goes_on_from(before.spec):
        say(f"  note: the model's head {stage.head.name!r} is specified otherwise; a new one takes its place")
    if stage.head.token is not None:
        if stage.head.token not in encoder.processor.tokenizer.get_vocab():
            # A prompt that holds it will be other ids.
            encoder.forget()
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
        callbacks=training.callbacks(out, stage),
    )
    training.train(trainer, out, encoder.processor, presentation.of_recipe(recipe), stage)
