"""One grader per kind of answer, the same for training and for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omnistage.data.errors import InputError, unknown_name
from omnistage.data.records import AnswerKind
from omnistage.rewards.extract import answer_of, read_answer

# Right or wrong says nothing of these: text is judged, numbers and poses are measured.
NOT_GRADED = frozenset({AnswerKind.OPEN, AnswerKind.SCALAR, AnswerKind.POSE})


@dataclass(frozen=True, slots=True)
class Grade:
    """How good one answer is: `score` in [0, 1] or None (not scored), the answer in its normal form where it could be read, and why."""

    score: float | None
    answer: str | None
    reason: str


def grade(answer_text: str | None, *, target: str, kind: AnswerKind | str, options: Sequence[str] = (), partial: bool = False) -> Grade:
    """Grade the content of an answer tag (None: there was none) against `target`.

    A choice, a number (equal as decimals), a level and yes/no score 1 or 0. Multi-select scores 1 for exactly the right letters and, with
    `partial`, 0.5 when no letter is wrong and at least one is right. No answer and an unreadable one score 0. Open answers,
    scalars and poses are not scored.
    Raises `InputError` when the target itself cannot be read for its kind, for nobody could then be right.
    """
    kind = kind_of(kind)
    if kind in NOT_GRADED:
        answer = None if answer_text is None else read_answer(answer_text, kind, options)
        return Grade(None, answer, f"{kind} answers are not graded by this grader")
    right = read_answer(target, kind, options)
    if right is None:
        raise InputError(f"target {target!r} is no {kind} answer" + (f" to {len(options)} options" if options else ""))
    if answer_text is None:
        return Grade(0.0, None, "not answered")
    answer = read_answer(answer_text, kind, options)
    if answer is None:
        return Grade(0.0, None, "unreadable")
    if answer == right:
        return Grade(1.0, answer, "right")
    if partial and kind is AnswerKind.MULTI_SELECT and set(answer.split(",")) < set(right.split(",")):
        return Grade(0.5, answer, "incomplete")
    return Grade(0.0, answer, "wrong")


def grade_completion(text: str, *, target: str, kind: AnswerKind | str, options: Sequence[str] = (), partial: bool = False) -> Grade:
    """Grade a whole completion: what its last answer tag holds, and nothing outside it. Raises as `grade` does."""
    return grade(answer_of(text), target=target, kind=kind, options=options, partial=partial)


def kind_of(kind: AnswerKind | str) -> AnswerKind:
    """The kind that a column names; `InputError` for an unknown one."""
    known = [known.value for known in AnswerKind]
    if kind not in known:
        raise InputError(unknown_name("answer kind", kind, known))
    return AnswerKind(kind)
