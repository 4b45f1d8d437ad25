"""The rows of an annotation file, and errors that say where in it something stands."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnistage.data.errors import RecordError


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
    text = json.dumps(value, ensure_ascii=False)
    return f"{name} {text if len(text) <= 80 else text[:77] + '...'}"


def load_list(path: Path) -> list[Any]:
    """The JSON list that a file holds; `RecordError` when it is not JSON or not a list."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RecordError(f"{path.name}: byte {error.start} is not UTF-8; allowed: a JSON list in UTF-8") from error
    except json.JSONDecodeError as error:
        problem = f"{path.name}: line {error.lineno}, column {error.colno}: {error.msg}; allowed: one JSON list"
        raise RecordError(problem + (", not one object a line" if error.msg == "Extra data" else "")) from error
    if not isinstance(content, list):
        raise RecordError(f"{path.name}: the top level is {shown(content)}; allowed: a list of objects")
    return content
