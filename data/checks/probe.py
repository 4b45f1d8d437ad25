"""What one clip is: decoded exactly as training will decode it, and whatever is wrong with it said by name. Runs in a worker process."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from omnistage.data import media
from omnistage.data.checks import fingerprint
from omnistage.data.content import digest
from omnistage.data.content import stamp as stamp
from omnistage.data.errors import MediaError
from omnistage.data.media import MediaLimits
from omnistage.data.media_cache import MediaCache
from omnistage.data.records import MediaRef
from omnistage.data.sound import stated_s

Sense = Literal["picture", "still", "sound"]
_KIND: dict[Sense, Literal["image", "video", "audio"]] = {"picture": "video", "still": "image", "sound": "audio"}
# -60 dB of full scale: below the noise of any microphone.
SILENT_PEAK = 1e-3
# Changed whenever the same file would give other facts, decoded as it was.
VERSION = 2


@dataclass(frozen=True)
class Job:
    """One file and the senses that records use of it. `cache` is a folder and its bytes; `prints` asks for digests of the content."""

    path: str
    senses: tuple[Sense, ...]
    limits: MediaLimits
    prints: bool = False
    cache: tuple[str, int] | None = None

    def ref(self, sense: Sense) -> MediaRef:
        """One sense of the file."""
        return MediaRef(_KIND[sense], self.path)


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


def probe(job: Job) -> Facts:
    """Everything that is said about one file."""
    facts = Facts(sha256=digest(job.path))
    for sense in job.senses:
        try:
            _look(job, sense, facts)
        except MediaError as error:
            facts.faults[sense] = (error.code, str(error))
            continue
        if job.prints:
            with suppress(MediaError):
                found = fingerprint.of_sound(job.path) if sense == "sound" else fingerprint.of_picture(job.ref(sense))
                if found is not None:
                    facts.prints[sense] = found
    return facts


def _look(job: Job, sense: Sense, facts: Facts) -> None:
    limits = job.limits
    decode = media.decode if job.cache is None else MediaCache(job.cache[0], job.cache[1]).decode
    clip = decode(job.ref(sense), limits)
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
        kept = clip.sound.size / media.SOUND_RATE_HZ
        facts.seconds[sense] = round(max(kept, stated_s(job.path)) if kept >= limits.max_sound_s - 0.01 else kept, 3)
        if facts.seconds[sense] > limits.max_sound_s + 0.05:
            message = f"{job.path!r} has {facts.seconds[sense]:.1f} s of sound; {limits.max_sound_s:g} s are kept"
            facts.notes[sense] = ("over_limits", message)
