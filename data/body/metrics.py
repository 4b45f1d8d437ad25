"""How far two poses are apart, in millimetres. In degrees, joint by joint, see `data.rotations.geodesic_deg`.

MPJPE     mean distance of a joint from where it should be, both first joints moved to 0 (so the place in the room does not count)
PA-MPJPE  the same after the turn, the scale and the shift that fit the first to the second best (so the orientation and the size
          do not count either). Never a mirror image: left and right that are swapped stay wrong (Umeyama, PAMI 1991)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from omnistage.data.errors import InputError
from omnistage.data.rotations import Floats

MM = 1000.0


def mpjpe_mm(answered: ArrayLike, right: ArrayLike) -> Floats:
    """Joints [..., J, 3] in metres, twice -> the mean error [...] in millimetres, both first joints at 0.

    Raises:
        InputError: shapes that differ or are none of joints, no joint, or numbers that are not finite.
    """
    a, b = _pair(answered, right)
    return _mean_mm(a - a[..., :1, :], b - b[..., :1, :])


def pa_mpjpe_mm(answered: ArrayLike, right: ArrayLike) -> Floats:
    """Joints [..., J, 3] in metres, twice -> the mean error [...] in millimetres after the best turn, scale and shift of `answered`.

    Raises:
        InputError: as `mpjpe_mm`.
    """
    a, b = _pair(answered, right)
    a, b = a - a.mean(-2, keepdims=True), b - b.mean(-2, keepdims=True)
    left, sizes, kept = np.linalg.svd(np.swapaxes(b, -1, -2) @ a)
    # Where the best orthogonal matrix is a mirror, the axis of least weight is turned back.
    signs = np.ones_like(sizes)
    signs[..., -1] = np.where(np.linalg.det(left @ kept) < 0, -1.0, 1.0)
    turn = (left * signs[..., None, :]) @ kept
    spread = (a**2).sum((-2, -1))
    # Joints that all lie in one point have no size: they are left there.
    scale = (sizes * signs).sum(-1) / np.where(spread > 0, spread, 1.0)
    return _mean_mm(scale[..., None, None] * a @ np.swapaxes(turn, -1, -2), b)


def _mean_mm(a: Floats, b: Floats) -> Floats:
    mean: Floats = MM * np.linalg.norm(a - b, axis=-1).mean(-1)
    return mean


def _pair(answered: ArrayLike, right: ArrayLike) -> tuple[Floats, Floats]:
    a, b = np.asarray(answered, np.float64), np.asarray(right, np.float64)
    if a.shape != b.shape or a.ndim < 2 or a.shape[-1] != 3 or a.shape[-2] == 0:
        raise InputError(f"joints: got the shapes {list(a.shape)} and {list(b.shape)}; allowed: twice the same [..., joints, 3]")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("joints: got numbers that are not finite; allowed: finite numbers, in metres")
    return a, b
