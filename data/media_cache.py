"""Decoded clips on disk, kept by what they are decoded from: a clip is decoded once on a machine, not once per rank, stage and run.

An entry is one picture (frames) or one sound, exactly as `media.decode` gives them, under a name made of the file's SHA-256 (of a folder of
frames, those of its images), the limits and the versions of the decoders. So a file under another name shares its entries, a changed file
has others, and a clip seen in one record and heard in another is stored once for each sense. Frames are not compressed: 16 frames of
1280 x 720 take 44 MB.

Processes share the folder (`bounded_folder`). Of those that want an entry that is not there, one decodes the clip and the others wait for
it. Each entry carries its size and a CRC-32, and one that does not match is dropped and decoded again.

    folder/names/xx/NAME       SHA-256 of the clip that had this path and stamp; about 100 bytes a clip, outside the bound
    folder/entries/xx/NAME     one picture or sound; further files are those of every bounded folder
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import struct
import time
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistage.data import bounded_folder, media
from omnistage.data.bounded_folder import BoundedFolder
from omnistage.data.content import Stamp, digest, stamp
from omnistage.data.errors import InputError
from omnistage.data.media import Clip, MediaLimits
from omnistage.data.records import MediaRef

_MAGIC = b"omniclip"
# Magic, CRC-32 of all that follows, number of dimensions, of which the frame rate is a float (NaN: none); then the dimensions.
_HEADER = struct.Struct("<8sIId4Q")
_TYPES: dict[int, type[np.uint8] | type[np.float32]] = {4: np.uint8, 1: np.float32}
# Times on some file systems are this coarse: a file that is younger may change again and keep its stamp.
_YOUNG_S = 2.0


class MediaCache(BoundedFolder):
    """At most `max_bytes` of decoded clips in `folder`, oldest use removed first.

    `hits` and `misses` count entries (picture and sound apart) that this object found and did not find.

    Raises:
        InputError: the folder cannot be made or written, or `max_bytes` is not positive.
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        super().__init__("media cache", folder, max_bytes)
        self.hits = 0
        self.misses = 0
        try:
            self.make()
        except OSError as error:
            raise InputError(f"media cache {str(folder)!r}: cannot be written ({error.strerror})") from error

    def decode(self, ref: MediaRef, limits: MediaLimits) -> Clip:
        """The same as `media.decode`, bit for bit, from the cache where it holds the clip. Raises `MediaError` as `media.decode` does."""
        frames: NDArray[np.uint8] | None = None
        fps: float | None = None
        sound: NDArray[np.float32] | None = None
        if ref.kind != "audio":
            # The frames of a folder are the same at any rate.
            images = len(media.frame_files(ref.path)) if _is_folder(ref) else None
            rate = None if images is None else media.folder_rate(images, ref.fps, limits)
            frames, fps = self._part(MediaRef(ref.kind, ref.path), limits)
            fps = rate or fps
        sound_path = ref.path if ref.kind == "audio" else ref.sound
        if sound_path is not None:
            sound, _ = self._part(MediaRef("audio", sound_path), limits)
        return media.altered(Clip(frames=frames, fps=fps, sound=sound), ref)

    def digest(self, path: str) -> str | None:
        """SHA-256 of the clip, remembered by path and stamp; `None` for what is no clip that can be read."""
        found = self._digest(path)
        return found[0] if found else None

    def holds(self, digest: str, ref: MediaRef, limits: MediaLimits) -> bool:
        """Whether there is an entry for the one sense of `ref`, whose content has this digest."""
        return self.place("entries", _name(digest, ref, limits)).exists()

    def _part(self, ref: MediaRef, limits: MediaLimits) -> tuple[Any, float | None]:
        """One sense of a clip: its array, and the rate of frames."""
        found = self._digest(ref.path)
        if found is None:
            self.misses += 1
            return _decoded(ref, limits)
        name = _name(found[0], ref, limits)
        kept = self.read(name, _load)
        if kept is None:
            with self.alone(name):
                # Another process may have decoded it meanwhile.
                kept = self.read(name, _load)
                if kept is None:
                    self.misses += 1
                    array, fps = _decoded(ref, limits)
                    # A file that changed while it was read would put the new clip under the old one's name.
                    if stamp(ref.path) == found[1]:
                        self.store(name, _entry(array, fps))
                    return array, fps
        self.hits += 1
        return kept

    def _digest(self, path: str) -> tuple[str, Stamp] | None:
        now = stamp(path)
        if now is None:
            return None
        place = self.place("names", hashlib.sha256(os.fsencode(f"{os.path.realpath(path)}\0{tuple(now)}")).hexdigest())
        try:
            text = place.read_text(encoding="ascii")
            if len(text) == 64:
                return text, now
        except (OSError, ValueError):
            pass
        found = digest(path)
        if found is None or stamp(path) != now:
            return None
        if time.time() - now.entry_ns / 1e9 > _YOUNG_S:
            with suppress(OSError):
                bounded_folder.write(place, [found.encode()])
        return found, now


def _is_folder(ref: MediaRef) -> bool:
    return ref.kind == "video" and os.path.isdir(ref.path)


def _name(digest: str, ref: MediaRef, limits: MediaLimits) -> str:
    """The name of the entry for one sense of a clip."""
    how: dict[str, list[Any]] = {"audio": [limits.max_sound_s], "image": [], "video": [limits.fps, limits.max_frames]}
    given = ["folder", limits.max_frames] if _is_folder(ref) else how[ref.kind]
    return hashlib.sha256(json.dumps([digest, ref.kind, *given, media.VERSION, *_decoders()]).encode()).hexdigest()


def _decoded(ref: MediaRef, limits: MediaLimits) -> tuple[NDArray[Any], float | None]:
    clip = media.decode(ref, limits)
    array: NDArray[Any] | None = clip.sound if ref.kind == "audio" else clip.frames
    assert array is not None
    return array, clip.fps


@cache
def _decoders() -> list[str]:
    """The decoders and their versions: another one may give other bits."""
    return [f"{name} {importlib.metadata.version(name)}" for name in ("av", "decord") if importlib.util.find_spec(name) is not None]


def _entry(array: NDArray[Any], fps: float | None) -> list[bytes | memoryview]:
    """What an entry's file holds."""
    content = np.ascontiguousarray(array)
    shape = [*content.shape, *[0] * (4 - content.ndim)]
    fields = [content.ndim, math.nan if fps is None else fps, *shape]
    body = content.reshape(-1).view(np.uint8).data
    checksum = zlib.crc32(body, zlib.crc32(_HEADER.pack(b"", 0, *fields)))
    return [_HEADER.pack(_MAGIC, checksum, *fields), body]


def _load(path: Path) -> tuple[NDArray[Any], float | None] | None:
    """The array and the rate of an entry; `None` when it is damaged. Raises `OSError` when it is not there."""
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
        return _read(file, header, os.fstat(file.fileno()).st_size - _HEADER.size)


def _read(file: Any, header: bytes, size: int) -> tuple[NDArray[Any], float | None] | None:
    if len(header) < _HEADER.size:
        return None
    magic, checksum, ndim, fps, *dimensions = _HEADER.unpack(header)
    shape = dimensions[:ndim]
    if magic != _MAGIC or ndim not in _TYPES or math.prod(shape) * np.dtype(_TYPES[ndim]).itemsize != size:
        return None
    array: NDArray[Any] = np.empty(shape, _TYPES[ndim])
    body = array.reshape(-1).view(np.uint8).data
    if file.readinto(body) != size or zlib.crc32(body, zlib.crc32(_HEADER.pack(b"", 0, ndim, fps, *dimensions))) != checksum:
        return None
    return array, None if math.isnan(fps) else fps
