"""What is drawn from a reader, ours or a user's: records that are records, with a place, and errors that say which row they are about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from inspect import isgenerator
from pathlib import Path
from typing import Any

from omnistage.data import prompts
from omnistage.data.errors import InputError, RecordError
from omnistage.data.formats.places import Place, placed
from omnistage.data.formats.rows import RowStream
from omnistage.data.records import Record
from omnistage.data.user_code import one_line, raised_at

# An iterator of a user's own that gives so many errors without a record is taken to be stuck.
MOST_ERRORS = 1000
_END = object()


class ReaderError(InputError):
    """A user's own reader failed: its fault, and not that of a row."""


class Reading(Iterator[Record]):
    """The records of one annotation file, at most `limit` of them.

    An `InputError` with a place (`places.place_of`) is about one row, and the next call goes on behind it; without, it is about the file.
    """

    def __init__(self, format: str, path: Path, records: Iterator[Record], limit: int | None = None) -> None:
        self.format = format
        self.path = path
        self._records = records
        self._left = limit
        self._drawn = 0
        self._failed = False

    def __next__(self) -> Record:
        if self._left == 0:
            raise StopIteration
        self._drawn += 1
        try:
            found = self._next()
        except InputError as error:
            self._failed = True
            if self._goes_on():
                placed(error, self._place())
            raise
        self._failed = False
        try:
            record = self._checked(found)
        except InputError as error:
            placed(error, self._records.place if isinstance(self._records, RowStream) else None)
            placed(error, self._place())
            raise
        if self._left is not None:
            self._left -= 1
        return record

    @property
    def whole(self) -> bool:
        """When nothing more is drawn: whether no error was the end of the file, or of one in the folder."""
        return self._records.whole if isinstance(self._records, RowStream) else not self._failed

    def _next(self) -> Any:
        return next(self._records)

    def _checked(self, record: Any) -> Record:
        """What was drawn, with a place; `RecordError` where it is no record, or holds no text where it must."""
        if not isinstance(record, Record):
            problem = f"format {self.format!r} gave {type(record).__name__!r}; allowed: Record"
            raise RecordError(f"{self.path.name}: record {self._drawn - 1}: {problem}")
        found: Record = record if record.source else replace(record, source=str(self._place()))
        _check_text(found)
        return found

    def _place(self) -> Place:
        """By the number of what was drawn, for readers that say nothing better."""
        return Place(self.path.name, self._drawn - 1, "entry")

    def _goes_on(self) -> bool:
        return self._records.whole if isinstance(self._records, RowStream) else not isgenerator(self._records)


class OwnReading(Reading):
    """The same of a user's own reader, whose exceptions become one line that names the row they came after."""

    def __init__(self, format: str, path: Path, start: Callable[[], Any], limit: int | None = None) -> None:
        super().__init__(format, path, iter(()), limit)
        self._last: Record | None = None
        self._errors = 0
        found = self._guarded(start)
        if not isinstance(found, Iterable):
            raise ReaderError(f"{path.name}: format {format!r} gave {type(found).__name__!r}; allowed: an iterator of records")
        self._records = self._guarded(lambda: iter(found))

    def _next(self) -> Any:
        try:
            found = self._guarded(lambda: next(self._records, _END))
        except ReaderError:
            raise
        except InputError as error:
            self._errors += 1
            if self._errors == MOST_ERRORS and not isinstance(self._records, RowStream):
                problem = f"gave {MOST_ERRORS} errors and not one record {self._behind()}, the last of them: {error}"
                raise ReaderError(f"{self.path.name}: format {self.format!r} {problem}") from error
            raise
        if found is _END:
            raise StopIteration
        self._errors = 0
        return found

    def _checked(self, record: Any) -> Record:
        checked = super()._checked
        found: Record = self._guarded(lambda: checked(record))
        self._last = found
        return found

    def _guarded(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except InputError:
            raise
        except Exception as error:
            told = f"{one_line(error)} ({raised_at(error)})"
            raise ReaderError(f"{self.path.name}: format {self.format!r} failed {self._behind()}: {told}") from error

    def _behind(self) -> str:
        return "before its first record" if self._last is None else f"behind {self._last.source or f'record {self._last.id!r}'}"


def _check_text(record: Record) -> None:
    """Raises `RecordError` for half a character (a lone surrogate), which no tokenizer takes, and for what is no text at all."""
    named = [("id", record.id), ("task", record.task), ("target", record.target), *prompts.texts(record)]
    try:
        "".join([text for _, text in named]).encode()
    except (TypeError, UnicodeEncodeError) as error:
        for name, text in named:
            if not isinstance(text, str):
                raise RecordError(f"{record.source}: {name}: got {type(text).__name__!r}; allowed: a text") from error
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise RecordError(f"{record.source}: {name}: it holds half a character; allowed: text in Unicode") from error
