"""A figure of one run and its 95 % interval, by a bootstrap over clips.

Items about one clip are right or wrong together, so that a clip and not an item is what was drawn from the world; an interval over items
is too narrow wherever clips have several. How it is drawn:

- Clips are drawn with all their items. Of several groups (tasks) each clip belongs to the stratum of the smallest one that it touches, so
  that a draw holds every group. A draw takes k - 1 of a stratum's k clips, with replacement, each with the weight k / (k - 1): the
  variance is then unbiased, while drawing k of k makes it (k - 1) / k too small (Rao and Wu 1988, J. Am. Stat. Assoc. 83). Where a draw
  leaves a group empty none the less, that group keeps its observed mean, which moves the average neither way.
- The bounds are those of BCa (Efron 1987, J. Am. Stat. Assoc. 82: corrected for bias and skewness, never outside what a draw can give),
  with Student's quantile for the normal one (Hesterberg 2015, Am. Stat. 69; degrees of freedom by Satterthwaite's formula over strata),
  which is made larger by as much as the jackknife's standard error exceeds the draws': of few clips of different sizes draws vary too
  little, the jackknife a little too much.
- Where fewer than `FEW` clips deviate from the commonest value, a bootstrap knows too little (at 30 of 30 right, nothing at all), and the
  interval of a share is Wilson's with the effective number of clips, 1 / (sum of w_c^2), where w_c is the clip's weight in the figure: all
  items of a clip then count as one, the most cautious reading. So also where a group stands on a single clip. For other units there is no
  such remedy: on a single clip the bounds are nan.

`benchmarks/intervals.py` measures how often the intervals hold the truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from omnistage.stages.benchmarks.figures import Columns, Figure, Floats, Metric
from omnistage.stages.measure.statistics import Interval, share

RESAMPLES = 2000
FEW = 5
# Numbers that are drawn at a time: few enough to stay in the cache of a core, which is three times as fast as millions.
_BLOCK = 50_000

Ints = NDArray[np.int64]


class Sample(Protocol):
    """What clips are drawn from: `strata` [K], the stratum of each clip, and the figure's `value`."""

    strata: Ints
    value: float

    def at(self, drawn: Ints) -> Floats:
        """The figure [R] of R draws from how often each of the K clips was drawn in each, [R, K]."""
        ...

    def left_out(self) -> Floats:
        """The figure [K] without each clip."""
        ...


@dataclass
class Means:
    """A mean over items, or a mean of the means of groups: `sums` and `counts` [K clips, G groups], each group with an item."""

    sums: Floats
    counts: Floats

    def __post_init__(self) -> None:
        self.strata = strata_of(self.counts > 0)
        self.sizes = np.bincount(self.strata)[self.strata]
        self.means: Floats = self.sums.sum(0) / self.counts.sum(0)
        self.value = float(self.means.mean())

    @property
    def weights(self) -> Floats:
        """The weight [K] of each clip in the figure; they sum to 1."""
        return np.asarray((self.counts / self.counts.sum(0)).mean(1))

    @property
    def effective(self) -> float:
        """The effective number of clips: that of equal ones which would make as sure a mean, were all items of a clip alike."""
        return float(1 / np.square(self.weights).sum())

    @property
    def lonely(self) -> bool:
        """Whether a group stands on a single clip."""
        return bool(((self.counts > 0).sum(0) < 2).any())

    def at(self, drawn: Ints) -> Floats:
        scaled = drawn * (self.sizes / np.maximum(self.sizes - 1, 1))
        return self._figures(scaled @ self.sums, scaled @ self.counts)

    def left_out(self) -> Floats:
        """The others of its stratum stand for the clip that is left out, so that no stratum loses weight."""
        return self._figures(self._left(self.sums), self._left(self.counts))

    def _left(self, per_clip: Floats) -> Floats:
        of_stratum = np.stack([np.bincount(self.strata, column) for column in per_clip.T], axis=1)[self.strata]
        sizes = self.sizes[:, None]
        return np.asarray(per_clip.sum(0) + (of_stratum - sizes * per_clip) / np.maximum(sizes - 1, 1))

    def _figures(self, sums: Floats, counts: Floats) -> Floats:
        held = counts > 1e-9
        return np.asarray(np.where(held, sums / np.where(held, counts, 1), self.means).mean(1))


@dataclass
class Metrics:
    """The mean over groups of a metric of two columns [N]; `clip` [N] counts from 0. Of each pair of columns in `runs` the figure is
    computed, and their difference is what counts where there are two (the second's less the first's)."""

    metric: Metric
    runs: tuple[tuple[Floats, Floats], ...]
    groups: tuple[Ints, ...]
    clip: Ints

    def __post_init__(self) -> None:
        self.strata: Ints = np.zeros(int(self.clip.max()) + 1, dtype=np.int64)
        self.value = self._one(np.ones_like(self.strata))

    def at(self, drawn: Ints) -> Floats:
        return np.array([self._one(row) for row in drawn])

    def left_out(self) -> Floats:
        return np.array([self._one(np.arange(len(self.strata)) != clip) for clip in range(len(self.strata))])

    def _one(self, drawn: Ints | NDArray[np.bool_]) -> float:
        found = []
        for places in self.groups:
            items = np.repeat(places, drawn[self.clip[places]])
            if len(items):
                values = [self.metric(made[items], right[items]) for made, right in self.runs]
                found.append(values[-1] - (values[0] if len(values) > 1 else 0.0))
        return float(np.mean(found)) if found else float("nan")


class Jackknife(NamedTuple):
    """What leaving out each clip says: the standard error, its degrees of freedom, and the skewness (BCa's acceleration)."""

    error: float
    degrees: float
    skew: float


class Bounds(NamedTuple):
    """The bounds of the 95 % interval, and the p of "the figure is 0": that of the interval which ends there."""

    low: float
    high: float
    p: float


def value_of(figure: Figure, columns: Columns) -> float:
    """The figure of a run. Values that are nan (nothing could be said) are left out, and a group without any other; nan: nothing is left.

    Raises:
        KeyError: `columns` have no such column.
    """
    sample = sample_of(figure, columns)
    return float("nan") if sample is None else sample.value


def interval(figure: Figure, columns: Columns, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """A figure with its 95 % interval over clips; the same seed gives the same bounds. nan: nothing could be said.

    Raises:
        ValueError: a share has values outside [0, 1].
    """
    sample = sample_of(figure, columns)
    if sample is None:
        return Interval(float("nan"), float("nan"), float("nan"))
    if isinstance(sample, Means):
        if figure.unit == "share":
            values = column_of(figure, columns)
            least, most = np.nanmin(values[figure.items]), np.nanmax(values[figure.items])
            if least < 0 or most > 1:
                raise ValueError(f"figure {figure.name!r} is a share, and its values go from {least:g} to {most:g}")
            if sample.lonely or deviating(figure, values, columns.clip) < FEW:
                n = sample.effective
                return share(min(max(sample.value, 0.0), 1.0) * n, n)
        elif sample.lonely:
            return Interval(sample.value, float("nan"), float("nan"))
    elif len(sample.strata) < 2:
        return Interval(sample.value, float("nan"), float("nan"))
    found = bounds(sample, seed=seed, resamples=resamples)
    return Interval(sample.value, found.low, found.high)


def column_of(figure: Figure, columns: Columns) -> Floats:
    """What a mean figure is the mean of, [N]."""
    own: dict[str, Floats] = {"value": columns.value, "valid": columns.valid.astype(float)}
    return own[figure.column] if figure.column in own else columns.numbers[figure.column]


def sample_of(figure: Figure, columns: Columns) -> Means | Metrics | None:
    """What the figure's clips are drawn from; None: it has no item with a value."""
    if figure.metric is None:
        return means_of(figure, column_of(figure, columns), columns.clip)
    made, right = (columns.numbers[name] for name in figure.columns)
    return metrics_of(figure, figure.metric, ((made, right),), columns.clip)


def means_of(figure: Figure, values: Floats, clip: Ints) -> Means | None:
    """The sums and counts of a figure's items by clip and group; nan values, and groups and clips without another, are left out."""
    groups = _groups(figure, ~np.isnan(values))
    if not groups:
        return None
    _, number = np.unique(clip[np.concatenate(groups)], return_inverse=True)
    clips, starts = int(number.max()) + 1, np.cumsum([0, *map(len, groups)])
    pairs = [(number[start : start + len(places)], values[places]) for start, places in zip(starts, groups, strict=False)]
    sums: Floats = np.stack([np.bincount(of, of_values, clips) for of, of_values in pairs], axis=1)
    counts: Floats = np.stack([np.bincount(of, minlength=clips).astype(np.float64) for of, _ in pairs], axis=1)
    return Means(sums, counts)


def metrics_of(figure: Figure, metric: Metric, runs: tuple[tuple[Floats, Floats], ...], clip: Ints) -> Metrics | None:
    """A metric figure's sample over one run, or over two that are to be compared; items with a nan in any column are left out."""
    unknown: NDArray[np.bool_] = np.any([np.isnan(column) for run in runs for column in run], axis=0)
    groups = _groups(figure, ~unknown)
    if not groups:
        return None
    used = np.unique(np.concatenate(groups))
    number = np.zeros(len(clip), dtype=np.int64)
    number[used] = np.unique(clip[used], return_inverse=True)[1]
    place = np.zeros(len(clip), dtype=np.int64)
    place[used] = np.arange(len(used))
    kept = tuple((made[used], right[used]) for made, right in runs)
    return Metrics(metric, kept, tuple(place[places] for places in groups), number[used])


def _groups(figure: Figure, known: NDArray[np.bool_]) -> list[Ints]:
    groups = [np.array(group, dtype=np.int64) for group in figure.groups if group]
    return [places[known[places]] for places in groups if known[places].any()]


def deviating(figure: Figure, values: Floats, clip: Ints) -> int:
    """The number of clips with an item whose value is not the commonest one."""
    values, clip = values[figure.items], clip[figure.items]
    known = ~np.isnan(values)
    levels, counts = np.unique(values[known], return_counts=True)
    return len(np.unique(clip[known][values[known] != levels[counts.argmax()]]))


def strata_of(touched: NDArray[np.bool_]) -> Ints:
    """The stratum [K] of each clip, from which groups it touches [K, G].

    It is the smallest group of those: every clip of a stratum then holds an item of it. A clip that would be alone joins the stratum where
    most other clips of its group are, unless it is the only one of its group.
    """
    strata = np.argmin(np.where(touched, touched.sum(0), len(touched) + 1), axis=1)
    for alone in np.flatnonzero(np.bincount(strata)[strata] == 1):
        others = touched[:, strata[alone]].copy()
        others[alone] = False
        if others.any():
            strata[alone] = np.bincount(strata[others]).argmax()
    return np.asarray(strata, dtype=np.int64)


def draws(strata: Ints, resamples: int, seed: int) -> Iterator[Ints]:
    """How often each clip was drawn, [r, K], in blocks of draws: of each stratum of k clips k - 1, and of one clip that one."""
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(strata == name) for name in np.unique(strata)]
    clips = len(strata)
    for start in range(0, resamples, block := max(1, _BLOCK // clips)):
        rows = min(block, resamples - start)
        drawn = [places[generator.integers(len(places), size=(rows, max(len(places) - 1, 1)))] for places in members]
        places = np.concatenate(drawn, axis=1) + clips * np.arange(rows)[:, None]
        yield np.bincount(places.ravel(), minlength=rows * clips).reshape(rows, clips)


def jackknife(sample: Sample) -> Jackknife:
    """SE^2 = sum over strata of (k - 1) / k times the sum over their k clips of (figure without the clip - the mean of those)^2: of clips
    with an item each, the s / sqrt(n) of a mean. Satterthwaite's degrees of freedom: of one stratum, k - 1."""
    left, strata = sample.left_out(), sample.strata
    _, of, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    moved = (np.bincount(of, left) / sizes)[of] - left
    parts = np.bincount(of, np.square(moved)) * (sizes - 1) / sizes
    total = float(parts.sum())
    # Rounding alone must not make a spread.
    if math.sqrt(total) <= 1e-12 * abs(sample.value):
        return Jackknife(0.0, float("inf"), 0.0)
    degrees = total**2 / float((np.square(parts) / np.maximum(sizes - 1, 1)).sum())
    return Jackknife(math.sqrt(total), degrees, float((moved**3).sum() / (6 * np.square(moved).sum() ** 1.5)))


def bounds(sample: Sample, *, seed: int, resamples: int) -> Bounds:
    """BCa bounds, as the module's docstring tells. Of a figure that no draw changes the bounds are its value, and p is that of as many
    coins as there are clips, all on one side (1 where the figure is 0)."""
    value = sample.value
    found = np.concatenate([sample.at(drawn) for drawn in draws(sample.strata, resamples, seed)])
    found = found[~np.isnan(found)]
    found[np.isclose(found, value, rtol=1e-12, atol=1e-15)] = value
    if not len(found) or np.ptp(found) == 0:
        return Bounds(value, value, 1.0 if value == 0 else max(2.0 ** (1 - len(sample.strata)), 1 / (1 + resamples)))
    error, degrees, skew = jackknife(sample)
    wider = max(1.0, error / float(found.std(ddof=1)))
    # Half of those that hit the value itself count as below it: shares of few items are often hit.
    bias = _normal(found, value)
    quantile = wider * float(stats.t.ppf(0.975, degrees))
    low, high = np.quantile(found, [_level(-quantile, bias, skew), _level(quantile, bias, skew)])
    at_zero = _normal(found, 0.0) - bias
    pole = 1 + skew * at_zero
    reached = at_zero / pole - bias if pole > 0 else math.copysign(math.inf, at_zero)
    return Bounds(float(low), float(high), float(2 * stats.t.sf(abs(reached) / wider, degrees)))


def _normal(found: Floats, border: float) -> float:
    """The normal quantile of the share of draws below a border, kept off 0 and 1 by half a draw."""
    below = ((found < border).mean() + (found <= border).mean()) / 2
    return float(special.ndtri(np.clip(below, 0.5 / len(found), 1 - 0.5 / len(found))))


def _level(z: float, bias: float, skew: float) -> float:
    """The share of draws below the bound that a normal figure would have at `z`."""
    turned = 1 - skew * (bias + z)
    # Beyond its pole the formula would come back from the other side.
    return float(special.ndtr(bias + (bias + z) / turned)) if turned > 0 else float(z > 0)
