"""Decoded clips on disk, kept by what they are decoded from: a clip is decoded once on a machine, not once per rank, stage and run.

An entry is one picture (frames) or one sound, exactly as `media.decode` gives them, under a name made of the file's SHA-256 (of a folder of
frames, those of its images), the limits and the versions of the decoders. So a file under another name shares its entries, a changed file
has others, and a clip seen in one record and heard in another is stored once for each sense. Frames are not compressed: 16 frames of
1280 x 720 take 44 MB.

Processes share a folder without a server. Of those that want an entry that is not there, one decodes the clip and the others wait for it.
Entries are written under a temporary name and renamed, so that a reader sees a whole file or none; each carries its size and a CRC-32, and
one that does not match is dropped and decoded again. Decoding for an entry, and writing, removing and counting entries are done under
locks that the system drops when their holder dies.

    folder/lock                lock of the count and of removals
    folder/count               bytes of all entries, at least; counted again when it would pass the bound
    folder/names/xx/NAME       SHA-256 of the clip that had this path and stamp; about 100 bytes a clip, outside the bound
    folder/entries/xx/NAME     an entry; its time of change is that of its last use
    folder/locks/xx/NAME       lock of the entry that is being decoded; removed when it is let go
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
        return self._place("entries", _name(digest, ref, limits)).exists()

    def _part(self, ref: MediaRef, limits: MediaLimits) -> tuple[Any, float | None]:
        """One sense of a clip: its array, and the rate of frames."""
        found = self._digest(ref.path)
        if found is None:
            self.misses += 1
            return _decoded(ref, limits)
        name = _name(found[0], ref, limits)
        entry = self._place("entries", name)
        kept = _load(entry)
        if kept is None:
            with _alone(self._place("locks", name)):
                # Another process may have decoded it meanwhile.
                kept = _load(entry)
                if kept is None:
                    self.misses += 1
                    array, fps = _decoded(ref, limits)
                    # A file that changed while it was read would put the new clip under the old one's name.
                    if stamp(ref.path) == found[1]:
                        self._store(entry, array, fps)
                    return array, fps
        self.hits += 1
        return kept

    def _place(self, kind: str, name: str) -> Path:
        return self.folder / kind / name[:2] / name

    def _digest(self, path: str) -> tuple[str, Stamp] | None:
        now = stamp(path)
        if now is None:
            return None
        place = self._place("names", hashlib.sha256(os.fsencode(f"{os.path.realpath(path)}\0{tuple(now)}")).hexdigest())
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
                _write(place, [found.encode()])
        return found, now

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


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Waits until no other process has the lock. Where locks cannot be had, each decodes for itself."""
    file = _locked_file(lock)
    try:
        yield
    finally:
        if file is not None:
            # Removed while it is held: who waits for it sees that it is gone, and asks for a new one.
            with suppress(OSError):
                lock.unlink()
            # A process that was forked meanwhile has it open too.
            fcntl.flock(file, fcntl.LOCK_UN)
            os.close(file)


def _locked_file(lock: Path) -> int | None:
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(file), os.stat(lock)):
                    return file
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(file)
                raise
            os.close(file)
    except OSError:
        return None


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
