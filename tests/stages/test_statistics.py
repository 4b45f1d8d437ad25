"""Intervals against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from omnistage.stages.statistics import Z_95, paired_difference, share


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


def test_paired_difference() -> None:
    """Differences 1, 0, 0, 1: mean 0.5, s^2 = 1/3, half = 1.96 sqrt(1/12)."""
    gain = paired_difference([0, 0, 1, 0], [1, 0, 1, 1])
    assert gain.value == 0.5
    assert gain.high - gain.value == pytest.approx(1.959964 * math.sqrt(1 / 12), rel=1e-6)
    assert gain.value - gain.low == pytest.approx(gain.high - gain.value)


def test_nothing_to_compare_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        share(0, 0)
    with pytest.raises(ValueError, match="3 and 2"):
        paired_difference([1, 0, 1], [1, 0])
