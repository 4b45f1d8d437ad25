"""Decoded clips on disk, kept by what they are decoded from: a clip is decoded once on a machine, not once per rank, stage and run.

An entry is one picture (frames) or one sound, exactly as `media.decode` gives them, under a name made of the file's SHA-256, the limits and
the versions of the decoders. So a file under another name shares its entries, a changed file has others, and a clip seen in one record and
heard in another is stored once for each sense. Frames are not compressed: 16 frames of 1280 x 720 take 44 MB.

Processes share a folder without a server. Entries are written under a temporary name and renamed, so that a reader sees a whole file or
none; each carries its size and a CRC-32, and one that does not match is dropped and decoded again. Writing,
removing and counting are done under a lock that the system drops when its holder dies.

    folder/lock                lock of the count and of removals
    folder/count               bytes of all entries, at least; counted again when it would pass the bound
    folder/names/xx/NAME       SHA-256 of the file that had this path, size and time of change; about 100 bytes a clip, outside the bound
    folder/entries/xx/NAME     an entry; its time of change is that of its last use
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import struct
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnistage.data import media
from omnistage.data.errors import InputError
from omnistage.data.media import Clip, MediaLimits
from omnistage.data.records import MediaRef

_MAGIC = b"omniclip"
# Magic, CRC-32 of all that follows, number of dimensions, of which the frame rate is a float (NaN: none); then the dimensions.
_HEADER = struct.Struct("<8sIId4Q")
_TYPES: dict[int, type[np.uint8] | type[np.float32]] = {4: np.uint8, 1: np.float32}
# Times of change on some file systems are this coarse: a file that is younger may change again and keep its time.
_YOUNG_S = 2.0
# After a removal this much of the bound is in use, so that not every new entry lists the folder.
_KEPT = 0.9


class MediaCache:
    """At most `max_bytes` of decoded clips in `folder`, oldest use removed first.

    `hits` and `misses` count entries (picture and sound apart) that this object found and did not find.

    Raises:
        InputError: the folder cannot be made or written, or `max_bytes` is not positive.
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        if max_bytes <= 0:
            raise InputError(f"media cache: max_bytes must be positive, got {max_bytes}")
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        try:
            for name in ("names", "entries"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            (self.folder / "lock").touch()
        except OSError as error:
            raise InputError(f"media cache {str(folder)!r}: cannot be written ({error.strerror})") from error

    def decode(self, ref: MediaRef, limits: MediaLimits) -> Clip:
        """The same as `media.decode`, bit for bit, from the cache where it holds the clip. Raises `MediaError` as `media.decode` does."""
        frames: NDArray[np.uint8] | None = None
        fps: float | None = None
        sound: NDArray[np.float32] | None = None
        if ref.kind != "audio":
            how: list[Any] = [limits.fps, limits.max_frames] if ref.kind == "video" else []
            frames, fps = self._part(MediaRef(ref.kind, ref.path, fps=ref.fps), limits, how)
        sound_path = ref.path if ref.kind == "audio" else ref.sound
        if sound_path is not None:
            sound, _ = self._part(MediaRef("audio", sound_path), limits, [limits.max_sound_s])
        return media.altered(Clip(frames=frames, fps=fps, sound=sound), ref)

    def digest(self, path: str) -> str | None:
        """SHA-256 of the file, remembered by path, size and time of change; `None` for what is no file that can be read."""
        found = self._digest(path)
        return found[0] if found else None

    def _part(self, ref: MediaRef, limits: MediaLimits, how: list[Any]) -> tuple[Any, float | None]:
        """One sense of a clip: its array, and the rate of frames."""
        found = self._digest(ref.path)
        entry = None
        if found is not None:
            name = hashlib.sha256(json.dumps([found[0], ref.kind, *how, *_decoders()]).encode()).hexdigest()
            entry = self._place("entries", name)
            kept = _load(entry)
            if kept is not None:
                self.hits += 1
                return kept
        self.misses += 1
        clip = media.decode(ref, limits)
        array: NDArray[Any] | None = clip.sound if ref.kind == "audio" else clip.frames
        assert array is not None
        # A file that changed while it was read would put the new clip under the old one's name.
        if found is not None and entry is not None and _stamp(ref.path) == found[1]:
            self._store(entry, array, clip.fps)
        return array, clip.fps

    def _place(self, kind: str, name: str) -> Path:
        return self.folder / kind / name[:2] / name

    def _digest(self, path: str) -> tuple[str, tuple[int, int]] | None:
        stamp = _stamp(path)
        if stamp is None:
            return None
        place = self._place("names", hashlib.sha256(os.fsencode(f"{os.path.realpath(path)}\0{stamp}")).hexdigest())
        try:
            text = place.read_text(encoding="ascii")
            if len(text) == 64:
                return text, stamp
        except (OSError, ValueError):
            pass
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return None
        if _stamp(path) != stamp:
            return None
        if time.time() - stamp[1] / 1e9 > _YOUNG_S:
            with suppress(OSError):
                _write(place, [digest.encode()])
        return digest, stamp

    def _store(self, entry: Path, array: NDArray[Any], fps: float | None) -> None:
        """Write one entry, if it fits; a full or unwritable disk is said once and costs no more than the decoding."""
        content = np.ascontiguousarray(array)
        size = _HEADER.size + content.nbytes
        if size > self.max_bytes:
            return
        shape = [*content.shape, *[0] * (4 - content.ndim)]
        fields = [content.ndim, math.nan if fps is None else fps, *shape]
        body = content.reshape(-1).view(np.uint8).data
        checksum = zlib.crc32(body, zlib.crc32(_HEADER.pack(b"", 0, *fields)))
        try:
            with self._locked():
                if not entry.exists():
                    # Counted before it is written: a process that is killed in between leaves the count too high, which mends itself.
                    self._make_room(size)
                    _write(entry, [_HEADER.pack(_MAGIC, checksum, *fields), body])
        except OSError as error:
            warnings.warn(f"media cache {str(self.folder)!r}: nothing more is kept ({error.strerror})", stacklevel=2)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _make_room(self, size: int) -> None:
        """Count `size` bytes more, and remove the entries that were used longest ago when that passes the bound. Call it under the lock."""
        count = self.folder / "count"
        try:
            held = int(count.read_text(encoding="ascii"))
        except (OSError, ValueError):
            held = self.max_bytes
        if held + size > self.max_bytes:
            held = self._remove_oldest(max(0, min(int(_KEPT * self.max_bytes), self.max_bytes - size)))
        _write(count, [str(held + size).encode()])

    def _remove_oldest(self, most: int) -> int:
        """Remove what killed writers left, then entries until at most `most` bytes are left; returns the bytes that are."""
        files: list[tuple[int, int, str]] = []
        for folder, _, names in os.walk(self.folder / "entries"):
            for name in names:
                with suppress(FileNotFoundError):
                    status = os.stat(path := os.path.join(folder, name))
                    files.append((0 if name.startswith(".") else status.st_mtime_ns, status.st_size, path))
        held = sum(size for _, size, _ in files)
        for used_ns, size, path in sorted(files):
            if held <= most and used_ns:
                break
            with suppress(FileNotFoundError):
                os.unlink(path)
            held -= size
        return held


def _stamp(path: str) -> tuple[int, int] | None:
    """Size in bytes and time of the last change in ns; `None` for what is no file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_size, status.st_mtime_ns) if os.path.isfile(path) else None


@cache
def _decoders() -> list[str]:
    """The decoders and their versions: another one may give other bits."""
    return [f"{name} {importlib.metadata.version(name)}" for name in ("av", "decord") if importlib.util.find_spec(name) is not None]


def _write(path: Path, parts: list[Any]) -> None:
    """Write under a temporary name and rename. No flush to disk: what a crash of the machine spoils is found by its size or CRC-32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _load(path: Path) -> tuple[NDArray[Any], float | None] | None:
    """The array and the rate of an entry, marked as used now; `None` when it is not there, and when it is damaged, which removes it."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
            size = os.fstat(file.fileno()).st_size - _HEADER.size
            found = _read(file, header, size)
    except OSError:
        return None
    with suppress(OSError):
        if found is None:
            path.unlink()
        else:
            os.utime(path)
    return found


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
