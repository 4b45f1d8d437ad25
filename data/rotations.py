"""Rotations as axis-angle vectors, as 3 x 3 matrices and as six numbers, whose layout is always named.

Six numbers are two of the three columns (or rows) of a matrix; published code lays them out in three ways that look alike:

| layout | the six numbers of a matrix R | turn by 90 degrees about z |
|---|---|---|
| `columns` | column 1, then column 2 (ChatPose) | 0 1 0 -1 0 0 |
| `interleaved` | columns 1 and 2, row by row (HMR, SPIN) | 0 -1 1 0 0 0 |
| `rows` | row 1, then row 2 (PyTorch3D) | 0 -1 0 1 0 0 |
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omnistage.data.errors import InputError, unknown_name

LAYOUTS = ("columns", "interleaved", "rows")
# Below this sine of the angle between two vectors, rounding decides which plane they span.
_MIN_SINE = 1e-8

Floats = NDArray[np.floating[Any]]


def axis_angle_to_matrices(vectors: ArrayLike) -> Floats:
    """Axis-angle [..., 3] in radians -> matrices [..., 3, 3] (Rodrigues), exact at 0 and at pi alike; `InputError` for another shape."""
    v = _floats(vectors, (3,))
    angle = np.linalg.norm(v, axis=-1)[..., None, None]
    cross = np.zeros((*v.shape, 3), v.dtype)
    x, y, z = np.moveaxis(v, -1, 0)
    cross[..., 0, 1], cross[..., 0, 2], cross[..., 1, 2] = -z, y, -x
    cross[..., 1, 0], cross[..., 2, 0], cross[..., 2, 1] = z, -y, x
    # sin(a) / a and (1 - cos(a)) / a^2, without a division by a.
    first, second = np.sinc(angle / np.pi), 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    matrices: Floats = np.eye(3, dtype=v.dtype) + first * cross + second * (cross @ cross)
    return matrices


def matrices_to_six(matrices: ArrayLike, layout: str) -> Floats:
    """Matrices [..., 3, 3] -> six numbers [..., 6] in a layout of `LAYOUTS`; `InputError` for another layout or shape."""
    m = _floats(matrices, (3, 3))
    match _known(layout):
        case "columns":
            kept = np.swapaxes(m[..., :2], -1, -2)
        case "interleaved":
            kept = m[..., :2]
        case _:
            kept = m[..., :2, :]
    return kept.reshape(*m.shape[:-2], 6)


def six_to_matrices(numbers: ArrayLike, layout: str) -> Floats:
    """Six numbers [..., 6] in a layout of `LAYOUTS` -> rotation matrices [..., 3, 3], by Gram-Schmidt: any numbers of a model will do.

    Raises:
        InputError: another layout or shape, or two vectors that span no plane (zero, parallel or not finite).
    """
    n = _floats(numbers, (6,))
    shape = (3, 2) if _known(layout) == "interleaved" else (2, 3)
    pairs = n.reshape(*n.shape[:-1], *shape)
    pairs = np.swapaxes(pairs, -1, -2) if layout == "interleaved" else pairs
    first = _unit(pairs[..., 0, :])
    # Made unit first, so that only the angle between the two decides whether they span a plane.
    second = _unit(pairs[..., 1, :])
    second = second - (first * second).sum(-1, keepdims=True) * first
    if (np.linalg.norm(second, axis=-1) < max(_MIN_SINE, 10 * float(np.finfo(n.dtype).eps))).any():
        raise InputError("6D rotation: its two vectors are parallel; allowed: two vectors that span a plane")
    second = _unit(second)
    stacked = np.stack([first, second, np.cross(first, second)], axis=-2)
    return stacked if layout == "rows" else np.swapaxes(stacked, -1, -2)


def matrices_to_axis_angle(matrices: ArrayLike) -> Floats:
    """Matrices [..., 3, 3] -> axis-angle [..., 3] in radians, at most pi long; `InputError` for another shape."""
    from scipy.spatial.transform import Rotation

    m = _floats(matrices, (3, 3))
    vectors: Floats = Rotation.from_matrix(m.reshape(-1, 3, 3)).as_rotvec().reshape(m.shape[:-1])
    return vectors


def geodesic_deg(first: ArrayLike, second: ArrayLike) -> Floats:
    """Rotations [..., 3, 3], twice -> the angle [...] in degrees of the one turn that takes the one to the other."""
    # The distance of two rotations as matrices is 2 sqrt(2) times the sine of half the angle: exact for small angles, unlike the trace.
    distances = np.linalg.norm(_floats(first, (3, 3)) - _floats(second, (3, 3)), axis=(-2, -1))
    angles: Floats = np.degrees(2 * np.arcsin(np.minimum(1, distances / math.sqrt(8))))
    return angles


def without_yaw(matrices: ArrayLike) -> Floats:
    """Matrices [..., 3, 3] with the last turn about z undone: of R = Rz Ry Rx what is left is Ry Rx. z is up in AMASS."""
    m = _floats(matrices, (3, 3))
    turn = np.zeros((*m.shape[:-2], 3), m.dtype)
    turn[..., 2] = -np.arctan2(m[..., 1, 0], m[..., 0, 0])
    return axis_angle_to_matrices(turn) @ m


def _unit(vectors: Floats) -> Floats:
    # Divided by the largest number first: squares of very small or large ones would vanish or overflow.
    largest = np.abs(vectors).max(-1, keepdims=True, initial=0)
    if not (np.isfinite(largest) & (largest > 0)).all():
        raise InputError("6D rotation: one of its vectors is zero or not finite; allowed: two vectors that span a plane")
    scaled = vectors / largest
    unit: Floats = scaled / np.linalg.norm(scaled, axis=-1, keepdims=True)
    return unit


def _known(layout: str) -> str:
    if layout not in LAYOUTS:
        raise InputError(unknown_name("6D layout", layout, LAYOUTS))
    return layout


def _floats(values: ArrayLike, last: tuple[int, ...]) -> Floats:
    """The values as floats: float32 stays, anything else is float64."""
    array = np.asarray(values)
    array = array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)
    if array.shape[-len(last) :] != last:
        raise InputError(f"rotations: got the shape {list(array.shape)}; allowed: [..., {', '.join(map(str, last))}]")
    return array
