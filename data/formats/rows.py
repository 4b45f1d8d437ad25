"""The rows of an annotation file, and errors that say where in it something stands."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import ijson

from omnistage.data.errors import InputError, MediaError, RecordError
from omnistage.data.media import resolve
from omnistage.data.records import MediaRef, Modality, Record

_LONGEST_LINE = 1 << 20
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


def stream_list(path: Path) -> Iterator[Any]:
    """The entries of the one JSON list that a file holds, one at a time; `RecordError` when it is not JSON or not a list."""
    allowed = "allowed: one JSON list of objects in UTF-8"
    with path.open("rb") as file:
        if file.read(3) != b"\xef\xbb\xbf":
            file.seek(0)
        first = _first_byte(file)
        if first != b"[":
            raise RecordError(f"{path.name}: {_instead_of_a_list(file, first)}; {allowed}")
        entries = ijson.items(file, "item", use_float=True)
        for position in count():
            try:
                entry = next(entries)
            except StopIteration:
                return
            except (ijson.JSONError, UnicodeDecodeError) as error:
                raise RecordError(f"{path.name}: from record {position} on: {_syntax_error(error)}; {allowed}") from error
            yield entry


def stream_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Line numbers (from 1) and values of a file with one JSON value a line, without empty lines; `RecordError` for a line that is none."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and line.startswith(b"\xef\xbb\xbf"):
                line = line[3:]
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except (UnicodeDecodeError, json.JSONDecodeError) as error:
                raise RecordError(f"{path.name}: line {number}: {_one_line(error)}; allowed: one JSON object a line in UTF-8") from error


def _first_byte(file: BinaryIO) -> bytes:
    """The first byte that is no white space; the file stands before it afterwards."""
    while (byte := file.read(1)).isspace():
        pass
    if byte:
        file.seek(-1, 1)
    return byte


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def _instead_of_a_list(file: BinaryIO, first: bytes) -> str:
    if not first:
        return "the file is empty"
    if first != b"{":
        return f"the file begins with {first.decode('ascii', 'replace')!r}, not with '['"
    try:
        whole = isinstance(json.loads(file.readline(_LONGEST_LINE)), dict)
    except ValueError:
        whole = False
    return "the file holds one object a line" if whole and _first_byte(file) else "the top level is an object"


def _syntax_error(error: Exception) -> str:
    """What the JSON reader says and the text beside it; its own error is of three lines, and bytes where the file is not UTF-8."""
    text = error.args[0] if error.args and isinstance(error, ijson.JSONError) else str(error)
    problem, _, rest = (text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)).partition("\n")
    near = rest.partition("\n")[0].strip()
    return problem.strip().rstrip(".") + (f", near {near!r}" if near else "")


def object_of(entry: Any, source: str, holds: str) -> Fields:
    """The object that an entry must be; `RecordError` says what it `holds`."""
    if not isinstance(entry, dict):
        raise RecordError(f"{source}: it is {shown(entry)}; allowed: an object with {holds}")
    return Fields(entry, source)


class Mapped(Iterator[Out], Generic[In, Out]):
    """What `make` makes of each entry, in order; behind an entry that it refuses the next call goes on.

    A generator would end at its first error. So a run stops at the first bad row, and the data doctor finds them all.
    """

    def __init__(self, entries: Iterable[In], make: Callable[[In], Iterable[Out]]) -> None:
        self._entries = iter(entries)
        self._make = make
        self._made: deque[Out] = deque()
        self._broke = False

    def __next__(self) -> Out:
        while not self._made:
            try:
                entry = next(self._entries)
            except InputError:
                self._broke = not isinstance(self._entries, Mapped)
                raise
            self._made.extend(list(self._make(entry)))
        return self._made.popleft()

    @property
    def whole(self) -> bool:
        """Whether the entries themselves never failed: behind such an error (a file that breaks off, say) there are no more."""
        return not self._broke and (self._entries.whole if isinstance(self._entries, Mapped) else True)


def distinct(records: Iterable[Record], field: str = "id") -> Iterator[Record]:
    """The records as they come; `RecordError` about `field`, which the ids are made of, when two have the same."""
    seen: dict[str, str] = {}

    def once(record: Record) -> list[Record]:
        if record.id in seen:
            problem = f"{record.id!r} is the id of {seen[record.id]} too; allowed: an id of its own"
            raise RecordError(f"{record.source}: {field}: {problem}")
        seen[record.id] = record.source.rpartition(": ")[2]
        return [record]

    return Mapped(records, once)


def media_path(fields: Fields, field: str, media_root: Path, *, folders: bool = False) -> str:
    """The real path of the file that a field names; with `folders`, of a folder too. `MediaError` when there is none under the root."""
    named = fields.text(field, "the path of a clip under the media root")
    where = f"{fields.where}: {fields.prefix}{field}"
    try:
        path = resolve(named, media_root)
    except MediaError as error:
        raise MediaError(f"{where}: {error}") from error
    if not (os.path.isfile(path) or (folders and os.path.isdir(path))):
        what = "file or folder" if folders else "file"
        raise MediaError(f"{where}: {named!r} is no {what} under {str(media_root)!r}; allowed: the path of a clip under the media root")
    return path


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
