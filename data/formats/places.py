"""Where a row stands and why it is refused, in a form that a program can use: errors about rows carry both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from omnistage.data.errors import InputError, MediaError, RecordError

Error = TypeVar("Error", bound=InputError)


@dataclass(frozen=True, slots=True)
class Place:
    """One row of a file: record `number` of a list (from 0), line `number` (from 1), or what a reader gave as its `number`th (from 0)."""

    file: str
    number: int
    unit: Literal["record", "line", "entry"] = "record"

    def __str__(self) -> str:
        return f"{self.file}: {self.unit} {self.number}"


class Row(NamedTuple):
    """One entry of a file: where it stands, its position among the entries (from 0), and what it holds."""

    place: Place
    position: int
    value: Any


class BadAnswer(RecordError):
    """The answer of a row is none that its question allows."""


class BadPath(MediaError):
    """A row names a clip by what is no path, or by one that leads out of the media root."""


def code_of(error: InputError) -> str:
    """The name under which the data doctor reports the refusal of a row."""
    if isinstance(error, BadAnswer):
        return "bad_answer"
    return error.code if isinstance(error, MediaError) and not isinstance(error, BadPath) else "unreadable_row"


def placed(error: Error, place: Place | None) -> Error:
    """The error with the place of its row, unless it has one already."""
    if place is not None:
        vars(error).setdefault("place", place)
    return error


def place_of(error: InputError) -> Place | None:
    """The place of the row that an error is about, where it is about one."""
    place = vars(error).get("place")
    return place if isinstance(place, Place) else None


def in_file(path: str, source: str) -> str:
    """`Record.source` with the whole path of its annotation file: two files may have one name."""
    name = path.rstrip("/").rpartition("/")[2]
    return f"{path}{source.removeprefix(name)}" if source.startswith(f"{name}: ") else f"{path}: {source}"
