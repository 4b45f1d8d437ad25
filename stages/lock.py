"""Who uses a run directory. Imports no torch: the command that starts a run's processes holds it, too.

Two locks, which the system drops when their process dies: the command's, held from the first stage to the last, and the workers', held by
the main one of a stage's processes. Without the first another run would get in between two stages; without the second while the workers of
a command that was killed still go on.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from omnistage.data.errors import InputError
from omnistage.stages import files

WORKERS, COMMAND = ".lock", ".command.lock"
# Names to a command's workers the folder that it holds for them.
VARIABLE = "OMNISTAGE_HOLDS"
TRIES = 5


@contextmanager
def by_command(folder: Path) -> Iterator[None]:
    """Hold a run directory for the processes that this command starts; removes the folder where nothing else came into it.

    Raises:
        InputError: another process holds it, or it cannot be written to.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with _taken(folder, COMMAND):
        os.environ[VARIABLE] = str(folder.resolve())
        try:
            yield
        finally:
            del os.environ[VARIABLE]
            if made and os.listdir(folder) == [COMMAND]:
                (folder / COMMAND).unlink()
                with suppress(OSError):
                    for path in made:
                        path.rmdir()


@contextmanager
def by_worker(folder: Path) -> Iterator[None]:
    """Hold a run directory in the process that writes it; where no command holds it for this one, in the command's place, too.

    Raises:
        InputError: another process holds it, or it cannot be written to.
    """
    if os.environ.get(VARIABLE) == str(folder.resolve()):
        with _taken(folder, WORKERS):
            yield
        return
    with _taken(folder, COMMAND), _taken(folder, WORKERS):
        yield


def is_held(folder: Path) -> bool:
    """Whether a run is under way; on a file system without locks nobody knows."""
    return any(_is_locked(folder / name) for name in (COMMAND, WORKERS))


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def _taken(folder: Path, name: str) -> Iterator[None]:
    for left in reversed(range(TRIES)):
        files.make_folder(folder, "run_dir")
        # Written to by nobody, so that a run with nothing to do changes no file.
        with (folder / name).open("a") as file:
            if _lock(file, folder / name):
                yield
                return
        if not left:
            raise InputError(f"run_dir {str(folder)!r}: another run is using it")
        # Who looks whether a run is under way (`omnistage watch`) has the lock for a moment.
        time.sleep(0.1)


def _lock(file: IO[str], path: Path) -> bool:
    """Whether the file is locked now, and still the one that has the name."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False
