"""Writes clips as real files: mp4 (H.264, and AAC where it is heard) and wav (16-bit PCM).

One thread per encoder, as many clips are encoded side by side. AAC uses the fast coder: the default one takes ten times as long for a
clip of 2 s.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer

from omnistage.data.synth.picture import FPS, Frames
from omnistage.data.synth.sound import RATE_HZ, Sound

AAC_SAMPLES = 1024


def write_clip(path: Path, frames: Frames | None, sound: Sound | None) -> None:
    """An mp4 of `frames` [F, H, W, 3] with `sound` [N] where given, or a wav of `sound` alone.

    The file is there whole or not at all: it is written under a temporary name beside `path` and then renamed.
    """
    if frames is not None:
        _atomically(path, "mp4", lambda container: _write_mp4(container, frames, sound))
    elif sound is not None:
        _atomically(path, "wav", lambda container: _write_wav(container, sound))
    else:
        raise ValueError("a clip needs a picture or a sound")


def _atomically(path: Path, format: str, write: Callable[[OutputContainer], None]) -> None:
    part = path.with_name(f"{path.name}.part")
    with av.open(str(part), "w", format=format) as container:
        write(container)
    os.replace(part, path)


def _write_mp4(container: OutputContainer, frames: Frames, sound: Sound | None) -> None:
    picture = container.add_stream("libx264", rate=FPS, options={"crf": "12", "preset": "ultrafast"})
    picture.height, picture.width = frames.shape[1:3]
    picture.pix_fmt = "yuv420p"
    picture.thread_count = 1
    # Both streams must be known before the first packet is written.
    track = _aac(container) if sound is not None else None
    for index, image in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = index, Fraction(1, FPS)
        container.mux(picture.encode(frame))
    container.mux(picture.encode(None))
    if track is not None and sound is not None:
        # A last AAC frame that is filled up would make the sound outlast the picture; what is left out (16 ms of 2 s) is silent.
        _write_sound(container, track, sound[: len(sound) // AAC_SAMPLES * AAC_SAMPLES])


def _aac(container: OutputContainer) -> AudioStream:
    track = container.add_stream("aac", rate=RATE_HZ, layout="mono", options={"aac_coder": "fast"})
    track.bit_rate = 64_000
    track.codec_context.thread_count = 1
    return track


def _write_wav(container: OutputContainer, sound: Sound) -> None:
    _write_sound(container, container.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono"), sound)


def _write_sound(container: OutputContainer, track: AudioStream, sound: Sound) -> None:
    pcm = (sound * 32767).round().astype(np.int16)
    for start in range(0, len(pcm), AAC_SAMPLES):
        frame = av.AudioFrame.from_ndarray(pcm[None, start : start + AAC_SAMPLES], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
        container.mux(track.encode(frame))
    container.mux(track.encode(None))
