"""From a file of a clip to arrays: frames of the picture, samples of the sound.

Frames are those that the model's own preprocessing (qwen-omni-utils) would pick: as many as the clip's length asks for, spread from the
first frame to the last. A clip that is too long for `max_frames` is covered to its end at a lower rate, and that rate is reported, since
positions of picture and sound are laid out by it. Nothing is ever replaced: a clip that cannot be had raises `MediaError`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray

from omnistage.data import container_size
from omnistage.data.errors import InputError, MediaError
from omnistage.data.records import MediaRef

SOUND_RATE_HZ = 16_000
# 25 ms, one window of the mel spectrum: anything shorter becomes no audio token at all.
MIN_SOUND_SAMPLES = 400
# From telephones to the finest converters.
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 768_000
FRAME_FACTOR = 2
# A clip that lost more of its frames (or bytes) than this is broken; a few lost ones are common at the end of cut clips.
MAX_LOST_FRAMES = 0.1
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
# Frames a second of a clip that is a folder of images, where its annotation does not say otherwise.
FOLDER_FPS = 1.0


@dataclass(frozen=True)
class MediaLimits:
    """How much of a clip is decoded: about `fps` frames per second of the clip, at most `max_frames` of them, and `max_sound_s` of sound.

    Raises `InputError` for a rate that is not positive, fewer than 2 frames, or less than 25 ms of sound.
    """

    fps: float = 2.0
    max_frames: int = 16
    max_sound_s: float = 300.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"media limits: fps must be a positive number, got {self.fps}")
        if self.max_frames < FRAME_FACTOR:
            raise InputError(f"media limits: max_frames must be at least {FRAME_FACTOR}, got {self.max_frames}")
        if not self.max_sound_s * SOUND_RATE_HZ >= MIN_SOUND_SAMPLES:
            raise InputError(f"media limits: max_sound_s must be at least {MIN_SOUND_SAMPLES / SOUND_RATE_HZ}, got {self.max_sound_s}")


@dataclass(frozen=True)
class Clip:
    """What was decoded: `frames` [F, H, W, 3] RGB at `fps` frames per second of the clip, `sound` [N] mono at 16 kHz in about -1..1.

    An image is one frame without a rate.
    """

    frames: NDArray[np.uint8] | None
    fps: float | None
    sound: NDArray[np.float32] | None


def decode(ref: MediaRef, limits: MediaLimits) -> Clip:
    """The frames and the sound of one clip, altered as `ref` says.

    A video may be a folder of images: then each image is a frame, `ref.fps` of them a second (one where it is not given), and all are
    taken up to `limits.max_frames` (an odd last one twice), whatever `limits.fps` says.

    Raises `MediaError` when a file is missing, unreadable or cut short, or has no stream of the kind asked for.
    """
    frames, fps = _picture(ref, limits)
    sound_path = ref.path if ref.kind == "audio" else ref.sound
    sound = _sound(sound_path, limits.max_sound_s) if sound_path is not None else None
    return altered(Clip(frames=frames, fps=fps, sound=sound), ref)


def altered(clip: Clip, ref: MediaRef) -> Clip:
    """A decoded clip as `ref` wants it: senses that are `blank` are zeros of the same shape, `shuffle` puts frames in another order."""
    frames, sound = clip.frames, clip.sound
    if frames is not None and "picture" in ref.blank:
        frames = np.zeros_like(frames)
    if frames is not None and ref.shuffle is not None:
        order = np.random.default_rng(ref.shuffle).permutation(len(frames))
        # Few frames may come out in their own order.
        frames = frames[np.roll(order, 1) if (order == np.arange(len(frames))).all() else order]
    if sound is not None and "sound" in ref.blank:
        sound = np.zeros_like(sound)
    return Clip(frames=frames, fps=clip.fps, sound=sound)


def _picture(ref: MediaRef, limits: MediaLimits) -> tuple[NDArray[np.uint8] | None, float | None]:
    if ref.kind == "image":
        return _still(ref.path), None
    if ref.kind == "video" and os.path.isdir(ref.path):
        return _frames_folder(ref.path, limits, FOLDER_FPS if ref.fps is None else ref.fps)
    return _frames(ref.path, limits) if ref.kind == "video" else (None, None)


def _still(path: str) -> NDArray[np.uint8]:
    """An image as one frame [1, H, W, 3]."""
    with _opened(path) as container:
        stream = _picture_stream(container)
        frame = next(container.decode(stream), None) if stream is not None else None
        if frame is None:
            raise MediaError(f"{path!r} holds no image")
        image: NDArray[np.uint8] = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)[None].astype(np.uint8)
        return image


def has_sound(path: str) -> bool:
    """Whether the clip has a sound stream; `MediaError` when it cannot be opened."""
    return streams(path)[1]


def has_picture(path: str) -> bool:
    """Whether the clip has a moving picture (the cover of a song is none); `MediaError` when it cannot be opened."""
    return streams(path)[0]


def streams(path: str) -> tuple[bool, bool]:
    """Whether the clip has a picture and whether it has sound, told from opening it once."""
    if os.path.isdir(path):
        return bool(frame_files(path)), False
    with _opened(path) as container:
        return _picture_stream(container) is not None, bool(container.streams.audio)


def frame_files(folder: str) -> list[str]:
    """The images in a folder, in the order of the numbers in their names (`frame_2` before `frame_10`)."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    except OSError as error:
        raise MediaError(f"{folder!r} cannot be read as a folder of frames: {error.strerror}") from error
    pictures = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    return [os.path.join(folder, name) for name in sorted(pictures, key=lambda name: (_by_numbers(name), name))]


def _by_numbers(name: str) -> list[str | int]:
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", name))]


def resolve(path_in_file: str, media_root: Path) -> str:
    """The real path of a file that an annotation names, which must lie under `media_root` after links are followed; else `MediaError`."""
    if not path_in_file.strip() or "\0" in path_in_file:
        raise MediaError(f"{path_in_file!r} is no path")
    root = os.path.realpath(media_root)
    target = os.path.realpath(os.path.join(root, path_in_file))
    if not Path(target).is_relative_to(root):
        raise MediaError(f"{path_in_file!r} leaves the media root {str(media_root)!r}: it leads to {target!r}; give a root that holds it")
    return target


def frame_count(total: int, source_fps: float, limits: MediaLimits) -> int:
    """How many frames to take of `total`: even, at least 2, at most `max_frames` (rounded down to even).

    Same count as `qwen_omni_utils.smart_nframes` with min_frames=2; not called here, as importing it loads torch, torchvision and librosa,
    and it refuses a clip of one frame.
    """
    # The small term keeps 2 s of 2 fps at 4 frames when the container's rate is not exact in binary.
    wanted = min(total / source_fps * limits.fps + 1e-6, limits.max_frames, total)
    return max(FRAME_FACTOR, math.floor(wanted / FRAME_FACTOR) * FRAME_FACTOR)


def _indices(total: int, source_fps: float, limits: MediaLimits) -> list[int]:
    count = frame_count(total, source_fps, limits)
    return [int(i) for i in np.linspace(0, total - 1, count).round()]


@contextmanager
def _opened(path: str) -> Iterator[InputContainer]:
    if not os.path.isfile(path):
        raise MediaError(f"{path!r} is a folder, not a clip" if os.path.isdir(path) else f"{path!r} does not exist")
    if (lost := _lost_share(path)) > MAX_LOST_FRAMES:
        raise MediaError(f"{path!r} is cut short: {100 * lost:.0f}% of its bytes are not there")
    try:
        # A playlist under the media root must not make us fetch from the network; tags in odd encodings are no reason to fail.
        with av.open(path, options={"protocol_whitelist": "file"}, metadata_errors="ignore") as container:
            yield container
    except av.FFmpegError as error:
        raise MediaError(f"{path!r} cannot be read as a clip: {error.strerror}") from error


def _lost_share(path: str) -> float:
    try:
        return container_size.lost_share(path)
    except OSError as error:
        raise MediaError(f"{path!r} cannot be read: {error.strerror}") from error


def _decoded(container: InputContainer, stream: VideoStream | AudioStream) -> Iterator[Any]:
    """The frames of one stream, in order."""
    for packet in container.demux(stream):
        # Ogg files may open with thousands of empty packets, which decoders refuse; the empty one without a time ends the stream.
        if packet.size or packet.pts is None:
            yield from packet.decode()


def _picture_stream(container: InputContainer) -> VideoStream | None:
    streams = (stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic)
    return next(streams, None)


def _frames(path: str, limits: MediaLimits) -> tuple[NDArray[np.uint8], float]:
    with _opened(path) as container:
        stream = _picture_stream(container)
        if stream is None:
            raise MediaError(f"{path!r} has no picture stream")
        # Decord makes room for as many frames as a broken header states, and ends the process when there is none.
        if stream.frames > os.path.getsize(path):
            raise MediaError(f"{path!r} is broken: it states {stream.frames} frames in {os.path.getsize(path)} bytes")
    # Decord seeks to the frames wanted, PyAV decodes all before them; PyAV names the fault of a clip that decord cannot read.
    found = _frames_decord(path, limits)
    return found if found is not None else _frames_pyav(path, limits)


def _frames_folder(folder: str, limits: MediaLimits, fps: float) -> tuple[NDArray[np.uint8], float]:
    if not (math.isfinite(fps) and fps > 0):
        raise InputError(f"the rate of a folder of frames must be a positive number, got {fps}")
    files = frame_files(folder)
    if not files:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise MediaError(f"{folder!r} is a folder without frames; allowed: a clip, or a folder of {suffixes} files")
    most = limits.max_frames // FRAME_FACTOR * FRAME_FACTOR
    if len(files) > most:
        chosen, rate = [int(i) for i in np.linspace(0, len(files) - 1, most).round()], most * fps / len(files)
    else:
        # No frame is left out: a question may be about any of them, by its number.
        chosen, rate = [*range(len(files)), *[len(files) - 1] * (len(files) % FRAME_FACTOR)], fps
    found = {i: _still(files[i])[0] for i in set(chosen)}
    first = found[chosen[0]].shape
    for i, frame in sorted(found.items()):
        if frame.shape != first:
            height, width = frame.shape[:2]
            raise MediaError(f"{files[i]!r} is {width}x{height} and the first frame is {first[1]}x{first[0]}; allowed: frames of one size")
    return np.stack([found[i] for i in chosen]), rate


def _frames_decord(path: str, limits: MediaLimits) -> tuple[NDArray[np.uint8], float] | None:
    """`None` where decord is not installed or cannot read the clip."""
    try:
        decord = import_module("decord")
    except ImportError:
        return None
    decord.logging.set_level(decord.logging.QUIET)
    base = import_module("decord._ffi.base")
    try:
        reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1, fault_tol=MAX_LOST_FRAMES)
        total, source_fps = len(reader), float(reader.get_avg_fps())
        if not (math.isfinite(source_fps) and source_fps > 0):
            return None
        chosen = _indices(total, source_fps, limits)
        frames: NDArray[np.uint8] = reader.get_batch(chosen).asnumpy()
    except (base.DECORDError, base.DECORDLimitReachedError, RuntimeError, AssertionError):
        return None
    return frames, len(chosen) * source_fps / total


def _frames_pyav(path: str, limits: MediaLimits) -> tuple[NDArray[np.uint8], float]:
    total, source_fps = _length(path)
    chosen = _indices(total, source_fps, limits)
    wanted, found, seen = set(chosen), {}, 0
    with _opened(path) as container:
        stream = _picture_stream(container)
        assert stream is not None
        for seen, frame in enumerate(_decoded(container, stream), start=1):
            if seen - 1 in wanted:
                # A clip may change its size half way; all frames get the size that the stream names.
                rgb = frame.to_ndarray(format="rgb24", width=stream.width, height=stream.height)
                found[seen - 1] = np.rot90(rgb, frame.rotation // 90)
            if len(found) == len(wanted):
                break
    if len(found) < len(wanted):
        raise MediaError(f"{path!r} is broken: only {seen} of its {total} frames can be decoded")
    return np.stack([found[i] for i in chosen]), len(chosen) * source_fps / total


def _length(path: str) -> tuple[int, float]:
    """Frames in the file, and frames per second."""
    with _opened(path) as container:
        stream = _picture_stream(container)
        if stream is None:
            raise MediaError(f"{path!r} has no picture stream")
        total = sum(1 for packet in container.demux(stream) if packet.size and not packet.is_discard)
        rate = stream.average_rate or stream.guessed_rate
        if total == 0 or total < (1 - MAX_LOST_FRAMES) * stream.frames:
            raise MediaError(f"{path!r} is cut short: {total} of its {stream.frames or 'unknown number of'} frames are there")
        if not rate:
            raise MediaError(f"{path!r} names no frame rate")
        return total, float(rate)


def _sound(path: str, max_sound_s: float) -> NDArray[np.float32]:
    samples = _samples(path, int(max_sound_s * SOUND_RATE_HZ))
    if samples.size < MIN_SOUND_SAMPLES:
        has_ms, needs_ms = (1000 * n / SOUND_RATE_HZ for n in (samples.size, MIN_SOUND_SAMPLES))
        raise MediaError(f"{path!r} has {has_ms:.1f} ms of sound; it takes {needs_ms:.0f} ms to make an audio token")
    return samples


def _samples(path: str, most: int) -> NDArray[np.float32]:
    """At most `most` samples [N] from the start of the file."""
    parts: list[NDArray[np.float32]] = []
    size = 0
    with _opened(path) as container:
        if not container.streams.audio:
            raise MediaError(f"{path!r} has no sound stream, and its sound is asked for")
        for part in _resampled(container, path):
            parts.append(part)
            size += part.size
            if size >= most:
                break
    return np.concatenate([*parts, np.empty(0, np.float32)])[:most]


def _resampled(container: InputContainer, path: str) -> Iterator[NDArray[np.float32]]:
    # Channels side by side, not in planes: PyAV ends the process at the eighth plane.
    resampler = av.AudioResampler(format="flt", rate=SOUND_RATE_HZ)
    frames: Iterator[av.AudioFrame | None] = chain(_decoded(container, container.streams.audio[0]), [None])
    for position, frame in enumerate(frames):
        if frame is None and position == 0:
            return
        # A broken header may state thousands of millions of Hz, and the resampler's filter would be as long.
        if frame is not None and not MIN_RATE_HZ <= frame.sample_rate <= MAX_RATE_HZ:
            raise MediaError(f"{path!r} is broken: it states {frame.sample_rate} samples of sound a second")
        try:
            resampled = resampler.resample(frame)
        except av.FFmpegError:
            raise
        except ValueError as error:
            raise MediaError(f"{path!r} changes the format of its sound half way: {error}") from error
        for out in resampled:
            # FFmpeg's own mono would be louder than the mean by up to the root of 2, and go beyond 1.
            yield out.to_ndarray().reshape(-1, out.layout.nb_channels).mean(axis=1, dtype=np.float32)
