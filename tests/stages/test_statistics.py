"""Intervals against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from omnistage.stages.measure.statistics import Z_95, changed, mean_over_runs, share


def test_share_of_half() -> None:
    """8 of 16: middle stays 0.5; half = 1.96 sqrt(.25/16 + 3.8415/1024) / (1 + 3.8415/16) = 1.96 x 0.13921 / 1.24009 = 0.2200."""
    estimate = share(8, 16)
    assert estimate.value == 0.5
    assert estimate.low == pytest.approx(0.5 - 0.2200, abs=1e-4)
    assert estimate.high == pytest.approx(0.5 + 0.2200, abs=1e-4)


def test_share_at_the_edges_stays_inside() -> None:
    """0 of n: low is 0 and high is z^2 / (n + z^2)."""
    low = share(0, 10)
    assert (low.value, low.low) == (0.0, 0.0)
    assert low.high == pytest.approx(Z_95**2 / (10 + Z_95**2))
    assert share(10, 10).high == 1.0


def test_a_changed_share() -> None:
    """2 of 4 gained, none lost: p12 = 3/6, p21 = 1/6, half = 1.96 sqrt((4/6 - (2/6)^2) / 6)."""
    gain, _ = changed(2, 0, 4)
    assert gain.value == 0.5
    half = 1.959964 * math.sqrt((4 / 6 - (2 / 6) ** 2) / 6)
    assert gain.low == pytest.approx(2 / 6 - half, rel=1e-5)
    assert gain.high == pytest.approx(2 / 6 + half, rel=1e-5)


def test_no_change_at_all_is_not_certain() -> None:
    none, error = changed(0, 0, 100)
    assert error > 0
    assert none.value == 0
    assert none.low == -none.high < -0.01


def test_a_changed_share_covers_the_truth() -> None:
    """3,000 draws of 100 items of which 40 % are gained and 10 % lost: about 95 % of the intervals hold 0.3."""
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(3000):
        change = generator.choice([1, -1, 0], size=100, p=[0.4, 0.1, 0.5])
        found, _ = changed(float((change > 0).sum()), float((change < 0).sum()), 100)
        held += found.low <= 0.3 <= found.high
    assert 0.93 <= held / 3000 <= 0.97


def test_mean_over_runs() -> None:
    """1, 2, 3: t(0.975, 2) = 4.3027, s = 1."""
    mean = mean_over_runs([1, 2, 3])
    assert mean.value == 2
    assert mean.high - 2 == pytest.approx(4.3027 / math.sqrt(3), abs=1e-3)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        share(0, 0)
    with pytest.raises(ValueError, match="1 runs"):
        mean_over_runs([1])
