"""How close is the answer's number to the right one?

tolerance        1 for |answer - right| <= scale, else 0
linear           max(0, 1 - |answer - right| / scale)
exponential      exp(-|answer - right| / scale)
relative         max(0, 1 - |answer - right| / (scale * |right|)); of a right number 0: 1 for 0, else 0
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import PositiveFloat

from omnistage.data.errors import InputError
from omnistage.data.records import AnswerKind
from omnistage.rewards import expression
from omnistage.rewards.base import explain, reward
from omnistage.rewards.extract import answer_of, read_answer, text_of
from omnistage.rewards.grade import kind_of, naming

Measure = Literal["tolerance", "linear", "exponential", "relative"]


@reward(range=(0, 1), looks_at=["answer"])
def scalar(
    completions: Sequence[Any],
    target: Sequence[str],
    kind: Sequence[str],
    values: Sequence[Sequence[float]] | None = None,
    record_id: Sequence[str] | None = None,
    *,
    scale: PositiveFloat,
    measure: Measure = "exponential",
    **columns: Any,
) -> list[float | None]:
    """The closeness of the answer to `values[0]`, or to the target where a row has no values; `scale` is in the unit of the numbers
    (`relative`: a share of the right one).

    No answer and one that is no number score 0; other kinds than scalar and number are unscored. A number may be an expression ('1/2').
    All columns hold one value a completion. Raises `InputError` for an unknown kind, a right number that is none (both name the
    record), or a scale not above 0.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"scalar: scale is {scale}; must be a number above 0")
    rights = values if values is not None else [()] * len(completions)
    scores: list[float | None] = []
    reasons: list[str] = []
    for row, (completion, row_target, row_kind, row_values) in enumerate(zip(completions, target, kind, rights, strict=True)):
        with naming(record_id, row):
            of = kind_of(row_kind)
            right = _right(row_target, of, row_values) if of in (AnswerKind.SCALAR, AnswerKind.NUMBER) else None
        if right is None:
            scores.append(None)
            reasons.append(f"{of} answers are not scored by this reward")
            continue
        answer = answer_of(text_of(completion))
        found = None if answer is None else _number(answer, of)
        scores.append(0.0 if found is None else _closeness(abs(found - right), abs(right), scale, measure))
        reasons.append("no number answered" if found is None else f"{found:g} answered, {right:g} is right")
    explain(columns, reasons)
    return scores


def _right(target: str, kind: AnswerKind, values: Sequence[float]) -> float:
    right = values[0] if values else _number(target, kind)
    if right is None or not math.isfinite(right):
        raise InputError(f"target {target!r} with values {list(values)} is no {kind} answer")
    return right


def _number(text: str, kind: AnswerKind) -> float | None:
    if expression.is_compound(text):
        return expression.number_of(text)
    found = read_answer(text, kind, ())
    return None if found is None else float(found)


def _closeness(error: float, size: float, scale: float, measure: Measure) -> float:
    match measure:
        case "tolerance":
            return float(error <= scale)
        case "linear":
            return max(0.0, 1 - error / scale)
        case "exponential":
            return math.exp(-error / scale)
        case "relative":
            return max(0.0, 1 - error / (scale * size)) if size else float(error == 0)
