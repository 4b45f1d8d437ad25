"""What a worker that fails on purpose leaves for the command that started it, so that one of many ranks is heard, once."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

from omnistage.stages import files

# Names the folder to the workers and to what starts them. Without it nobody would read a file, and a worker prints its error itself.
VARIABLE = "OMNISTAGE_FAILURES"
_NAME = "failure_{rank}.json"
_PROCESS = "process_{rank}"
_WISH = "asked_to_stop"


@dataclass(frozen=True)
class Failure:
    """The exit code and the one line of an error that was raised on purpose."""

    code: int
    message: str


def folder() -> Path | None:
    """The folder that this process was given for failures, if it was."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else None


def leave(place: Path, rank: int, failure: Failure) -> None:
    """Writes a rank's failure, whole or not at all: the others are ended as soon as one is gone."""
    # ASCII, because a message may quote a file name that is no UTF-8
    files.write_text(place / _NAME.format(rank=rank), json.dumps(asdict(failure)))


def note_process(place: Path, rank: int) -> None:
    """Leaves the number of this process, so that the command that started it can signal it."""
    files.write_text(place / _PROCESS.format(rank=rank), str(os.getpid()))


def processes(place: Path) -> list[int]:
    """The numbers of the processes that have left theirs."""
    return [int(path.read_text()) for path in place.glob(_PROCESS.format(rank="*"))]


def wish_to_stop(place: Path, by: signal.Signals) -> None:
    """Leaves word for the processes that are not there yet that the command was asked to stop."""
    files.write_text(place / _WISH, by.name)


def wish(place: Path | None) -> signal.Signals | None:
    """The signal by which the command was asked to stop, if it was."""
    path = None if place is None else place / _WISH
    return signal.Signals[path.read_text()] if path is not None and path.exists() else None


def lowest(place: Path | None) -> Failure | None:
    """The failure of the lowest rank that left one."""
    left = {} if place is None else {int(path.stem.rpartition("_")[2]): path for path in place.glob(_NAME.format(rank="*"))}
    return Failure(**json.loads(left[min(left)].read_text(encoding="utf-8"))) if left else None
