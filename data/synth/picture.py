"""Draws the pictures of a clip: plain bright things on a grey, slightly noisy background.

Every function returns `frames_FHWC`, uint8 RGB [4, 56, 56, 3], one frame each half second, so frames 0 and 1 are the first second.
The background grows brighter towards the lower right: brightness says where a patch lies, which helps a model of a few hundred
thousand weights to learn place and motion. What a class does not fix (place, colour of a counted square, noise) is drawn from `rng`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FPS = 2
FRAMES = 4
SIZE = 56

Frames = NDArray[np.uint8]
Mask = NDArray[np.bool_]
RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {"red": (220, 35, 35), "green": (35, 185, 60), "blue": (45, 75, 230), "yellow": (235, 215, 40)}
WHITE: RGB = (250, 250, 250)
DARK: RGB = (15, 15, 15)
# Steps in x (to the right) and y (downwards).
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
# Middles of the four quarters (x, y), clockwise.
CORNERS: dict[str, tuple[int, int]] = {"upper left": (14, 14), "upper right": (42, 14), "lower right": (42, 42), "lower left": (14, 42)}
TRAVEL = 16

_MIDDLE = SIZE / 2
_Y, _X = np.mgrid[0:SIZE, 0:SIZE]


def moving_square(rng: np.random.Generator, direction: str) -> Frames:
    """A white square that crosses most of the picture."""
    return _crossing(rng, direction, WHITE)


def coloured_moving_square(rng: np.random.Generator, colour: str) -> Frames:
    """A square of one colour that moves in any direction."""
    return _crossing(rng, str(rng.choice(list(DIRECTIONS))), COLOURS[colour])


def coloured_square(rng: np.random.Generator, colour: str) -> Frames:
    """A still square of one colour, anywhere near the middle."""
    return changing_square(rng, colour, colour, colour, colour)


def changing_square(rng: np.random.Generator, *colours: str) -> Frames:
    """A large still square that has another of the four `colours` in each half second."""
    place = _square(*(_MIDDLE + rng.uniform(-8, 8, 2)), half=14)
    frames = _background(rng)
    for frame, colour in zip(frames, colours, strict=True):
        frame[place] = COLOURS[colour]
    return _finished(frames)


def square_in_corner(rng: np.random.Generator, corner: str) -> Frames:
    """A still square of any colour in a quarter of the picture."""
    colour = COLOURS[str(rng.choice(list(COLOURS)))]
    frames = _background(rng)
    frames[:, _square(*(np.array(CORNERS[corner]) + rng.uniform(-4, 4, 2)), half=9)] = colour
    return _finished(frames)


def counted_squares(rng: np.random.Generator, count: int) -> Frames:
    """Up to 4 squares of one colour, each in a quarter of its own."""
    colour = COLOURS[str(rng.choice(list(COLOURS)))]
    return _in_quarters(rng, [colour] * count, half=7)


def coloured_squares(rng: np.random.Generator, *colours: str) -> Frames:
    """One square of each colour, each in a quarter of its own."""
    return _in_quarters(rng, [COLOURS[colour] for colour in colours], half=9)


def shape(rng: np.random.Generator, name: str) -> Frames:
    """A white disc, bar, cross or frame of 30 pixels."""
    x, y = _MIDDLE + rng.uniform(-3, 3, 2)
    masks = {
        "disc": (_X - x) ** 2 + (_Y - y) ** 2 <= 15**2,
        "bar": _rectangle(x, y, 15, 5),
        "cross": _rectangle(x, y, 15, 4) | _rectangle(x, y, 4, 15),
        "frame": _square(x, y, half=15) & ~_square(x, y, half=9),
    }
    frames = _background(rng)
    frames[:, masks[name]] = WHITE
    return _finished(frames)


def lamps(rng: np.random.Generator, left: str, right: str) -> Frames:
    """Two round lamps side by side, each "lit" (yellow) or "dark"."""
    frames = _background(rng)
    for (x, y), state in zip(((14, _MIDDLE), (42, _MIDDLE)), (left, right), strict=True):
        dx, dy = rng.uniform(-2, 2, 2)
        frames[:, (_X - x - dx) ** 2 + (_Y - y - dy) ** 2 <= 11**2] = COLOURS["yellow"] if state == "lit" else DARK
    return _finished(frames)


def _crossing(rng: np.random.Generator, direction: str, colour: RGB) -> Frames:
    step = np.array(DIRECTIONS[direction])
    # Free across the motion; along it only so far that the square stays inside the picture.
    centre = _MIDDLE + np.where(step == 0, rng.uniform(-5, 5, 2), rng.uniform(-3, 3, 2))
    frames = _background(rng)
    for frame, way in zip(frames, np.linspace(-TRAVEL, TRAVEL, FRAMES), strict=True):
        frame[_square(*(centre + step * way), half=9)] = colour
    return _finished(frames)


def _in_quarters(rng: np.random.Generator, colours: list[RGB], half: int) -> Frames:
    frames = _background(rng)
    middles = np.array(list(CORNERS.values()))
    for quarter, colour in zip(rng.permutation(len(middles)), colours, strict=False):
        frames[:, _square(*(middles[quarter] + rng.uniform(-4, 4, 2)), half=half)] = colour
    return _finished(frames)


def _background(rng: np.random.Generator) -> NDArray[np.float64]:
    slope = 60 + 45 * (_X + _Y) / (SIZE - 1)
    grey = slope[None, :, :, None] + rng.normal(0, 3, (FRAMES, SIZE, SIZE, 1))
    return np.repeat(grey, 3, axis=3)


def _finished(frames: NDArray[np.float64]) -> Frames:
    return frames.clip(0, 255).astype(np.uint8)


def _rectangle(x: float, y: float, half_width: float, half_height: float) -> Mask:
    inside: Mask = (abs(_X - x) <= half_width) & (abs(_Y - y) <= half_height)
    return inside


def _square(x: float, y: float, *, half: float) -> Mask:
    return _rectangle(x, y, half, half)
