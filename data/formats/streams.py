"""JSON lists and JSON lines read one entry at a time, whatever they hold: what cannot be read is an error with its place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from omnistage.data.errors import InputError, RecordError
from omnistage.data.formats.places import Place, Row
from omnistage.data.formats.rows import Mapped

# JSON parsers take memory or stack for each level; no published layout has ten.
MOST_LEVELS = 100
_LONGEST_LINE = 1 << 20
_MARK = b"\xef\xbb\xbf"
_LIST = "one JSON list of objects in UTF-8"
_LINES = "one JSON object a line in UTF-8"
_ESCAPE = re.compile(rb"\\[\s\S]")
_TOKEN = re.compile(rb'\\[\s\S]|["\[\]{}]')
_BESIDES = bytes(set(range(256)) - set(b'"[]{}'))


def stream_list(path: Path, *, allowed: str = _LIST) -> Iterator[Row]:
    """The entries of the one JSON list that a file holds.

    Raises `RecordError` when it is not JSON, not a list, or nested too deeply; the entries behind such a place are not read. What is
    `allowed` is said where the path is no file.
    """
    name = path.name
    with _opened(path, allowed) as file:
        first = _first_byte(file)
        if first != b"[":
            raise RecordError(f"{name}: {_instead_of_a_list(file, first)}; allowed: {_LIST}")
        shallow = _Shallow(file)
        entries = ijson.items(shallow, "item", use_float=True)
        for position in count():
            try:
                entry = next(entries)
            except StopIteration:
                return
            except (ijson.JSONError, UnicodeDecodeError) as error:
                if shallow.too_deep:
                    raise RecordError(f"{name}: record {position}: {_TOO_DEEP}") from error
                raise RecordError(f"{name}: from record {position} on: {_syntax_error(error)}; allowed: {_LIST}") from error
            yield Row(Place(name, position), position, entry)


def stream_lines(path: Path, *, allowed: str = _LINES) -> Mapped[Row, Row]:
    """The values of a file with one JSON value a line, without empty lines; behind a line that is none the next one is read."""
    return Mapped(_lines(path, allowed), _parsed)


def _lines(path: Path, allowed: str) -> Iterator[Row]:
    name, position = path.name, 0
    with _opened(path, allowed) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield Row(Place(name, number, "line"), position, line)
                position += 1


def _parsed(row: Row) -> list[Row]:
    if _is_deep(row.value):
        raise RecordError(f"{row.place}: {_TOO_DEEP}")
    try:
        return [row._replace(value=json.loads(row.value.decode()))]
    except ValueError as error:
        raise RecordError(f"{row.place}: {in_short(error)}; allowed: {_LINES}") from error


def read_whole(path: Path) -> Any:
    """The JSON value of a small file; `RecordError` where it holds none."""
    with _opened(path, "a file of JSON") as file:
        content = file.read()
    if _is_deep(content):
        raise RecordError(f"{path.name}: {_TOO_DEEP}")
    try:
        return json.loads(content.decode())
    except ValueError as error:
        raise RecordError(f"{path.name}: {in_short(error)}; allowed: JSON in UTF-8") from error


def begins_with_object(path: Path) -> bool:
    """Whether a file begins with '{', as JSON lines do; false for what cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(256).removeprefix(_MARK).lstrip()[:1] == b"{"
    except OSError:
        return False


def in_short(error: Exception) -> str:
    """What an error says, in one line that is not too long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 120 else f"{text[:117]}..."


@contextmanager
def _opened(path: Path, allowed: str) -> Iterator[BinaryIO]:
    """The file behind its byte order mark; `InputError` where it is a folder or the system refuses it."""
    if path.is_dir():
        raise RecordError(f"{path.name or path}: it is a folder; allowed: {allowed}")
    try:
        with path.open("rb") as file:
            if file.read(len(_MARK)) != _MARK:
                file.seek(0)
            yield file
    except InputError:
        raise
    except OSError as error:
        raise RecordError(f"{path.name}: cannot be read ({error.strerror})") from error


_TOO_DEEP = f"lists and objects stand in each other more than {MOST_LEVELS} deep; allowed: fewer levels"


class _Levels:
    """How many lists and objects are open at the end of what was followed: at most `most`."""

    def __init__(self, most: int = MOST_LEVELS) -> None:
        self.most = most
        self.depth = 0
        self.in_string = False
        self.escaped = False

    def follow(self, chunk: bytes) -> bool:
        """Go on to the end of the next bytes; false, and nothing is changed, where too many are open at once."""
        rest, escaped = chunk[1:] if self.escaped else chunk, False
        if b"\\" in rest:
            rest = _ESCAPE.sub(b"", rest)
            escaped = rest.endswith(b"\\")
        parts = rest.translate(None, _BESIDES).split(b'"')
        depth = self.depth
        for bracket in b"".join(parts[self.in_string :: 2]):
            depth += 1 if bracket in b"[{" else -1
            if depth > self.most:
                return False
        self.depth, self.in_string, self.escaped = depth, self.in_string ^ (len(parts) % 2 == 0), escaped
        return True

    def end(self, chunk: bytes) -> int:
        """Where in the next bytes the bracket stands that is one too many."""
        depth, in_string = self.depth, self.in_string
        for token in _TOKEN.finditer(chunk, int(self.escaped)):
            if token[0] == b'"':
                in_string = not in_string
            elif not in_string and token[0] in (b"[", b"{"):
                depth += 1
            elif not in_string and token[0] in (b"]", b"}"):
                depth -= 1
            if depth > self.most:
                return token.start()
        return len(chunk)


class _Shallow:
    """A file of JSON that ends before the bracket that opens a level too many, so that what stands before it is still read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._levels = _Levels()
        self.too_deep = False

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        if self.too_deep:
            return b""
        chunk = self._file.read(size)
        self.too_deep = not self._levels.follow(chunk)
        return chunk[: self._levels.end(chunk)] if self.too_deep else chunk


def _is_deep(content: bytes) -> bool:
    return content.count(b"[") + content.count(b"{") > MOST_LEVELS and not _Levels().follow(content)


def _first_byte(file: BinaryIO) -> bytes:
    """The first byte that is no white space; the file stands before it afterwards."""
    while (byte := file.read(1)).isspace():
        pass
    if byte:
        file.seek(-1, 1)
    return byte


def _instead_of_a_list(file: BinaryIO, first: bytes) -> str:
    if not first:
        return "the file is empty"
    if first != b"{":
        return f"the file begins with {first.decode('ascii', 'replace')!r}, not with '['"
    line = file.readline(_LONGEST_LINE)
    try:
        whole = not _is_deep(line) and isinstance(json.loads(line.decode()), dict)
    except ValueError:
        whole = False
    return "the file holds one object a line" if whole and _first_byte(file) else "the top level is an object"


def _syntax_error(error: Exception) -> str:
    """What the JSON reader says and the text beside it; its own error is of three lines, and bytes where the file is not UTF-8."""
    text = error.args[0] if error.args and isinstance(error, ijson.JSONError) else str(error)
    problem, _, rest = (text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)).partition("\n")
    near = rest.partition("\n")[0].strip()
    return problem.strip().rstrip(".") + (f", near {near!r}" if near else "")
