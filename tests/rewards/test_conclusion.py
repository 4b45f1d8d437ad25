"""What a thinking concludes."""

from __future__ import annotations

import pytest

from omnistage.data.records import AnswerKind
from omnistage.rewards.conclusion import conclusion_of

MOOD = ("happy", "sad", "angry", "afraid")
COLOURS = ("red", "dark red", "blue", "dark blue")


@pytest.mark.parametrize(
    ("thinking", "concluded"),
    [
        ("so B", "B"),
        ("So the answer is C.", "C"),
        ("The answer is b", "B"),
        ("Therefore (d).", "D"),
        ("so C. angry", "C"),
        ("so he is angry", "C"),
        ("He smiles, so A is wrong. He cries, so B.", "B"),
        ("He cries, so B. A is wrong because he does not smile.", "B"),
        ("The answer is not B. So C.", "C"),
        ("B is the correct answer, although he looks happy", "B"),
        ("First B seems right, but D is correct", "D"),
        ("so the answer is angry. He is not happy, he is no longer sad", "C"),
        ("He is happy at first but then looks sad", "B"),
        ("He is sad, not happy", "B"),
        ("He is angry rather than sad", "C"),
        ("The answer is A or B.", None),
        ("so E", None),
        ("He walks through a door", None),
        ("", None),
    ],
)
def test_single_choice(thinking: str, concluded: str | None) -> None:
    assert conclusion_of(thinking, AnswerKind.SINGLE_CHOICE, MOOD) == concluded


@pytest.mark.parametrize(
    ("thinking", "concluded"),
    [
        ("the car is red", "A"),
        ("the car is dark red", "B"),
        ("a red car, then a dark blue one", "D"),
        ("a dark blue car, then a red one", "A"),
        ("reddish", None),
    ],
)
def test_options_that_contain_one_another(thinking: str, concluded: str | None) -> None:
    assert conclusion_of(thinking, AnswerKind.SINGLE_CHOICE, COLOURS) == concluded


@pytest.mark.parametrize(
    ("thinking", "concluded"),
    [
        ("so A and C", "A,C"),
        ("the answers are D, A and C.", "A,C,D"),
        ("so AC", "A,C"),
        ("so B. C is what the dog does", "B"),
        ("So the answers are:\nA. happy\nC. angry", "A,C"),
        ("So happy and afraid are right.", "A,D"),
        ("he is happy, then angry", "A,C"),
        ("happy but not angry", "A"),
        ("he walks", None),
    ],
)
def test_multi_select(thinking: str, concluded: str | None) -> None:
    assert conclusion_of(thinking, AnswerKind.MULTI_SELECT, MOOD) == concluded


@pytest.mark.parametrize(
    ("thinking", "concluded"),
    [
        ("I count 4. So 4", "4"),
        ("3 on the left, 2 on the right: 5", "5"),
        ("So 4 people over 10 seconds", "4"),
        ("so there are four.", "4"),
        ("The answer is 2.50", "2.5"),
        ("4 people, the last one is a child", "4"),
        ("so one can see 4 people", "4"),
        ("The answer is one.", "1"),
        ("there is one", "1"),
        ("nobody", None),
    ],
)
def test_number(thinking: str, concluded: str | None) -> None:
    assert conclusion_of(thinking, AnswerKind.NUMBER, ()) == concluded


@pytest.mark.parametrize(
    ("thinking", "concluded"),
    [
        ("so yes", "yes"),
        ("yes at first, but no", "no"),
        ("so yes, even if he says no", "yes"),
        ("so there is no doubt that he smiles: yes", "yes"),
        ("he nods", None),
    ],
)
def test_yes_no(thinking: str, concluded: str | None) -> None:
    assert conclusion_of(thinking, AnswerKind.YES_NO, ()) == concluded


def test_nothing_is_read_for_an_open_question() -> None:
    assert conclusion_of("so B", AnswerKind.OPEN, MOOD) is None
