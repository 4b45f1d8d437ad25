"""Draws a figure in a pose: limbs as thick lines before a grey wall, seen by a camera in front of it.

The body's left limbs are blue (upper arm and thigh) and turquoise, the right ones red and yellow, so left and right, and a thigh and the
shin behind it, can be told apart. What is nearer is drawn larger and in front. The wall is as grey as the mean of a tower's inputs: it
says next to nothing, and a small model sees the figure alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from omnistage.data.body.skeleton import joints_m, skeleton
from omnistage.data.rotations import Floats, axis_angle_to_matrices
from omnistage.data.synth.picture import SIZE

DISTANCE_M = 2.2
# Drawn this much larger and then averaged, so that edges are smooth.
_FINER = 3
_HEAD_M, _SKIN = 0.26, np.array([235.0, 190.0, 150.0])
_WIDTHS_M = {"Knee": 0.16, "Ankle": 0.13, "Elbow": 0.12, "Wrist": 0.1, "Hand": 0.1, "Foot": 0.1}
_TRUNK_M, _OTHER_M = 0.26, 0.14
_UPPER, _LOWER = ("Elbow", "Knee"), ("Wrist", "Hand", "Ankle", "Foot")
_TONES = {
    "L": (np.array([25.0, 75.0, 205.0]), np.array([80.0, 170.0, 235.0])),
    "R": (np.array([220.0, 65.0, 25.0]), np.array([240.0, 165.0, 60.0])),
}


def figure(rng: np.random.Generator, axis_angles: Floats) -> Image.Image:
    """A picture of 56 x 56 pixels of a pose [24, 3] in the frame of the camera (x to the right, y down, z away from it).

    Size, place, and the colours of clothes, limbs and wall are drawn from `rng`.
    """
    joints = joints_m(axis_angle_to_matrices(axis_angles))
    side = _FINER * SIZE
    pixels = rng.uniform(0.92, 1.08) * side
    depth = DISTANCE_M + joints[:, 2]
    at = side * (np.array([0.5, 0.47]) + rng.uniform(-0.03, 0.03, 2)) + pixels * joints[:, :2] / depth[:, None]
    wall = rng.uniform(105, 140) + rng.uniform(-12, 12, 3)
    clothes = rng.uniform(20, 110, 3)
    limbs = {letter: [tone + rng.uniform(-20, 20, 3) for tone in tones] for letter, tones in _TONES.items()}
    picture = Image.new("RGB", (side, side), _rgb(wall))
    pen = ImageDraw.Draw(picture)
    body = skeleton()
    head = body.names.index("Head")
    near = [(depth[joint] + depth[max(parent, 0)]) / 2 for joint, parent in enumerate(body.parents)]
    for joint in np.argsort(near, kind="stable")[::-1].tolist():
        parent = body.parents[joint]
        if parent >= 0:
            width_m, colour = _limb(body.names[joint], limbs, clothes)
            _line(pen, at[parent], at[joint], pixels * width_m / near[joint], colour)
        if joint == head:
            _line(pen, at[head], at[head], pixels * _HEAD_M / depth[head], _SKIN)
    return picture.resize((SIZE, SIZE), Image.Resampling.BOX)


def _limb(name: str, limbs: dict[str, list[NDArray[np.float64]]], clothes: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Width in metres and colour of what leads to a joint."""
    side, _, joint = name.rpartition("_")
    if joint in _UPPER:
        return _WIDTHS_M[joint], limbs[side][0]
    if joint in _LOWER:
        return _WIDTHS_M[joint], limbs[side][1]
    return (_TRUNK_M if joint.startswith("Spine") else _OTHER_M), clothes


def _line(
    pen: ImageDraw.ImageDraw, start: NDArray[np.float64], end: NDArray[np.float64], width: float, colour: NDArray[np.float64]
) -> None:
    """A line with round ends; one without length is a disc."""
    fill = _rgb(colour)
    pen.line([*start, *end], fill=fill, width=max(1, round(width)))
    for x, y in (start, end):
        pen.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=fill)


def _rgb(colour: NDArray[np.float64]) -> tuple[int, int, int]:
    red, green, blue = (int(part) for part in colour.clip(0, 255))
    return red, green, blue
