"""Overlaps worked out by hand."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnistage.data.errors import InputError
from omnistage.rewards.families.overlap import MOST_COMPARED, overlap

CAT = "the cat sat on the mat"


def _open(answer: str, target: str, measure: Any) -> float | None:
    return overlap([f"<think>x</think><answer>{answer}</answer>"], [target], ["open"], [[]], measure=measure)[0]


@pytest.mark.parametrize(
    ("answer", "measure", "expected"),
    [
        (CAT, "rouge1", 1.0),
        ("The cat, sat on the MAT.", "rouge1", 1.0),
        ("the cat", "rouge1", 2 * 2 / (2 + 6)),
        ("the the the the", "rouge1", 2 * 2 / (4 + 6)),  # 'the' stands twice in the reference
        ("mat the on sat cat the", "rouge1", 1.0),
        ("dog", "rouge1", 0.0),
        ("", "rouge1", 0.0),
        ("the cat sat", "rouge2", 2 * 2 / (2 + 5)),
        ("the sat cat", "rouge2", 0.0),
        ("cat", "rouge2", 0.0),
        ("the dog sat on a mat", "rougeL", 2 * 4 / (6 + 6)),  # the sat on mat
        ("mat the on sat cat the", "rougeL", 2 * 3 / (6 + 6)),  # the on the
        ("", "rougeL", 0.0),
        ("the dog sat on a mat", "wer", 1 - 2 / 6),
        ("the cat on the mat", "wer", 1 - 1 / 6),
        ("well the cat sat on the mat", "wer", 1 - 1 / 6),
        ("", "wer", 0.0),
        ("a b c d e f g h i j k l m n", "wer", 0.0),
    ],
)
def test_measures_of_open_answers(answer: str, measure: str, expected: float) -> None:
    assert _open(answer, CAT, measure) == pytest.approx(expected, abs=1e-12)


def test_ideographs_are_words() -> None:
    assert _open("\u4eca\u5929\u5f88\u597d", "\u4eca\u5929\u5f88\u70ed", "wer") == 0.75


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("A, C", 1.0), ("A", 2 / 3), ("A, B", 0.5), ("A, B, C", 0.8), ("B", 0.0), ("B, D", 0.0), ("", 0.0), ("none", 0.0), ("A or C", 0.0)],
)
def test_f1_of_letters(answer: str, expected: float) -> None:
    """Target A,C: of 'A, B, C' two of three are right and two of two are there, 2 * 2 / (3 + 2)."""
    options = [["happy", "sad", "angry", "afraid"]]
    scored = overlap([f"<answer>{answer}</answer>"], ["A,C"], ["multi_select"], options, measure="f1")
    assert scored == [pytest.approx(expected, abs=1e-12)]


def test_only_the_answer_counts() -> None:
    for text in (f"<think>{CAT}</think><answer>dog</answer>", CAT, f"<think>{CAT}</think>"):
        for measure in ("rouge1", "rouge2", "rougeL", "wer"):
            assert overlap([text], [CAT], ["open"], [[]], measure=measure) == [0.0]


def test_other_kinds_are_not_scored() -> None:
    kinds = ["open", "multi_select", "single_choice", "number", "yes_no", "level", "scalar", "pose"]
    targets = ["a cat", "A", "A", "1", "yes", "good", "1", "a pose"]
    columns = {"target": targets, "kind": kinds, "options": [["x", "y"]] * 8}
    by_default = overlap(["<answer>a cat</answer>"] * 8, **columns)  # type: ignore[arg-type]
    assert [value is None for value in by_default] == [kind != "open" for kind in kinds]
    letters = overlap(["<answer>A</answer>"] * 8, **columns, measure="f1")  # type: ignore[arg-type]
    assert [value is None for value in letters] == [kind != "multi_select" for kind in kinds]


def test_a_target_that_a_measure_has_no_use_for_is_not_scored() -> None:
    assert _open("yes", "yes", "rouge2") is None
    assert [_open("?", "?!", measure) for measure in ("rouge1", "rougeL", "wer")] == [None, None, None]


def test_a_selection_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(InputError, match="target 'E' is no multi_select answer to 2 options"):
        overlap(["<answer>A</answer>"], ["E"], ["multi_select"], [["x", "y"]], measure="f1")
    with pytest.raises(InputError, match=r"^record 'r1': target 'Z' is no multi_select answer to 2 options$"):
        overlap(["A"] * 2, ["A", "Z"], ["multi_select"] * 2, [["x", "y"]] * 2, ["r0", "r1"], measure="f1")


def test_words_behind_the_first_thousands_are_not_in_common() -> None:
    """4,100 equal words: 4,000 are compared, so 200 of 8,200 are missing from rougeL, and 100 on either side are errors."""
    text = " ".join(f"w{at}" for at in range(MOST_COMPARED + 100))
    assert _open(text, text, "rouge1") == 1.0
    assert _open(text, text, "rougeL") == 8000 / 8200
    assert _open(text, text, "wer") == 1 - 200 / 4100


@pytest.mark.parametrize("measure", ["rouge1", "rouge2", "rougeL", "wer"])
def test_time_grows_linearly(measure: str) -> None:
    """Comparing half a million words with four thousand in order, pair by pair, takes minutes."""
    start = time.process_time()
    _open("a b c d " * 125_000, "b d a c " * 1000, measure)
    assert time.process_time() - start < 5


TEXTS = st.lists(st.sampled_from(["a", "b", "c", "dog"]), max_size=12).map(" ".join)


@settings(max_examples=200)
@given(TEXTS, TEXTS.filter(bool), st.sampled_from(["rouge1", "rouge2", "rougeL", "wer"]))
def test_values_lie_between_zero_and_one_and_equality_earns_one(answer: str, target: str, measure: str) -> None:
    value = _open(answer, target, measure)
    assert value is None or 0 <= value <= 1
    best = _open(target, target, measure)
    assert best is None if measure == "rouge2" and " " not in target else best == 1
