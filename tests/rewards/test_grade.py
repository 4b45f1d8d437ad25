"""Scores worked out by hand, one grader per kind of answer."""

from __future__ import annotations

import pytest

from omnistage.data.errors import InputError
from omnistage.data.records import AnswerKind
from omnistage.rewards.grade import Grade, grade, grade_completion

FOUR = ("happy", "sad", "angry", "afraid")


@pytest.mark.parametrize(
    ("kind", "target", "answer", "expected"),
    [
        (AnswerKind.SINGLE_CHOICE, "B", "b. sad", Grade(1.0, "B", "right")),
        (AnswerKind.SINGLE_CHOICE, "B", "Answer: C", Grade(0.0, "C", "wrong")),
        (AnswerKind.SINGLE_CHOICE, "B", "A or B", Grade(0.0, None, "unreadable")),
        (AnswerKind.SINGLE_CHOICE, "B", None, Grade(0.0, None, "not answered")),
        (AnswerKind.MULTI_SELECT, "A,C", "c\na", Grade(1.0, "A,C", "right")),
        (AnswerKind.MULTI_SELECT, "A,C", "A", Grade(0.0, "A", "wrong")),
        (AnswerKind.MULTI_SELECT, "A,C", "A,B,C", Grade(0.0, "A,B,C", "wrong")),
        (AnswerKind.MULTI_SELECT, "A,C", "", Grade(0.0, None, "unreadable")),
        (AnswerKind.NUMBER, "10", "1", Grade(0.0, "1", "wrong")),
        (AnswerKind.NUMBER, "1", "10", Grade(0.0, "10", "wrong")),
        (AnswerKind.NUMBER, "12", "12", Grade(1.0, "12", "right")),
        (AnswerKind.NUMBER, "2.5", "2.50", Grade(1.0, "2.5", "right")),
        (AnswerKind.NUMBER, "4.0", "four", Grade(1.0, "4", "right")),
        (AnswerKind.NUMBER, "0.1", "0.10000000000000000001", Grade(0.0, "0.10000000000000000001", "wrong")),
        (AnswerKind.YES_NO, "yes", "Yes, it does", Grade(1.0, "yes", "right")),
        (AnswerKind.YES_NO, "yes", "No.", Grade(0.0, "no", "wrong")),
    ],
)
def test_grades(kind: AnswerKind, target: str, answer: str | None, expected: Grade) -> None:
    options = FOUR if kind in (AnswerKind.SINGLE_CHOICE, AnswerKind.MULTI_SELECT) else ()
    assert grade(answer, target=target, kind=kind, options=options) == expected
    assert grade(answer, target=target, kind=str(kind), options=options) == expected


@pytest.mark.parametrize(
    ("answer", "score"),
    [("A, C", 1.0), ("A", 0.5), ("C", 0.5), ("B", 0.0), ("A, B", 0.0), ("A, B, C", 0.0), ("A, B, C, D", 0.0), ("", 0.0), ("A, E", 0.0)],
)
def test_half_credit_needs_a_right_letter_and_no_wrong_one(answer: str, score: float) -> None:
    """Target A,C. Nothing selected earns nothing: credit for it would pay for not answering."""
    assert grade(answer, target="A,C", kind=AnswerKind.MULTI_SELECT, options=FOUR, partial=True).score == score


def test_half_credit_is_for_multi_select_only() -> None:
    assert grade("C", target="A", kind=AnswerKind.SINGLE_CHOICE, options=FOUR, partial=True).score == 0.0


def test_open_answers_are_not_scored() -> None:
    reason = "open answers are not graded by this grader"
    assert grade(" friends ", target="x", kind=AnswerKind.OPEN) == Grade(None, "friends", reason)
    assert grade(None, target="x", kind=AnswerKind.OPEN) == Grade(None, None, reason)


def test_a_whole_completion_is_graded_by_its_answer_alone() -> None:
    for text, score in [
        ("<think>4</think><answer>5</answer>", 0.0),
        ("<think>5</think><answer>4</answer>", 1.0),
        ("<answer>5</answer> 4", 0.0),
        ("4", 0.0),
    ]:
        assert grade_completion(text, target="4", kind=AnswerKind.NUMBER).score == score
    partial = grade_completion("<answer>A</answer>", target="A,B", kind=AnswerKind.MULTI_SELECT, options=FOUR, partial=True)
    assert partial == Grade(0.5, "A", "incomplete")


@pytest.mark.parametrize(
    ("kind", "target"),
    [("single_choice", "E"), ("single_choice", "A,B"), ("multi_select", ""), ("number", "many"), ("yes_no", "true")],
)
def test_a_target_that_nobody_could_reach_is_an_error(kind: str, target: str) -> None:
    with pytest.raises(InputError, match=f"target '{target}' is no {kind} answer"):
        grade("A", target=target, kind=kind, options=FOUR)


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(InputError, match="unknown answer kind 'numbr'; did you mean 'number'"):
        grade("4", target="4", kind="numbr")
