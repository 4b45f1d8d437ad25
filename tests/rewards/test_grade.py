"""Scores worked out by hand, one grader per kind of answer."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from omnistage.data.errors import InputError
from omnistage.data.records import AnswerKind
from omnistage.rewards.expression import is_compound
from omnistage.rewards.grade import Grade, grade, grade_completion, read
from omnistage.rewards.lexer import NUMBER_WORDS, plain

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
        (AnswerKind.LEVEL, "good", "Good.", Grade(1.0, "good", "right")),
        (AnswerKind.LEVEL, "good", "good or fair", Grade(0.0, None, "unreadable")),
        (AnswerKind.NUMBER, "0.5", r"\frac{1}{2}", Grade(1.0, "0.5", "right")),
        (AnswerKind.NUMBER, "4", r"$4$", Grade(1.0, "4", "right")),
        (AnswerKind.NUMBER, "4", r"\boxed{4}", Grade(1.0, "4", "right")),
        (AnswerKind.NUMBER, "2000", "2e3", Grade(1.0, "2000", "right")),
        (AnswerKind.NUMBER, "12", "3*4", Grade(1.0, "12", "right")),
        (AnswerKind.NUMBER, "3", "3*3", Grade(0.0, "9", "wrong")),
        (AnswerKind.NUMBER, "1", "1/3", Grade(0.0, "1/3", "wrong")),
        (AnswerKind.NUMBER, "1/3", r"\frac{2}{6}", Grade(1.0, "1/3", "right")),
        (AnswerKind.NUMBER, "1/3", "0.333333", Grade(0.0, "0.333333", "wrong")),
        (AnswerKind.NUMBER, r"\frac{\sqrt{2}}{2}", r"1/\sqrt{2}", Grade(1.0, "sqrt(2)/2", "right")),
        (AnswerKind.NUMBER, "4", "1/0", Grade(0.0, None, "unreadable")),
        (AnswerKind.NUMBER, "4", "9^9^9^9", Grade(0.0, None, "unreadable")),
        (AnswerKind.NUMBER, "3", "3-4", Grade(0.0, None, "unreadable")),
        (AnswerKind.NUMBER, "0.5", "it is 1/2", Grade(0.0, None, "unreadable")),
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


@pytest.mark.parametrize(
    ("target", "answer", "expected"),
    [
        ("1/2", "0.5", Grade(1.0, "0.5", "right")),
        ("1/2", r"$\frac{2}{4}$", Grade(1.0, "0.5", "right")),
        ("1/2", "1/3", Grade(0.0, "1/3", "wrong")),
        ("1/2", "about a half of it", Grade(0.0, None, "unreadable")),
        ("1/2", None, Grade(0.0, None, "not answered")),
        (r"2\pi", r"\pi*2", Grade(1.0, "2*pi", "right")),
        ("4", "four people", Grade(1.0, "4", "right")),
    ],
)
def test_an_open_answer_is_graded_as_a_number_where_its_target_is_one(target: str, answer: str | None, expected: Grade) -> None:
    assert grade(answer, target=target, kind=AnswerKind.OPEN) == expected


@pytest.mark.parametrize("target", ["4 people", "a half", "3-4", "2020-01-02", "x+1", "9^9^9^9", "1/0", "B"])
def test_an_open_answer_to_anything_else_is_not_scored(target: str) -> None:
    assert grade(target, target=target, kind=AnswerKind.OPEN).score is None


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


def test_where_no_tags_were_asked_for_the_whole_text_is_the_answer() -> None:
    """A sentence of LMME3DHF; tags that are there all the same say where the answer is."""
    said = "The quality of the human face in this video is good."
    for text, score in ((said, 1.0), (f"<answer>{said}</answer>", 1.0), ("good <answer>bad</answer>", 0.0), (" ", 0.0)):
        assert grade_completion(text, target="good", kind=AnswerKind.LEVEL, tagged=False).score == score
    assert grade_completion(said, target="good", kind=AnswerKind.LEVEL).reason == "not answered"


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


PIECES = [
    "A",
    "b",
    "(c)",
    "happy",
    "sad",
    "un",
    "not",
    "no",
    "yes",
    "4",
    "1,000",
    "-2.50",
    "1/2",
    r"\frac",
    "{",
    "}",
    "^",
    "e",
    "four",
    "minus",
]
PIECES += ["good", "bad", "<answer>", "</answer>", "or", "and", ",", ".", " ", " ", "\n", "\uff14", "\u4e8c", "\u0130", "\ud800"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=60).map("".join) | st.text(st.characters(exclude_categories=()), max_size=300)


def _stands_in(answer: str, text: str, kind: AnswerKind) -> bool:
    """Whether what was read stands in the text: a letter or its option's words, digits or a number word, a word."""
    folded = plain(text).casefold()
    match kind:
        case AnswerKind.SINGLE_CHOICE | AnswerKind.MULTI_SELECT:
            return all(letter.casefold() in folded or FOUR["ABCD".index(letter)] in folded for letter in answer.split(","))
        case AnswerKind.NUMBER | AnswerKind.SCALAR:
            digits = "".join(character for character in folded if character in "0123456789.")
            named = any(word in folded and value == answer.lstrip("-") for word, value in NUMBER_WORDS.items())
            return named or answer.lstrip("-").removeprefix("0") in digits
        case _:
            return answer in folded


def _read_what_stands_there(text: str) -> None:
    for kind in set(AnswerKind) - {AnswerKind.OPEN, AnswerKind.POSE}:
        answer = read(text, kind, FOUR)
        computed = kind in (AnswerKind.NUMBER, AnswerKind.SCALAR) and is_compound(text)
        assert answer is None or computed or _stands_in(answer, text, kind), (kind, answer)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("four hundred")
@example("\u0130. i")
@example("(4)")
def test_no_text_raises_and_no_answer_is_read_that_does_not_stand_there(text: str) -> None:
    _read_what_stands_there(text)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join), st.integers(5_000, 12_000))
def test_nor_from_a_long_text(piece: str, length: int) -> None:
    _read_what_stands_there((piece * (length // len(piece) + 1))[:length])
