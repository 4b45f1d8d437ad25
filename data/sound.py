"""The sound of a clip as samples that a model hears: mono, 16 kHz, in about -1..1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from omnistage.data.clip_file import Frames, ends_early, opened
from omnistage.data.errors import MediaError

SOUND_RATE_HZ = 16_000
# 25 ms, one window of the mel spectrum: anything shorter becomes no audio token at all.
MIN_SOUND_SAMPLES = 400
# From telephones to the finest converters.
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 768_000
# 40 dB above full scale, which no recording reaches: a file of floats with larger samples is damaged, or not scaled to 1.
MAX_PEAK = 100.0


def heard(path: str, max_s: float) -> NDArray[np.float32]:
    """At most `max_s` seconds from the start [N].

    Raises `MediaError` where there is no sound or less than 25 ms of it, where it is cut short, and where samples are not finite or far
    beyond full scale.
    """
    samples = _samples(path, int(max_s * SOUND_RATE_HZ))
    if samples.size < MIN_SOUND_SAMPLES:
        has_ms, needs_ms = (1000 * n / SOUND_RATE_HZ for n in (samples.size, MIN_SOUND_SAMPLES))
        raise MediaError(f"{path!r} has {has_ms:.1f} ms of sound; it takes {needs_ms:.0f} ms to make an audio token", "too_short")
    peak = max(float(samples.max()), -float(samples.min()))
    # Comparisons with NaN are false.
    if not peak <= MAX_PEAK:
        raise MediaError(f"{path!r} is broken: its sound has a sample of {peak:g}; allowed: finite numbers of about -1 to 1")
    return samples


def stated_s(path: str) -> float:
    """Seconds of sound as the file states or FFmpeg estimates them, 0 where neither does; exact lengths would take decoding all of it."""
    with opened(path) as clip:
        stream = sound_stream(clip, path)
        return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else (clip.duration or 0) / 1e6


def sound_stream(clip: InputContainer, path: str) -> AudioStream:
    """The first one; `MediaError` where there is none."""
    if not clip.streams.audio:
        raise MediaError(f"{path!r} has no sound stream, and its sound is asked for", "no_sound")
    return clip.streams.audio[0]


def _samples(path: str, most: int) -> NDArray[np.float32]:
    """At most `most` samples [N] from the start of the file."""
    parts: list[NDArray[np.float32]] = []
    size = 0
    with opened(path) as clip:
        stream = sound_stream(clip, path)
        frames = Frames(clip, stream)
        for part in _resampled(frames, path):
            parts.append(part)
            size += part.size
            if size >= most:
                break
        else:
            if reason := ends_early(clip, stream, frames.end):
                raise MediaError(f"{path!r} is cut short: {reason}", "truncated")
    return np.concatenate([*parts, np.empty(0, np.float32)])[:most]


def _resampled(given: Iterable[av.AudioFrame], path: str) -> Iterator[NDArray[np.float32]]:
    # Channels side by side, not in planes: PyAV ends the process at the eighth plane.
    resampler = av.AudioResampler(format="flt", rate=SOUND_RATE_HZ)
    frames: Iterator[av.AudioFrame | None] = chain(given, [None])
    for position, frame in enumerate(frames):
        if frame is None and position == 0:
            return
        # A broken header may state thousands of millions of Hz, and the resampler's filter would be as long.
        if frame is not None and not MIN_RATE_HZ <= frame.sample_rate <= MAX_RATE_HZ:
            raise MediaError(f"{path!r} is broken: it states {frame.sample_rate} samples of sound a second")
        yield from as_mono(resampler, frame, path)


def as_mono(resampler: av.AudioResampler, frame: av.AudioFrame | None, path: str) -> Iterator[NDArray[np.float32]]:
    """The mean of a frame's channels, by a resampler to interleaved floats; None gives what the resampler still holds.

    Raises `MediaError` where the sound changes its format half way.
    """
    try:
        resampled = resampler.resample(frame)
    except av.FFmpegError:
        raise
    except ValueError as error:
        raise MediaError(f"{path!r} changes the format of its sound half way: {error}") from error
    for out in resampled:
        # FFmpeg's own mono would be louder than the mean by up to the root of 2, and go beyond 1.
        yield out.to_ndarray().reshape(-1, out.layout.nb_channels).mean(axis=1, dtype=np.float32)
