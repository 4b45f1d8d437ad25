"""Which checkpoints of a stage stay: the newest, those with the best figure of the stage's own log, and all where one is to be chosen.

A checkpoint goes when a newer one is sealed, never before: a run that is killed at any moment has a whole one to go on from.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from omnistage.data.errors import unknown_name
from omnistage.stages import files
from omnistage.stages.main_process import say
from omnistage.stages.recipe.keeping import Keep
from omnistage.stages.recipe.schema import Training

LOG = "metrics.jsonl"
NEWEST = Keep()


def most(stage: Training) -> int | None:
    """How many checkpoints a stage has at once, while the next is not sealed yet; None: all that it writes."""
    keep = of(stage)
    return None if keep is None else keep.newest + keep.best + 1


def of(stage: Training) -> Keep | None:
    """What the stage keeps; None for all of them."""
    return stage.keep if stage.keep is not None or stage.choose is not None else NEWEST


def whole(out: Path) -> list[tuple[int, Path]]:
    """All whole checkpoints of a stage by their steps, in order."""
    found = [path for path in (out / "checkpoints").glob("checkpoint-*") if files.is_whole(path)]
    return sorted((int(path.name.rpartition("-")[2]), path) for path in found)


def remove(checkpoint: Path) -> None:
    """Without its manifest it counts no more, should the removal be cut short."""
    (checkpoint / files.MANIFEST).unlink()
    shutil.rmtree(checkpoint)


def to_go(steps: Sequence[int], keep: Keep, rows: Sequence[Mapping[str, Any]], every: int) -> list[int]:
    """Those of the checkpoints at `steps`, in order, that need not stay. What was removed before changes nothing: the best stay.

    `rows` is the stage's log; a checkpoint's figure is its mean over the `every` steps that led to it. One without a figure is not among
    the best.
    """
    staying = set(steps[-keep.newest :])
    if keep.best:
        figures = {step: mean for step in steps if (mean := _mean(rows, keep.by, step - every, step)) is not None}
        sign = 1 if keep.lowest else -1
        # Of equals the earlier stays.
        staying |= set(sorted(figures, key=lambda step: (sign * figures[step], step))[: keep.best])
    return [step for step in steps if step not in staying]


def _mean(rows: Sequence[Mapping[str, Any]], name: str, after: int, until: int) -> float | None:
    logged = [float(row[name]) for row in rows if name in row and after < row["step"] <= until]
    return sum(logged) / len(logged) if logged and all(map(math.isfinite, logged)) else None


class Retention(TrainerCallback):  # type: ignore[misc]
    """Removes what need not stay as a checkpoint is sealed; stands behind what seals it."""

    def __init__(self, out: Path, stage: Training) -> None:
        self.out, self.stage, self.keep = out, stage, of(stage)
        self._warned = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.keep is None or not PartialState().is_main_process:
            return
        # What a run that went on from an earlier step has not come to again is left alone: it may be damaged, and counts for no newest.
        checkpoints = {step: path for step, path in whole(self.out) if step <= state.global_step}
        rows, _ = files.read_log(self.out / LOG)
        self._warn(rows)
        for step in to_go(list(checkpoints), self.keep, rows, self.stage.save_every or 1):
            remove(checkpoints[step])
        for path in (self.out / "checkpoints").glob("checkpoint-*"):
            # A removal or a save that was cut short: all processes have sealed theirs.
            if not (path / files.MANIFEST).exists():
                shutil.rmtree(path, ignore_errors=True)

    def _warn(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Say once that no step has logged what is kept by; a run is not ended for it, and what is newest stays."""
        logged = {name for row in rows for name in row} - {"step"}
        if self.keep is None or not self.keep.best or not logged or self.keep.by in logged or self._warned:
            return
        self._warned = True
        say(f"warning: stages.{self.stage.name}.keep.by: {unknown_name('logged figure', self.keep.by, logged)}; the newest stay")
