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
# Where answers are kept until all of them are there.
PARTS = "parts"
GREEDY = "greedy"
# In front of the number of a sample.
SAMPLE = "sample-"

T = TypeVar("T")
_KINDS: dict[type, str] = {str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list", dict: "an object"}
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
    texts = {name: _of(row, name, str) for name in ("id", "task", "question", "target", "source")}
    media = []
    for ref in _list(row, "media", dict):
        _of(ref, "path", str)
        media.append(MediaRef(**{**ref, "blank": frozenset(ref["blank"])}))
    turns = [turn for turn in _list(row, "history", list) if len(turn) == 2 and all(isinstance(part, str) for part in turn)]
    if len(turns) < len(row["history"]):
        raise TypeError("history holds something else than pairs of texts")
    return Record(
        **texts,
        modality=Modality(row["modality"]),
        kind=AnswerKind(row["kind"]),
        media=tuple(media),
        options=tuple(_list(row, "options", str)),
        values=tuple(map(float, _list(row, "values", int, float))),
        history=tuple((question, answer) for question, answer in turns),
        response=None if row["response"] is None else _of(row, "response", str),
        extra=_of(row, "extra", dict),
    )


def prediction_of(row: Mapping[str, Any]) -> Prediction:
    """The prediction of a line; fields that are not known are ignored. Raises as `record_of`."""
    status = row["status"]
    if status not in get_args(Status):
        raise ValueError(f"status is {status!r}; allowed: {', '.join(get_args(Status))}")
    raw = None if row["raw"] is None else _of(row, "raw", str)
    tokens = None if row.get("tokens") is None else _of(row, "tokens", int)
    error = None if row.get("error") is None else _of(row, "error", str)
    head = None if row.get("head") is None else _head_of(_of(row, "head", dict))
    return Prediction(_of(row, "id", str), _of(row, "run", str), raw, status, tokens, head, error)


def _head_of(head: dict[str, Any]) -> dict[str, Any]:
    _of(head, "name", str)
    for value in _list(head, "values", dict):
        for name, number in (_of(value, "values", dict) if "values" in value else {}).items():
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise TypeError(f"head.values: {name} is {number!r}; must be a number")
        if "level" in value:
            _of(value, "level", str)
    return head


def score_of(row: Mapping[str, Any]) -> Score:
    """The score of a line. Raises as `record_of`."""
    texts = {name: _of(row, name, str) for name in ("id", "run", "scorer", "reason")}
    value = None if row["value"] is None else float(_of(row, "value", int, float))
    answer = None if row["answer"] is None else _of(row, "answer", str)
    numbers = {name: float(number) for name, number in _of(row, "numbers", dict).items()} if row.get("numbers") is not None else {}
    judge = None if row.get("judge") is None else _of(row, "judge", dict)
    return Score(**texts, value=value, valid=_of(row, "valid", bool), answer=answer, numbers=numbers, judge=judge)


def _of(row: Mapping[str, Any], name: str, *kinds: type) -> Any:
    """The value of a field, which must be of one of these kinds."""
    value = row[name]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"{name} is {_short(value)}; must be {' or '.join(_KINDS[kind] for kind in kinds)}")
    return value


def _list(row: Mapping[str, Any], name: str, *kinds: type) -> list[Any]:
    found: list[Any] = _of(row, name, list)
    for value in found:
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise TypeError(f"{name} holds {_short(value)}; must hold {' or '.join(_KINDS[kind] for kind in kinds)}")
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def read_items(folder: Path, *, half_pairs: bool = False) -> list[Record]:
    """The records of `items.jsonl`, in order; with `half_pairs` also texts that only can be looked at (`_read`).

    Raises:
        InputError: the file is missing, a line holds no record, or two lines share an id.
    """
    found = [record for _, record in _read(folder / ITEMS, record_of, "a record as `omnistage evaluate` writes it", half_pairs)]
    twice = _first_twice(record.id for record in found)
    if twice is not None:
        raise InputError(f"{folder / ITEMS}: two lines have the id {twice!r}; ids must differ")
    if not found:
        raise InputError(f"{folder / ITEMS}: holds no item")
    return found


def read_predictions(folder: Path, items: Sequence[Record], *, half_pairs: bool = False) -> dict[str, dict[str, Prediction]]:
    """Per run the prediction of each id, in the order of the file's first line of each run; of two lines about one, the later one counts.

    Raises:
        InputError: the file is missing, a line holds no prediction, or one is about an id that no item has.
    """
    path = folder / PREDICTIONS
    ids = {record.id for record in items}
    out: dict[str, dict[str, Prediction]] = {}
    for line, found in _read(path, prediction_of, '{"id", "run", "raw", "status"}', half_pairs):
        if found.id not in ids:
            raise InputError(f"{path}: line {line}: id {found.id!r} is that of no line of {folder / ITEMS}")
        out.setdefault(found.run, {})[found.id] = found
    return out


def read_scores(folder: Path, *, half_pairs: bool = False) -> list[Score]:
    """The lines of `scores.jsonl`. Raises `InputError` when the file is missing or a line holds no score."""
    return [score for _, score in _read(folder / SCORES, score_of, "a score as `omnistage score` writes it", half_pairs)]


def _read(path: Path, made: Callable[[dict[str, Any]], T], allowed: str, half_pairs: bool) -> Iterator[tuple[int, T]]:
    """What the lines of a file hold, by their numbers. Half of a surrogate pair is refused, but with `half_pairs`: it is no text that could
    be sent or written, and can only be shown by its number."""
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
            if not half_pairs:
                json.dumps(row, ensure_ascii=False).encode()
            yield number, made(row)
        except KeyError as error:
            raise InputError(f"{path}: line {number}: {error.args[0]} is missing; allowed: {allowed}") from error
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: line {number}: {error}; allowed: {allowed}") from error


def _first_twice(ids: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            return name
        seen.add(name)
    return None
