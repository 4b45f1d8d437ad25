"""Two runs over the same items: exact p, the smallest difference that can be shown, and how often chance alone is called a difference."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from omnistage.stages.benchmarks.figures import Columns, Figure
from omnistage.stages.measure.correlation import mae, plcc, srcc
from omnistage.stages.measure.paired import FLIPS, paired, sign_flip_p, smallest

NAN = math.nan


def columns(value: Sequence[float], clip: Sequence[int] | None = None, **numbers: Sequence[float]) -> Columns:
    clips = np.arange(len(value)) if clip is None else np.array(clip)
    return Columns(np.array(value, dtype=float), ~np.isnan(value), clips, {name: np.array(each, float) for name, each in numbers.items()})


def test_p_counts_the_ways_to_turn_the_signs() -> None:
    """Five gains: 2 of 2^5 ways reach as far. 2, 1 and -1 (sum 2): of +-2 +-1 +-1 all but the two sums of 0 do, 6 of 8; what is 0 has no
    sign."""
    assert sign_flip_p(np.ones(5)) == 2 / 32
    assert sign_flip_p(np.array([2.0, 0.0, 1.0, -1.0, 0.0])) == 6 / 8
    assert sign_flip_p(np.zeros(4)) == 1
    assert sign_flip_p(np.full(12, 0.1)) == 2 / 2**12
    # 13 and more are drawn, and the seen way is one of those.
    assert sign_flip_p(np.ones(40)) == 1 / (1 + FLIPS)
    assert sign_flip_p(np.ones(13), seed=1) == pytest.approx(2 / 2**13, abs=4e-4)


def test_items_of_a_clip_are_turned_together() -> None:
    """Six items gained: of six clips p = 2/64, of two clips 2/4."""
    six = Figure("accuracy", (tuple(range(10)),))
    after = [1] * 6 + [0, 1, 0, 1]
    before = [0] * 6 + [0, 1, 0, 1]
    apart = paired(six, columns(before), columns(after))
    assert (apart.value, apart.before, apart.after) == pytest.approx((0.6, 0.2, 0.8))
    assert (apart.p, apart.items, apart.clips, apart.differ) == (2 / 64, 10, 10, 6)
    clip = [0, 0, 0, 1, 1, 1, 2, 3, 4, 5]
    together = paired(six, columns(before, clip), columns(after, clip))
    assert (together.p, together.clips, together.differ) == (2 / 4, 6, 2)
    assert together.high - together.low > apart.high - apart.low


def test_a_mean_of_tasks_weighs_tasks_and_not_items() -> None:
    """Task A: 1 of 1 gained; task B: 1 of 4 lost. Mean (1 - 1/4) / 2 = 3/8, from two clips of 1/2 and -1/8: 2 of 4 ways reach 3/8 (that and
    its mirror), besides 5/8 and its own: all four."""
    figure = Figure("average", ((0,), (1, 2, 3, 4)))
    found = paired(figure, columns([0, 1, 1, 1, 1]), columns([1, 0, 1, 1, 1]))
    assert (found.value, found.before, found.after, found.p) == (0.375, 0.5, 0.875, 1)


def test_what_either_run_says_nothing_of_is_left_out_of_both() -> None:
    figure = Figure("accuracy", (tuple(range(4)),))
    found = paired(figure, columns([1, NAN, 0, 0]), columns([1, 1, NAN, 1]))
    assert (found.value, found.before, found.after, found.items, found.clips) == (0.5, 0.5, 1.0, 2, 2)
    nothing = paired(figure, columns([NAN] * 4), columns([1] * 4))
    assert nothing.items == 0
    assert all(map(math.isnan, nothing[:7]))


def test_the_smallest_difference_that_can_be_shown() -> None:
    """100 items, 40 gained and 20 lost: s^2 = (60 - 100 x 0.2^2) / 99 = 56/99, SE = sqrt(56 / 9900) = 0.07521; t of 99: 1.98422 + 0.84523.
    As 25 clips of four such items each: SE of the 25 clips' means. Half the items: sqrt(2) as much, about."""
    after = [1.0] * 40 + [0.0] * 20 + [1.0] * 40
    before = [0.0] * 40 + [1.0] * 20 + [1.0] * 40
    figure = Figure("accuracy", (tuple(range(100)),))
    found = paired(figure, columns(before), columns(after))
    assert found.value == pytest.approx(0.2)
    assert found.smallest == pytest.approx((1.98422 + 0.84523) * 0.07521, rel=1e-4)
    clip = [at // 4 for at in range(100)]
    # Ten clips of +1, five of -1, ten of 0: s^2 = (15 - 25 x 0.04) / 24 = 14/24; t of 24: 2.06390 + 0.85686.
    clustered = paired(figure, columns(before, clip), columns(after, clip))
    assert clustered.smallest == pytest.approx((2.06390 + 0.85686) * math.sqrt(14 / 24 / 25), rel=1e-4)
    assert smallest(1.0, math.inf) == pytest.approx(1.959964 + 0.841621)


def test_two_runs_that_agree_are_not_certain_to_be_equal() -> None:
    """Bonett and Price: one gained and one lost imagined among 100 + 2; SE = sqrt(2 / 102 / 102)."""
    figure = Figure("accuracy", (tuple(range(100)),))
    same = columns([1, 0] * 50)
    found = paired(figure, same, same)
    assert (found.value, found.p, found.differ) == (0, 1, 0)
    assert found.high == -found.low == pytest.approx(1.959964 * math.sqrt(2) / 102)
    assert found.smallest == pytest.approx((1.959964 + 0.841621) * math.sqrt(2) / 102)
    # Of 20 clips, 20 count, and not 100.
    clip = [at // 5 for at in range(100)]
    found = paired(figure, same._replace(clip=np.array(clip)), same._replace(clip=np.array(clip)))
    assert found.high == pytest.approx(1.959964 * math.sqrt(2) / 22)


def test_a_difference_of_correlations() -> None:
    """Two readings of 40 clips, one near the truth and one far; against itself nothing differs."""
    generator = np.random.default_rng(0)
    right = generator.normal(size=40)
    near, far = right + 0.3 * generator.normal(size=40), right + 3 * generator.normal(size=40)
    figure = Figure("srcc", (tuple(range(40)),), metric=srcc)
    runs = [columns([0.0] * 40, made=made.tolist(), right=right.tolist()) for made in (far, near)]
    found = paired(figure, *runs, resamples=500)
    assert (found.before, found.after) == pytest.approx((srcc(far, right), srcc(near, right)))
    assert found.value == pytest.approx(found.after - found.before)
    assert 0 < found.low < found.value < found.high
    assert found.p < 0.01
    assert found.differ == 40
    turned = paired(figure, *runs[::-1], resamples=500)
    assert (turned.value, turned.p) == pytest.approx((-found.value, found.p), abs=0.005)
    same = paired(figure, runs[0], runs[0], resamples=100)
    assert (same.value, same.low, same.high, same.p, same.smallest, same.differ) == (0, 0, 0, 1, 0, 0)
    # An error that is 1 smaller in each of six clips: six coins on one side.
    wrong = [columns([0.0] * 6, made=[error] * 6, right=[0.0] * 6) for error in (3.0, 2.0)]
    sure = paired(Figure("mae", (tuple(range(6)),), metric=mae), *wrong, resamples=100)
    assert (sure.value, sure.low, sure.high, sure.p) == (-1, -1, -1, 2 / 2**6)


def test_p_of_a_metric_is_that_of_the_interval_which_ends_at_0() -> None:
    """At 5 % the interval and p say the same, whatever the size of the difference."""
    generator = np.random.default_rng(2)
    figure = Figure("plcc", (tuple(range(30)),), metric=plcc)
    found = []
    for _ in range(30):
        right = generator.normal(size=30)
        first, second = right + generator.normal(size=30), right + 0.6 * generator.normal(size=30)
        runs = [columns([0.0] * 30, made=made.tolist(), right=right.tolist()) for made in (first, second)]
        found.append(paired(figure, *runs, resamples=400))
    outside = [one.low > 0 or one.high < 0 for one in found]
    assert 3 <= sum(outside) <= 27
    # The quantile lies between two draws, p counts draws: within one of 400 they may differ.
    assert all((one.p < 0.05) == out or one.p == pytest.approx(0.05, abs=0.01) for one, out in zip(found, outside, strict=True))


def test_runs_of_different_items_are_refused() -> None:
    figure = Figure("accuracy", ((0, 1),))
    with pytest.raises(ValueError, match="2 and 3 items"):
        paired(figure, columns([1, 0]), columns([1, 0, 1]))
    with pytest.raises(ValueError, match="same clips"):
        paired(figure, columns([1, 0]), columns([1, 0], [0, 0]))


def null_p(figure: Figure, clip: list[int], generator: np.random.Generator) -> tuple[float, float]:
    """p over clips and over items of two runs that are equally good, each with its own luck in each clip."""
    chance = np.clip(0.6 + generator.choice([-0.35, 0.35], size=(2, max(clip) + 1)), 0, 1)[:, clip]
    first, second = (generator.random(chance.shape) < chance).astype(float)
    seed = int(generator.integers(2**31))
    of_clips = paired(figure, columns(first.tolist(), clip), columns(second.tolist(), clip), seed=seed, resamples=20)
    of_items = paired(figure, columns(first.tolist()), columns(second.tolist()), seed=seed, resamples=20)
    return of_clips.p, of_items.p


@pytest.mark.slow
def test_chance_is_called_a_difference_as_often_as_promised() -> None:
    """1,000 pairs of equal runs over 12 clips with five items: p is evenly spread over clips (but for ties: whole items often differ
    by as much, and p counts all of those), and over items it is not."""
    generator = np.random.default_rng(0)
    clip = [at // 5 for at in range(60)]
    figure = Figure("accuracy", (tuple(range(60)),))
    over_clips, over_items = np.array([null_p(figure, clip, generator) for _ in range(1000)]).T
    assert 0.03 <= (over_clips <= 0.05).mean() <= 0.065
    assert 0.4 <= (over_clips <= 0.5).mean() <= 0.53
    assert (over_items <= 0.05).mean() > 0.12


@pytest.mark.slow
def test_the_smallest_difference_is_found_four_times_in_five() -> None:
    """400 comparisons of 60 clips whose true difference is (t_0.975 + t_0.8) / sqrt(60) of their deviation of 1; half of that is found less
    than half as often."""
    generator = np.random.default_rng(0)
    figure = Figure("error", (tuple(range(60)),), unit="mm")
    least = smallest(1 / math.sqrt(60), 59)
    zeros = columns([0.0] * 60)

    def found(size: float) -> float:
        p = [paired(figure, zeros, columns((size + generator.normal(size=60)).tolist()), resamples=20).p for _ in range(400)]
        return float((np.array(p) < 0.05).mean())

    assert 0.75 <= found(least) <= 0.85
    assert found(least / 2) < 0.4
