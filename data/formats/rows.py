"""The rows of an annotation file, and errors that say where in it something stands."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from omnistage.data.errors import InputError, RecordError
from omnistage.data.formats.places import BadAnswer, Place, Row, placed
from omnistage.data.records import MediaRef, Modality, Record

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Fields:
    """One JSON object of a record. `where` names file and record, `prefix` the fields that lead to this object (`"questions."`)."""

    values: dict[str, Any]
    where: str
    prefix: str = ""

    def error(self, field: str, problem: str) -> RecordError:
        """The error to raise about a field: `train.json: record 17: questions.answer: ...`."""
        return RecordError(f"{self.where}: {self.prefix}{field}: {problem}")

    def bad_answer(self, field: str, problem: str) -> BadAnswer:
        """The error to raise about a field that holds no answer to the row's question."""
        return BadAnswer(f"{self.where}: {self.prefix}{field}: {problem}")

    def need(self, field: str, allowed: str) -> Any:
        """The value of a field that must be there and not null; `RecordError` names what is `allowed`."""
        if self.values.get(field) is None:
            raise self.error(field, f"missing; allowed: {allowed}")
        return self.values[field]

    def text(self, field: str, allowed: str = "a string that is not empty") -> str:
        """The stripped text of a field that must be there; `RecordError` for anything else."""
        value = self.need(field, allowed)
        if not isinstance(value, str) or not value.strip():
            raise self.error(field, f"got {shown(value)}; allowed: {allowed}")
        return value.strip()

    def name(self, field: str) -> str:
        """The text or the whole number of a field that must be there, as text."""
        value = self.need(field, "a string or a whole number")
        if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip():
            raise self.error(field, f"got {shown(value)}; allowed: a string or a whole number")
        return str(value).strip()

    def below(self, field: str) -> Fields:
        """The object that a field holds; `RecordError` when it is missing or no object."""
        value = self.need(field, "one object")
        if not isinstance(value, dict):
            raise self.error(field, f"got {shown(value)}; allowed: one object")
        return Fields(value, self.where, f"{self.prefix}{field}.")

    def others(self, known: Collection[str]) -> dict[str, Any]:
        """The fields that are not `known`."""
        return {name: value for name, value in self.values.items() if name not in known}


def shown(value: Any) -> str:
    """A JSON value for an error line: its type, and its text when that is short."""
    names = {dict: "an object", list: "a list", str: "the string", bool: "the truth value", int: "the number", float: "the number"}
    name = "null" if value is None else names.get(type(value), type(value).__name__)
    if value is None or isinstance(value, dict | list):
        return name
    text = json.dumps(value, ensure_ascii=False, default=str)
    return f"{name} {text if len(text) <= 80 else text[:77] + '...'}"


def object_of(entry: Any, source: str, holds: str) -> Fields:
    """The object that an entry must be; `RecordError` says what it `holds`."""
    if not isinstance(entry, dict):
        raise RecordError(f"{source}: it is {shown(entry)}; allowed: an object with {holds}")
    return Fields(entry, source)


class RowStream(Iterator[Out]):
    """What is drawn row by row. Behind an `InputError` about one row the next call goes on with the next row."""

    @property
    def whole(self) -> bool:
        """Whether no error was the end of a file: behind a place where its JSON breaks off, say, nothing can be read."""
        raise NotImplementedError

    @property
    def place(self) -> Place | None:
        """Where the row stands that was drawn last."""
        raise NotImplementedError


class Mapped(RowStream[Out], Generic[In, Out]):
    """What `make` makes of each entry, in order; an entry that it refuses gives nothing, and an error with the entry's place.

    A generator would end at its first error. So a run stops at the first bad row, and the data doctor finds them all.
    """

    def __init__(self, entries: Iterable[In], make: Callable[[In], Iterable[Out]]) -> None:
        self._entries = iter(entries)
        self._make = make
        self._made: deque[Out] = deque()
        self._broke = False
        self._place: Place | None = None

    def __next__(self) -> Out:
        while not self._made:
            if self._broke:
                raise StopIteration
            try:
                entry = next(self._entries)
            except InputError:
                self._broke = not isinstance(self._entries, RowStream)
                raise
            if isinstance(entry, Row):
                self._place = entry.place
            try:
                self._made.extend(list(self._make(entry)))
            except InputError as error:
                placed(error, self.place)
                raise
        return self._made.popleft()

    @property
    def whole(self) -> bool:
        return not self._broke and (self._entries.whole if isinstance(self._entries, RowStream) else True)

    @property
    def place(self) -> Place | None:
        return self._entries.place if isinstance(self._entries, RowStream) else self._place


class Chained(RowStream[Out]):
    """The rows of several files, one file after the other; where one breaks off the next one is read."""

    def __init__(self, files: Sequence[RowStream[Out]]) -> None:
        self._files = files
        self._at = 0

    def __next__(self) -> Out:
        while self._at < len(self._files):
            try:
                return next(self._files[self._at])
            except StopIteration:
                self._at += 1
        raise StopIteration

    @property
    def whole(self) -> bool:
        return all(file.whole for file in self._files)

    @property
    def place(self) -> Place | None:
        return self._files[min(self._at, len(self._files) - 1)].place if self._files else None


def distinct(records: RowStream[Record], field: str = "id") -> Mapped[Record, Record]:
    """The records as they come; `RecordError` about `field`, which the ids are made of, when two have the same."""
    seen: dict[str, str] = {}

    def once(record: Record) -> list[Record]:
        if record.id in seen:
            problem = f"{record.id!r} is the id of {seen[record.id]} too; allowed: an id of its own"
            raise RecordError(f"{record.source}: {field}: {problem}")
        seen[record.id] = record.source.rpartition(": ")[2]
        return [record]

    return Mapped(records, once)


def media_refs(path: str, modality: Modality) -> tuple[MediaRef, ...]:
    """One clip as a modality perceives it."""
    match modality:
        case Modality.TEXT:
            return ()
        case Modality.IMAGE:
            return (MediaRef("image", path),)
        case Modality.AUDIO:
            return (MediaRef("audio", path),)
        case Modality.VIDEO:
            return (MediaRef("video", path),)
        case Modality.AUDIO_VIDEO:
            return (MediaRef("video", path, sound=path),)


def perceived(given: Modality | None, possible: Sequence[Modality], where: str) -> Modality:
    """The modality asked for, else the first that is `possible`; `RecordError` for one that is not."""
    if given is not None and given not in possible:
        raise RecordError(f"{where}: modality {str(given)!r} is asked for; allowed: {', '.join(possible)}")
    return possible[0] if given is None else given
