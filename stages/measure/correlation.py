"""Correlations and errors of numbers that were made, [N], against the right ones, [N]."""

from __future__ import annotations

import numpy as np
from scipy import stats

from omnistage.stages.benchmarks.figures import Floats, Metric


def srcc(made: Floats, right: Floats) -> float:
    """Spearman's rank correlation (ties share their mean rank); 0 of a constant."""
    return _pearson(stats.rankdata(made), stats.rankdata(right))


def plcc(made: Floats, right: Floats) -> float:
    """Pearson's correlation; 0 of a constant. No logistic curve is fitted first."""
    return _pearson(made, right)


def krcc(made: Floats, right: Floats) -> float:
    """Kendall's tau-b; 0 of a constant."""
    return 0.0 if np.ptp(made) == 0 or np.ptp(right) == 0 else float(stats.kendalltau(made, right).statistic)


def rmse(made: Floats, right: Floats) -> float:
    return float(np.sqrt(np.square(made - right).mean()))


def mae(made: Floats, right: Floats) -> float:
    return float(np.abs(made - right).mean())


def _pearson(made: Floats, right: Floats) -> float:
    # Not scipy's: its checks and its p cost ten times as much, and a bootstrap asks thousands of times.
    if np.ptp(made) == 0 or np.ptp(right) == 0:
        return 0.0
    a, b = made - made.mean(), right - right.mean()
    # Scaled first, so that squares of very small or very large numbers stay what they are.
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


NUMBER_METRICS: dict[str, Metric] = {"srcc": srcc, "plcc": plcc, "krcc": krcc, "rmse": rmse, "mae": mae}
