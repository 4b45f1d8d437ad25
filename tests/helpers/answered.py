"""Evaluation folders whose answers are written by hand and scored by the real scorer: letters, and errors in millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from omnistage.data.records import AnswerKind, MediaRef, Modality, Record
from omnistage.stages import files
from omnistage.stages.benchmarks import items, scoring
from omnistage.stages.benchmarks.base import Benchmark
from omnistage.stages.benchmarks.figures import Figure
from omnistage.stages.benchmarks.items import Prediction, Score


def questions(count: int, modality: Modality = Modality.VIDEO, clip: str = "clip") -> list[Record]:
    """As many questions whose right answer is A, each about a clip of its own."""
    named = [f"{modality}{at}" for at in range(count)]
    kind, options = AnswerKind.SINGLE_CHOICE, ("left", "right")
    return [Record(n, modality, "way", kind, "which way ?", "A", (MediaRef("video", f"{clip}_{n}.mp4"),), options, source=n) for n in named]


def answered(folder: Path, records: Sequence[Record], answers: Sequence[str], benchmark: str = "choice") -> Path:
    """`folder/evaluation` with these answers, scored; returns it."""
    out = folder / "evaluation"
    lines = [items.item_row(record, benchmark) for record in records]
    files.write_json(out / "setup.json", {"benchmark": benchmark, "items": {"count": len(lines), "sha256": files.digest_of_lines(lines)}})
    files.write_lines(out / "items.jsonl", lines)
    drawn = [Prediction(record.id, items.GREEDY, answer, "ok") for record, answer in zip(records, answers, strict=True)]
    files.write_lines(out / "predictions.jsonl", [asdict(one) for one in drawn])
    scoring.score(out)
    return out


def _error(record: Record, prediction: Prediction, _tagged: bool) -> Score:
    made = float(prediction.raw) if prediction.raw else None
    return Score(record.id, prediction.run, "toy", made, made is not None, prediction.raw, "")


def _figures(records: Sequence[Record]) -> list[Figure]:
    return [Figure("error", (tuple(range(len(records))),), higher_is_better=False, unit="mm")]


# An answer is an error in millimetres; of an empty one nothing can be said.
MILLIMETRES = Benchmark("mm", "errors", ("humansense",), ("direct",), _figures, _error)
