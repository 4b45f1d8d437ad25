"""The curve that scores of quality are put through before they are compared with opinions, as VQEG does (Final report, phase I, 2000).

Opinions crowd at the ends of their scale, so that even a good predictor bends against them. A logistic curve of four numbers is fitted to
the predictions before Pearson's correlation and the error are taken:

    f(x) = low + (high - low) / (1 + exp(-(x - middle) / width))

It is fitted to the very opinions that it is then compared with, so a fitted figure says more than the plain one, and never stands for it.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares

from omnistage.stages.benchmarks.figures import Floats

# Four numbers go through four points, whatever these are.
LEAST = 5
MOST_STEPS = 50


def fitted(made: Floats, right: Floats) -> Floats | None:
    """Predictions [N] put through the rising curve that brings them nearest to `right` [N], in its unit, by least squares.

    Where a falling curve fits best, and of a constant, it is flat at the mean of `right`: a predictor that is upside down must not look
    right. None: no curve was found within `MOST_STEPS` steps, or there are fewer than `LEAST` numbers.
    """
    if len(made) < LEAST:
        return None
    flat = np.full(len(right), right.mean())
    if np.ptp(made) == 0 or np.ptp(right) == 0:
        return flat
    x, y = (made - made.mean()) / made.std(), (right - right.mean()) / right.std()

    # The same curve, written so that no exponential overflows: middle, half height, steepness, place.
    def off(p: Floats) -> Floats:
        away: Floats = p[0] + p[1] * np.tanh(p[2] * (x - p[3])) - y
        return away

    def slopes(p: Floats) -> Floats:
        bent = np.tanh(p[2] * (x - p[3]))
        steep = p[1] * (1 - bent**2)
        return np.stack([np.ones_like(x), bent, steep * (x - p[3]), -steep * p[2]], axis=1)

    found = least_squares(off, (0.0, float(np.ptp(y)) / 2, 0.5, 0.0), slopes, method="lm", ftol=1e-5, max_nfev=MOST_STEPS)
    # Through points on a straight line the best curve is endlessly wide: steps do not end, and what they have reached serves.
    line = (1 - np.mean(x * y) ** 2) * len(x) / 2
    if not np.isfinite(found.x).all() or not (found.success or found.cost <= line * (1 + 1e-3) + 1e-5 * len(x)):
        return None
    if found.x[1] * found.x[2] < 0:
        return flat
    curve: Floats = right.mean() + right.std() * (off(found.x) + y)
    return curve
