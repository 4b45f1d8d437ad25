"""Answers on disk as they are drawn: whatever is killed goes on behind the last whole batch, to the same files byte for byte.

Each process appends one line a batch to `parts/RANK.jsonl`, flushed to the disk before the next is begun; a line that a kill has cut is
cut off when the file is opened again. When all batches are there, `predictions.jsonl` is written whole, in the order of the plan and of
its items, and the parts are removed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from omnistage.data.errors import InputError
from omnistage.stages import files
from omnistage.stages.answering.plan import Batch
from omnistage.stages.benchmarks.items import PARTS, PREDICTIONS, Prediction, prediction_of


class Journal:
    """The answers that stand in a folder, and the file that one process (`rank`) adds to. A context manager: the file is open inside it.

    Raises:
        InputError: a part cannot be read, or the folder cannot be written to.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder = folder
        self._path = folder / PARTS / f"{rank}.jsonl"
        self._file: IO[bytes] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether `predictions.jsonl` stands there."""
        return (self.folder / PREDICTIONS).is_file()

    def __enter__(self) -> Journal:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab+")
        except OSError as error:
            raise InputError(f"{self._path}: cannot be written to ({error.strerror})") from error
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def add(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
        """One batch's answers, on the disk when this returns."""
        if self._file is None:
            raise ValueError("the journal is not open")
        line = json.dumps({"batch": batch.key, "predictions": [row_of(one) for one in predictions]}, ensure_ascii=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def done(self) -> dict[str, list[Prediction]]:
        """What all processes have added so far, by the batch's key."""
        out: dict[str, list[Prediction]] = {}
        for path in sorted((self.folder / PARTS).glob("*.jsonl")):
            try:
                for row in files.read_lines(path):
                    out[row["batch"]] = [prediction_of(one) for one in row["predictions"]]
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"{path}: holds a line that is none of a batch ({error}); remove it to ask its items again") from error
        return out

    def forget_errors(self, plan: Sequence[Batch]) -> int:
        """Drop every batch with an answer that could not be had, so that it is asked again; returns how many. Call it in one process."""
        found = self._finished(plan) if self.is_finished else self.done()
        kept = {key: given for key, given in found.items() if all(one.status != "error" for one in given)}
        if len(kept) < len(found):
            rows = [{"batch": key, "predictions": [row_of(one) for one in given]} for key, given in kept.items()]
            # What is kept is on the disk before anything goes.
            part = self.folder / PARTS / "0.jsonl"
            files.write_lines(part, rows)
            for other in (self.folder / PARTS).glob("*.jsonl"):
                if other != part:
                    other.unlink()
            (self.folder / PREDICTIONS).unlink(missing_ok=True)
        return len(found) - len(kept)

    def _finished(self, plan: Sequence[Batch]) -> dict[str, list[Prediction]]:
        """The answers of `predictions.jsonl` in the batches of its plan."""
        by_place = {(row["id"], row["run"]): prediction_of(row) for row in files.read_lines(self.folder / PREDICTIONS)}
        asked = {batch.key: [(record.id, run) for record in batch.records for run in batch.way.runs] for batch in plan}
        return {key: [by_place[place] for place in places] for key, places in asked.items()}

    def tidy(self) -> None:
        """Remove the parts of a finished journal, which a kill may have left."""
        if self.is_finished:
            shutil.rmtree(self.folder / PARTS, ignore_errors=True)

    def finish(self, plan: Sequence[Batch], order: Sequence[str]) -> None:
        """Write `predictions.jsonl`: run after run as the plan has them, each in the `order` of the items' ids. Call it in one process.

        Raises:
            ValueError: a batch of the plan is missing.
        """
        found = self.done()
        missing = [batch.key for batch in plan if batch.key not in found]
        if missing:
            raise ValueError(f"{len(missing)} batches are missing, {missing[0]} first")
        runs = list(dict.fromkeys(run for batch in plan for run in batch.way.runs))
        place = {name: at for at, name in enumerate(order)}
        rows = [one for batch in plan for one in found[batch.key]]
        rows.sort(key=lambda one: (runs.index(one.run), place[one.id]))
        files.write_lines(self.folder / PREDICTIONS, map(row_of, rows))
        self.tidy()


def row_of(prediction: Prediction) -> dict[str, Any]:
    """A prediction as one line of `predictions.jsonl`; what is not there is left out."""
    row = asdict(prediction)
    return {name: value for name, value in row.items() if value is not None or name in ("id", "run", "raw", "status")}
