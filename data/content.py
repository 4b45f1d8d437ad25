"""What a clip's bytes are, and whether they are still the same: a digest of the content, and a stamp that changes with it."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import NamedTuple

from omnistage.data.media import frame_files


class Stamp(NamedTuple):
    """Of a file its bytes, the times of the last change of its content and of its entry in ns, and its inode.

    What replaces a file may have its size and time (`tar`, `unzip`, `rsync -t`), yet not its inode and the time of its entry. Of a folder
    of frames these are the sum, the newest ones, and a number that stands for the names and the stamps of its images.
    """

    size: int
    content_ns: int
    entry_ns: int
    identity: int


def stamp(path: str) -> Stamp | None:
    """What tells a clip from another that was or will be under its name; `None` where there is no clip."""
    try:
        status = os.stat(path)
        if not stat.S_ISDIR(status.st_mode):
            return _stamp(status) if stat.S_ISREG(status.st_mode) else None
        named = [(os.path.basename(image), _stamp(os.stat(image))) for image in frame_files(path)]
    except (OSError, ValueError):
        return None
    sizes, contents, entries, _ = zip(*(image for _, image in named), strict=True) if named else ((0,), (0,), (0,), ())
    told = hashlib.sha256(ascii(named).encode())
    return Stamp(sum(sizes), max(contents), max(entries), int.from_bytes(told.digest()[:8], "big"))


def digest(path: str) -> str | None:
    """SHA-256 of a file, or of the images of a folder in their order; `None` for what cannot be read."""
    try:
        if not os.path.isdir(path):
            return _sha256(path).hex()
        return hashlib.sha256(b"frames" + b"".join(map(_sha256, frame_files(path)))).hexdigest()
    except (OSError, ValueError):
        return None


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _sha256(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
