"""Two evaluations of the same items, or two runs of one: which figures differ, by how much, and how surely."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omnistage.data.errors import InputError
from omnistage.data.records import Record
from omnistage.stages.benchmarks.columns import columns_for, scores_by_run
from omnistage.stages.benchmarks.figures import Figure
from omnistage.stages.benchmarks.items import GREEDY, ITEMS, SCORES, Score, read_items
from omnistage.stages.measure.bootstrap import RESAMPLES
from omnistage.stages.measure.controls import is_asked
from omnistage.stages.measure.paired import paired

# What is reported of items, in their order, as `Benchmark.figures`.
Figures = Callable[[Sequence[Record]], Sequence[Figure]]
# What makes two questions the same one. Media are not: folders of clips differ from machine to machine.
SAME = ("task", "kind", "question", "options", "target", "values", "history")
SAMPLES = "sample-"


def compare(before: Path, after: Path, figures: Figures, *, run: str = GREEDY, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """The figures of two evaluation folders, in one run, item by item: {"before", "after", "run", "items", "figures"}.

    Each of `figures` has its `name`, `unit`, `scale` and `higher_is_better`, the fields of `Difference` (`value` is after - before; not
    scaled; None: nothing could be said), and `unanswered`, the numbers of its items that have no score in the one folder and in the other.
    Such an item is wrong in shares and is left out of errors and metrics. Items are joined by id.

    Raises:
        InputError: a file cannot be read, the items of the folders differ, or a folder has no score of the run.
    """
    records = read_items(before)
    others = {record.id: record for record in read_items(after)}
    _check_same(before, after, records, others)
    scores = []
    for folder in (before, after):
        by_run = scores_by_run(folder, records)
        if run not in by_run:
            raise InputError(f"{folder / SCORES}: has no run {run!r}; it has {', '.join(by_run) or 'none'}")
        scores.append(by_run[run])
    # A probe says nothing about some records, and did not ask them.
    asked = {place for place, record in enumerate(records) if is_asked(run, record)}
    kept = [_kept(figure, asked) for figure in figures(records)]
    rows = [_row(figure, records, scores[0], scores[1], seed, resamples) for figure in kept if figure.groups]
    return {"before": str(before), "after": str(after), "run": run, "items": len(asked), "figures": rows}


def compare_runs(
    folder: Path,
    figures: Figures,
    runs: Sequence[str] | None = None,
    *,
    against: str = GREEDY,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """What each run of a folder (None: all but `against` and samples) loses to `against`, over the items that both have a score of.

    Returns {"folder", "against", "runs": {run: {"items", "figures"}}}; of each figure the fields are those of `compare`, with `before` that
    of `against` and `after` that of the run, so that `value` says what blank or swapped media did to it. Groups of a figure of which
    nothing was asked in both are left out of it; a figure of which no item was is left out.

    Raises:
        InputError: a file cannot be read, or the folder has no score of a run.
    """
    records = read_items(folder)
    by_run = scores_by_run(folder, records)
    names = list(runs) if runs is not None else [name for name in by_run if name != against and not name.startswith(SAMPLES)]
    for name in (against, *names):
        if name not in by_run:
            raise InputError(f"{folder / SCORES}: has no run {name!r}; it has {', '.join(by_run) or 'none'}")
    out: dict[str, Any] = {}
    for name in names:
        both = {place for place, record in enumerate(records) if record.id in by_run[name] and record.id in by_run[against]}
        kept = [_kept(figure, both) for figure in figures(records)]
        rows = [_row(figure, records, by_run[against], by_run[name], seed, resamples) for figure in kept if figure.groups]
        out[name] = {"items": len(both), "figures": rows}
    return {"folder": str(folder), "against": against, "runs": out}


def table(result: Mapping[str, Any]) -> str:
    """What `compare` or `compare_runs` found, for a terminal; figures are scaled, `*` marks a p below 0.05."""
    if "runs" in result:
        out = []
        for name, found in result["runs"].items():
            out += [f"{name} against {result['against']} ({found['items']} items of both)", *lines(found["figures"]), ""]
        return "\n".join(out[:-1]) if out else f"{result['folder']} has no run beside {result['against']}"
    head = f"{result['after']} against {result['before']} ({result['items']} items, run {result['run']})"
    return "\n".join([head, *lines(result["figures"])])


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows of `compare` as lines for a terminal, under their heads."""
    width = max([len(row["name"]) for row in rows] + [6])
    out = [f"{'figure':<{width}}{'before':>9}{'after':>9}{'difference [95 %]':>28}{'p':>9}{'smallest':>10}{'items':>7}{'clips':>7}"]
    for row in rows:
        scale = row["scale"]
        digits = 1 if scale >= 10 or max(abs(scale * (row[name] or 0)) for name in ("before", "after")) >= 10 else 3

        def show(name: str, sign: str = "", *, row: Mapping[str, Any] = row, digits: int = digits) -> str:
            return "-" if row[name] is None else f"{row['scale'] * row[name]:{sign}.{digits}f}"

        change = f"{show('value', '+')} [{show('low', '+')}, {show('high', '+')}]"
        p = "- " if row["p"] is None else f"{row['p']:.4f}{'*' if row['p'] < 0.05 else ' '}"
        line = f"{row['name']:<{width}}{show('before'):>9}{show('after'):>9}{change:>28}{p:>9}{show('smallest'):>10}"
        lost = sum(row["unanswered"])
        out.append(f"{line}{row['items']:>7}{row['clips']:>7}{f'  ({lost} without a score)' if lost else ''}")
    out.append("smallest: the smallest true difference that these items show in 80 % of comparisons, at 5 %")
    return out


def _row(
    figure: Figure, records: Sequence[Record], before: Mapping[str, Score], after: Mapping[str, Score], seed: int, resamples: int
) -> dict[str, Any]:
    first, second = (columns_for(figure, records, scores) for scores in (before, after))
    found = paired(figure, first, second, seed=seed, resamples=resamples)
    numbers = {name: value if math.isfinite(value) else None for name, value in found._asdict().items()}
    said = {"name": figure.name, "unit": figure.unit, "scale": figure.scale, "higher_is_better": figure.higher_is_better}
    asked = [records[place].id for place in figure.items]
    return said | numbers | {"unanswered": [sum(name not in scores for name in asked) for scores in (before, after)]}


def _kept(figure: Figure, places: set[int]) -> Figure:
    groups = (tuple(place for place in group if place in places) for group in figure.groups)
    return replace(figure, groups=tuple(group for group in groups if group))


def _check_same(before: Path, after: Path, records: Sequence[Record], others: Mapping[str, Record]) -> None:
    """Raises `InputError` unless the same ids ask the same questions with the same right answers."""
    ids = {record.id for record in records}
    gone = [f"id {record.id!r} is missing in {after / ITEMS}" for record in records if record.id not in others]
    new = [f"id {name!r} is missing in {before / ITEMS}" for name in others if name not in ids]
    changed = []
    for record in records:
        other = others.get(record.id, record)
        for field in SAME:
            if getattr(record, field) != getattr(other, field):
                changed.append(f"id {record.id!r} has another {field} ({_short(record, field)} and {_short(other, field)})")
                break
    wrong = [*gone, *new, *changed]
    if wrong:
        counts = f"{len(wrong)} of {len(ids | set(others))} items are not the same"
        raise InputError(f"{before} and {after} cannot be compared: {counts}; the first: {wrong[0]}")


def _short(record: Record, field: str) -> str:
    text = repr(getattr(record, field))
    return text if len(text) <= 60 else text[:57] + "..."
