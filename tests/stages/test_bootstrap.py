"""Figures and their intervals: numbers worked out by hand, and how often the truth lies inside."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from omnistage.stages.benchmarks.figures import Columns, Figure
from omnistage.stages.measure import bootstrap
from omnistage.stages.measure.bootstrap import interval, strata_of, value_of
from omnistage.stages.measure.correlation import NUMBER_METRICS, plcc, srcc
from omnistage.stages.measure.statistics import Z_95
from repository import ROOT

NAN = math.nan


@pytest.fixture(autouse=True)
def benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def columns(value: Sequence[float], clip: Sequence[int] | None = None, **numbers: Sequence[float]) -> Columns:
    """Scores of items that have a clip each where no other is given."""
    clips = np.arange(len(value)) if clip is None else np.array(clip)
    return Columns(np.array(value, dtype=float), ~np.isnan(value), clips, {name: np.array(each, float) for name, each in numbers.items()})


def mean(n: int, **changes: object) -> Figure:
    return Figure("accuracy", (tuple(range(n)),), **changes)  # type: ignore[arg-type]


def means(figure: Figure, given: Columns) -> bootstrap.Means:
    sample = bootstrap.sample_of(figure, given)
    assert isinstance(sample, bootstrap.Means)
    return sample


def test_a_figure_is_the_mean_of_its_groups_means() -> None:
    """Tasks of 3 and 1 items: (2/3 + 0) / 2, and not 2/4. What is nan is left out, and a task of nothing else, too."""
    tasks = Figure("average", ((0, 1, 2), (3,), (4, 5)))
    assert value_of(tasks, columns([1, 1, 0, 0, NAN, NAN])) == pytest.approx(1 / 3)
    assert value_of(tasks, columns([1, NAN, 0, 0, NAN, 1])) == pytest.approx((0.5 + 0 + 1) / 3)
    assert value_of(mean(4), columns([1, 1, 0, 0])) == 0.5
    assert math.isnan(value_of(mean(2), columns([NAN, NAN])))
    assert all(map(math.isnan, interval(mean(2), columns([NAN, NAN]))))


def test_a_figure_may_be_of_another_column_or_a_metric_of_two() -> None:
    given = columns([0, 0, 0, NAN], made=[1, 2, 4, 9], right=[2, 4, 8, NAN], seconds=[1, 2, NAN, 6])
    assert value_of(mean(4, column="valid"), given) == 0.75
    assert value_of(mean(4, column="seconds"), given) == 3
    # The fourth has no right number: the others lie on a line.
    assert value_of(mean(4, metric=plcc), given) == pytest.approx(1)
    assert value_of(mean(4, metric=NUMBER_METRICS["mae"]), given) == pytest.approx((1 + 2 + 4) / 3)


def test_the_standard_error_over_clips() -> None:
    """1 1 1 0: s = 0.5, of four clips 0.5 / 2. Each item twice in its clip says no more; as items of their own they would be s = 0.463,
    / sqrt 8. The mean of two such tasks: sqrt(0.25^2 + 0.25^2) / 2."""
    values = [1.0, 1.0, 1.0, 0.0]
    twice = np.repeat(values, 2).tolist()
    assert bootstrap.jackknife(means(mean(4), columns(values)))[:2] == pytest.approx((0.25, 3))
    assert bootstrap.jackknife(means(mean(8), columns(twice, [0, 0, 1, 1, 2, 2, 3, 3])))[:2] == pytest.approx((0.25, 3))
    assert bootstrap.jackknife(means(mean(8), columns(twice)))[:2] == pytest.approx((math.sqrt(1.5 / 7 / 8), 7))
    tasks = Figure("average", (tuple(range(4)), tuple(range(4, 8))))
    assert bootstrap.jackknife(means(tasks, columns(values + values)))[:2] == pytest.approx((math.sqrt(2) * 0.25 / 2, 6))
    # Without each of a metric's clips, too: the mean error is a mean.
    error = mean(4, metric=NUMBER_METRICS["mae"])
    found = bootstrap.sample_of(error, columns(values, made=values, right=[0, 0, 0, 0]))
    assert found is not None
    assert bootstrap.jackknife(found)[:2] == pytest.approx((0.25, 3))


def test_draws_have_the_variance_of_the_mean() -> None:
    """3 of the 4 clips 1 1 1 0, drawn 20,000 times: variance 0.1875 / 3 = 0.25^2, where 4 of 4 would make 0.1875 / 4."""
    sample = means(mean(4), columns([1, 1, 1, 0]))
    drawn = np.concatenate([sample.at(weights) for weights in bootstrap.draws(sample.strata, 20_000, 0)])
    assert len(drawn) == 20_000
    assert drawn.mean() == pytest.approx(0.75, abs=0.006)
    assert drawn.std() == pytest.approx(0.25, rel=0.02)


def test_every_draw_holds_every_task() -> None:
    """Tasks of 40 and of 2 clips: of the small one a clip is drawn each time. A clip with questions of both is with the small task's."""
    both = np.array([[True, False]] * 40 + [[True, True], [False, True]])
    assert strata_of(both).tolist() == [0] * 40 + [1, 1]
    for weights in bootstrap.draws(strata_of(both), 200, 0):
        assert (weights[:, 40:].sum(1) == 1).all()
        assert (weights[:, :40].sum(1) == 39).all()
    # The third would be alone: it joins the clips of its task, those of the first stratum.
    assert strata_of(np.array([[True, False], [True, True], [False, True]])).tolist() == [0, 0, 0]
    # The only clip of its task stays alone.
    assert strata_of(np.array([[True, False], [True, False], [False, True]])).tolist() == [0, 0, 1]


def test_a_draw_without_a_task_keeps_its_mean() -> None:
    """Clip 0 has 1 of task A; clip 1 has 0 of A and 1 of B, clip 2 has 0 of B. Without clips 1 and 2: A 1, and B's own 0.5."""
    sample = means(Figure("average", ((0, 1), (2, 3))), columns([1, 0, 1, 0], [0, 1, 1, 2]))
    assert sample.at(np.array([[2, 0, 0], [1, 1, 1]])).tolist() == [0.75, 0.5]


def test_all_right_is_not_certain() -> None:
    """Wilson's bound n / (n + z^2) of the effective number of clips: 30 of 30; 6 of 6 with five items each; sizes 1, 1 and 4 are
    (1 + 1 + 4)^2 / (1 + 1 + 16) = 2. Two tasks of 10 and 30 clips: weights 1/20 and 1/60, 1 / (10 / 400 + 30 / 3600) = 30."""
    assert interval(mean(30), columns([1] * 30)) == pytest.approx((1, 30 / (30 + Z_95**2), 1), abs=0)
    assert interval(mean(30), columns([0] * 30)).high == pytest.approx(Z_95**2 / (30 + Z_95**2))
    assert interval(mean(30), columns([1] * 30, [at // 5 for at in range(30)])).low == pytest.approx(6 / (6 + Z_95**2))
    assert interval(mean(6), columns([1] * 6, [0, 1, 2, 2, 2, 2])).low == pytest.approx(2 / (2 + Z_95**2))
    tasks = Figure("average", (tuple(range(10)), tuple(range(10, 40))))
    assert interval(tasks, columns([1] * 40)).low == pytest.approx(30 / (30 + Z_95**2))
    # Few of them wrong, or all of one clip: a bootstrap would hardly see them.
    few = interval(mean(30), columns([1] * 28 + [0, 0]))
    assert (few.low, few.high) == pytest.approx((0.7868, 0.9815), abs=1e-4)
    alone = interval(mean(20), columns([1, 0] * 10, [0] * 20))
    assert alone.low < 0.1
    assert alone.high > 0.9


def test_a_unit_without_bounds_has_no_such_remedy() -> None:
    assert interval(mean(3, unit="mm"), columns([2, 2, 2])) == (2, 2, 2)
    one = interval(mean(3, unit="mm"), columns([1, 2, 3], [0, 0, 0]))
    assert (one.value, math.isnan(one.low), math.isnan(one.high)) == (2, True, True)
    one = interval(mean(3, metric=srcc), columns([1, 2, 3], [0, 0, 0], made=[1, 2, 3], right=[3, 2, 1]))
    assert (one.value, math.isnan(one.low), math.isnan(one.high)) == (-1, True, True)


def test_a_share_outside_0_and_1_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'accuracy' is a share, and its values go from 0 to 1\.5"):
        interval(mean(3), columns([0, 1.5, 1]))


def test_intervals_stay_inside_and_repeat_by_seed() -> None:
    generator = np.random.default_rng(0)
    for chance in (0.1, 0.9):
        given = columns((generator.random(60) < chance).tolist(), (np.arange(60) // 5).tolist())
        found = interval(mean(60), given, seed=3)
        assert 0 <= found.low < found.value < found.high <= 1
        assert interval(mean(60), given, seed=3) == found
        assert interval(mean(60), given, seed=4) != found
    # An exact line has a correlation of 1, however it is drawn.
    line = np.arange(8.0)
    assert interval(mean(8, metric=srcc), columns(line.tolist(), made=line.tolist(), right=line.tolist())) == (1, 1, 1)


def test_skewed_errors_have_the_bounds_of_bca() -> None:
    """scipy's BCa of 300 clips is [1.721, 2.603], its percentile interval [1.666, 2.495]; of so many clips only noise is between ours and
    that."""
    errors = np.random.default_rng(0).lognormal(sigma=1.2, size=300)
    found = interval(mean(300, unit="mm"), columns(errors.tolist()), resamples=20_000)
    oracle = stats.bootstrap((errors,), np.mean, n_resamples=20_000, rng=np.random.default_rng(0), batch=500).confidence_interval
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=0.025)


def test_copies_of_items_say_nothing_new() -> None:
    """Each item of twelve clips twenty times: the very same interval, of a mean and of a metric."""
    generator = np.random.default_rng(1)
    made, right = generator.normal(size=12), generator.normal(size=12)
    value = (generator.random(12) < 0.5).astype(float)
    for figure in (mean(12), mean(12, metric=srcc)):
        once = interval(figure, columns(value.tolist(), made=made.tolist(), right=right.tolist()), resamples=300)
        twenty = {name: each.repeat(20).tolist() for name, each in (("value", value), ("made", made), ("right", right))}
        copied = Figure(figure.name, (tuple(range(240)),), metric=figure.metric)
        assert interval(copied, columns(clip=np.repeat(np.arange(12), 20).tolist(), **twenty), resamples=300) == pytest.approx(once)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one task, accuracy 0.5", "mean of 5 tasks"])
def test_intervals_over_clips_hold_the_truth_and_those_over_items_do_not(name: str) -> None:
    """2,000 simulated benchmarks; the share itself is known to half a percentage point."""
    from intervals import SETTINGS, coverage

    found = coverage(SETTINGS[name], 2000, resamples=600)
    assert 0.93 <= found["clips"] <= 0.97
    assert found["items"] < 0.85


def test_without_clusters_both_ways_are_the_same() -> None:
    from intervals import SETTINGS, coverage

    found = coverage(SETTINGS["one item a clip"], 300, resamples=300)
    assert (found["clips"], found["clips_width"]) == (found["items"], found["items_width"])
    assert found["clips"] >= 0.92


def test_intervals_of_a_correlation_hold_the_truth() -> None:
    """200 draws of 40 clips with three items each, made and right correlated by 0.6 between clips and within: so by 0.6 in all."""
    generator = np.random.default_rng(0)
    clip = np.repeat(np.arange(40), 3)
    mix = np.linalg.cholesky([[1, 0.6], [0.6, 1]])
    held = 0
    for seed in range(200):
        made, right = mix @ (generator.normal(size=(2, 40))[:, clip] + generator.normal(size=(2, 120)))
        given = columns(made.tolist(), clip.tolist(), made=made.tolist(), right=right.tolist())
        found = interval(mean(120, metric=plcc), given, seed=seed, resamples=300)
        held += found.low <= 0.6 <= found.high
    assert 0.91 <= held / 200 <= 0.985


def test_the_table_of_coverages_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/intervals.py", "--simulations", "2", "--resamples", "50"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 15


def test_correlations_of_hard_numbers() -> None:
    """Ties share their rank (1 2.5 2.5 4 against 1 2 3 4: 4.5 / sqrt(4.5 x 5)), and neither size nor a constant breaks them."""
    right = np.arange(1.0, 5)
    assert srcc(np.array([1.0, 2, 2, 4]), right) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert plcc(1e-200 * right, 1e200 * right) == pytest.approx(1)
    assert plcc(-right, right) == -1
    assert [NUMBER_METRICS[name](np.full(4, 3.0), right) for name in ("srcc", "plcc", "krcc")] == [0, 0, 0]


def test_nothing_here_loads_torch() -> None:
    source = "import sys, omnistage.stages.benchmarks.compare, omnistage.stages.measure.correlation; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
