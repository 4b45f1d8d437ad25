"""The built-in rewards as TRL calls them: a batch of completions, a column per field, exact values."""

from __future__ import annotations

from typing import Any

import pytest

from omnistage.data.errors import InputError
from omnistage.rewards.accuracy import accuracy
from omnistage.rewards.format import format
from omnistage.rewards.reasoning import reasoning

FOUR = ["happy", "sad", "angry", "afraid"]


def _chat(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "assistant", "content": text}] for text in texts]


def _columns(kinds: list[str], targets: list[str] | None = None) -> dict[str, Any]:
    """The columns of TRL's call for rows of these kinds, with all that it adds of its own."""
    choice = ("single_choice", "multi_select")
    return {
        "prompts": [[]] * len(kinds),
        "completion_ids": [[0]] * len(kinds),
        "target": targets or [""] * len(kinds),
        "kind": kinds,
        "options": [FOUR if kind in choice else [] for kind in kinds],
        "task": ["t"] * len(kinds),
        "modality": ["video"] * len(kinds),
        "record_id": [f"r{row}" for row in range(len(kinds))],
        "trainer_state": None,
        "log_extra": None,
        "log_metric": None,
    }


def test_accuracy_grades_each_row_by_its_own_kind() -> None:
    """Hazard 7. One batch: right choice, wrong choice, '12' for 12, '1' for 10, yes, a full and half a selection, open, untagged."""
    rows = [
        ("single_choice", "B", "<think>x</think><answer>B</answer>", 1.0),
        ("single_choice", "B", "<think>B</think><answer>C</answer>", 0.0),
        ("number", "12", "<answer>12</answer>", 1.0),
        ("number", "10", "<answer>1</answer>", 0.0),
        ("number", "5", "<think>5</think><answer>4</answer>", 0.0),
        ("yes_no", "yes", "<answer>Yes.</answer>", 1.0),
        ("multi_select", "A,C", "<answer>C, A</answer>", 1.0),
        ("multi_select", "A,C", "<answer>A</answer>", 0.0),
        ("multi_select", "A,C", "<answer></answer>", 0.0),
        ("open", "friends", "<answer>friends</answer>", None),
        ("single_choice", "B", "B", 0.0),
    ]
    kinds, targets, texts, scores = (list(column) for column in zip(*rows, strict=True))
    assert accuracy(completions=_chat(*texts), **_columns(kinds, targets)) == scores
    assert accuracy(completions=texts, **_columns(kinds, targets)) == scores


def test_accuracy_with_half_credit() -> None:
    completions = _chat("<answer>A</answer>", "<answer>A,B</answer>", "<answer></answer>", "<answer>A,C</answer>")
    assert accuracy(completions, **_columns(["multi_select"] * 4, ["A,C"] * 4), partial=True) == [0.5, 0.0, 0.0, 1.0]


def test_accuracy_names_the_record_whose_target_cannot_be_read() -> None:
    with pytest.raises(InputError, match=r"^record 'r1': target 'E' is no single_choice answer to 4 options$"):
        accuracy(_chat("<answer>A</answer>", "<answer>A</answer>"), **_columns(["single_choice"] * 2, ["A", "E"]))
    with pytest.raises(InputError, match=r"^row 0: target 'many' is no number answer$"):
        accuracy(["4"], target=["many"], kind=["number"], options=[[]])


def test_accuracy_refuses_columns_of_another_length() -> None:
    with pytest.raises(ValueError, match="zip"):
        accuracy(["<answer>4</answer>"], target=["4", "4"], kind=["number"], options=[[]])


def test_format_wants_one_thinking_and_one_answer_that_can_be_read() -> None:
    rows = [
        ("single_choice", "<think>x</think><answer>D</answer>", 1.0),
        ("single_choice", "<think>x</think><answer>E</answer>", 0.0),
        ("single_choice", "<think>x</think><answer>calm</answer>", 0.0),
        ("number", "<think>x</think>\n<answer>ten</answer>", 1.0),
        ("number", "<think>x</think><answer>B</answer>", 0.0),
        ("yes_no", "<think>x</think><answer>No</answer>", 1.0),
        ("multi_select", "<think>x</think><answer>A, D</answer>", 1.0),
        ("multi_select", "<think>x</think><answer> </answer>", 0.0),
        ("open", "<think>x</think><answer>friends</answer>", 1.0),
        ("number", "<answer>4</answer>", 0.0),
        ("number", "<think></think><answer>4</answer>", 0.0),
        ("number", "<think>x</think><answer>4</answer> done", 0.0),
        ("number", "<think>x</think><answer>4</answer><think>x</think><answer>4</answer>", 0.0),
    ]
    kinds, texts, scores = (list(column) for column in zip(*rows, strict=True))
    assert format(completions=_chat(*texts), **_columns(kinds)) == scores


def test_reasoning_compares_the_conclusion_with_the_answer() -> None:
    rows = [
        ("single_choice", "<think>He cries, so B.</think><answer>B</answer>", 1.0),
        ("single_choice", "<think>He cries, so he is sad</think><answer>(b) sad</answer>", 1.0),
        ("single_choice", "<think>He cries, so B.</think><answer>C</answer>", 0.0),
        ("single_choice", "<think>He cries, so B.</think><answer>calm</answer>", 0.0),
        ("single_choice", "<think>He cries, so B.</think>", 0.0),
        ("single_choice", "<think>He walks.</think><answer>C</answer>", None),
        ("single_choice", "<answer>C</answer>", None),
        ("multi_select", "<think>First happy, then angry.</think><answer>A,C</answer>", 1.0),
        ("multi_select", "<think>First happy, then angry.</think><answer>A</answer>", 0.0),
        ("number", "<think>2 and 2: 4</think><answer>four</answer>", 1.0),
        ("number", "<think>2 and 2: 4</think><answer>5</answer>", 0.0),
        ("yes_no", "<think>He nods, so yes.</think><answer>Yes</answer>", 1.0),
        ("yes_no", "<think>He nods.</think><answer>Yes</answer>", None),
        ("open", "<think>so B</think><answer>B</answer>", None),
    ]
    kinds, texts, scores = (list(column) for column in zip(*rows, strict=True))
    assert reasoning(completions=_chat(*texts), **_columns(kinds)) == scores


def test_reasoning_and_format_do_not_look_at_the_target() -> None:
    text = "<think>He cries, so B.</think><answer>B</answer>"
    for reward in (reasoning, format):
        assert [reward([text], **_columns(["single_choice"], [target])) for target in "AB"] == [[1.0], [1.0]]
