"""Draws a face that moves before a patterned wall: what a clip shows before anything spoils it.

Whatever the colours, the wall is bright and has an edge every few pixels: a small model can tell blur by what is left of the edges, and
noise and blackness by what is left of the brightness.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from omnistage.data.synth.picture import FRAMES, RGB, SIZE

# Drawn this much larger and then averaged, so that edges are smooth.
_FINER = 2
_WHITE, _DARK, _LIPS = (245, 245, 245), (15, 15, 20), (120, 15, 25)
_LIGHT_SKIN, _DARK_SKIN = np.array([250.0, 215.0, 180.0]), np.array([95.0, 60.0, 40.0])


def moving_face(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Frames [4, 56, 56, 3]: a talking head that drifts in one direction; colours, size, place, direction and wall are drawn from `rng`."""
    wall = _wall(rng)
    skin = _rgb(_LIGHT_SKIN + rng.random() * (_DARK_SKIN - _LIGHT_SKIN))
    hair, shirt = _rgb(rng.uniform(0, 140, 3)), _rgb(rng.uniform(40, 230, 3))
    size, middle = rng.uniform(13, 17), SIZE / 2 + rng.uniform(-3, 3, 2)
    way, phase = rng.uniform(0, 2 * np.pi, 2)
    step = rng.uniform(2.0, 3.5) * np.array([np.cos(way), np.sin(way)])
    frames = []
    for index in range(FRAMES):
        picture = wall.copy()
        at = middle + step * (index - (FRAMES - 1) / 2)
        _draw(ImageDraw.Draw(picture), _FINER * at, _FINER * size, skin, hair, shirt, 0.5 + 0.5 * np.sin(phase + 2.0 * index))
        frames.append(np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BOX)))
    return np.stack(frames)


def _wall(rng: np.random.Generator) -> Image.Image:
    """Upright stripes, level stripes or squares."""
    y, x = np.mgrid[0 : _FINER * SIZE, 0 : _FINER * SIZE] / _FINER
    tint, contrast, width = 170 + rng.uniform(-15, 15, 3), rng.uniform(90, 110), rng.uniform(3.5, 4.5)
    across, down = (x + rng.uniform(0, width)) // width, (y + rng.uniform(0, width)) // width
    light = (across, down, across + down)[rng.integers(3)] % 2
    return Image.fromarray((tint + contrast * (light[..., None] - 0.5)).clip(0, 255).astype(np.uint8))


def _draw(pen: ImageDraw.ImageDraw, at: NDArray[np.float64], size: float, skin: RGB, hair: RGB, shirt: RGB, opening: float) -> None:
    """`size` is that of half a head; `opening` of the mouth goes from 0 to 1."""

    def oval(x: float, y: float, half_width: float, half_height: float, colour: RGB) -> None:
        (left, top), (right, bottom) = at + size * np.array([[x - half_width, y - half_height], [x + half_width, y + half_height]])
        pen.ellipse([left, top, right, bottom], fill=colour)

    oval(0, 1.75, 1.3, 0.8, shirt)
    oval(0, -0.15, 0.92, 1.12, hair)
    oval(0, 0.05, 0.75, 1.0, skin)
    for side in (-0.32, 0.32):
        oval(side, -0.15, 0.17, 0.11, _WHITE)
        oval(side, -0.15, 0.08, 0.11, _DARK)
        oval(side, -0.38, 0.2, 0.05, _DARK)
    oval(0, 0.55, 0.36, 0.06 + 0.3 * opening, _LIPS)


def _rgb(colour: NDArray[np.float64]) -> RGB:
    red, green, blue = (int(part) for part in colour)
    return red, green, blue
