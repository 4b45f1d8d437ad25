"""From a file of a clip to arrays: frames of the picture, samples of the sound.

Frames are those that the model's own preprocessing (qwen-omni-utils) would pick: as many as the clip's length asks for, spread from the
first frame to the last. A clip that is too long for `max_frames` is covered to its end at a lower rate, and that rate is reported, since
positions of picture and sound are laid out by it. Nothing is ever replaced: a clip that cannot be had raises `MediaError`.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from omnistage.data.clip_file import Frames, ends_early, fault, opened, packet_end, picture_stream
from omnistage.data.container_size import MAX_LOST
from omnistage.data.errors import InputError, MediaError
from omnistage.data.records import MediaRef
from omnistage.data.sound import MIN_SOUND_SAMPLES as MIN_SOUND_SAMPLES
from omnistage.data.sound import SOUND_RATE_HZ as SOUND_RATE_HZ
from omnistage.data.sound import heard

# Changed whenever the same file would give other frames or samples, or is refused for another reason.
VERSION = 2
FRAME_FACTOR = 2
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
# Frames a second of a clip that is a folder of images, where its annotation does not say otherwise.
FOLDER_FPS = 1.0
# How files of MP4, Matroska, AVI, FLV, Ogg, ASF, MPEG-PS and MPEG-TS begin.
_NO_PLAYLIST = re.compile(rb"\0|\x1aE\xdf\xa3|RIFF|FLV|OggS|0&\xb2u|G")


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
    sound = heard(sound_path, limits.max_sound_s) if sound_path is not None else None
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
        rate = folder_rate(len(frame_files(ref.path)), ref.fps, limits)
        return _frames_folder(ref.path, limits), rate
    return _frames(ref.path, limits) if ref.kind == "video" else (None, None)


def _still(path: str) -> NDArray[np.uint8]:
    """An image as one frame [1, H, W, 3]."""
    with opened(path) as clip:
        stream = picture_stream(clip)
        frame = next(iter(Frames(clip, stream)), None) if stream is not None else None
        if frame is None:
            raise MediaError(f"{path!r} holds no image", "no_picture")
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
    with opened(path) as clip:
        return picture_stream(clip) is not None, bool(clip.streams.audio)


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
    root = os.path.realpath(media_root)
    try:
        target = os.path.realpath(os.path.join(root, path_in_file))
    except ValueError:  # a zero byte, or half a pair of surrogates
        target = ""
    if not path_in_file.strip() or not target:
        raise MediaError(f"{path_in_file!r} is no path")
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


def _frames(path: str, limits: MediaLimits) -> tuple[NDArray[np.uint8], float]:
    with opened(path) as clip:
        stream = _seen(clip, path)
        # Decord makes room for as many frames as a broken header states, and ends the process when there is none.
        if stream.frames > os.path.getsize(path):
            raise MediaError(f"{path!r} is broken: it states {stream.frames} frames in {os.path.getsize(path)} bytes")
        stated = stream.frames
    # Decord seeks to the frames wanted, PyAV decodes all before them; PyAV names the fault of a clip that decord cannot read.
    found = _frames_decord(path, limits, stated) if _is_safe_for_decord(path) else None
    return found if found is not None else _frames_pyav(path, limits)


def _seen(clip: InputContainer, path: str) -> VideoStream:
    stream = picture_stream(clip)
    if stream is None:
        raise MediaError(f"{path!r} has no picture stream", "no_picture")
    return stream


def _is_safe_for_decord(path: str) -> bool:
    """Whether decord, which cannot be told to open no other file, sees neither a playlist nor a numbered series of images in it."""
    with open(path, "rb") as file:
        return re.search("[%*?{]", path) is None and _NO_PLAYLIST.match(file.read(4)) is not None


def folder_rate(images: int, fps: float | None, limits: MediaLimits) -> float:
    """Frames a second of what is taken of a folder of `images`, of which there are `fps` a second. Raises `InputError` for a wrong rate."""
    rate = FOLDER_FPS if fps is None else fps
    if not (math.isfinite(rate) and rate > 0):
        raise InputError(f"the rate of a folder of frames must be a positive number, got {rate}")
    most = limits.max_frames // FRAME_FACTOR * FRAME_FACTOR
    return most * rate / images if images > most else rate


def _frames_folder(folder: str, limits: MediaLimits) -> NDArray[np.uint8]:
    files = frame_files(folder)
    if not files:
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        raise MediaError(f"{folder!r} is a folder without frames; allowed: a clip, or a folder of {suffixes} files", "no_frames")
    most = limits.max_frames // FRAME_FACTOR * FRAME_FACTOR
    if len(files) > most:
        chosen = [int(i) for i in np.linspace(0, len(files) - 1, most).round()]
    else:
        # No frame is left out: a question may be about any of them, by its number.
        chosen = [*range(len(files)), *[len(files) - 1] * (len(files) % FRAME_FACTOR)]
    found = {i: _still(files[i])[0] for i in set(chosen)}
    first = found[chosen[0]].shape
    for i, frame in sorted(found.items()):
        if frame.shape != first:
            height, width = frame.shape[:2]
            raise MediaError(f"{files[i]!r} is {width}x{height} and the first frame is {first[1]}x{first[0]}; allowed: frames of one size")
    return np.stack([found[i] for i in chosen])


def _frames_decord(path: str, limits: MediaLimits, stated: int) -> tuple[NDArray[np.uint8], float] | None:
    """`None` where decord is not installed, cannot read the clip or finds too few frames, or would read what the clip does not show."""
    try:
        decord = import_module("decord")
    except ImportError:
        return None
    decord.logging.set_level(decord.logging.QUIET)
    base = import_module("decord._ffi.base")
    try:
        reader = decord.VideoReader(os.path.abspath(path), ctx=decord.cpu(0), num_threads=1, fault_tol=MAX_LOST)
        total, source_fps = len(reader), float(reader.get_avg_fps())
        if not (math.isfinite(source_fps) and source_fps > 0) or total < (1 - MAX_LOST) * stated:
            return None
        # Frames that an edit list cuts off have times before 0, and decord shows them. Where a container has no times they are about
        # -1e14; decord seeks by them, and does not always find the same frame.
        if not float(reader.get_frame_timestamp(0)[0]) > -0.5 / source_fps:
            return None
        chosen = _indices(total, source_fps, limits)
        frames: NDArray[np.uint8] = reader.get_batch(chosen).asnumpy()
    except (base.DECORDError, base.DECORDLimitReachedError, RuntimeError, AssertionError, IndexError):
        return None
    return frames, len(chosen) * source_fps / total


def _frames_pyav(path: str, limits: MediaLimits) -> tuple[NDArray[np.uint8], float]:
    total, source_fps = _length(path)
    chosen = _indices(total, source_fps, limits)
    wanted, found, seen = set(chosen), {}, 0
    with opened(path) as clip:
        stream = _seen(clip, path)
        for seen, frame in enumerate(Frames(clip, stream), start=1):
            if seen - 1 in wanted:
                # A clip may change its size half way; all frames get the size that the stream names.
                rgb = frame.to_ndarray(format="rgb24", width=stream.width, height=stream.height)
                found[seen - 1] = np.rot90(rgb, frame.rotation // 90)
            if len(found) == len(wanted):
                break
    if len(found) < len(wanted):
        raise fault(path, f"is broken: only {seen} of its {total} frames can be decoded")
    return np.stack([found[i] for i in chosen]), len(chosen) * source_fps / total


def _length(path: str) -> tuple[int, float]:
    """Frames that are shown, and frames per second."""
    with opened(path) as clip:
        stream = _seen(clip, path)
        total = end = 0
        for packet in clip.demux(stream):
            total += packet.size > 0 and not packet.is_discard
            end = max(end, packet_end(packet, stream))
        if reason := ends_early(clip, stream, end):
            raise MediaError(f"{path!r} is cut short: {reason}", "truncated")
        if total == 0:
            raise MediaError(f"{path!r} holds not one frame of its picture", "no_frames")
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise MediaError(f"{path!r} names no frame rate")
        return total, float(rate)
