"""A folder whose entries take a bounded number of bytes, shared by processes without a server: what the caches on disk are built on.

Entries are written under a temporary name and renamed, so that a reader sees a whole file or none. Making an entry, and writing, removing
and counting entries are done under locks that the system drops when their holder dies.

    folder/lock                lock of the count and of removals
    folder/count               bytes of all entries, at least; counted again when it would pass the bound
    folder/entries/xx/NAME     an entry; its time of change is that of its last use
    folder/locks/xx/NAME       lock of the entry that is being made; removed when it is let go
"""

from __future__ import annotations

import fcntl
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from omnistage.data.errors import InputError

# After a removal this much of the bound is in use, so that not every new entry lists the folder.
_KEPT = 0.9

EntryT = TypeVar("EntryT")


class BoundedFolder:
    """At most `max_bytes` of entries in `folder`, oldest use removed first; `what` names it in messages (`media cache`).

    Names of entries are hexadecimal digests.

    Raises:
        InputError: `max_bytes` is not positive.
    """

    def __init__(self, what: str, folder: str | Path, max_bytes: int) -> None:
        if max_bytes <= 0:
            raise InputError(f"{what}: max_bytes must be positive, got {max_bytes}")
        self.what = what
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self._said = False

    def make(self) -> None:
        """Make the folder if it is not there. Raises `OSError` when it cannot be made or written."""
        (self.folder / "entries").mkdir(parents=True, exist_ok=True)
        (self.folder / "lock").touch()

    def place(self, kind: str, name: str) -> Path:
        """Where the file of one name lies among those of its kind (`entries`)."""
        return self.folder / kind / name[:2] / name

    def alone(self, name: str) -> AbstractContextManager[None]:
        """Waits until no other process makes this entry. Where locks cannot be had, each makes it for itself."""
        return alone(self.place("locks", name))

    def read(self, name: str, load: Callable[[Path], EntryT | None]) -> EntryT | None:
        """What `load` makes of an entry, which is marked as used now; `None` when it is not there.

        `load` returns `None` for an entry that is damaged, which removes it.
        """
        path = self.place("entries", name)
        try:
            found = load(path)
        except OSError:
            return None
        with suppress(OSError):
            if found is None:
                path.unlink()
            else:
                os.utime(path)
        return found

    def store(self, name: str, parts: Sequence[bytes | memoryview]) -> None:
        """Write one entry, if it fits; a full or unwritable disk is said once and costs no more than the making."""
        size = sum(memoryview(part).nbytes for part in parts)
        if size > self.max_bytes:
            return
        entry = self.place("entries", name)
        try:
            with self._locked():
                if not entry.exists():
                    # Counted before it is written: a process that is killed in between leaves the count too high, which mends itself.
                    self._make_room(size)
                    write(entry, parts)
        except OSError as error:
            if not self._said:
                self._said = True
                warnings.warn(f"{self.what} {str(self.folder)!r}: nothing more is kept ({error.strerror})", stacklevel=2)

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
        write(count, [str(held + size).encode()])

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


def write(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    """Write under a temporary name and rename. No flush to disk: what a crash of the machine spoils must be found when it is read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Waits until no other process has the lock. Where locks cannot be had, nobody waits."""
    file = locked_file(lock)
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


def locked_file(lock: Path) -> int | None:
    """The descriptor of a lock that this process now holds; `None` where locks cannot be had."""
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
