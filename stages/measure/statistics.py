"""Intervals for shares and for paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy import stats

Z_95 = 1.959963984540054


class Interval(NamedTuple):
    """An estimate with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def share(correct: float, n: float) -> Interval:
    """Share `correct / n` with Wilson's score interval (Wilson 1927, J. Am. Stat. Assoc. 22); it stays inside 0..1 and works at 0 and 1.

    Both may be fractions: an effective number of items.

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


def changed(gained: float, lost: float, n: float) -> tuple[Interval, float]:
    """The change (gained - lost) / n of a share over n items, with the adjusted Wald interval of Bonett and Price (2012, J. Educ. Behav.
    Stat. 37), and its standard error: one imagined item is added that was gained and one that was lost, so that no change at all still has
    a width. The numbers may be fractions."""
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    error = math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return Interval((gained - lost) / n, max(-1.0, up - down - Z_95 * error), min(1.0, up - down + Z_95 * error)), error


def mean_over_runs(values: Sequence[float]) -> Interval:
    """Mean of one value per independent run, with Student's t interval over the runs.

    Raises:
        ValueError: fewer than two runs.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"{n} runs; an interval over runs needs at least two")
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = float(stats.t.ppf(0.975, n - 1)) * math.sqrt(variance / n)
    return Interval(mean, mean - half, mean + half)
