"""Records that must not be used, by name and with the reason: what `omnistage data check --quarantine` writes and a run honours.

The first line is a header with the SHA-256 of each annotation file that was checked, and every further line is one record:

    {"omnistage": "quarantine", "version": 1, "files": [{"path": "train.json", "sha256": "...", "whole": true}]}
    {"id": "train-17", "source": "train.json: record 17", "file": "train.json", "reason": "silent: ..."}
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

VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One record that must not be used: its id, where its row stands, the annotation file as it was named, and why."""

    id: str
    source: str
    file: str
    reason: str


@dataclass(frozen=True)
class Checked:
    """An annotation file that was checked: `sha256` of its bytes (`None`: a folder), and whether all of its rows could be read."""

    path: str
    sha256: str | None
    whole: bool = True


@dataclass(frozen=True)
class Quarantine:
    """What a quarantine file holds."""

    path: str
    files: tuple[Checked, ...]
    entries: tuple[Entry, ...]

    def apply(self, records: Iterable[Record]) -> list[Record]:
        """The records that are not in quarantine, in their order. A record is known by its id and the place of its row."""
        out = {(entry.id, entry.source) for entry in self.entries}
        return [record for record in records if (record.id, record.source) not in out]

    def verify(self, path: str | Path) -> None:
        """See that an annotation file is, byte for byte, one of those that were checked.

        Raises:
            InputError: it was not checked, or has changed since: rows may stand in other places, and new ones were never looked at.
        """
        digest = digest_of(path)
        if digest is None or digest in {file.sha256 for file in self.files}:
            return
        known = [file.path for file in self.files]
        told = "has changed since it was checked" if Path(path).name in {Path(name).name for name in known} else "was not checked"
        raise InputError(f"{path}: {told}; quarantine {self.path!r} is for {', '.join(known)}: run omnistage data check again")


def digest_of(path: str | Path) -> str | None:
    """SHA-256 of an annotation file, `None` for a folder. Raises `InputError` when it cannot be read."""
    if os.path.isdir(path):
        return None
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def write(path: str | Path, files: Sequence[Checked], entries: Iterable[Entry]) -> None:
    """Write a quarantine file, whole or not at all. Raises `InputError` where it cannot be written."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    header = {"omnistage": "quarantine", "version": VERSION, "files": [asdict(file) for file in files]}
    lines = [header, *(asdict(entry) for entry in entries)]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"quarantine {str(path)!r}: cannot be written ({error.strerror})") from error


def read(path: str | Path) -> Quarantine:
    """What `write` wrote. Raises `InputError` when the file is missing, of another kind or version, or damaged."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"quarantine {str(path)!r}: cannot be read ({error.strerror})") from error
    # Not splitlines: a message may hold other line separators.
    lines = [line for line in text.split("\n") if line]
    header = _object(path, lines[0] if lines else "", 1)
    if header.get("omnistage") != "quarantine" or header.get("version") != VERSION:
        raise InputError(f"quarantine {str(path)!r}: its first line is no header of version {VERSION}; write it with omnistage data check")
    try:
        files = tuple(Checked(**file) for file in header["files"])
        entries = tuple(Entry(**_object(path, line, number)) for number, line in enumerate(lines[1:], start=2))
    except (KeyError, TypeError) as error:
        raise InputError(f"quarantine {str(path)!r}: {error}; write it with omnistage data check") from error
    return Quarantine(str(path), files, entries)


def _object(path: str | Path, line: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"quarantine {str(path)!r}: line {number} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"quarantine {str(path)!r}: line {number} is no object")
    return value
