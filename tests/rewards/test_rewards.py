"""The built-in rewards as TRL calls them: a batch of completions, a column per field, exact values."""

from __future__ import annotations

import time
from typing import Any

import pytest

from omnistage.data.errors import InputError
from omnistage.rewards.base import about
from omnistage.rewards.families.accuracy import accuracy
from omnistage.rewards.families.format import format
from omnistage.rewards.families.length import length, overlong
from omnistage.rewards.families.overlap import overlap
from omnistage.rewards.families.pose import pose
from omnistage.rewards.families.reasoning import consistency, evidence, reasoning
from omnistage.rewards.families.repetition import repetition
from omnistage.rewards.families.scalar import scalar
from omnistage.rewards.families.temporal import temporal
from omnistage.rewards.registry import RewardSpec, load

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
        ("number", "0.5", "<think>1</think><answer>$\\frac{1}{2}$</answer>", 1.0),
        ("open", "1/2", "<answer>0.5</answer>", 1.0),
        ("open", "1/2", "<think>1/2</think><answer>a half</answer>", 0.0),
        ("level", "good", "<answer>The quality is Good.</answer>", 1.0),
        ("scalar", "50", "<answer>50</answer>", None),
        ("pose", "a pose", "<answer>0</answer>", None),
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
        ("open", "<think>x</think><answer> .,; </answer>", 0.0),
        ("number", "<think>x</think><answer>1/2</answer>", 1.0),
        ("number", "<think>x</think><answer>3-4</answer>", 0.0),
        ("scalar", "<think>x</think><answer>51.9</answer>", 1.0),
        ("level", "<think>x</think><answer>great</answer>", 0.0),
        ("pose", f"<think>x</think><answer>{'0.1 ' * 72}</answer>", 1.0),
        ("pose", "<think>x</think><answer>arms raised</answer>", 0.0),
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
        ("number", "<think>So the answer is 1/2.</think><answer>1/2</answer>", 1.0),
        ("number", "<think>So the answer is 1/2.</think><answer>0.5</answer>", 1.0),
        ("number", "<think>So it is 0.5</think><answer>$\\frac{1}{2}$</answer>", 1.0),
        ("number", "<think>So the answer is 1/2.</think><answer>1/4</answer>", 0.0),
        ("number", "<think>so 3*3</think><answer>3</answer>", 0.0),
        ("number", "<think>So it is 1 / 2.</think><answer>1/2</answer>", None),
        ("number", "<think>so \\sqrt{2}</think><answer>\\sqrt{2}</answer>", None),
        ("number", "<think>so 4 000</think><answer>4 000</answer>", 1.0),
    ]
    kinds, texts, scores = (list(column) for column in zip(*rows, strict=True))
    assert reasoning(completions=_chat(*texts), **_columns(kinds)) == scores
    assert consistency(completions=_chat(*texts), **_columns(kinds)) == scores


@pytest.mark.parametrize(
    ("text", "asked", "not_asked"),
    [
        ("<context>a dog barks</context><think>x</think><answer>D</answer>", 1.0, 0.0),
        (" <context>a dog barks</context>\n<think>x</think>\n<answer>D</answer>\n", 1.0, 0.0),
        ("<think>x</think><answer>D</answer>", 0.0, 1.0),
        ("<think>x</think><context>a dog barks</context><answer>D</answer>", 0.0, 0.0),
        ("<context> </context><think>x</think><answer>D</answer>", 0.0, 0.0),
        ("<context>a</context>so<think>x</think><answer>D</answer>", 0.0, 0.0),
        ("<context>a</context><context>b</context><think>x</think><answer>D</answer>", 0.0, 0.0),
        ("<think>a <context> tag</think><answer>D</answer>", 0.0, 1.0),
    ],
)
def test_format_wants_a_context_where_it_is_asked_for(text: str, asked: float, not_asked: float) -> None:
    columns = _columns(["single_choice"], ["D"])
    assert format([text], context=True, **columns) == [asked]
    assert format([text], **columns) == [not_asked]


def test_reasoning_and_format_do_not_look_at_the_target() -> None:
    text = "<think>He cries, so B.</think><answer>B</answer>"
    for reward in (reasoning, format):
        assert [reward([text], **_columns(["single_choice"], [target])) for target in "AB"] == [[1.0], [1.0]]


FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "accuracy": (accuracy, {}),
    "format": (format, {}),
    "consistency": (consistency, {}),
    "evidence": (evidence, {}),
    "length": (length, {"most": 10, "unit": "words"}),
    "thinking": (length, {"most": 10, "unit": "words", "of": "thinking"}),
    "overlong": (overlong, {"most": 10, "soft": 5}),
    "repetition": (repetition, {}),
    "rouge1": (overlap, {"measure": "rouge1"}),
    "rouge2": (overlap, {"measure": "rouge2"}),
    "rougeL": (overlap, {"measure": "rougeL"}),
    "wer": (overlap, {"measure": "wer"}),
    "scalar": (scalar, {"scale": 1.0}),
    "pose": (pose, {}),
    "temporal": (temporal, {}),
}
IDENTITIES = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0] * 24


BY_KIND = ("accuracy", "format", "consistency", "temporal")
TARGETS = {"single_choice": "B", "number": "4", "yes_no": "yes", "open": "the red disc moves", "scalar": "4", "pose": "x"}


def _seconds(name: str, text: str) -> float:
    """The best of two runs: what other processes do to the machine is not ours."""
    function, settings = FAMILIES[name]
    kinds = ["single_choice", "number", "yes_no"] if name in BY_KIND else [name if name in TARGETS else "open"]
    taken = []
    for _ in range(2):
        start = time.process_time()
        for kind in kinds:
            columns = _columns([kind], [TARGETS[kind]]) | {
                "shuffled": [[text]],
                "evidence": [{"sight": ["red disc"], "sound": ["beep|tone"]}],
            }
            columns["values"] = [IDENTITIES if kind == "pose" else [4.0]]
            function(completions=_chat(text), **columns, **settings)
        taken.append(time.process_time() - start)
    return min(taken)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("piece", ["<think>", "<answer>", "(", "9^", "<think>a</think><answer>4</answer>"])
def test_a_megabyte_takes_no_longer_than_two_halves(name: str, piece: str) -> None:
    """A pattern that looks at each place again for each place before it takes four times as long for twice the text, and hours for this."""
    half = piece * (500_000 // len(piece))
    took = _seconds(name, half)
    assert took < 2
    assert _seconds(name, half * 2) < 3 * took + 0.2


@pytest.mark.parametrize("piece", ["(", "9^", "\\frac{", "no red disc or "])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_long_thinking_and_a_long_answer_are_read_in_linear_time(name: str, piece: str) -> None:
    text = piece * (100_000 // len(piece))
    assert _seconds(name, f"<think>{text}</think><answer>{text}</answer>") < 5


@pytest.mark.parametrize("name", FAMILIES)
def test_the_range_that_a_reward_declares_holds_for_odd_texts(name: str) -> None:
    function, settings = FAMILIES[name]
    texts = ["", "<answer>", "<think></think><answer></answer>", "<think>x</think><answer>4</answer>", "\ud800", "<answer>9^9^9^9</answer>"]
    kind = name if name in ("scalar", "pose") else "open" if name in ("rouge1", "rouge2", "rougeL", "wer") else "number"
    columns = _columns([kind] * len(texts), ["4"] * len(texts)) | {"shuffled": [[text] for text in texts]}
    columns["evidence"] = [{"sight": ["red disc"], "sound": []}] * len(texts)
    columns["values"] = [IDENTITIES if kind == "pose" else [4.0]] * len(texts)
    said = about(function)
    for value in function(completions=_chat(*texts), **columns, **settings):
        assert value is None or said.low <= value <= said.high


def test_settings_are_checked_when_a_reward_is_loaded() -> None:
    """By the types of their parameters, with the registry as users name rewards."""
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("length", {"most": -1}),
        ("length", {"most": 5, "unit": "bytes"}),
        ("overlong", {"most": 5, "soft": 0}),
        ("repetition", {"n": 0}),
        ("overlap", {"measure": "bleu"}),
        ("scalar", {}),
        ("scalar", {"scale": -1.0}),
        ("pose", {"layout": "diagonal"}),
        ("temporal", {"margin": -0.1}),
        ("reasoning", {"parts": {"quality": 1.0}}),
        ("evidence", {"most_words": 0}),
    ]
    for name, config in wrong:
        with pytest.raises(InputError, match="setting"):
            load(RewardSpec(name, config=config))
    parts = load(RewardSpec("reasoning", config={"parts": {"consistency": 1, "evidence": 0.5}, "most_words": 80}))
    columns = _columns(["yes_no"], ["yes"]) | {"evidence": [{"sight": ["nod"], "sound": []}]}
    assert parts(_chat("<think>He nods, so yes.</think><answer>No</answer>"), **columns) == [pytest.approx(1 / 3)]
