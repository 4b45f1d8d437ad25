"""Small clips that are really encoded and hold something known: greys that count the frames, and a 440 Hz tone."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

GREY_STEP = 6


def write_clip(path: Path, frames: int, fps: int, *, sound_s: float = 0.0, width: int = 64, height: int = 48) -> str:
    """A clip of `frames` flat greys, brighter by `GREY_STEP` each, with a 440 Hz tone of `sound_s` seconds when that is not 0."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=fps)
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        sound = container.add_stream("aac", rate=16_000, layout="mono") if sound_s else None
        for index in range(frames):
            image = np.full((height, width, 3), GREY_STEP * index, np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode())
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(tone(sound_s)[None], format="fltp", layout="mono")
            frame.sample_rate = 16_000
            container.mux(sound.encode(frame))
            container.mux(sound.encode())
    return str(path)


def tone(seconds: float, rate: int = 16_000) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_wav(path: Path, channels: list[NDArray[np.float32]], rate: int = 16_000) -> str:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.stack(channels, axis=1) * 32767).round().astype("<i2").tobytes())
    return str(path)


def write_image(path: Path, seed: int = 0, width: int = 84, height: int = 56) -> str:
    """A PNG of coarse coloured noise."""
    blocks = np.random.default_rng(seed).integers(0, 255, (height // 28, width // 28, 3), dtype=np.uint8)
    Image.fromarray(np.kron(blocks, np.ones((28, 28, 1), np.uint8))).save(path)
    return str(path)
