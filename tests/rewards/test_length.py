"""Lengths worked out by hand."""

from __future__ import annotations

import pytest

from omnistage.data.errors import InputError
from omnistage.rewards.families.length import length, overlong


def _ids(*counts: int) -> list[list[int]]:
    return [[0] * count for count in counts]


def test_tokens_between_bounds_and_outside() -> None:
    """8 tokens are 2 of 5 outside: 0.6. 24 are 4 of 5: 0.2."""
    counts = (0, 5, 6, 8, 10, 15, 20, 24, 25, 90)
    expected = [0.0, 0.0, 0.2, 0.6, 1.0, 1.0, 1.0, 0.2, 0.0, 0.0]
    assert length([""] * 10, _ids(*counts), least=10, most=20, soft=5) == pytest.approx(expected, abs=1e-12)


def test_hard_bounds_and_one_bound() -> None:
    assert length([""] * 4, _ids(9, 10, 20, 21), least=10, most=20) == [0.0, 1.0, 1.0, 0.0]
    assert length([""] * 3, _ids(9, 10, 9999), least=10) == [0.0, 1.0, 1.0]
    assert length([""] * 2, _ids(0, 21), most=20) == [1.0, 0.0]


def test_words_of_the_completion_or_of_the_thinking() -> None:
    """The tags are four words, each ideograph is one, a missing thinking has none."""
    texts = ["<think>two words</think><answer>B</answer>", "<think>\u4e24\u4e2a\u4eba x</think>", "no tags at all"]
    for count, fits in ((7, [1.0, 0.0, 0.0]), (6, [0.0, 1.0, 0.0]), (4, [0.0, 0.0, 1.0])):
        assert length(texts, least=count, most=count, unit="words") == fits
    for count, fits in ((2, [1.0, 0.0, 0.0]), (4, [0.0, 1.0, 0.0]), (0, [0.0, 0.0, 1.0])):
        assert length(texts, least=count, most=count, unit="words", of="thinking") == fits


def test_chat_messages_are_texts_too() -> None:
    assert length([[{"role": "assistant", "content": "one two three"}]], least=3, most=3, unit="words") == [1.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "least is 0 and most is None"),
        ({"least": 5, "most": 4}, "least is 5 and most is 4"),
        ({"most": 5, "of": "thinking"}, "a thinking is measured in words"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        length([""], [[0]], **settings)  # type: ignore[arg-type]


def test_tokens_need_their_column() -> None:
    with pytest.raises(InputError, match="length: the rows have no column 'completion_ids'"):
        length([""], most=5)
    with pytest.raises(InputError, match="overlong: the rows have no column 'completion_ids'"):
        overlong([""], most=5, soft=5)


def test_overlong_falls_to_minus_one_at_most() -> None:
    """Soft from 80: 85 is 5 of 20, so -0.25; 100 is -1, and more is no worse."""
    assert overlong([""] * 7, _ids(0, 80, 81, 85, 90, 100, 500), most=100, soft=20) == [0.0, 0.0, -0.05, -0.25, -0.5, -1.0, -1.0]


def test_overlong_may_be_soft_all_the_way_and_no_further() -> None:
    assert overlong([""] * 2, _ids(0, 5), most=10, soft=10) == [0.0, -0.5]
    with pytest.raises(InputError, match="soft is 11 and most is 10"):
        overlong([""], _ids(1), most=10, soft=11)
