"""Inst-It Bench's scorer, faults included: a choice is the first capital from A to D, and what cannot be read leaves the count."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from omnistage.data.records import AnswerKind
from omnistage.stages.benchmarks.base import Scored

# Those of its list that can match: four more are run together in pairs for want of a comma between them.
PREFIXES = ("The best answer is", "The correct answer is", "The answer is", "The answer", "Answer:", "Option:")
_LETTER = re.compile("[ABCD]")


def parse(text: str) -> str:
    """The letter that upstream reads; empty where it reads none.

    Known prefixes are taken out, then the first capital A, B, C or D counts wherever it stands, in 'Based on' too; a small letter is none.
    (That a text of more than ten words without one is empty is upstream's own rule, and follows.)
    """
    text = text.strip()
    for prefix in PREFIXES:
        text = text.replace(prefix, "")
    found = _LETTER.search(text)
    return "" if found is None else found[0]


def report(scored: Sequence[Scored], tagged: bool = False) -> dict[str, Any]:
    """{"scorer", "splits": {split: {"total", "valid", "score"}}}, scores out of 100 and over valid answers alone.

    Valid is a choice in which a letter was found, and an open answer that the judge marked.
    """
    splits: dict[str, list[float | None]] = {}
    for item in scored:
        splits.setdefault(item.record.task, []).append(_value(item))
    return {"scorer": "inst-it-bench", "splits": {split: _counted(values) for split, values in splits.items()}}


def _value(item: Scored) -> float | None:
    if item.record.kind is AnswerKind.OPEN:
        return item.score.value
    letter = parse(item.prediction.raw or "") if item.prediction is not None else ""
    return float(letter == item.record.target) if letter else None


def _counted(values: Sequence[float | None]) -> dict[str, Any]:
    valid = [value for value in values if value is not None]
    return {"total": len(values), "valid": len(valid), "score": 100 * sum(valid) / len(valid) if valid else None}
