"""Decodes clips in a child process, where a decoder that crashes or hangs is an outcome and not the end of the tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from clip_files import GREY_STEP, tone
from omnistage.data import media
from omnistage.data.checks import workers
from omnistage.data.errors import MediaError
from omnistage.data.media import MediaLimits
from omnistage.data.records import MediaRef

LIMITS = MediaLimits(fps=2.0, max_frames=8, max_sound_s=4.0)
FPS, FRAMES, SECONDS = 10, 40, 4.0
LIMIT_S = 10.0
# Container to the codecs of its picture and of its sound.
CODECS = {
    "mp4": ("libx264", "aac", 48_000),
    "mov": ("mpeg4", "aac", 48_000),
    "mkv": ("libx264", "libmp3lame", 48_000),
    "avi": ("mpeg4", "pcm_s16le", 16_000),
    "webm": ("libvpx", "libopus", 48_000),
    "wav": (None, "pcm_s16le", 16_000),
    "ogg": (None, "libopus", 48_000),
    "flac": (None, "flac", 16_000),
}


@dataclass(frozen=True)
class Decoded:
    """What came of a clip: frames, their size, rate, the grey of each, and samples of sound with their power."""

    frames: int
    size: tuple[int, ...]
    fps: float | None
    greys: tuple[float, ...]
    samples: int
    power: float


def write_media(path: Path) -> Path:
    """Four seconds of greys that count the frames, and a tone, as the suffix asks for."""
    picture_codec, sound_codec, rate = CODECS[path.suffix[1:]]
    with av.open(str(path), "w") as container:
        picture: Any = None
        if picture_codec is not None:
            picture = container.add_stream(picture_codec, rate=FPS)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
            if picture_codec == "mpeg4":
                # At its default rate it lags behind greys that change with every frame.
                picture.codec_context.qmin = picture.codec_context.qmax = 2
        sound: Any = container.add_stream(sound_codec, rate=rate, layout="mono")
        for index in range(FRAMES if picture is not None else 0):
            image = np.full((48, 64, 3), GREY_STEP * index, np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        if picture is not None:
            container.mux(picture.encode())
        frame = av.AudioFrame.from_ndarray(tone(SECONDS, rate)[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        encoder = sound.codec_context
        resampler = av.AudioResampler(format=encoder.format, rate=rate, layout="mono", frame_size=encoder.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(sound.encode(part))
        container.mux(sound.encode())
    return path


def decoded(ref: MediaRef) -> Decoded | str:
    """The clip, or the message of the `MediaError` that refuses it; anything else that is raised ends the child."""
    try:
        clip = media.decode(ref, LIMITS)
    except MediaError as error:
        return str(error)
    frames, sound = clip.frames, clip.sound
    return Decoded(
        frames=0 if frames is None else len(frames),
        size=() if frames is None else frames.shape[1:],
        fps=clip.fps,
        greys=() if frames is None else tuple(float(frame.mean()) for frame in frames),
        samples=0 if sound is None else sound.size,
        power=0.0 if sound is None else float(np.sqrt(np.mean(sound**2))),
    )


class Child:
    """A child process that is started again after it was lost."""

    def __init__(self) -> None:
        self._worker: workers._Worker[MediaRef] | None = None

    def decode(self, ref: MediaRef) -> Decoded | str | workers.Failed:
        if self._worker is None:
            self._worker = workers._start(decoded, LIMIT_S)
            assert workers._received(self._worker) == []
        self._worker.connection.send(ref)
        if self._worker.connection.poll(LIMIT_S):
            (outcome,) = workers._received(self._worker)
        else:
            outcome = workers.Failed("hung", f"took over {LIMIT_S:g} s")
        if isinstance(outcome, workers.Failed):
            self.close()
        return outcome  # type: ignore[no-any-return]

    def close(self) -> None:
        if self._worker is not None:
            workers._end(self._worker)
            self._worker = None
