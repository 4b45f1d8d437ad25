"""How close are the joints of a pose that is answered as numbers?

    exp(-error / scale_deg),        error = mean over 24 joints of the geodesic angle between answered and right rotation, in degrees

The geodesic angle of two rotations is that of the one turn which takes the one to the other. `data.rotations` names the layouts of six
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import PositiveFloat

from omnistage.data.errors import InputError
from omnistage.data.records import AnswerKind
from omnistage.data.rotations import Floats, axis_angle_to_matrices, geodesic_deg, six_to_matrices
from omnistage.rewards.base import explain, reward
from omnistage.rewards.extract import answer_of, read_numbers, text_of
from omnistage.rewards.grade import kind_of, naming

JOINTS = 24
Layout = Literal["columns", "interleaved", "rows"]
# How far an element of M^T M may be from the identity's: matrices are written with two decimals or more.
_MOST_SKEW = 0.1
# Numbers are written rounded; a smaller error than this is theirs.
_DECIMALS_DEG = 3


@reward(range=(0, 1), looks_at=["answer"])
def pose(
    completions: Sequence[Any],
    kind: Sequence[str],
    values: Sequence[Sequence[float]],
    record_id: Sequence[str] | None = None,
    *,
    scale_deg: PositiveFloat = 20.0,
    layout: Layout | None = None,
    **columns: Any,
) -> list[float | None]:
    """1 for the right rotation of every joint, less the larger their mean error is (1/e at `scale_deg` degrees); unscored for other kinds.

    The answer is nothing but numbers, joint by joint: 72 (axis-angle, radians), 216 (3 x 3 matrices, row by row) or, with a `layout`, 144
    (six a joint). Any other count, a number that is not finite, and a matrix that is no rotation score 0, as no answer does.
    `values` holds the right pose of each completion: 216 numbers. Raises `InputError` for others and an unknown kind (both
    name the record), or a scale not above 0.
    """
    if not (math.isfinite(scale_deg) and scale_deg > 0):
        raise InputError(f"pose: scale_deg is {scale_deg}; must be a number above 0")
    scores: list[float | None] = []
    reasons: list[str] = []
    for row, (completion, row_kind, right) in enumerate(zip(completions, kind, values, strict=True)):
        with naming(record_id, row):
            reference = _right(right) if kind_of(row_kind) is AnswerKind.POSE else None
        if reference is None:
            scores.append(None)
            reasons.append("no pose was asked for")
            continue
        answered = read_pose(answer_of(text_of(completion)) or "", layout)
        error = None if answered is None else error_deg(answered, reference)
        scores.append(0.0 if error is None else math.exp(-error / scale_deg))
        reasons.append("the answer is no pose" if error is None else f"{error:g} degrees off on average")
    explain(columns, reasons)
    return scores


def read_pose(answer: str, layout: Layout | None = None) -> Floats | None:
    """The joints' rotations [24, 3, 3] that an answer's numbers give, or None; never raises."""
    numbers = read_numbers(answer)
    if numbers is None or not all(map(math.isfinite, numbers)):
        return None
    with np.errstate(all="ignore"):
        match len(numbers):
            case 72:
                turned = axis_angle_to_matrices(np.reshape(numbers, (JOINTS, 3)))
                return turned if np.isfinite(turned).all() else None
            case 144 if layout is not None:
                try:
                    return six_to_matrices(np.reshape(numbers, (JOINTS, 6)), layout)
                except InputError:
                    return None
            case 216:
                return _rotations(np.reshape(numbers, (JOINTS, 3, 3)))
            case _:
                return None


def error_deg(answered_J33: Floats, right_J33: Floats) -> float:
    """The mean geodesic angle in degrees between rotations [J, 3, 3], to a thousandth of a degree."""
    return round(float(geodesic_deg(answered_J33, right_J33).mean()), _DECIMALS_DEG)


def _right(values: Sequence[float]) -> Floats:
    if len(values) != JOINTS * 9:
        raise InputError(f"a pose has {len(values)} values; must be {JOINTS * 9}, the {JOINTS} rotation matrices row by row")
    found = _rotations(np.reshape(np.asarray(values, np.float64), (JOINTS, 3, 3)))
    if found is None:
        raise InputError(f"the values of a pose are no {JOINTS} rotation matrices row by row")
    return found


def _rotations(matrices_J33: Floats) -> Floats | None:
    """The nearest rotations to matrices that are rotations up to rounding; None for others, whose trace could be made to look right."""
    skew = np.swapaxes(matrices_J33, -1, -2) @ matrices_J33 - np.eye(3)
    if not (np.abs(skew) <= _MOST_SKEW).all() or not (np.linalg.det(matrices_J33) > 0).all():
        return None
    left, _, right = np.linalg.svd(matrices_J33)
    nearest: Floats = left @ right
    return nearest
