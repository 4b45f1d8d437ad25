"""Rows that must not be used, by place and with the reason: what `omnistage data check --quarantine` writes and a run honours.

The first line is a header with the SHA-256 of each annotation file that was checked, and every further line is one row: a record, or
(`id` null) a row that gave none:

    {"omnistage": "quarantine", "version": 2, "files": [{"path": "train.json", "sha256": "...", "whole": true}]}
    {"id": "train-17", "source": "train.json: record 17", "file": "train.json", "codes": ["silent"], "reason": "silent: ..."}
    {"id": null, "source": "train.json: record 18", "file": "train.json", "codes": ["missing"], "reason": "missing: ..."}
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omnistage.data.errors import InputError
from omnistage.data.records import Record

VERSION = 2
_LONGEST_HEADER = 1 << 24


@dataclass(frozen=True)
class Entry:
    """One row that must not be used: where it stands, the annotation file as it was named, and why.

    `id` is that of its record; `None` where the reader refuses the row.
    """

    id: str | None
    source: str
    file: str
    codes: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Checked:
    """An annotation file that was checked.

    `sha256` is that of its bytes, or of the JSON files in a folder (`None`: it holds none); `whole` says whether all of its rows could be
    read.
    """

    path: str
    sha256: str | None
    whole: bool = True


@dataclass(frozen=True)
class Listed:
    """What of one annotation file must not be used."""

    records: frozenset[tuple[str, str]]
    rows: frozenset[str]

    def has(self, record: Record) -> bool:
        """Whether a record is listed: known by its id and the place of its row, or by the place of a row that was refused."""
        return (record.id, record.source) in self.records or record.source in self.rows


@dataclass(frozen=True)
class Quarantine:
    """What a quarantine file holds."""

    path: str
    files: tuple[Checked, ...]
    entries: tuple[Entry, ...]

    def of(self, path: str | Path) -> Listed:
        """What is listed of an annotation file, which must be, byte for byte, one of those that were checked.

        Of several that were checked and are equal, the one that has this path is meant, else all.

        Raises:
            InputError: it was not checked, or has changed since: rows may stand in other places, and new ones were never looked at.
        """
        digest, place = digest_of(path), os.path.realpath(path)
        there = [file.path for file in self.files if os.path.realpath(file.path) == place]
        equal = [file.path for file in self.files if file.sha256 == digest and (digest is not None or file.path in there)]
        if not equal:
            named = there or [file.path for file in self.files if Path(file.path).name == Path(path).name]
            told = "has changed since it was checked" if named else "was not checked"
            known = ", ".join(file.path for file in self.files)
            raise InputError(f"{path}: {told}; quarantine {self.path!r} is for {known}: run omnistage data check again")
        meant = {file for file in equal if file in there} or set(equal)
        entries = [entry for entry in self.entries if entry.file in meant]
        return Listed(
            records=frozenset((entry.id, entry.source) for entry in entries if entry.id is not None),
            rows=frozenset(entry.source for entry in entries if entry.id is None),
        )


def digest_of(path: str | Path) -> str | None:
    """SHA-256 of an annotation file, or of names and contents of the JSON files in a folder (`None`: there are none).

    Raises:
        InputError: it cannot be read.
    """
    if not os.path.isdir(path):
        return _digest(path)
    files = sorted(Path(path).glob("*.json*"))
    whole = hashlib.sha256(json.dumps([[file.name, _digest(file)] for file in files if file.is_file()]).encode())
    return whole.hexdigest() if files else None


def _digest(path: str | Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def check_target(path: str | Path, given: Iterable[str]) -> None:
    """See that a quarantine can be written to `path`: there is nothing, or another quarantine, and it is none of the files `given`.

    Raises:
        InputError: it would take the place of something else.
    """
    place = os.path.realpath(path)
    for file in given:
        if os.path.realpath(file) == place:
            raise InputError(f"quarantine {str(path)!r}: it is the annotation file {file!r}; choose another file")
    if os.path.exists(path):
        try:
            with open(path, encoding="utf-8", errors="replace") as there:
                header = _object(path, there.readline(_LONGEST_HEADER), 1)
        except (OSError, InputError):
            header = {}
        if header.get("omnistage") != "quarantine":
            raise InputError(f"quarantine {str(path)!r}: it exists and is no quarantine; choose another file")


def write(path: str | Path, files: Sequence[Checked], entries: Iterable[Entry]) -> None:
    """Write a quarantine file, whole or not at all. Raises `InputError` where it cannot be written."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    header = {"omnistage": "quarantine", "version": VERSION, "files": [asdict(file) for file in files]}
    lines = [header, *(asdict(entry) for entry in entries)]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.writelines(map(_line, lines))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"quarantine {str(path)!r}: cannot be written ({error.strerror})") from error


def read(path: str | Path) -> Quarantine:
    """What `write` wrote. Raises `InputError` when the file is missing, of another kind or version, or damaged."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"quarantine {str(path)!r}: cannot be read ({error.strerror})") from error
    # Not splitlines: a message may hold other line separators.
    lines = [line for line in text.split("\n") if line]
    header = _object(path, lines[0] if lines else "", 1)
    if header.get("omnistage") != "quarantine" or header.get("version") != VERSION:
        raise InputError(f"quarantine {str(path)!r}: its first line is no header of version {VERSION}; write it with omnistage data check")
    try:
        files = tuple(_checked(file) for file in header["files"])
        entries = tuple(_entry(_object(path, line, number)) for number, line in enumerate(lines[1:], start=2))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"quarantine {str(path)!r}: {error}; write it with omnistage data check") from error
    return Quarantine(str(path), files, entries)


def _checked(values: dict[str, Any]) -> Checked:
    file = Checked(**values)
    if not (isinstance(file.path, str) and isinstance(file.sha256, str | None) and isinstance(file.whole, bool)) or "\0" in file.path:
        raise TypeError("a file has a path, a sha256 and whole")
    os.fsencode(file.path)
    return file


def _entry(values: dict[str, Any]) -> Entry:
    entry = Entry(**values | {"codes": tuple(values["codes"])})
    texts = (entry.source, entry.file, entry.reason, *entry.codes)
    if not isinstance(entry.id, str | None) or not all(isinstance(text, str) for text in texts):
        raise TypeError("id, source, file, codes and reason of a row are texts")
    return entry


def _line(values: dict[str, Any]) -> bytes:
    """One line of JSON, in plain characters unless one of them is half a character."""
    try:
        return json.dumps(values, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(values).encode() + b"\n"


def _object(path: str | Path, line: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"quarantine {str(path)!r}: line {number} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"quarantine {str(path)!r}: line {number} is no object")
    return value
