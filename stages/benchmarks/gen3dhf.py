"""Gen3DHF (LMME3DHF, arXiv 2504.20466): how good and how authentic a generated face looks, in words or as a score.

Words (kind `LEVEL`) are right or wrong, dimension by dimension. Scores (kind `SCALAR`) make correlations and an error, dimension by
dimension and never pooled: the two are about the same clips, on scales of their own.

Where a head was read, its number counts, even against the answer's text: the one that is named as the dimension is, or its only one.
Without a head it is the number that the answer names, or the middle of the bin of the level word that it names. What cannot be read has
the middle of the published scale, 50, and is not valid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from omnistage.data.errors import InputError
from omnistage.data.formats.gen3dhf import BOUNDS, SCALE, level_of
from omnistage.data.records import LEVELS, AnswerKind, Record
from omnistage.rewards.extract import answer_of, read_answer
from omnistage.stages.benchmarks.base import Benchmark, Scored, graded, majority
from omnistage.stages.benchmarks.figures import Figure, Floats, Metric, by
from omnistage.stages.benchmarks.items import Prediction, Score
from omnistage.stages.benchmarks.logistic import fitted
from omnistage.stages.benchmarks.upstream import lmme3dhf
from omnistage.stages.measure.correlation import krcc, plcc, rmse, srcc

NAME = "gen3dhf"
MIDDLE = sum(SCALE) / 2
# What a reader of level words calls their mean place, from 1 for the worst to 5 for the best.
_PLACE = "level"


class _Said(NamedTuple):
    """The number of an answer (None: there is none), as it was written, and why."""

    number: float | None
    answer: str | None
    reason: str


def on_scale(record: Record) -> Record:
    """The question of a score with its scale, which the published questions do not name; another kind's stays as it is."""
    if record.kind is not AnswerKind.SCALAR:
        return record
    return replace(record, question=f"{record.question} Give a score from {SCALE[0]:g} (worst) to {SCALE[1]:g} (best).")


def score(record: Record, prediction: Prediction, tagged: bool) -> Score:
    """What one answer is worth: 1 or 0 for a level word; for a score its distance from the right one, in points of the scale.

    `numbers` of a score hold the number `made` and the `right` one. Raises `InputError` for a record of another kind or dimension, one
    without its score, and a head that puts out several numbers, none of them named as the dimension is.
    """
    if record.task not in BOUNDS:
        raise InputError(f"{record.id}: its task is {record.task!r}; allowed: {', '.join(BOUNDS)}")
    if record.kind is AnswerKind.LEVEL:
        return _word(record, prediction, tagged)
    if record.kind is not AnswerKind.SCALAR or len(record.values) != 1:
        told = f"of kind {record.kind} with {len(record.values)} values"
        raise InputError(f"{record.id}: is {told}; allowed: a level, or a scalar with one value")
    said = _of_text(record, prediction, tagged) if prediction.head is None else _of_head(record, prediction.head)
    if prediction.status == "error" and said.number is None:
        said = said._replace(reason=prediction.error or said.reason)
    made, right = MIDDLE if said.number is None else said.number, record.values[0]
    valid, numbers = said.number is not None, {"made": made, "right": right}
    return Score(record.id, prediction.run, NAME, abs(made - right), valid, said.answer, said.reason, numbers)


def _word(record: Record, prediction: Prediction, tagged: bool) -> Score:
    """A level word, which a head may say, or name by its number."""
    if prediction.head is None:
        return graded(record, prediction, tagged)
    value = _value(prediction.head)
    if value is None:
        return Score(record.id, prediction.run, NAME, 0.0, False, None, "the head was not read")
    level = value.get("level")
    if level is None:
        number = _number_of(record, prediction.head, value)
        level = level_of(number, *BOUNDS[record.task])
    right = level == record.target
    return Score(record.id, prediction.run, NAME, float(right), True, str(level), "right" if right else "wrong")


def _of_head(record: Record, head: Mapping[str, Any]) -> _Said:
    value = _value(head)
    if value is None:
        return _Said(None, None, "the head was not read; the middle of the scale stands in")
    number = _number_of(record, head, value)
    return _Said(number, f"{number:g}", f"of the head {head.get('name')!r}")


def _value(head: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The first value that was read; None where the answer did not hold the head's token."""
    values = head.get("values") or []
    return values[0] if values else None


def _number_of(record: Record, head: Mapping[str, Any], value: Mapping[str, Any]) -> float:
    named = value.get("values") or {}
    name = record.task if record.task in named else next(iter(named), None)
    if name is None or (len(named) > 1 and name != record.task):
        puts_out = ", ".join(named) or "no number"
        raise InputError(f"{record.id}: head {head.get('name')!r} puts out {puts_out}; allowed: one number, or one named {record.task!r}")
    number = float(named[name])
    if not math.isfinite(number):
        raise InputError(f"{record.id}: head {head.get('name')!r} puts out {number}; allowed: finite numbers")
    return _at_place(record.task, number) if name == _PLACE else number


def _of_text(record: Record, prediction: Prediction, tagged: bool) -> _Said:
    text = prediction.raw or ""
    answer = answer_of(text)
    if answer is None and not tagged:
        answer = text.strip() or None
    if answer is None:
        return _Said(None, None, "not answered; the middle of the scale stands in")
    # Not as an expression: '85/100' would be 0.85 of a point.
    number = read_answer(answer, AnswerKind.SCALAR, ())
    if number is not None and SCALE[0] <= float(number) <= SCALE[1]:
        return _Said(float(number), number, "a number")
    level = read_answer(answer, AnswerKind.LEVEL, ())
    if level is not None and number is None:
        return _Said(_at_place(record.task, LEVELS.index(level) + 1), level, "the middle of the level's bin")
    why = "unreadable" if number is None else f"{number} is not on the scale of {SCALE[0]:g} to {SCALE[1]:g}"
    return _Said(None, None, f"{why}; the middle of the scale stands in")


def _at_place(dimension: str, place: float) -> float:
    """The score at a place among the levels' bins: 1 is the middle of the lowest, 5 that of the highest."""
    low, high = BOUNDS[dimension]
    return low + (high - low) * (place - 0.5) / len(LEVELS)


def figures(records: Sequence[Record]) -> list[Figure]:
    """Scores before words, quality before authenticity; so the headline is the rank correlation of quality, where it is asked for."""
    out = []
    for kind in (AnswerKind.SCALAR, AnswerKind.LEVEL):
        places = by([record.task if record.kind is kind else None for record in records])
        for dimension in [name for name in BOUNDS if name in places]:
            groups = (places[dimension],)
            if kind is AnswerKind.LEVEL:
                out.append(Figure(f"{dimension}/level_accuracy", groups))
                continue
            for name, metric in METRICS.items():
                is_error = name.startswith("rmse")
                unit = "points" if is_error else "correlation"
                out.append(Figure(f"{dimension}/{name}", groups, metric, higher_is_better=not is_error, unit=unit))
    return out


def _plcc_fitted(made: Floats, right: Floats) -> float:
    """After the curve of `logistic`; nan where none is found."""
    curve = fitted(made, right)
    return math.nan if curve is None else plcc(curve, right)


def _rmse_fitted(made: Floats, right: Floats) -> float:
    curve = fitted(made, right)
    return math.nan if curve is None else rmse(curve, right)


METRICS: dict[str, Metric] = {
    "srcc": srcc,
    "plcc": plcc,
    "krcc": krcc,
    "rmse": rmse,
    "plcc_fitted": _plcc_fitted,
    "rmse_fitted": _rmse_fitted,
}


def constant(records: Sequence[Record]) -> list[Score]:
    """What whoever gives each dimension's mean score, or its most frequent level, to all of its clips would score."""
    scores = by([record.task if record.kind is AnswerKind.SCALAR else None for record in records])
    means = {task: math.fsum(records[at].values[0] for at in places) / len(places) for task, places in scores.items() if task is not None}
    words = {one.id: one for one in majority([record for record in records if record.kind is not AnswerKind.SCALAR])}
    return [words.get(record.id) or _constant(record, means[record.task]) for record in records]


def _constant(record: Record, mean: float) -> Score:
    right = record.values[0]
    numbers = {"made": mean, "right": right}
    return Score(record.id, "constant", NAME, abs(mean - right), True, f"{mean:g}", "the dimension's mean score", numbers)


def upstream(items: Sequence[Scored], tagged: bool = False) -> dict[str, Any]:
    """What LMME3DHF's own rule says of the same answers."""
    return lmme3dhf.pooled(items)


BENCHMARK = Benchmark(
    name=NAME,
    title="Gen3DHF: quality and authenticity of generated faces",
    formats=("gen3dhf",),
    prompts=("plain", "direct", "think_answer", "short"),
    figures=figures,
    score=score,
    options={"scale": on_scale},
    upstream=upstream,
    baseline=("constant", constant),
    kinds=frozenset({AnswerKind.LEVEL, AnswerKind.SCALAR}),
    notes=(
        "Figures of each dimension, never pooled. An answer without a number or level that can be read has the middle of the published "
        "scale, 50. plcc_fitted and rmse_fitted come after a logistic curve of four numbers, fitted to the same opinions; they are nan "
        "where no curve is found. Level words stand for the middles of their published bins."
    ),
)
