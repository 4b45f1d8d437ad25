"""A benchmark's figures worked out the plainest way, for tests that know the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from omnistage.data.records import Record
from omnistage.stages.benchmarks.base import Benchmark, Scored
from omnistage.stages.benchmarks.items import GREEDY, Prediction, Status


def prediction(record: Record, raw: str | None) -> Prediction:
    """An answer of the greedy run; None: it could not be drawn."""
    status: Status = "error" if raw is None else "ok" if raw.strip() else "empty"
    return Prediction(record.id, GREEDY, raw, status, error="clip cannot be read" if raw is None else None)


def predictions(records: Sequence[Record], answers: Sequence[str | None]) -> list[Prediction]:
    """One answer beside each record."""
    return [prediction(record, raw) for record, raw in zip(records, answers, strict=True)]


def scored(benchmark: Benchmark, records: Sequence[Record], answers: Sequence[str | None], *, tagged: bool = False) -> list[Scored]:
    """The answers with what the benchmark says of them without a judge."""
    made = zip(records, predictions(records, answers), strict=True)
    return [Scored(record, given, benchmark.score(record, given, tagged)) for record, given in made]


def values(benchmark: Benchmark, items: Sequence[Scored], *, percent: bool = False) -> dict[str, float]:
    """Each figure by name: the mean of its groups' means, as a share or in percent; items without a value are left out."""
    out = {}
    for figure in benchmark.figures([item.record for item in items]):
        groups = [[value for at in group if (value := items[at].score.value) is not None] for group in figure.groups]
        means = [sum(group) / len(group) for group in groups if group]
        out[figure.name] = (100.0 if percent else 1.0) * sum(means) / len(means)
    return out
