"""Answers are read as a person would read them, or not at all; answers.json holds the cases, with the hazard that each stands for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from omnistage.data.records import AnswerKind
from omnistage.rewards.conclusion import conclusion_of
from omnistage.rewards.extract import (
    MOST_READ,
    answer_of,
    is_well_formed,
    mentions,
    read_answer,
    read_numbers,
    segment_of,
    text_of,
    thinking_of,
    words_in,
)
from omnistage.rewards.grade import read

CASES: dict[str, Any] = json.loads(Path(__file__).with_name("answers.json").read_text(encoding="utf-8"))
OPTIONS: dict[str, list[str]] = CASES["options"]
COLOURS = OPTIONS["colours"]


def _name(case: dict[str, Any]) -> str:
    return f"{case['kind']}-{case['text']!r}"


def test_the_table_covers_every_kind_and_every_hazard_of_reading() -> None:
    cases = CASES["answers"] + CASES["completions"]
    assert len(cases) > 600
    assert {case["kind"] for case in cases} == set(AnswerKind)
    assert {case["options"] for case in cases} == set(OPTIONS)
    why = " ".join(case["why"] for case in cases)
    assert all(f"hazard {number}" in why for number in range(13, 21))


@pytest.mark.parametrize("case", CASES["answers"], ids=_name)
def test_an_answer_is_read(case: dict[str, Any]) -> None:
    kind, options = AnswerKind(case["kind"]), OPTIONS[case["options"]]
    assert read_answer(case["text"], kind, options) == case["expected"], case["why"]
    assert answer_of(f"<think>so</think>\n<answer>{case['text']}</answer>") == case["text"].strip()


@pytest.mark.parametrize("case", CASES["completions"], ids=_name)
def test_only_the_answer_of_a_completion_is_read(case: dict[str, Any]) -> None:
    answer = answer_of(case["text"])
    read = None if answer is None else read_answer(answer, AnswerKind(case["kind"]), OPTIONS[case["options"]])
    assert read == case["expected"], case["why"]
    place = segment_of(case["text"], "answer")
    assert answer == (None if place is None else case["text"][slice(*place)].removeprefix("<answer>").removesuffix("</answer>").strip())


def test_an_answer_of_more_than_ten_thousand_characters_cannot_be_read() -> None:
    for kind, answer in [(AnswerKind.NUMBER, "4"), (AnswerKind.YES_NO, "yes"), (AnswerKind.SINGLE_CHOICE, "B"), (AnswerKind.LEVEL, "good")]:
        assert read_answer(answer + " " * (MOST_READ - len(answer)), kind, COLOURS) == answer
        assert read_answer(answer + " " * MOST_READ, kind, COLOURS) is None
    assert read_numbers("1" + " " * (MOST_READ - 1)) == [1.0]
    assert read_numbers("1" + " " * MOST_READ) is None
    assert read_answer("x" * (MOST_READ + 1), AnswerKind.OPEN, []) == "x" * (MOST_READ + 1)


@pytest.mark.parametrize("case", CASES["answers"], ids=_name)
def test_a_normal_form_reads_as_itself(case: dict[str, Any]) -> None:
    kind, options = AnswerKind(case["kind"]), OPTIONS[case["options"]]
    if case["expected"] is not None:
        assert read_answer(case["expected"], kind, options) == case["expected"]


@pytest.mark.parametrize("count", range(2, 11))
def test_every_letter_of_two_to_ten_options_and_none_beyond(count: int) -> None:
    options = [f"thing number {position}" for position in range(count)]
    for position, letter in enumerate("ABCDEFGHIJK"):
        expected = letter if position < count else None
        small = letter.lower()
        for written in (letter, small, f"({letter})", f"{small}.", f"Answer: {letter}", f"the answer is {small}"):
            assert read_answer(written, AnswerKind.SINGLE_CHOICE, options) == expected, written


@pytest.mark.parametrize(
    ("text", "thinking"),
    [
        ("<think> he nods </think><answer>B</answer>", "he nods"),
        ("<think>a</think><think>b</think>", "b"),
        ("<think>write it in <answer> tags</think>", "write it in <answer> tags"),
        ("<think><think>inner</think>", "inner"),
        ("<think></think>", ""),
        ("<think>cut off", None),
        ("</think>turned<think>", None),
        ("none", None),
    ],
)
def test_the_thinking(text: str, thinking: str | None) -> None:
    assert thinking_of(text) == thinking


@pytest.mark.parametrize(
    "text",
    [
        "<think>a</think><answer>B</answer>",
        "<think>a</think>\n\n<answer>B</answer>",
        " \n<think>\na < b\n</think> <answer> B </answer>\n ",
    ],
)
def test_well_formed(text: str) -> None:
    assert is_well_formed(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "B",
        "<answer>B</answer>",
        "<think>a</think>",
        "<think></think><answer>B</answer>",
        "<think> \n</think><answer>B</answer>",
        "<think>a</think><answer></answer>",
        "<think>a</think><answer> </answer>",
        "Sure: <think>a</think><answer>B</answer>",
        "<think>a</think> so <answer>B</answer>",
        "<think>a</think><answer>B</answer> done",
        "<think>a</think><answer>B</answer><answer>B</answer>",
        "<think>a</think><answer>B</answer><think>a</think><answer>B</answer>",
        "<think>a</think><think>b</think><answer>B</answer>",
        "<think><think>a</think></think><answer>B</answer>",
        "<think>a<answer>B</answer></think>",
        "<think>in <answer> tags</think><answer>B</answer>",
        "<answer>B</answer><think>a</think>",
        "<think>a<answer>B</answer>",
        "<think>a</think><answer>B",
        "<Think>a</Think><Answer>B</Answer>",
    ],
)
def test_not_well_formed(text: str) -> None:
    """Hazard 17 among them: repeated blocks, trailing text, an empty thinking, an empty answer."""
    assert not is_well_formed(text)


def test_the_text_of_a_completion() -> None:
    spoken = {"role": "assistant", "content": "second"}
    assert text_of("plain") == "plain"
    assert text_of([{"role": "assistant", "content": "only"}]) == "only"
    assert text_of([{"role": "assistant", "content": "first"}, {"role": "user", "content": "more"}, spoken]) == "second"
    assert text_of([{"role": "assistant", "content": [{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]}]) == "in parts"


@pytest.mark.parametrize("completion", [[], None, 3, [{"role": "user", "content": "x"}], ["x"], [{"role": "assistant", "content": None}]])
def test_what_is_no_completion_is_refused(completion: Any) -> None:
    with pytest.raises(TypeError, match="assistant"):
        text_of(completion)


# Pieces that mean something to the reader, so that what is drawn gets past the first look.
PIECES = ["<think>", "</think>", "<answer>", "</answer>", "A", "b", "C.", "(d)", "so", "answer", "is", "not", "dark", "red", "or", "and"]
PIECES += ["1", "-2.5", "1,000", ",", ".", " ", "\n", "one", "minus", "no", "yes", "a", "I", "'", "-"]
PIECES += ["/", "=", "^", "4 000", "<", "+", "than", "to", "all", "but", "at least"]
PIECES += ["\u7b54", "\ud800", "\u0130", "\u00df"]


def _read_everything(text: str) -> None:
    answer_of(text)
    thinking_of(text)
    well_formed = is_well_formed(text)
    assert not well_formed or (answer_of(text) and thinking_of(text))
    for kind in AnswerKind:
        for options in ([], COLOURS, OPTIONS["ten"]):
            found = read_answer(text, kind, options)
            # What can be read is in normal form: reading it again changes nothing.
            assert found is None or kind is AnswerKind.OPEN or read_answer(found, kind, options) == found
            concluded = conclusion_of(text, kind, options)
            assert concluded is None or read(concluded, kind, options) == concluded


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=300) | st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
@example("A ")
@example("so 1,2")
@example("minus -1")
@example("A or")
@example("\u0130. i")
@example("so 1/3")
@example("so 4 000")
def test_no_text_raises(text: str) -> None:
    _read_everything(text)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join), st.integers(5_000, 40_000))
def test_no_long_text_raises(piece: str, length: int) -> None:
    _read_everything((piece * (length // len(piece) + 1))[:length])


@pytest.mark.parametrize("piece", ["<think>", "<answer>", "</answer>", "<answer></answer>", "<think><answer>A</answer></think>", "<", " "])
def test_tags_of_a_megabyte_are_read_in_half_a_second(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    taken = []
    for _ in range(3):
        # The best of three: what other processes do to the machine is not ours.
        start = time.process_time()
        answer_of(text), thinking_of(text), is_well_formed(text)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.5


def _seconds(text: str) -> float:
    start = time.process_time()
    for kind in AnswerKind:
        read_answer(text, kind, COLOURS)
        conclusion_of(text, kind, COLOURS)
    return time.process_time() - start


REPEATED = ["1,", "1.", "-1", "a-", "A ", "A and ", "so ", "so A and ", "A isn't ", "dark red ", "(", "\u662f"]
REPEATED += ["not A or ", "A to ", "A - ", "all but B ", "more than 4 ", "4 or ", "<", "<b>", "not be ", "at "]


@pytest.mark.parametrize("piece", REPEATED)
def test_time_grows_linearly(piece: str) -> None:
    """Quadratic reading of 10,000 characters, the most that is read, takes many seconds; linear reading a tenth of one."""
    assert _seconds(piece * (MOST_READ // len(piece))) < 3


@pytest.mark.parametrize("piece", ["A ", "\u4f60", "so one ", "no ", "9^", "so 1/2 ", "1 000 ", "no red disc or "])
def test_every_reading_of_a_megabyte_takes_less_than_half_a_second(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    readings: dict[str, Callable[[], object]] = {
        "answer": lambda: [read(text, kind, COLOURS) for kind in AnswerKind],
        **{f"conclusion, {kind}": partial(conclusion_of, text, kind, COLOURS) for kind in AnswerKind},
        "numbers": lambda: read_numbers(text),
        "words": lambda: words_in(text),
        "mentions": lambda: mentions(text, ["red disc", "beep"]),
    }
    taken = dict.fromkeys(readings, 9.0)
    for _ in range(3):
        for name, reading in readings.items():
            start = time.process_time()
            reading()
            taken[name] = min(taken[name], time.process_time() - start)
    assert max(taken.values()) < 0.5, taken
