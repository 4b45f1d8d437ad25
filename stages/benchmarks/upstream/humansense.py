"""HumanSense's two scorers, faults included: `score.py` for answers that were asked for alone, `score_think.py` for answers in tags.

Both leave items without an answer out of the count, and weight all items of all tasks alike in "all". Both take a number through `int`
without a guard: text that is none ends the whole scoring, after which upstream has no figure at all. Here such items are named in
`crashes`, and the figures are those of the items that it would have scored.

The right answer is the record's `target`: selected letters without what stands between them, yes and no in lower case. Upstream compares
with the file's own text, which it does not clean, so data in another form scores lower there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

from omnistage.data.records import AnswerKind, Record
from omnistage.stages.benchmarks.base import Scored

# Its scorer of answers without tags drops this task, and the other one does not.
DROPPED = "Abnormal_Recognition"
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
# The letters that its scorer of tagged answers knows.
_LETTERS = "ABCD"
_BETWEEN = ".,\uff0c "


def report(scored: Sequence[Scored], tagged: bool | None = None) -> dict[str, Any]:
    """{"scorer", "tasks": {task: {"total", "correct", "accuracy"}}, "all", "unanswered", "dropped", "crashes"}.

    `tagged` says whether answers were asked for in tags, and so which scorer is meant; None: the one for tags if any answer has one.
    """
    if tagged is None:
        tagged = any("<answer>" in _response(item) for item in scored)
    tasks: dict[str, list[float]] = {}
    unanswered, dropped, crashes = 0, 0, []
    for item in scored:
        if item.record.task == DROPPED and not tagged:
            dropped += 1
        elif not _response(item):
            unanswered += 1
        else:
            try:
                value = (think if tagged else direct)(_response(item), item.record)
            except ValueError as error:
                crashes.append(f"upstream crashes on item {item.record.id!r}: {error}")
            else:
                tasks.setdefault(item.record.task, []).append(value)
    return {
        "scorer": "score_think.py" if tagged else "score.py",
        "tasks": {task: _counted(values) for task, values in tasks.items()},
        "all": _counted([value for values in tasks.values() for value in values]),
        "unanswered": unanswered,
        "dropped": dropped,
        "crashes": crashes,
    }


def direct(response: str, record: Record) -> float:
    """`score.py`: the first character for a letter or a number, so that 10 can never be right, and the whole text for yes or no.

    Selected letters are read with their points and commas taken out, but not spaces, line breaks or full-width commas: 'A, B' is wrong.
    Raises `ValueError` where upstream does.
    """
    match record.kind:
        case AnswerKind.SINGLE_CHOICE:
            return float(response[0].lower() == record.target.lower())
        case AnswerKind.NUMBER:
            return float(int(response[0]) == int(record.target))
        case AnswerKind.MULTI_SELECT:
            return _selected(_without(response, ".,"), record)
        case _:
            return float(response.lower() == record.target.lower())


def think(response: str, record: Record) -> float:
    """`score_think.py`: what stands in the first answer tag; of a response without tags the first character, as `direct` has it.

    A choice is right as a letter, as the letter with its option's text, and as the text alone. The letter E is not among those it knows.
    Raises `ValueError` where upstream does.
    """
    found = _ANSWER.search(response)
    answer = response if found is None else found[1].strip()
    match record.kind:
        case AnswerKind.SINGLE_CHOICE:
            return float(answer[:1].lower() == record.target.lower() if found is None else _names(answer, record))
        case AnswerKind.NUMBER:
            return float(int(answer[0] if found is None else answer) == int(record.target))
        case AnswerKind.MULTI_SELECT:
            return _selected(_without(answer, _BETWEEN), record)
        case _:
            return float(answer.lower() == record.target.lower())


def _names(answer: str, record: Record) -> bool:
    at = ascii_uppercase.index(record.target)
    text = record.options[at].strip().lower()
    spellings = {text, f"{record.target}.{text}".lower(), f"{record.target}. {text}".lower()}
    if record.target in _LETTERS:
        spellings.add(record.target.lower())
    return answer.lower() in spellings


def _selected(given: str, record: Record) -> float:
    """1 for all right letters and no wrong one, 0 for a wrong one, else 0.5: also for no letter at all."""
    right = set(_without(record.target, _BETWEEN))
    if set(given) - right:
        return 0.0
    return 1.0 if right <= set(given) else 0.5


def _without(text: str, characters: str) -> str:
    return "".join(character for character in text.lower() if character not in characters)


def _response(item: Scored) -> str:
    """The raw answer; empty where there is none, or white space alone."""
    raw = item.prediction.raw if item.prediction is not None else None
    return raw if raw is not None and raw.strip() else ""


def _counted(values: Sequence[float]) -> dict[str, Any]:
    return {"total": len(values), "correct": sum(values), "accuracy": sum(values) / len(values) if values else None}
