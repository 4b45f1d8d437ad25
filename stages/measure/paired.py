"""Two runs over the same items: their difference, how sure it is, and the smallest true one that so many items can show.

- The interval is that of `bootstrap`, of the difference: each draw of clips counts for both runs. Where fewer than `FEW` clips differ, that
  of a share is Bonett and Price's with the effective number of clips, so that two runs that agree on everything are not certain to be
  equal.
- `p` of a mean figure comes from an exact test: were the runs equal, whose answers to a clip are whose would be a coin's matter, so the
  signs of the clips' differences are turned in all ways (where at most `EXACT` clips differ), or in `FLIPS` drawn ones, of which the seen
  one counts as one more. p is the share of ways that differ as much, either way. All items of a clip are turned together.
- `p` of a metric figure (a correlation, say) is that at which the bootstrap's interval touches 0: turning runs of different scales into
  each other would test more than that their figures are equal. It cannot be smaller than the number of draws allows.
- `smallest` = (t_0.975 + t_0.8) x SE: a true difference of that size is found at 5 % (two-sided) in 80 % of such comparisons. t has the
  degrees of freedom of the clips (of many clips: 1.96 + 0.84 = 2.80 standard errors); SE is the jackknife's over clips, of the paired
  difference (of items with a clip each: s / sqrt(n)), and where few clips differ Bonett and Price's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from omnistage.stages.benchmarks.figures import Columns, Figure, Floats, Metric
from omnistage.stages.measure.bootstrap import (
    FEW,
    RESAMPLES,
    Means,
    Metrics,
    bounds,
    column_of,
    deviating,
    jackknife,
    means_of,
    metrics_of,
)
from omnistage.stages.measure.statistics import changed

EXACT = 12
FLIPS = 10_000
NAN = float("nan")


class Difference(NamedTuple):
    """`value` = `after` - `before`, the figure of both runs over the items of which both have a value, with its 95 % interval, `p`, and
    `smallest` in the figure's own unit; `items` and `clips` are those numbers, `differ` the number of clips whose values differ."""

    value: float
    low: float
    high: float
    p: float
    smallest: float
    before: float
    after: float
    items: int
    clips: int
    differ: int


def paired(figure: Figure, before: Columns, after: Columns, *, seed: int = 0, resamples: int = RESAMPLES) -> Difference:
    """The difference of two runs over the same items, in the same order; the same seed gives the same result.

    Items of which either run has no value (nan) are left out of both. Where nothing is left all is nan, and where a figure that is no share
    stands on a single clip so are its bounds and `smallest`.

    Raises:
        ValueError: the runs have different items or clips.
    """
    if len(before.value) != len(after.value) or not np.array_equal(before.clip, after.clip):
        raise ValueError(f"{len(before.value)} and {len(after.value)} items; two runs are compared over the same items of the same clips")
    if figure.metric is not None:
        return _of_metric(figure, figure.metric, before, after, seed, resamples)
    was, now = column_of(figure, before), column_of(figure, after)
    difference = now - was
    sample = means_of(figure, difference, before.clip)
    if sample is None:
        return Difference(NAN, NAN, NAN, NAN, NAN, NAN, NAN, 0, 0, 0)
    missing = np.isnan(difference)
    first, second = (_mean(figure, np.where(missing, np.nan, each), before) for each in (was, now))
    usable = [place for place in figure.items if not missing[place]]
    differ = len(np.unique(before.clip[usable][difference[usable] != 0]))
    error, degrees, _ = jackknife(sample)
    if figure.unit == "share" and (sample.lonely or min(differ, deviating(figure, difference, before.clip)) < FEW):
        low, high, error = _of_few(sample, figure, difference, before)
        degrees = float("inf")
    elif sample.lonely:
        low = high = error = NAN
    else:
        low, high, _ = bounds(sample, seed=seed, resamples=resamples)
    p = sign_flip_p((sample.sums / sample.counts.sum(0)).mean(1), seed=seed)
    return Difference(sample.value, low, high, p, smallest(error, degrees), first, second, len(usable), len(sample.strata), differ)


def sign_flip_p(pulls: Floats, *, seed: int = 0) -> float:
    """The two-sided p of "the signs of these [K] differences are a coin's matter", by their sum: the share of ways to turn them that come
    as far from 0. All ways where at most `EXACT` are not 0; else of `FLIPS` draws, (1 + as far) / (1 + drawn)."""
    pulls = pulls[pulls != 0]
    n = len(pulls)
    # Sums in another order differ in their last bits.
    reached = abs(pulls.sum()) * (1 - 1e-9)
    if n <= EXACT:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(signs @ pulls) >= reached).mean())
    generator = np.random.default_rng(seed)
    as_far = 0
    for _ in range(FLIPS // 500):
        as_far += int((np.abs((1 - 2 * generator.integers(2, size=(500, n))) @ pulls) >= reached).sum())
    return (1 + as_far) / (1 + FLIPS)


def smallest(error: float, degrees: float) -> float:
    """The smallest true difference that is found at 5 %, two-sided, in 80 % of comparisons with that standard error."""
    return float(stats.t.ppf(0.975, degrees) + stats.t.ppf(0.8, degrees)) * error


def _of_few(sample: Means, figure: Figure, difference: Floats, columns: Columns) -> tuple[float, float, float]:
    """Bounds and standard error where too few clips differ for a bootstrap: what was gained and lost, of as many items as there are
    effective clips."""
    n = sample.effective
    gained, lost = (_mean(figure, np.maximum(sign * difference, 0), columns) for sign in (1, -1))
    found, error = changed(gained * n, lost * n, n)
    return found.low, found.high, error


def _mean(figure: Figure, values: Floats, columns: Columns) -> float:
    sample = means_of(figure, values, columns.clip)
    return NAN if sample is None else sample.value


def _of_metric(figure: Figure, metric: Metric, before: Columns, after: Columns, seed: int, resamples: int) -> Difference:
    first, second = ((columns.numbers[figure.columns[0]], columns.numbers[figure.columns[1]]) for columns in (before, after))
    both = metrics_of(figure, metric, (first, second), before.clip)
    if both is None:
        return Difference(NAN, NAN, NAN, NAN, NAN, NAN, NAN, 0, 0, 0)
    was, now = (Metrics(metric, (run,), both.groups, both.clip).value for run in both.runs)
    clips = len(both.strata)
    used = np.unique(np.concatenate(both.groups))
    differ = len(np.unique(both.clip[used][both.runs[0][0][used] != both.runs[1][0][used]]))
    if clips < 2:
        return Difference(now - was, NAN, NAN, NAN, NAN, was, now, len(used), clips, differ)
    found = bounds(both, seed=seed, resamples=resamples)
    error, degrees, _ = jackknife(both)
    return Difference(now - was, found.low, found.high, found.p, smallest(error, degrees), was, now, len(used), clips, differ)
