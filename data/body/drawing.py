"""Poses to look at: as a picture, as a page that turns them, and as JSON.

A pose is drawn by its joints' places [24, 3] in metres (`skeleton.joints_m`), without perspective. Left limbs are blue, right ones red,
the middle is grey: seen from the front, the body's left stands on the right of the picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from omnistage.data.body.metrics import MM
from omnistage.data.body.skeleton import Skeleton, joints_m, skeleton
from omnistage.data.errors import InputError
from omnistage.data.rotations import Floats, matrices_to_axis_angle

PAPER, INK = (250, 250, 248), (40, 40, 40)
COLOURS = {"L": (35, 105, 190), "R": (205, 65, 45), "": (120, 120, 120)}
SIDE = 320
LABEL_HEIGHT = 18
_MARGIN = 0.1
_LIMB, _JOINT = 5, 4
_PAGE = Path(__file__).with_name("viewer.html")


def draw(poses: Mapping[str, ArrayLike], azimuth_deg: float = 0.0) -> Image.Image:
    """Label -> joints [24, 3] in metres, side by side in one picture, all at one scale, each `SIDE` pixels wide with its label below.

    At azimuth 0 a body that faces z is seen from the front; with a growing azimuth the eye goes round to the body's left (90) and back.

    Raises:
        InputError: no pose, another shape, or numbers that are not finite.
    """
    seen = {label: _seen(joints, math.radians(azimuth_deg)) for label, joints in _checked(poses).items()}
    widest = max(float(np.ptp(place[:, :2], axis=0).max()) for place in seen.values())
    pixels_per_m = (1 - 2 * _MARGIN) * SIDE / max(widest, 1 / MM)
    picture = Image.new("RGB", (SIDE * len(seen), SIDE + LABEL_HEIGHT), PAPER)
    for column, (label, place) in enumerate(seen.items()):
        # Drawn apart, so that a long label ends with its column.
        tile = Image.new("RGB", (SIDE, SIDE + LABEL_HEIGHT), PAPER)
        pen = ImageDraw.Draw(tile)
        _limbs(pen, place, pixels_per_m)
        pen.text((4, SIDE + 2), label, fill=INK)
        picture.paste(tile, (SIDE * column, 0))
    return picture


def page(poses: Mapping[str, ArrayLike], title: str = "Poses") -> str:
    """Label -> joints [24, 3] in metres, as one HTML page that asks for no other file: a button for each pose, turning until it is dragged.

    Raises:
        InputError: as `draw`.
    """
    body = skeleton()
    shown = {
        "title": title,
        "parents": body.parents,
        "colours": ["rgb({},{},{})".format(*_colour(name)) for name in body.names],
        "names": body.names,
        "poses": [{"label": label, "joints_mm": _mm(joints)} for label, joints in _checked(poses).items()],
    }
    # In a script element, `<` may begin its end or a comment; in JSON, `<` only ever stands in a string.
    safe = json.dumps(shown).replace("<", "\\u003c")
    return _PAGE.read_text("utf-8").replace("POSES_AS_JSON", safe)


def pose_json(rotations: ArrayLike, body: Skeleton | None = None) -> dict[str, Any]:
    """One pose [24, 3, 3] as what JSON holds: names, parents, rotation matrices row by row, axis-angle in radians, joints in millimetres.

    Rotations are local; joint 0's is the orientation of the whole body. Raises `InputError` for another shape or numbers not finite.
    """
    body = body or skeleton()
    matrices = np.asarray(rotations, np.float64)
    if matrices.ndim != 3 or not np.isfinite(matrices).all():
        raise InputError(f"pose: got the shape {list(matrices.shape)}; allowed: {[len(body.names), 3, 3]}, finite numbers")
    return {
        "joints": list(body.names),
        "parents": list(body.parents),
        "rotation_matrices": matrices.round(6).tolist(),
        "axis_angle_rad": matrices_to_axis_angle(matrices).round(6).tolist(),
        "joints_mm": _mm(joints_m(matrices, body)),
    }


def _mm(joints: Floats) -> list[list[float]]:
    found: list[list[float]] = (MM * joints).round(1).tolist()
    return found


def _checked(poses: Mapping[str, ArrayLike]) -> dict[str, Floats]:
    if not poses:
        raise InputError("drawing: got no pose; allowed: one or more")
    allowed = [len(skeleton().names), 3]
    checked: dict[str, Floats] = {label: np.asarray(joints, np.float64) for label, joints in poses.items()}
    for label, joints in checked.items():
        if list(joints.shape) != allowed or not np.isfinite(joints).all():
            raise InputError(f"drawing: pose {label!r} has joints {list(joints.shape)}; allowed: {allowed}, finite numbers in metres")
    return checked


def _seen(joints: Floats, azimuth: float) -> Floats:
    """Places [24, 3] as the eye has them: to its right, up, towards it; the middle of what is seen at 0."""
    x, y, z = joints.T
    sine, cosine = math.sin(azimuth), math.cos(azimuth)
    place: Floats = np.stack([cosine * x - sine * z, y, sine * x + cosine * z], axis=-1)
    place -= (place.max(0) + place.min(0)) / 2
    return place


def _limbs(pen: ImageDraw.ImageDraw, place: Floats, pixels_per_m: float) -> None:
    """Lines from parent to child, the nearest to the eye last, and a dot at each joint."""
    body = skeleton()
    at = SIDE / 2 + pixels_per_m * place[:, :2] * (1, -1)
    near = [place[[joint, max(parent, 0)], 2].mean() for joint, parent in enumerate(body.parents)]
    for joint in np.argsort(near, kind="stable").tolist():
        (x, y), colour = at[joint], _colour(body.names[joint])
        if body.parents[joint] >= 0:
            pen.line([*at[body.parents[joint]], x, y], fill=colour, width=_LIMB)
        pen.ellipse([x - _JOINT, y - _JOINT, x + _JOINT, y + _JOINT], fill=colour)


def _colour(name: str) -> tuple[int, int, int]:
    return COLOURS[name[:1] if name[1:2] == "_" else ""]
