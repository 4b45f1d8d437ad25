"""A contact sheet: a clip's frames in order with their times, and under them the wave of its sound, as one picture."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from omnistage.data.media import SOUND_RATE_HZ, Clip

WIDTH = 960
COLUMNS = 8
WAVE_HEIGHT = 96
LABEL_HEIGHT = 14
PAPER, INK, WAVE = (250, 250, 248), (40, 40, 40), (40, 90, 160)


def draw(clip: Clip, most_frames: int = 32) -> Image.Image:
    """The sheet of one decoded clip, `WIDTH` pixels wide; of more than `most_frames` frames evenly spread ones are shown.

    Raises:
        ValueError: the clip has neither frames nor sound.
    """
    parts = []
    if clip.frames is not None:
        parts.append(_frames(clip.frames, clip.fps, most_frames))
    if clip.sound is not None:
        parts.append(_wave(clip.sound))
    if not parts:
        raise ValueError("a clip without frames and without sound has no sheet")
    sheet = Image.new("RGB", (WIDTH, sum(part.height for part in parts)), PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _frames(frames: NDArray[np.uint8], fps: float | None, most: int) -> Image.Image:
    count = min(len(frames), most)
    chosen = np.linspace(0, len(frames) - 1, count).round().astype(int).tolist()
    columns = min(COLUMNS, count)
    width = WIDTH // columns
    height = max(1, round(width * frames.shape[1] / frames.shape[2]))
    rows = math.ceil(count / columns)
    part = Image.new("RGB", (WIDTH, rows * (height + LABEL_HEIGHT)), PAPER)
    pen = ImageDraw.Draw(part)
    for place, index in enumerate(chosen):
        left, top = place % columns * width, place // columns * (height + LABEL_HEIGHT)
        part.paste(Image.fromarray(frames[index]).resize((width - 2, height)), (left, top))
        label = f"{index}" if fps is None else f"{index}: {index / fps:.2f} s"
        pen.text((left + 2, top + height + 1), label, fill=INK)
    return part


def _wave(sound: NDArray[np.float32]) -> Image.Image:
    """Lowest and highest sample under each column of pixels, from the first sample to the last."""
    part = Image.new("RGB", (WIDTH, WAVE_HEIGHT + LABEL_HEIGHT), PAPER)
    pen = ImageDraw.Draw(part)
    middle, half = WAVE_HEIGHT / 2, WAVE_HEIGHT / 2 - 2
    edges = np.linspace(0, len(sound), WIDTH + 1).astype(int)
    for column in range(WIDTH):
        block = sound[edges[column] : max(edges[column + 1], edges[column] + 1)]
        low, high = np.clip((block.min(), block.max()), -1, 1) * half
        pen.line([(column, middle - high), (column, middle - low)], fill=WAVE)
    pen.text((2, WAVE_HEIGHT), f"0 to {len(sound) / SOUND_RATE_HZ:.2f} s, peak {np.abs(sound).max():.2f}", fill=INK)
    return part
