"""Files of a run that may be half written, or written by hand: read as far as they go, and said what could not be."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omnistage.data.errors import InputError
from omnistage.stages import files


class Notes:
    """What a page lacks, a line each, by section. Of notes of one `kind` the first stands for all, with their number."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str, str], tuple[str, int]] = {}

    def say(self, section: str, line: str, *, kind: str | None = None) -> None:
        """Note it; without a `kind` once."""
        key = (section, "line" if kind is None else "kind", line if kind is None else kind)
        first, count = self._said.get(key, (line, 0))
        self._said[key] = (first, count + 1 if kind is not None else 1)

    @property
    def lines(self) -> list[dict[str, str]]:
        """What was said, in order."""
        told = [
            (section, f"{line} (and {count - 1:,} more alike)" if count > 1 else line)
            for (section, *_), (line, count) in self._said.items()
        ]
        return [{"section": section, "line": line} for section, line in told]


def json_of(path: Path, notes: Notes, section: str) -> Any:
    """What stands in a JSON file; None where it is missing, or damaged, which is noted."""
    if not path.is_file():
        return None
    try:
        return files.read_json(path)
    except InputError as error:
        notes.say(section, f"{path.parent.name}/{path.name} is left out: {_why(error)}")
        return None


def object_of(path: Path, notes: Notes, section: str) -> dict[str, Any] | None:
    """The object that stands in a JSON file; None where there is none, which is noted where the file holds something else."""
    found = json_of(path, notes, section)
    if found is None or isinstance(found, dict):
        return found
    notes.say(section, f"{path.parent.name}/{path.name} is left out: it holds no JSON object")
    return None


def lines_of(path: Path, notes: Notes, section: str) -> Iterator[dict[str, Any]]:
    """The objects of a file with one a line. Lines that hold none are counted and noted; a last one without its end is being written."""
    if not path.is_file():
        return
    damaged = 0
    try:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                if not line.endswith("\n") or not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                if isinstance(row, dict):
                    yield row
                else:
                    damaged += 1
    except OSError as error:
        notes.say(section, f"{path.parent.name}/{path.name} is left out: {error.strerror}")
    if damaged:
        notes.say(section, f"{path.parent.name}/{path.name}: {damaged} lines are no JSON objects and are left out")


def number(value: Any) -> float | None:
    """A finite number as it is, None for all else, also for an integer that no float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def plain(value: Any) -> Any:
    """The same without numbers that a browser's JSON does not have."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def _why(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
