"""One grader per kind of answer, the same for training and for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from omnistage.data.errors import InputError, unknown_name
from omnistage.data.records import AnswerKind
from omnistage.rewards import expression
from omnistage.rewards.extract import answer_of, read_answer, read_numbers

# Right or wrong says nothing of these: text is judged or compared, numbers and poses are measured.
NOT_GRADED = frozenset({AnswerKind.OPEN, AnswerKind.SCALAR, AnswerKind.POSE})
# 24 joints as axis-angle vectors, as six numbers each, or as 3 x 3 matrices.
POSE_COUNTS = (72, 144, 216)


@dataclass(frozen=True, slots=True)
class Grade:
    """How good one answer is: `score` in [0, 1] or None (not scored), the answer in its normal form where it could be read, and why."""

    score: float | None
    answer: str | None
    reason: str


def grade(answer_text: str | None, *, target: str, kind: AnswerKind | str, options: Sequence[str] = (), partial: bool = False) -> Grade:
    """Grade the content of an answer tag (None: there was none) against `target`.

    A choice, a number (equal as decimals, or as expressions: '1/2' is 0.5), a level and yes/no score 1 or 0. Multi-select scores 1 for
    exactly the right letters and, with `partial`, 0.5 when no letter is wrong and at least one is right. No answer and an
    unreadable one score 0. An open answer is graded as a number where its target is a number or a plain mathematical expression.
    Other open answers, scalars and poses are not scored.
    Raises `InputError` when the target itself cannot be read for its kind, for nobody could then be right.
    """
    kind = kind_of(kind)
    if kind is AnswerKind.OPEN and expression.value_of(target) is not None:
        return grade(answer_text, target=target, kind=AnswerKind.NUMBER)
    if kind in NOT_GRADED:
        answer = None if answer_text is None else read_answer(answer_text, kind, options)
        return Grade(None, answer, f"{kind} answers are not graded by this grader")
    right = read(target, kind, options)
    if right is None:
        raise InputError(f"target {target!r} is no {kind} answer" + (f" to {len(options)} options" if options else ""))
    if answer_text is None:
        return Grade(0.0, None, "not answered")
    answer = read(answer_text, kind, options)
    if answer is None:
        return Grade(0.0, None, "unreadable")
    if answer == right or (kind is AnswerKind.NUMBER and _same_value((answer_text, answer), (target, right))):
        return Grade(1.0, answer, "right")
    if partial and kind is AnswerKind.MULTI_SELECT and set(answer.split(",")) < set(right.split(",")):
        return Grade(0.5, answer, "incomplete")
    return Grade(0.0, answer, "wrong")


def grade_completion(
    text: str, *, target: str, kind: AnswerKind | str, options: Sequence[str] = (), partial: bool = False, tagged: bool = True
) -> Grade:
    """Grade a whole completion: what its last answer tag holds, and nothing outside it. Raises as `grade` does.

    Where no tags were asked for (`tagged` is False), a completion without any is its own answer.
    """
    answer = answer_of(text)
    if answer is None and not tagged:
        answer = text.strip() or None
    return grade(answer, target=target, kind=kind, options=options, partial=partial)


def read(answer_text: str, kind: AnswerKind, options: Sequence[str]) -> str | None:
    """The normal form of an answer as `read_answer` has it, but for three kinds; None when it cannot be read. Never raises.

    A number may also be an expression ('1/2', '2e3'), taken as a whole, since the number reader would find a 3 in '3*3'. A pose is the
    right count of numbers, and an open answer holds a letter or a digit.
    """
    if kind is AnswerKind.OPEN and not any(map(str.isalnum, answer_text)):
        return None
    if kind is AnswerKind.POSE:
        return answer_text if len(read_numbers(answer_text) or ()) in POSE_COUNTS else None
    if kind in (AnswerKind.NUMBER, AnswerKind.SCALAR) and expression.is_compound(answer_text):
        return expression.value_of(answer_text)
    return read_answer(answer_text, kind, options)


def kind_of(kind: AnswerKind | str) -> AnswerKind:
    """The kind that a column names; `InputError` for an unknown one."""
    known = [known.value for known in AnswerKind]
    if kind not in known:
        raise InputError(unknown_name("answer kind", kind, known))
    return AnswerKind(kind)


@contextmanager
def naming(record_id: Sequence[str] | None, row: int) -> Iterator[None]:
    """Has an `InputError` that is raised inside say which record it is about, or which row where the rows have no `record_id`."""
    try:
        yield
    except InputError as error:
        name = f"record {record_id[row]!r}" if record_id is not None else f"row {row}"
        raise InputError(f"{name}: {error}") from error


def _same_value(*numbers: tuple[str, str]) -> bool:
    """Whether two numbers, each as written and as read, have one value though no one normal form: sqrt(2)/2 and 1/sqrt(2)."""
    compound = [expression.is_compound(written) for written, _ in numbers]
    if not any(compound):
        return False
    return expression.same(*(written if is_compound else found for is_compound, (written, found) in zip(compound, numbers, strict=True)))
