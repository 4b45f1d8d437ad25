"""Simple senses for decoded clips: colours by distance, squares by place, sounds by level and spectrum. They know nothing of the renderer.

`frames` are uint8 RGB [F, H, W, 3]; `sound` is [N], mono at 16 kHz.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16_000
WINDOW = 160  # 10 ms
LOUD = 0.05
NAMED = {"red": (220, 35, 35), "green": (35, 185, 60), "blue": (45, 75, 230), "yellow": (235, 215, 40)}

Frames = NDArray[np.uint8]
Sound = NDArray[np.float32]
Mask = NDArray[np.bool_]


def colours(frame: Frames) -> set[str]:
    """The named colours that cover at least 40 pixels."""
    return {name for name in NAMED if _close(frame, NAMED[name]).sum() >= 40}


def quarters_filled(frame: Frames) -> int:
    """In how many quarters of the picture a coloured thing stands."""
    mask = _coloured(frame)
    middle = mask.shape[0] // 2
    parts = (mask[:middle, :middle], mask[:middle, middle:], mask[middle:, :middle], mask[middle:, middle:])
    return sum(int(part.sum()) >= 50 for part in parts)


def corner(frame: Frames) -> str:
    """The quarter of the picture that holds most of what is coloured."""
    y, x = np.argwhere(_coloured(frame)).mean(axis=0)
    return f"{'upper' if y < frame.shape[0] / 2 else 'lower'} {'left' if x < frame.shape[1] / 2 else 'right'}"


def lit_sides(frame: Frames) -> list[str]:
    """Which halves of the picture hold yellow."""
    mask = _close(frame, NAMED["yellow"])
    middle = mask.shape[1] // 2
    return [side for side, part in (("left", mask[:, :middle]), ("right", mask[:, middle:])) if part.sum() >= 100]


def motion(frames: Frames) -> str:
    """Where the white thing goes from the first to the last frame."""
    (y0, x0), (y1, x1) = (np.argwhere(_close(frame, (250, 250, 250))).mean(axis=0) for frame in (frames[0], frames[-1]))
    if abs(x1 - x0) > abs(y1 - y0):
        return "right" if x1 > x0 else "left"
    return "down" if y1 > y0 else "up"


def shape(frame: Frames) -> str:
    """By the box around the white thing: a flat box, an empty middle, empty corners that reach far, or nearly full."""
    mask = frame.min(axis=-1) > 200
    rows, columns = np.nonzero(mask)
    box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = box.shape
    if width > 2 * height:
        return "bar"
    if not box[height // 2, width // 2]:
        return "frame"
    return "disc" if box.mean() > 0.65 else "cross"


def bursts(sound: Sound) -> list[tuple[float, float]]:
    """(start, end) in seconds of each stretch that is loud without a pause of 50 ms."""
    loud = np.flatnonzero(_levels(sound) > LOUD)
    groups = np.split(loud, np.flatnonzero(np.diff(loud) > 5) + 1) if len(loud) else []
    return [(group[0] * WINDOW / RATE_HZ, (group[-1] + 1) * WINDOW / RATE_HZ) for group in groups]


def sweep(sound: Sound) -> str:
    """Whether the end of what is loud is higher than its beginning."""
    start_s, end_s = bursts(sound)[0][0], bursts(sound)[-1][1]
    return "rises" if pitch_hz(sound, end_s - 0.15, end_s - 0.02) > pitch_hz(sound, start_s + 0.02, start_s + 0.15) else "falls"


def tones(sound: Sound) -> set[str]:
    """The heights of the steady tones."""
    pitches = [pitch_hz(sound, start_s + 0.05, end_s - 0.05) for start_s, end_s in bursts(sound)]
    return {"low" if pitch < 500 else "middle" if pitch < 1500 else "high" for pitch in pitches}


def timbre(sound: Sound) -> str:
    """Many bursts are clicks; else the part of the power that lies below 700 Hz and above 4 kHz decides."""
    if len(bursts(sound)) >= 5:
        return "click"
    power = np.abs(np.fft.rfft(sound)) ** 2
    hz = np.fft.rfftfreq(len(sound), 1 / RATE_HZ)
    if power[hz > 4000].sum() > 0.7 * power.sum():
        return "hiss"
    return "buzz" if power[hz < 700].sum() > 0.5 * power.sum() else "bell"


def pitch_hz(sound: Sound, start_s: float, end_s: float) -> float:
    """The strongest frequency of a stretch."""
    part = sound[round(start_s * RATE_HZ) : round(end_s * RATE_HZ)]
    return float(np.fft.rfftfreq(len(part), 1 / RATE_HZ)[np.abs(np.fft.rfft(part * np.hanning(len(part)))).argmax()])


def _levels(sound: Sound) -> NDArray[np.float64]:
    whole = sound[: len(sound) // WINDOW * WINDOW].astype(np.float64)
    levels: NDArray[np.float64] = np.sqrt((whole.reshape(-1, WINDOW) ** 2).mean(axis=1))
    return levels


def _close(frame: Frames, colour: tuple[int, int, int]) -> Mask:
    mask: Mask = np.linalg.norm(frame.astype(float) - colour, axis=-1) < 60
    return mask


def _coloured(frame: Frames) -> Mask:
    mask: Mask = np.ptp(frame.astype(int), axis=-1) > 60
    return mask
