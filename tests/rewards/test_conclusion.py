"""What a thinking concludes."""

from __future__ import annotations

import pytest

from omnistage.data.records import AnswerKind
from omnistage.rewards.conclusion import MOST_READ, conclusion_of

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
        ("So the answer is 1/2.", "0.5"),
        (r"so $\frac{1}{2}$", "0.5"),
        (r"thus \boxed{3*4}", "12"),
        ("3 of 9: 1/3", "1/3"),
        ("so 2+2=4", "4"),
        ("so x = 4", "4"),
        ("3 + 2 = 5", "5"),
        ("so **4**", "4"),
        ("so 4 km/h", "4"),
        ("so 4 000 people", "4000"),
        ("4 000", "4000"),
        ("I count 3. So 1 / 2", None),
        ("I count 3. So 3 + 2 = 5", None),
        ("I count 3. So 9^9^9", None),
        (r"I count 3. So 2\sqrt{3}", None),
        ("I count 3. So one half", None),
        ("so 2 million", None),
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


def test_only_the_last_characters_are_read() -> None:
    """A number that the cut goes through is left out."""
    assert conclusion_of("so 5" + " x" * (MOST_READ // 2 - 2), AnswerKind.NUMBER, ()) == "5"
    assert conclusion_of("so 5" + " x" * (MOST_READ // 2), AnswerKind.NUMBER, ()) is None
    assert conclusion_of("12" + " x" * (MOST_READ // 2 - 1) + ".", AnswerKind.NUMBER, ()) is None
    assert conclusion_of("x " * MOST_READ + "so B", AnswerKind.SINGLE_CHOICE, MOOD) == "B"


def test_nothing_is_read_for_an_open_question() -> None:
    assert conclusion_of("so B", AnswerKind.OPEN, MOOD) is None
