"""Intervals for shares and for paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Z_95 = 1.959963984540054


class Interval(NamedTuple):
    """An estimate with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def share(correct: int, n: int) -> Interval:
    """Share `correct / n` with Wilson's score interval (Wilson 1927, J. Am. Stat. Assoc. 22); it stays inside 0..1 and works at 0 and 1.

    Raises:
        ValueError: `n` is not positive.
    """
    if n <= 0:
        raise ValueError("a share of nothing")
    p, z2 = correct / n, Z_95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At 0 and at n a bound is the share itself, which rounding may miss by a last bit.
    return Interval(p, 0.0 if correct == 0 else middle - half, 1.0 if correct == n else middle + half)


def paired_difference(before: Sequence[float], after: Sequence[float]) -> Interval:
    """Mean of `after - before` over the same items, with the normal interval mean +- 1.96 s / sqrt(n) of the differences.

    Raises:
        ValueError: the lengths differ, or there are fewer than two items.
    """
    if len(before) != len(after) or len(before) < 2:
        raise ValueError(f"{len(before)} and {len(after)} paired values; the same number is needed, at least two")
    differences = [b - a for a, b in zip(before, after, strict=True)]
    n = len(differences)
    mean = math.fsum(differences) / n
    variance = math.fsum((d - mean) ** 2 for d in differences) / (n - 1)
    half = Z_95 * math.sqrt(variance / n)
    return Interval(mean, mean - half, mean + half)
