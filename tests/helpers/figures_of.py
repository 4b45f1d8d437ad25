"""The figures of a benchmark from scores that are written by hand, computed as `Figure` says, item by item."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omnistage.data.records import Record
from omnistage.stages.benchmarks.base import Benchmark, Scored
from omnistage.stages.benchmarks.items import Prediction


def scored(benchmark: Benchmark, records: Sequence[Record], answers: Sequence[Prediction | None], tagged: bool = False) -> list[Scored]:
    """Each record with its answer and what that is worth; without an answer it counts as one with no text."""
    nothing = [Prediction(record.id, "greedy", None, "error", error="no answer") for record in records]
    given = [answer or empty for answer, empty in zip(answers, nothing, strict=True)]
    return [
        Scored(record, answer, benchmark.score(record, found, tagged))
        for record, answer, found in zip(records, answers, given, strict=True)
    ]


def figures_of(benchmark: Benchmark, items: Sequence[Scored]) -> dict[str, float]:
    """Every figure by its name, in order."""
    out = {}
    for figure in benchmark.figures([item.record for item in items]):
        if figure.metric is not None:
            (places,) = figure.groups
            made, right = (np.array([items[at].score.numbers[name] for at in places]) for name in figure.columns)
            out[figure.name] = figure.metric(made, right)
            continue
        means = [np.mean([_column(items[at], figure.column) for at in places]) for places in figure.groups]
        out[figure.name] = float(np.mean(means))
    return out


def _column(item: Scored, column: str) -> float:
    found = item.score.value if column == "value" else item.score.numbers[column]
    assert found is not None
    return found
