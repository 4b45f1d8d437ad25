"""The three files of an evaluation, one JSON object a line, joined by `id`; whoever has them can score again without the model.

    items.jsonl         what was asked, and what is right: a whole record
    predictions.jsonl   what was answered: {"id", "run", "raw", "status", "tokens", "head", "error"}
    scores.jsonl        what it is worth: {"id", "run", "scorer", "value", "valid", "answer", "reason", "numbers", "judge"}

A `run` is one way in which all items were asked: `greedy`, `sample-0`, or a probe as `blank`. `status` is `ok`, `empty` (nothing but white
space), `truncated` (the longest answer was reached before its end), or `error` (no answer: a clip that cannot be read, a server that
failed; `error` says why).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from omnistage.data.errors import InputError
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record

ITEMS, PREDICTIONS, SCORES = "items.jsonl", "predictions.jsonl", "scores.jsonl"
GREEDY = "greedy"
# In front of the number of a sample.
SAMPLE = "sample-"

T = TypeVar("T")
Status = Literal["ok", "empty", "truncated", "error"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer: the text as it was drawn (None: there is none), its length in tokens, and what a head said, where one was read.

    `head` holds the head's `name` and its `values`, a list as `omnistage predict` writes it.
    """

    id: str
    run: str
    raw: str | None
    status: Status
    tokens: int | None = None
    head: Mapping[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """What one answer is worth by one scorer.

    `value` lies in [0, 1] for answers that are right or wrong or judged, and is an error in the scorer's unit for poses; None: nothing
    could be said (a judge that could not be reached), never "wrong". `valid` is False where there was no answer, or none that could be
    read; such an answer has the value of a wrong one. `numbers` hold what figures over all items need (`made` and `right` of a score, say).
    """

    id: str
    run: str
    scorer: str
    value: float | None
    valid: bool
    answer: str | None
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    judge: Mapping[str, Any] | None = None


def item_row(record: Record, benchmark: str) -> dict[str, Any]:
    """A record as one line of `items.jsonl`."""
    row = asdict(record) | {"benchmark": benchmark, "modality": str(record.modality), "kind": str(record.kind)}
    for ref in row["media"]:
        ref["blank"] = sorted(ref["blank"])
    return row


def record_of(row: Mapping[str, Any]) -> Record:
    """The record of a line of `items.jsonl`. Raises `KeyError`, `TypeError` or `ValueError` for a line that holds none."""
    named = {name: row[name] for name in ("id", "task", "question", "target", "source", "response", "extra")}
    media = tuple(MediaRef(**{**ref, "blank": frozenset(ref["blank"])}) for ref in row["media"])
    turns = tuple((str(question), str(answer)) for question, answer in row["history"])
    return Record(
        **named,
        modality=Modality(row["modality"]),
        kind=AnswerKind(row["kind"]),
        media=media,
        options=tuple(row["options"]),
        values=tuple(map(float, row["values"])),
        history=turns,
    )


def prediction_of(row: Mapping[str, Any]) -> Prediction:
    """The prediction of a line; fields that are not known are ignored. Raises as `record_of`."""
    found = Prediction(**{name: row[name] for name in ("id", "run", "raw", "status")}, **_optional(row, ("tokens", "head", "error")))
    if not isinstance(found.id, str) or not isinstance(found.run, str):
        raise TypeError("id and run must be strings")
    if not isinstance(found.raw, str | None):
        raise TypeError("raw must be a string or null")
    if found.status not in get_args(Status):
        raise ValueError(f"status is {found.status!r}; allowed: {', '.join(get_args(Status))}")
    return found


def score_of(row: Mapping[str, Any]) -> Score:
    """The score of a line. Raises as `record_of`."""
    needed = ("id", "run", "scorer", "value", "valid", "answer", "reason")
    return Score(**{name: row[name] for name in needed}, **_optional(row, ("numbers", "judge")))


def _optional(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in names if row.get(name) is not None}


def read_items(folder: Path) -> list[Record]:
    """The records of `items.jsonl`, in order.

    Raises:
        InputError: the file is missing, a line holds no record, or two lines share an id.
    """
    found = [record for _, record in _read(folder / ITEMS, record_of, "a record as `omnistage evaluate` writes it")]
    twice = _first_twice(record.id for record in found)
    if twice is not None:
        raise InputError(f"{folder / ITEMS}: two lines have the id {twice!r}; ids must differ")
    if not found:
        raise InputError(f"{folder / ITEMS}: holds no item")
    return found


def read_predictions(folder: Path, items: Sequence[Record]) -> dict[str, dict[str, Prediction]]:
    """Per run the prediction of each id, in the order of the file's first line of each run; of two lines about one, the later one counts.

    Raises:
        InputError: the file is missing, a line holds no prediction, or one is about an id that no item has.
    """
    path = folder / PREDICTIONS
    ids = {record.id for record in items}
    out: dict[str, dict[str, Prediction]] = {}
    for line, found in _read(path, prediction_of, '{"id", "run", "raw", "status"}'):
        if found.id not in ids:
            raise InputError(f"{path}: line {line}: id {found.id!r} is that of no line of {folder / ITEMS}")
        out.setdefault(found.run, {})[found.id] = found
    return out


def read_scores(folder: Path) -> list[Score]:
    """The lines of `scores.jsonl`. Raises `InputError` when the file is missing or a line holds no score."""
    return [score for _, score in _read(folder / SCORES, score_of, "a score as `omnistage score` writes it")]


def _read(path: Path, made: Callable[[dict[str, Any]], T], allowed: str) -> Iterator[tuple[int, T]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    # Not splitlines: text inside a value may hold other line separators, as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise TypeError(f"got {type(row).__name__}")
            yield number, made(row)
        except KeyError as error:
            raise InputError(f"{path}: line {number}: {error.args[0]} is missing; allowed: {allowed}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: line {number}: {error}; allowed: {allowed}") from error


def _first_twice(ids: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            return name
        seen.add(name)
    return None
