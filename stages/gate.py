"""A stage's gate: what the evaluation after the stage must show for the run to go on.

Judged once, from the files of the two evaluations alone, and kept in the stage's folder as `gate.json`:

    {"figure", "unit", "higher_is_better", "at_least", "otherwise", "value", "low", "high",
     "change": {"before", "after", "value", "low", "high", "p", "items", ...} | null, "passed", "said"}

`change` is the paired difference to the evaluation of the model that the stage started from (`stages.measure.paired`), where it has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnistage.data.errors import RecipeError
from omnistage.data.records import Record
from omnistage.stages import files
from omnistage.stages.benchmarks import card, compare, items, scoring, setup
from omnistage.stages.benchmarks.figures import Figure
from omnistage.stages.measure.judged import figure_of
from omnistage.stages.recipe.gate import START, Gate
from omnistage.stages.recipe.schema import Training

NAME = "gate.json"


def check(stage: Training, gate: Gate, benchmark: str, records: Sequence[Record]) -> None:
    """Raises `RecipeError` for a figure that an evaluation of these records will not have, and for a share that is none."""
    where = f"stages.{stage.name}.gate"
    figure = figure_of(stage, gate.figure, benchmark, records, where)
    if isinstance(gate.at_least, float) and figure.unit == "share" and not 0 <= gate.at_least <= 1:
        raise RecipeError(f"{where}: at_least is {gate.at_least:g} and {figure.name!r} is a share; allowed: 0 to 1")


def judge(stage: Training, gate: Gate, evaluation: Path, start: Path | None) -> dict[str, Any]:
    """The verdict on a stage by its `evaluation` folder and that of its `start` (None: it was not measured).

    A model whose figure could not be computed passes no gate; a change whose interval could not is not surely worse.

    Raises:
        InputError: a file cannot be read, or the two folders hold other items.
    """
    records = items.read_items(evaluation)
    figure = figure_of(stage, gate.figure, setup.read(evaluation)["benchmark"], records, f"stages.{stage.name}.gate")
    found = files.read_json(evaluation / scoring.FIGURES)["runs"][items.GREEDY]["figures"][figure.name]
    change = None
    if start is not None:
        [change] = compare.compare(start, evaluation, lambda _: [figure])["figures"]
    verdict: dict[str, Any] = {
        "figure": figure.name,
        "unit": figure.unit,
        "higher_is_better": figure.higher_is_better,
        "at_least": gate.at_least,
        "otherwise": gate.otherwise,
        **{name: found[name] for name in ("value", "low", "high")},
        "change": change,
    }
    verdict["passed"] = _passes(gate, figure, found["value"], change)
    return verdict | {"said": _said(stage, verdict)}


def _passes(gate: Gate, figure: Figure, value: float | None, change: Mapping[str, Any] | None) -> bool:
    if value is None:
        return False
    if isinstance(gate.at_least, float):
        return value >= gate.at_least if figure.higher_is_better else value <= gate.at_least
    best = None if change is None else change["high"] if figure.higher_is_better else change["low"]
    return best is None or (best >= 0 if figure.higher_is_better else best <= 0)


def _said(stage: Training, verdict: Mapping[str, Any]) -> str:
    """One line: the figure, what it is, what it was, and what was asked."""
    change, bar = verdict["change"], verdict["at_least"]
    told = f"{verdict['figure']} {card.cell(verdict) if verdict['value'] is not None else 'has no value'}"
    if change is not None and change["value"] is not None:
        told += f", at its start {card.printed(change['before'], verdict)}, difference {card.signed(change, verdict)}"
    if bar == START:
        if change is None:
            told += ", with nothing to compare it with: its start holds another model now"
        asked = "not surely worse than its start"
    else:
        asked = f"{'at least' if verdict['higher_is_better'] else 'at most'} {card.printed(bar, verdict)}"
    return f"gate of stage {stage.name!r} {'passed' if verdict['passed'] else 'failed'}: {told}; asked: {asked}"


def kept(out: Path) -> dict[str, Any] | None:
    """The verdict that stands in a stage's folder."""
    path = out / NAME
    return dict(files.read_json(path)) if path.exists() else None


def how_to_go_on(following: str | None) -> str:
    """What ends the line of a gate that stops a run; `following` is the next stage."""
    if following is None:
        return "it is the run's last stage"
    return f"the run ends before stage {following!r}; to go on from this model: --from {following}"
