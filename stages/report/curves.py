"""A stage's `metrics.jsonl` as columns, thinned out where there are more steps than a screen has points, or a page has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omnistage.stages.report.order import evenly
from omnistage.stages.report.reading import Notes, lines_of, number

# Steps of one stage that a page holds; of more, every second, third ... and the last.
MOST_STEPS = 1500
# Of a column that is logged in few of the steps so many values are kept, at their own steps; a quarter of the steps at most.
FEW = 200
# Where there is little room: of a stage no fewer steps than these, of a number these digits.
LEAST_STEPS, DIGITS = 30, 6
# What a trainer logs once, at its end, or is the step in another unit.
_NO_CURVES = frozenset({"step", "epoch", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos"})


def of_stage(path: Path, notes: Notes, most: int = MOST_STEPS) -> dict[str, Any]:
    """`{"steps", "at", "columns": {name: [value | null]}, "rows", "every", "last", "once": {name: value}}` of a stage.

    Of `rows` logged steps every `every`th is in `steps`, the last one, and further ones of columns that are rarely logged; `at` holds their
    places among all. A line with the number of an earlier one takes its place: it is of a step that was done again.
    """
    by_step: dict[int, dict[str, Any]] = {}
    once: dict[str, float] = {}
    for row in lines_of(path, notes, "curves"):
        step = number(row.get("step"))
        if step is None:
            continue
        once |= {name: value for name in sorted(_NO_CURVES - {"step", "epoch"}) if (value := number(row.get(name))) is not None}
        curves = {name: number(value) for name, value in row.items() if name not in _NO_CURVES}
        if curves:
            by_step.setdefault(int(step), {}).update(curves)
    steps = sorted(by_step)
    own: dict[str, list[int]] = {}
    for at, step in enumerate(steps):
        for name, value in by_step[step].items():
            places = own.setdefault(name, [])
            if value is not None:
                places.append(at)
    every, kept = _chosen(range(len(steps)), own.values(), most)
    columns = {name: [by_step[steps[at]].get(name) for at in kept] for name in own}
    shown = {"steps": [steps[at] for at in kept], "at": kept, "columns": columns}
    return shown | {"rows": len(steps), "every": every, "last": steps[-1] if steps else 0, "once": once}


def _chosen(places: Sequence[int], own: Iterable[Sequence[int]], most: int, unit: int = 1) -> tuple[int, list[int]]:
    """Which of the places (in order, of any number of rows, their last among them) are kept, and every how many of the rows, a multiple of
    `unit`; `own` holds of each column the places at which it has a value."""
    rows = places[-1] + 1 if places else 0
    every = unit * max(1, -(-rows // (unit * most)))
    kept = {at for at in places if at % every == 0} | set(places[-1:])
    if every == 1:
        return every, sorted(kept)
    few = min(FEW, most // 4)
    # Columns that are logged together have the same places.
    rare = [column for column in {tuple(column) for column in own} if sum(at in kept for at in column) < min(len(column), few)]
    while rare and few:
        more = {column[at] for column in rare for at in evenly(len(column), few)} - kept
        if len(more) <= most:
            return every, sorted(kept | more)
        few //= 2
    return every, sorted(kept)


def fit(stages: Sequence[Mapping[str, Any]], room: int, size_of: Callable[[Any], int], notes: Notes) -> list[dict[str, Any]]:
    """The stages with curves that take about `room` bytes together, as `size_of` measures: fewer digits, then fewer steps, which is noted.

    Each keeps `LEAST_STEPS` of its steps, however little room there is.
    """
    found = [dict(stage["metrics"]) for stage in stages]
    size = _size(found, size_of)
    if size > room:
        found = [metrics | {"columns": {name: _rounded(values) for name, values in metrics["columns"].items()}} for metrics in found]
        size = _size(found, size_of)
    most = max((len(metrics["steps"]) for metrics in found), default=0)
    while size > room and most > LEAST_STEPS:
        most = max(LEAST_STEPS, min(int(most * room / size), most * 4 // 5))
        found = [_thinned(metrics, most) for metrics in found]
        size = _size(found, size_of)
    for stage, metrics in zip(stages, found, strict=True):
        if len(metrics["steps"]) < len(stage["metrics"]["steps"]):
            told = f"{len(metrics['steps']):,} of {metrics['rows']:,} logged steps are drawn, numbers to {DIGITS} digits"
            notes.say("curves", f"stage {stage['name']}: {told}; the page has no room for more")
    return [{**stage, "metrics": _without_places(metrics)} for stage, metrics in zip(stages, found, strict=True)]


def _size(found: Sequence[Mapping[str, Any]], size_of: Callable[[Any], int]) -> int:
    return sum(size_of(_without_places(metrics)) for metrics in found)


def _without_places(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name != "at"}


def _rounded(values: Sequence[float | None]) -> list[float | None]:
    return [float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value for value in values]


def _thinned(metrics: Mapping[str, Any], most: int) -> dict[str, Any]:
    places = metrics["at"]
    own = [[at for at, value in zip(places, values, strict=True) if value is not None] for values in metrics["columns"].values()]
    every, wanted = _chosen(places, own, most, metrics["every"])
    if len(wanted) == len(places):
        return dict(metrics)
    # Places are those of all rows; what was left out before is not there.
    kept = set(wanted)
    chosen = [number for number, at in enumerate(places) if at in kept]
    columns = {name: [values[number] for number in chosen] for name, values in metrics["columns"].items()}
    steps = {name: [metrics[name][number] for number in chosen] for name in ("steps", "at")}
    return {**metrics, **steps, "columns": columns, "every": every}
