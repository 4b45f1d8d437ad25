"""What one clip is: decoded exactly as training will decode it, and whatever is wrong with it said by name. Runs in a worker process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import av
import numpy as np

from omnistage.data import container_size, media
from omnistage.data.checks import fingerprint
from omnistage.data.errors import MediaError
from omnistage.data.media import MediaLimits
from omnistage.data.media_cache import MediaCache
from omnistage.data.records import MediaRef

Sense = Literal["picture", "still", "sound"]
# -60 dB of full scale: below the noise of any microphone.
SILENT_PEAK = 1e-3
# Changed whenever the same file would give other facts.
VERSION = 1


@dataclass(frozen=True)
class Job:
    """One file and the senses that records use of it. `cache` is a folder and its bytes; `prints` asks for digests of the content."""

    path: str
    senses: tuple[Sense, ...]
    limits: MediaLimits
    prints: bool = False
    cache: tuple[str, int] | None = None


@dataclass
class Facts:
    """What is known of one file, by sense: `faults` and `notes` as (code, message), `seconds`, and digests of content.

    `sha256` is that of its bytes; `failure` says why the probe gave nothing (code, message): the decoder hung or crashed, or the file is
    not there.
    """

    sha256: str | None = None
    faults: dict[str, tuple[str, str]] = field(default_factory=dict)
    notes: dict[str, tuple[str, str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    prints: dict[str, tuple[str, float]] = field(default_factory=dict)
    failure: tuple[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for the index."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Facts:
        """The facts that `to_json` gave."""
        pairs = {name: {sense: tuple(pair) for sense, pair in values[name].items()} for name in ("faults", "notes", "prints")}
        failure = values["failure"]
        return cls(**values | pairs | {"failure": tuple(failure) if failure else None})


def stamp(path: str) -> tuple[int, ...] | None:
    """Bytes and time of the last change in ns (of a folder those of its images and its own); `None` where there is nothing."""
    try:
        status = os.stat(path)
        if not os.path.isdir(path):
            return (status.st_size, status.st_mtime_ns)
        images = [os.stat(name) for name in media.frame_files(path)]
    except OSError:
        return None
    times = [status.st_mtime_ns, *(image.st_mtime_ns for image in images)]
    return (len(images), sum(image.st_size for image in images), max(times))


def probe(job: Job) -> Facts:
    """Everything that is said about one file."""
    facts = Facts(sha256=_digest(job.path))
    for sense in job.senses:
        try:
            _look(job, sense, facts)
        except MediaError as error:
            facts.faults[sense] = (_code(job.path, sense, str(error)), str(error))
            continue
        if job.prints:
            with suppress(MediaError):
                found = fingerprint.of_sound(job.path) if sense == "sound" else fingerprint.of_picture(MediaRef(_KIND[sense], job.path))
                if found is not None:
                    facts.prints[sense] = found
    return facts


_KIND: dict[Sense, Literal["image", "video", "audio"]] = {"picture": "video", "still": "image", "sound": "audio"}


def _look(job: Job, sense: Sense, facts: Facts) -> None:
    limits = job.limits
    decode = media.decode if job.cache is None else MediaCache(job.cache[0], job.cache[1]).decode
    clip = decode(MediaRef(_KIND[sense], job.path), limits)
    if clip.frames is not None and clip.fps is not None:
        seconds = facts.seconds[sense] = round(len(clip.frames) / clip.fps, 3)
        most = limits.max_frames // media.FRAME_FACTOR * media.FRAME_FACTOR
        if len(clip.frames) == most and clip.fps < 0.99 * limits.fps:
            message = f"{job.path!r} lasts {seconds:.1f} s: {most} frames of it are {clip.fps:.2f} a second, not {limits.fps:g}"
            facts.notes[sense] = ("over_limits", message)
    if clip.sound is not None:
        peak = float(np.abs(clip.sound).max())
        if peak < SILENT_PEAK:
            facts.faults[sense] = ("silent", f"{job.path!r} has a silent sound track (loudest sample {peak:.5f} of 1)")
        stated = _stated_sound_s(job.path)
        kept = clip.sound.size / media.SOUND_RATE_HZ
        facts.seconds[sense] = round(max(kept, stated), 3) if kept >= limits.max_sound_s - 0.01 else round(kept, 3)
        if facts.seconds[sense] > limits.max_sound_s + 0.05:
            message = f"{job.path!r} has {facts.seconds[sense]:.1f} s of sound; {limits.max_sound_s:g} s are kept"
            facts.notes[sense] = ("over_limits", message)


def _code(path: str, sense: Sense, message: str) -> str:
    """The name of what made `media.decode` refuse a clip."""
    try:
        if container_size.lost_share(path) > media.MAX_LOST_FRAMES:
            return "truncated"
        with av.open(path, options={"protocol_whitelist": "file"}, metadata_errors="ignore") as container:
            has_picture = any(True for stream in container.streams.video)
            if sense == "sound":
                if not container.streams.audio:
                    return "no_sound"
                return "too_short" if "audio token" in message else _cut_or_unreadable(container, container.streams.audio[0].index)
            if not has_picture or "no picture stream" in message:
                return "no_picture"
            if not any(packet.size for packet in container.demux(container.streams.video[0])):
                return "no_frames"
            container.seek(0)
            return "truncated" if "cut short" in message else _cut_or_unreadable(container, container.streams.video[0].index)
    except (OSError, ValueError, av.FFmpegError):
        return "truncated" if _cut_mp4(path) else "unreadable"


def _cut_or_unreadable(container: Any, index: int) -> str:
    """Whether the packets of a stream end well before the time that the container states."""
    stream = container.streams[index]
    stated = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    end = 0.0
    try:
        for packet in container.demux(stream):
            if packet.size and packet.pts is not None:
                end = max(end, float(packet.pts * packet.time_base))
    except (OSError, ValueError, av.FFmpegError):
        pass
    return "truncated" if stated and end < (1 - media.MAX_LOST_FRAMES) * stated else "unreadable"


def _cut_mp4(path: str) -> bool:
    """Whether the boxes of an MP4 or MOV end behind the file: its index is last, so that a cut file has none and cannot be opened."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            at = 0
            while at + 8 <= size:
                file.seek(at)
                head = file.read(16)
                length = int.from_bytes(head[:4], "big")
                if at == 0 and head[4:8] != b"ftyp":
                    return False
                if length == 1:
                    length = int.from_bytes(head[8:16], "big")
                if length < 8:
                    return False
                at += length
            return at > size
    except OSError:
        return False


def _stated_sound_s(path: str) -> float:
    """Seconds of sound as the container states them, 0 where it does not; exact lengths would take decoding what is not kept."""
    try:
        with av.open(path, options={"protocol_whitelist": "file"}, metadata_errors="ignore") as container:
            stream = container.streams.audio[0]
            if stream.duration and stream.time_base:
                return float(stream.duration * stream.time_base)
            return (container.duration or 0) / 1e6
    except (OSError, ValueError, av.FFmpegError):
        return 0.0


def _digest(path: str) -> str | None:
    """SHA-256 of a file's bytes, or of those of a folder's images in order."""
    names: Sequence[str] = media.frame_files(path) if os.path.isdir(path) else [path]
    try:
        if len(names) == 1:
            with open(names[0], "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        whole = hashlib.sha256()
        for name in names:
            with open(name, "rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    except OSError:
        return None
    return whole.hexdigest()
