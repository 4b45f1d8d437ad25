"""From predictions to scores and figures, without the model: `omnistage score`.

`scores.jsonl` has a line for each item of each run; `scores.json` the figures:

    {"benchmark", "headline", "items", "notes",
     "runs": {"greedy": {"counts": {"items", "ok", "empty", "truncated", "error", "missing", "unreadable", "not_judged"},
                         "figures": {NAME: {"value", "low", "high", "n", "valid_value", "valid_n", "unit"}}}, ...},
     "baseline": {"name", "figures": {NAME: value}},
     "probes": {"blank": {NAME: {"value", "low", "high", ...}}},
     "upstream": {...}}

An item that nobody answered, or whose answer cannot be read, is wrong and counts; `valid_value` is the same figure without those.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from omnistage.data.errors import InputError
from omnistage.data.records import Record
from omnistage.stages import files
from omnistage.stages.benchmarks import columns, compare, items, registry, samples, setup
from omnistage.stages.benchmarks.base import Benchmark, Scored
from omnistage.stages.benchmarks.figures import Columns, Figure
from omnistage.stages.benchmarks.items import GREEDY, Prediction, Score
from omnistage.stages.benchmarks.judging import Judge
from omnistage.stages.measure import bootstrap, controls
from omnistage.stages.recipe.choices import CONTROLS

FIGURES = "scores.json"


def score(folder: Path, *, judge: Judge | None = None, upstream: bool = False) -> dict[str, Any]:
    """Score what stands in `folder`; write `scores.jsonl` and, last, `scores.json`, and return what stands in the latter.

    Raises:
        InputError: a file is missing or holds something else, or a target cannot be reached by any answer.
    """
    made = setup.read(folder)
    benchmark = registry.of(made["benchmark"])
    records = items.read_items(folder)
    predictions = items.read_predictions(folder, records)
    if not predictions:
        raise InputError(f"{folder / items.PREDICTIONS}: holds no prediction")
    tagged = bool(made.get("tagged", False))
    runs: dict[str, list[Scored]] = {}
    for run, of_run in predictions.items():
        asked = [record for record in records if _is_asked(run, record)]
        runs[run] = _scored(benchmark, asked, of_run, run, tagged, judge)
    runs |= samples.derived(runs)
    rows = [scored.score for of_run in runs.values() for scored in of_run]
    result = _figures(benchmark, records, runs)
    if upstream:
        if benchmark.upstream is None:
            raise InputError(f"benchmark {benchmark.name!r} has no published scorer; --compat upstream is for those that have one")
        result["upstream"] = {run: benchmark.upstream(of_run) for run, of_run in runs.items() if run in predictions}
    files.write_lines(folder / items.SCORES, [_row(one) for one in rows])
    files.write_json(folder / FIGURES, result)
    return result


def _is_asked(run: str, record: Record) -> bool:
    """Whether a run asks about a record: a probe leaves out those that it says nothing about."""
    control = CONTROLS.get(run)
    return control is None or controls.applies(control, record.modality)


def _scored(
    benchmark: Benchmark, records: Sequence[Record], found: Mapping[str, Prediction], run: str, tagged: bool, judge: Judge | None
) -> list[Scored]:
    out: list[Scored] = []
    for record in records:
        prediction = found.get(record.id)
        answer = prediction or Prediction(record.id, run, None, "error", error="no prediction")
        try:
            out.append(Scored(record, prediction, benchmark.score(record, answer, tagged)))
        except InputError as error:
            raise InputError(f"item {record.id!r}: {error}") from error
    if benchmark.rubric is not None and judge is not None:
        open_ones = [at for at, scored in enumerate(out) if scored.score.value is None]
        marked = judge.mark(benchmark.rubric, [out[at] for at in open_ones])
        for at, mark in zip(open_ones, marked, strict=True):
            out[at] = out[at]._replace(score=mark)
    return out


def _figures(benchmark: Benchmark, records: Sequence[Record], runs: Mapping[str, Sequence[Scored]]) -> dict[str, Any]:
    result: dict[str, Any] = {"benchmark": benchmark.name, "items": len(records), "runs": {}}
    for run, of_run in runs.items():
        asked = [scored.record for scored in of_run]
        figures, table = benchmark.figures(asked), columns.columns_of(asked, [scored.score for scored in of_run])
        result.setdefault("headline", figures[0].name)
        result["runs"][run] = {"counts": counts(of_run), "figures": {figure.name: _entry(figure, table) for figure in figures}}
    main = next(iter(runs))
    asked = [scored.record for scored in runs[main]]
    if benchmark.baseline is not None:
        name, constant = benchmark.baseline
        table = columns.columns_of(asked, constant(asked))
        values = {figure.name: _number(bootstrap.value_of(figure, table)) for figure in benchmark.figures(asked)}
        result["baseline"] = {"name": name, "figures": values}
    if GREEDY in runs:
        probes = [run for run in runs if run in CONTROLS]
        result["probes"] = {run: compare.drop(benchmark.figures, runs[GREEDY], runs[run]) for run in probes}
    result["notes"] = list(benchmark.notes(asked)) if benchmark.notes is not None else []
    return result


def counts(of_run: Sequence[Scored]) -> dict[str, int]:
    """How the items of a run were answered; `unreadable` are those that were, in words that nobody can read, `not_judged` those that a
    judge would have to mark."""
    found = Counter("missing" if one.prediction is None else one.prediction.status for one in of_run)
    answered = [one for one in of_run if one.prediction is not None and one.prediction.status in ("ok", "truncated")]
    out = {"items": len(of_run)} | {status: found[status] for status in ("ok", "empty", "truncated", "error", "missing")}
    out["unreadable"] = sum(not one.score.valid and one.score.value is not None for one in answered)
    return out | {"not_judged": sum(one.score.value is None for one in of_run)}


def _entry(figure: Figure, table: Columns) -> dict[str, Any]:
    """One figure of a run: with its interval, and of the valid answers alone."""
    places = np.array(figure.items, dtype=np.int64)
    known = ~np.isnan(table.value)
    entry: dict[str, Any] = {"value": None, "low": None, "high": None, "n": int(known[places].sum())}
    if entry["n"]:
        found = bootstrap.interval(figure, table)
        entry |= {"value": _number(found.value), "low": _number(found.low), "high": _number(found.high)}
    kept = table.valid & known
    valid = replace(figure, groups=tuple(group for group in (tuple(i for i in g if kept[i]) for g in figure.groups) if group))
    entry["valid_n"] = len(valid.items)
    entry["valid_value"] = _number(bootstrap.value_of(valid, table)) if valid.groups else None
    return entry | {"unit": figure.unit}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _row(one: Score) -> dict[str, Any]:
    return {name: value for name, value in asdict(one).items() if name not in ("numbers", "judge") or value}
