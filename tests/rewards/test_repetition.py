"""Shares of repeated n-grams, counted by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnistage.rewards.families.repetition import repetition


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("", 3, 0.0),
        ("two words", 3, 0.0),
        ("three words here", 3, 0.0),
        ("a b c d e", 3, 0.0),
        ("a b a b a b", 2, -3 / 5),  # ab ba ab ba ab
        ("a b c a b c", 3, -1 / 4),  # abc bca cab abc
        ("the The THE the", 1, -3 / 4),
        ("so so so so so so so so so so", 3, -7 / 8),
        ("\u597d\u597d\u597d\u597d", 2, -2 / 3),
        ("a, b. a; b!", 2, -1 / 3),
    ],
)
def test_the_share_of_repeated_ngrams(text: str, n: int, expected: float) -> None:
    assert repetition([text], n=n) == [pytest.approx(expected, abs=1e-12)]


def test_three_words_by_default() -> None:
    assert repetition(["a b c a b c", "a b a b"]) == [-0.25, 0.0]


@given(st.text(max_size=200), st.integers(1, 5))
def test_from_minus_one_to_zero(text: str, n: int) -> None:
    (value,) = repetition([text], n=n)
    assert -1 < value <= 0
