"""Whether two files hold the same content: digests of what is decoded, not of the bytes.

Found: copies under other names, and copies whose streams were put into another container as they are (remuxed), with other metadata, or
with other streams beside them: the picture and the sound are compared apart. Not found: what was encoded again, scaled, cropped, turned,
cut, slowed or mixed; a picture of one flat grey; silence. A sound of less than 1.3 s in a lossy codec is found in a renamed copy, and
in a remuxed one only if the new container keeps its padding. A picture that decord reads in one container and cannot read in the other
(MPEG-TS) is not known again, since the last bits of two decoders differ; its sound is.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from omnistage.data import media
from omnistage.data.clip_file import Frames, opened
from omnistage.data.media import MediaLimits
from omnistage.data.records import MediaRef
from omnistage.data.sound import as_mono, sound_stream

FRAMES = 8
# Every clip of at least `FRAMES` frames gives that many, whatever rate its container states.
_LIMITS = MediaLimits(fps=1e9, max_frames=FRAMES)
_GRID = 8
_FLAT = 2
_WINDOW_S = 0.5
# Containers keep the padding of lossy codecs in their own ways: up to some thousand samples at either end.
_EDGE_S = 0.15
_MOST_S = 600
_SILENT = 33
# The length is compared too: clips of one series share a jingle, not a length.
SAME_LENGTH_S = 0.25


class Print(NamedTuple):
    """A digest of decoded content and its length in seconds (0: a still image)."""

    digest: str
    seconds: float

    def same(self, other: Print) -> bool:
        """Whether both are of the same content."""
        return self.digest == other.digest and abs(self.seconds - other.seconds) <= SAME_LENGTH_S


def of_picture(ref: MediaRef) -> Print | None:
    """SHA-256 of up to 8 frames, evenly spread, each as 8 x 8 mean greys; `None` for a flat picture. Raises `MediaError`."""
    clip = media.decode(MediaRef(ref.kind, ref.path), _LIMITS)
    assert clip.frames is not None
    greys = np.stack([_thumbnail(frame) for frame in clip.frames])
    if int(greys.max()) - int(greys.min()) <= _FLAT:
        return None
    seconds = 0.0 if clip.fps is None else len(clip.frames) / clip.fps
    return Print(hashlib.sha256(greys.tobytes()).hexdigest(), round(seconds, 3))


def of_sound(path: str) -> Print | None:
    """SHA-256 of the second around the loudest sample, at the file's own rate, mono, 16 bits; `None` for silence. Raises `MediaError`."""
    samples, rate = _native(path)
    if samples.size == 0 or int(np.abs(samples.astype(np.int32)).max()) < _SILENT:
        return None
    window, edge = int(_WINDOW_S * rate), int((_WINDOW_S + _EDGE_S) * rate)
    chosen = samples
    if samples.size > 2 * edge:
        loudest = edge + int(np.abs(samples[edge:-edge].astype(np.int32)).argmax())
        chosen = samples[loudest - window : loudest + window]
    return Print(hashlib.sha256(f"{rate} ".encode() + chosen.tobytes()).hexdigest(), round(samples.size / rate, 3))


def _thumbnail(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[8, 8] means of the greys; exact, so that equal frames give equal thumbnails."""
    grey = frame.astype(np.uint32).sum(axis=-1)
    for axis in (0, 1):
        size = grey.shape[axis]
        starts = np.minimum(np.arange(_GRID) * size // _GRID, size - 1)
        counts = np.maximum(np.diff([*starts, size]), 1)
        grey = np.add.reduceat(grey, starts, axis=axis) // (counts[:, None] if axis == 0 else counts)
    return np.asarray(grey // 3, np.uint8)


def _native(path: str) -> tuple[NDArray[np.int16], int]:
    """The first ten minutes of sound as mono samples [N] at the file's rate in Hz."""
    parts: list[NDArray[np.int16]] = []
    size, rate = 0, 1
    with opened(path) as clip:
        resampler = av.AudioResampler(format="flt")
        for frame in Frames(clip, sound_stream(clip, path)):
            rate = frame.sample_rate
            for mono in as_mono(resampler, frame, path):
                parts.append(np.clip(np.rint(mono * 32767), -32768, 32767).astype(np.int16))
                size += parts[-1].size
            if size > _MOST_S * rate:
                break
    return np.concatenate([*parts, np.empty(0, np.int16)]), rate
