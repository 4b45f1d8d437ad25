"""What is read and checked before the first stage: settings, rows, clips, and what stages are judged by.

All that a user can mend is said here, before anything is written or trained.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnistage.data import pass_rates
from omnistage.data.errors import InputError
from omnistage.data.records import Record
from omnistage.rl import policy
from omnistage.rl.sampler import Pool
from omnistage.rl.sft_trainer import check_demonstrations
from omnistage.stages import choose, gate, grpo, head, presentation, rows, sft
from omnistage.stages.main_process import say
from omnistage.stages.measure import evaluate, head_values
from omnistage.stages.recipe.schema import EvaluateStage, GrpoStage, HeadStage, Recipe, SftStage, Training


@dataclass
class Rows:
    """The rows of a run by stage: what is trained on, with its pools; what of each source was kept; what is measured (`""`: the run's own
    evaluation); and what checkpoints are chosen by."""

    train: dict[str, tuple[list[Record], list[Pool]]] = field(default_factory=dict)
    kept: dict[str, list[rows.Kept]] = field(default_factory=dict)
    held_out: dict[str, list[Record]] = field(default_factory=dict)
    validation: dict[str, list[Record]] = field(default_factory=dict)


def check_settings(recipe: Recipe) -> None:
    """What a recipe asks of TRL, of rewards and of the model, before anything is written."""
    if recipe.model.path is not None:
        policy.check_folder(recipe.model.path)
    policy.attention_for(recipe.model.attention, recipe.model.dtype)
    for stage in recipe.stages:
        out, rows_known_later = recipe.stage_dir(stage.name), 1
        if isinstance(stage, SftStage):
            sft.config(stage, recipe, out, rows_known_later, recipe.seed)
        elif isinstance(stage, HeadStage):
            head.config(stage, recipe, out, rows_known_later, recipe.seed)
        elif isinstance(stage, GrpoStage):
            grpo.config(stage, recipe, out, rows_known_later, recipe.seed)
            grpo.rewards_of(stage)
            grpo.check_rollout(stage)


def read(recipe: Recipe) -> Rows:
    """Every row of a run, with all that can be checked without a model. Raises `InputError`."""
    out = Rows()
    for stage in recipe.stages:
        if isinstance(stage, EvaluateStage):
            out.held_out[stage.name] = rows.read_sources(stage.data)
            evaluate.check(out.held_out[stage.name], stage)
        else:
            records, pools, out.kept[stage.name] = rows.counted_pools(stage.data)
            out.train[stage.name] = records, pools
            if isinstance(stage, SftStage):
                check_demonstrations(records)
            elif isinstance(stage, GrpoStage):
                grpo.check_refills(stage, pools)
                grpo.check_drawn(stage, records)
            else:
                head.check(stage, records)
                if stage.evaluation is not None:
                    out.held_out[stage.name] = rows.read_sources(stage.evaluation.data)
                    head_values.check(out.held_out[stage.name], stage)
            if stage.choose is not None:
                out.validation[stage.name] = rows.read_sources(stage.choose.data)
                choose.check(stage, recipe, stage.choose, out.validation[stage.name])
    if recipe.evaluation is not None:
        out.held_out[""] = rows.read_sources(recipe.evaluation.data)
        evaluate.check(out.held_out[""], recipe.evaluation)
        for stage in recipe.stages:
            if isinstance(stage, Training) and stage.gate is not None:
                gate.check(stage, stage.gate, recipe.evaluation.benchmark, out.held_out[""])
    check_apart(out)
    if recipe.synth is None:
        for records in [*(found for found, _ in out.train.values()), *out.held_out.values(), *out.validation.values()]:
            rows.check_media(records)
    return out


def check_apart(given: Rows) -> None:
    """Raises `InputError` when a held-out clip is also a training clip, or a clip that chooses checkpoints is either (by path; by content
    is the data doctor's work)."""
    trained = _clips(records for records, _ in given.train.values())
    measured = _clips(given.held_out.values())
    for record, path in _uses(given.held_out.values()):
        if path in trained:
            raise InputError(f"{record.source}: {path} is also a training clip ({trained[path]}); held-out clips must be unseen")
    for record, path in _uses(given.validation.values()):
        told = "what a checkpoint is chosen by must be apart from both"
        for what, clips in (("training", trained), ("held-out", measured)):
            if path in clips:
                raise InputError(f"{record.source}: {path} is also a {what} clip ({clips[path]}); {told}")


def _uses(sets: Iterable[list[Record]]) -> Iterator[tuple[Record, str]]:
    return ((record, ref.path) for records in sets for record in records for ref in record.media)


def _clips(sets: Iterable[list[Record]]) -> dict[str, str]:
    """The clips of these records, each with where one of them stands."""
    return {path: record.source for record, path in _uses(sets)}


def note_other_presentation(recipe: Recipe) -> None:
    """Say when a model was trained, or pass rates were measured, with clips and questions shown otherwise than this recipe shows them."""
    before: dict[str, dict[str, Any]] = {}
    if recipe.model.path is not None and (Path(recipe.model.path) / presentation.NAME).is_file():
        before[f"{recipe.model.path} was trained"] = presentation.of_checkpoint(recipe.model.path).model_dump(mode="json")
    for rate in (source.pass_rate for stage in recipe.stages for source in stage.data):
        if rate is not None and isinstance(shown := pass_rates.read(rate.file).settings.get("shown"), dict):
            before[f"the pass rates in {rate.file} were measured"] = shown
    now = presentation.of_recipe(recipe).model_dump(mode="json")
    for what, shown in before.items():
        for name in ("prompt", "media", "system_prompt"):
            if shown.get(name) != now[name]:
                say(f"note: {what} with {name} {json.dumps(shown.get(name))}, and this recipe has {json.dumps(now[name])}")
