"""What stages answered to the same held-out items, and which of these items a page shows.

Items are taken in turn from cells (modality, task, and the stages after which the item was right), so that whatever became right or wrong
between any two stages has its examples; within a cell in the order of a digest of the id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnistage.data.errors import InputError
from omnistage.data.records import Record
from omnistage.stages.benchmarks import items
from omnistage.stages.benchmarks.columns import scores_by_run
from omnistage.stages.benchmarks.items import GREEDY, Prediction, Score
from omnistage.stages.report.reading import Notes
from omnistage.stages.report.texts import parts_of, short


class Asked:
    """The evaluations of a run by stage, in order, and the items that they asked."""

    def __init__(self, run: Path, folders: Mapping[str, Path], notes: Notes) -> None:
        self.records: dict[str, Record] = {}
        self.found: dict[str, tuple[dict[str, Prediction], dict[str, Score]]] = {}
        for name, folder in folders.items():
            evaluation = folder / "evaluation"
            if not (evaluation / items.SCORES).exists():
                continue
            try:
                records = items.read_items(evaluation, half_pairs=True)
                predictions = items.read_predictions(evaluation, records, half_pairs=True).get(GREEDY, {})
                scores = scores_by_run(evaluation, records, half_pairs=True).get(GREEDY, {})
            except InputError as error:
                notes.say("answers", " ".join(str(error).split())[:300])
                continue
            if predictions:
                self.records |= {record.id: record for record in records}
                self.found[name] = (predictions, scores)

    def ranked(self) -> list[Record]:
        """All items, in the order in which a page takes them."""
        cells: dict[tuple[Any, ...], list[Record]] = {}
        for record in sorted(self.records.values(), key=lambda record: _digest(record.id)):
            rights = tuple(_right(scores.get(record.id)) for _, scores in self.found.values())
            cells.setdefault((str(record.modality), record.task, rights), []).append(record)
        # Cells of stages that agree come last: they are many, and say least.
        ordered = sorted(cells.items(), key=lambda cell: (len(set(cell[0][2])) < 2, str(cell[0])))
        longest = max((len(cell) for _, cell in ordered), default=0)
        return [cell[at] for at in range(longest) for _, cell in ordered if at < len(cell)]

    def sample(self, record: Record) -> dict[str, Any]:
        """An item with what every stage said of it."""
        answers = {}
        for name, (predictions, scores) in self.found.items():
            prediction, score = predictions.get(record.id), scores.get(record.id)
            if prediction is None:
                continue
            answers[name] = {
                "parts": parts_of(prediction.raw or ""),
                "status": prediction.status,
                "error": short(prediction.error) if prediction.error else None,
                "value": score.value if score else None,
                "right": _right(score),
                "answer": short(score.answer) if score and score.answer is not None else None,
                "reason": short(score.reason) if score else None,
                "scorer": score.scorer if score else None,
            }
        return {
            "id": short(record.id),
            "task": short(record.task),
            "modality": str(record.modality),
            "kind": str(record.kind),
            "question": short(record.question),
            "options": [short(option) for option in record.options],
            "target": short(record.target),
            "answers": answers,
        }

    def counts(self) -> list[dict[str, Any]]:
        """Of each pair of stages, how many items both answered, and how many became right, or wrong."""
        names = list(self.found)
        out = []
        for at, before in enumerate(names):
            for after in names[at + 1 :]:
                pairs = _pairs(self.found[before][1], self.found[after][1])
                became = [sum(pair == wanted for pair in pairs) for wanted in ((False, True), (True, False))]
                out.append({"before": before, "after": after, "items": len(pairs), "right": became[0], "wrong": became[1]})
        return out


def _pairs(before: Mapping[str, Score], after: Mapping[str, Score]) -> Sequence[tuple[bool | None, bool | None]]:
    return [(_right(before[name]), _right(after[name])) for name in before if name in after]


def _right(score: Score | None) -> bool | None:
    """Whether an answer is wholly right; None where nothing was said, or where values are distances."""
    if score is None or score.value is None or score.scorer not in ("grade", "judge", "majority"):
        return None
    return score.value == 1


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
