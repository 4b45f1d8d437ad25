"""Makes the files of a folder once: whose folder it is, the files side by side in a few processes, and the record of what was asked for.

The record is written last, so a folder with it is whole; until then a mark says with which arguments it was begun.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from omnistage.data.errors import InputError

# Fewer files than this are made sooner than a second process starts.
WORTH_A_POOL = 500

Piece = TypeVar("Piece")


class Job:
    """The folder `out`, claimed for some arguments; `name` is that of the record, and `folders` those that the files lie in."""

    def __init__(self, out: Path, name: str, arguments: Mapping[str, Any], folders: Sequence[str]) -> None:
        """Marks an empty folder as begun with these arguments. Raises `InputError` for one of others, or with files of unknown origin."""
        self.out = out
        self.arguments = dict(arguments)
        self._done, self._started = out / f"{name}.json", out / f"{name}.started.json"
        # Whether the folder was finished with these arguments before.
        self.finished = self._claim(folders)

    def make(self, pieces: Sequence[Piece], write: Callable[[Piece, Path], None], *, what: str, workers: int, progress: bool) -> None:
        """Calls `write(piece, out)` for each piece, in processes of their own where that is worth it: they find `write` by its name."""
        # Bars are for people: `None` leaves them out where the output is no terminal.
        with tqdm(total=len(pieces), desc=f"{what}s", unit=what, disable=None if progress else True) as bar:
            made = 0
            for _ in in_pool(pieces, self.out, write, workers):
                made += 1
                bar.update()
            for piece in pieces[made:]:
                write(piece, self.out)
                bar.update()

    def keep(self, path: Path, value: Any) -> None:
        """Writes a list of the finished folder, unless it is there already."""
        if not (self.finished and path.is_file()):
            write_whole(path, value)

    def done(self) -> None:
        """Writes the record."""
        if not self.finished:
            write_whole(self._done, self.arguments)
            self._started.unlink()
            self.finished = True

    def _claim(self, folders: Sequence[str]) -> bool:
        for path in (self._done, self._started):
            if path.is_file():
                _check_same(path, self.arguments)
                return path == self._done
        for folder in folders:
            if (self.out / folder).is_dir() and any((self.out / folder).iterdir()):
                place = str(self.out / folder)
                raise InputError(f"{place!r} holds files, but {str(self._done)!r} is not there to say which; give an empty folder")
        self.out.mkdir(parents=True, exist_ok=True)
        write_whole(self._started, self.arguments)
        return False


def whole_number(name: str, number: int) -> None:
    """Raises `InputError` unless it is a whole number from 0 to 2**32 - 1: more would take two words of a random stream's key."""
    if not 0 <= number < 2**32:
        raise InputError(f"render: {name} must lie in 0..{2**32 - 1}, got {number}")


def in_pool(pieces: Sequence[Piece], out: Path, write: Callable[[Piece, Path], None], workers: int) -> Iterator[None]:
    """One `None` for each piece made, in order; ends early, or at once, where processes cannot be started."""
    if workers < 2 or len(pieces) < WORTH_A_POOL or multiprocessing.current_process().daemon:
        return
    # Forking is not safe beside the threads that torch or a decoder may have started.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            yield from pool.map(write, pieces, [out] * len(pieces), chunksize=16)
    except BrokenProcessPool:
        # A script without a main guard, or one read from stdin, cannot be imported by its children.
        return


def write_whole(path: Path, value: Any) -> None:
    """Writes JSON so that a reader finds either nothing, or the old file, or the whole new one."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _check_same(path: Path, arguments: Mapping[str, Any]) -> None:
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{str(path)!r} is no JSON ({error}); give an empty folder") from None
    if before == arguments:
        return
    asked = {name: value for name, value in arguments.items() if not isinstance(before, dict) or before.get(name) != value}
    there = {name: before.get(name) for name in asked} if isinstance(before, dict) else before
    raise InputError(f"{str(path)!r} was rendered with {there}, but {asked} is asked for; give another folder or remove this one")
