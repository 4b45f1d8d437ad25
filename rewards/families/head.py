"""How close is what the policy's head puts out to the right value?

A head at a token of the answer is read off each completion, so that the text around it can be learned by its error:

numbers    exp(-|value - right| / scale), mean over the numbers
poses      exp(-error / scale), error = mean over joints of the geodesic angle in degrees

A completion without the token scores 0. A head at the prompt's end says the same of all completions of a group, which then teaches nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import PositiveFloat

from omnistage.data.errors import InputError, unknown_name
from omnistage.data.records import AnswerKind
from omnistage.data.rotations import geodesic_deg
from omnistage.rewards.base import reward
from omnistage.rewards.grade import kind_of, naming


@reward(range=(0, 1), looks_at=["answer"], needs=["heads"])
def head(
    completions: Sequence[Any],
    kind: Sequence[str],
    values: Sequence[Sequence[float]],
    heads: Sequence[Mapping[str, Sequence[Mapping[str, Any]]]],
    record_id: Sequence[str] | None = None,
    *,
    scale: PositiveFloat,
    name: str | None = None,
    **columns: Any,
) -> list[float | None]:
    """The closeness of the first value of the head `name` (None: the only one) to the row's `values`; 0 where the head was not read.

    `scale` is in the unit of the numbers, of poses in degrees: at that error the value is 1/e. Other kinds than scalar and pose are
    unscored. Raises `InputError` for a head that the policy does not carry, or values that do not fit it.
    """
    scores: list[float | None] = []
    for row, (row_kind, right, found) in enumerate(zip(kind, values, heads, strict=True)):
        of = kind_of(row_kind)
        if of not in (AnswerKind.SCALAR, AnswerKind.POSE):
            scores.append(None)
            continue
        with naming(record_id, row):
            read = found[_chosen(name, found)]
            scores.append(math.exp(-_error(read[0], of, right) / scale) if read else 0.0)
    return scores


def _chosen(name: str | None, heads: Mapping[str, Any]) -> str:
    if name is None and len(heads) == 1:
        return next(iter(heads))
    if name is None or name not in heads:
        raise InputError(f"reward 'head': {unknown_name('head', str(name), heads)}; name the one to read (config: name)")
    return name


def _error(value: Mapping[str, Any], kind: AnswerKind, right: Sequence[float]) -> float:
    if kind is AnswerKind.POSE:
        if "rotations" not in value:
            raise InputError("reward 'head': the head puts out numbers, and the row holds a pose")
        made = np.asarray(value["rotations"])
        return float(geodesic_deg(made, np.asarray(right).reshape(made.shape)).mean())
    numbers = list(value.get("values", {}).values())
    if len(numbers) != len(right):
        raise InputError(f"reward 'head': the head puts out {len(numbers)} numbers, and the row holds {len(right)}")
    return math.fsum(abs(one - other) for one, other in zip(numbers, right, strict=True)) / len(right)
