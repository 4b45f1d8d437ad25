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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from omnistage.data.errors import InputError
from omnistage.data.records import Record
from omnistage.rewards.judges.chat import Chat
from omnistage.stages import files
from omnistage.stages.benchmarks import card, columns, compare, items, judging, pose, registry, samples, setup
from omnistage.stages.benchmarks.base import Benchmark, Rubric, Scored
from omnistage.stages.benchmarks.figures import Columns, Figure
from omnistage.stages.benchmarks.items import GREEDY, Prediction, Score
from omnistage.stages.measure import bootstrap, controls
from omnistage.stages.recipe.choices import CONTROLS

FIGURES = "scores.json"


@dataclass(frozen=True, slots=True)
class Judge:
    """Who marks open answers, and how many times each."""

    chat: Chat
    repeats: int = 1


def score(folder: Path, *, judge: Judge | None = None, upstream: bool = False, embedding: str | None = None) -> dict[str, Any]:
    """Score what stands in `folder`; write `scores.jsonl`, `card.md` and, last, `scores.json`; returns what stands in `scores.json`.

    `embedding` (`file.py:function`) adds retrieval to the figures of poses.

    Raises:
        InputError: a file is missing or holds something else, or a target cannot be reached by any answer.
    """
    made = setup.read(folder)
    benchmark = registry.of(made["benchmark"])
    check(benchmark, judge=judge is not None, upstream=upstream, embedding=embedding)
    if embedding is not None:
        benchmark = pose.with_embedding(embedding)
    setup.check_items(folder, made)
    records = items.read_items(folder)
    predictions = items.read_predictions(folder, records)
    if not predictions:
        raise InputError(f"{folder / items.PREDICTIONS}: holds no prediction")
    tagged = bool(made.get("tagged", False))
    runs: dict[str, list[Scored]] = {}
    for run, found in predictions.items():
        asked = [record for record in records if controls.is_asked(run, record)]
        runs[run] = _scored(benchmark, asked, found, run, tagged)
    if benchmark.rubric is not None and judge is not None:
        runs = {run: _judge(benchmark.rubric, of_run, judge, tagged) for run, of_run in runs.items()}
    elif benchmark.rubric is not None and (folder / items.SCORES).is_file():
        runs = _with_earlier_marks(benchmark.rubric, runs, items.read_scores(folder))
    runs |= samples.derived(runs)
    if benchmark.together is not None:
        for run, of_run in runs.items():
            scores = benchmark.together(of_run)
            runs[run] = [one._replace(score=given) for one, given in zip(of_run, scores, strict=True)]
    rows = [scored.score for of_run in runs.values() for scored in of_run]
    files.write_lines(folder / items.SCORES, [_row(one) for one in rows])
    result = _figures(benchmark, records, runs)
    probes = [run for run in runs if run in CONTROLS] if GREEDY in runs else []
    result["probes"] = {}
    if probes:
        for run, found_of in compare.compare_runs(folder, benchmark.figures, probes)["runs"].items():
            result["probes"][run] = {figure["name"]: figure for figure in found_of["figures"]}
    if upstream:
        assert benchmark.upstream is not None
        result["upstream"] = {run: benchmark.upstream(of_run, tagged) for run, of_run in runs.items() if run in predictions}
    files.write_text(folder / card.CARD, card.card(made, result))
    files.write_json(folder / FIGURES, result)
    return result


def check(benchmark: Benchmark, *, judge: bool, upstream: bool, embedding: str | None) -> None:
    """Raises `InputError` for what a benchmark cannot be scored with; to be asked before anything is paid for."""
    if upstream and benchmark.upstream is None:
        raise InputError(f"benchmark {benchmark.name!r} has no published scorer; --compat upstream is for those that have one")
    if embedding is not None:
        if benchmark.name != pose.NAME:
            raise InputError(f"--embedding is for benchmark {pose.NAME!r}, and this is {benchmark.name!r}")
        pose.with_embedding(embedding)
    if judge and benchmark.rubric is None:
        raise InputError(f"benchmark {benchmark.name!r} has no open answers; --judge is for those that have")


def _scored(benchmark: Benchmark, records: Sequence[Record], found: Mapping[str, Prediction], run: str, tagged: bool) -> list[Scored]:
    out: list[Scored] = []
    for record in records:
        prediction = found.get(record.id)
        answer = prediction or Prediction(record.id, run, None, "error", error="no prediction")
        try:
            out.append(Scored(record, prediction, benchmark.score(record, answer, tagged)))
        except InputError as error:
            raise InputError(f"item {record.id!r}: {error}") from error
    return out


def _judge(rubric: Rubric, run: Sequence[Scored], judge: Judge, tagged: bool) -> list[Scored]:
    """The items of a run with the judge's marks where there were none."""
    asked = [(one.record, one.prediction) for one in run if one.score.value is None and one.prediction is not None]
    records, predictions = [record for record, _ in asked], [prediction for _, prediction in asked]
    marked = iter(judging.mark(records, predictions, rubric, judge.chat, judge.repeats, tagged=tagged))
    return [one._replace(score=next(marked)) if one.score.value is None and one.prediction is not None else one for one in run]


def _with_earlier_marks(rubric: Rubric, runs: dict[str, list[Scored]], earlier: Sequence[Score]) -> dict[str, list[Scored]]:
    """The marks that a judge has given before where it was asked the very same: who scores without a judge keeps them."""
    known = {(one.id, one.run, one.judge["asked"]): one for one in earlier if one.judge is not None and "asked" in one.judge}
    out: dict[str, list[Scored]] = {}
    for run, of_run in runs.items():
        out[run] = []
        for one in of_run:
            mark = None
            if one.score.value is None and one.score.answer is not None:
                mark = known.get((one.record.id, run, judging.asked_sha(one.record, one.score.answer, rubric)))
            out[run].append(one if mark is None else one._replace(score=mark))
    return out


def _figures(benchmark: Benchmark, records: Sequence[Record], runs: Mapping[str, Sequence[Scored]]) -> dict[str, Any]:
    main = GREEDY if GREEDY in runs else next(iter(runs))
    result: dict[str, Any] = {"benchmark": benchmark.name, "headline": None, "items": len(records), "runs": {}}
    for run, of_run in runs.items():
        asked = [scored.record for scored in of_run]
        figures, scores = benchmark.figures(asked), {scored.score.id: scored.score for scored in of_run}
        if run == main:
            result["headline"] = figures[0].name
        result["runs"][run] = {
            "counts": counts(of_run),
            "figures": {figure.name: _entry(figure, columns.columns_for(figure, asked, scores)) for figure in figures},
        }
    asked = [scored.record for scored in runs[main]]
    if benchmark.baseline is not None:
        name, constant = benchmark.baseline
        scores = {one.id: one for one in constant(asked)}
        values = {
            figure.name: _number(bootstrap.value_of(figure, columns.columns_for(figure, asked, scores)))
            for figure in benchmark.figures(asked)
        }
        result["baseline"] = {"name": name, "figures": values}
    result["notes"] = [*([benchmark.notes] if benchmark.notes else []), *benchmark.remarks(asked)]
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
