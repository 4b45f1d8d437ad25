from __future__ import annotations

from dataclasses import replace

import pyarrow
import pytest

from omnistage.data.errors import InputError
from omnistage.data.prompts import TEMPLATES, UNTAGGED, render, text
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record

COLOUR = Record(
    id="1",
    modality=Modality.VIDEO,
    task="colour",
    kind=AnswerKind.SINGLE_CHOICE,
    question="What colour is it?",
    target="A",
    media=(MediaRef("video", "a.mp4"),),
    options=("red", "blue"),
)
COUNT = replace(COLOUR, kind=AnswerKind.NUMBER, question="How many\n are there?", target="3", options=())


def test_think_answer_holds_question_options_and_the_form_of_the_answer() -> None:
    lines = text(COLOUR).split("\n")
    assert lines[:4] == ["What colour is it?", "A. red", "B. blue", ""]
    assert lines[-1] == "<think>your reasoning</think><answer>the letter of the one right option</answer>"


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        (AnswerKind.MULTI_SELECT, "the letters of all right options, joined by commas"),
        (AnswerKind.NUMBER, "one number in digits"),
        (AnswerKind.YES_NO, "yes or no"),
        (AnswerKind.OPEN, "a short answer"),
    ],
)
def test_think_answer_hints_at_the_kind(kind: AnswerKind, form: str) -> None:
    assert text(replace(COLOUR, kind=kind)).endswith(f"<answer>{form}</answer>")


def test_no_options_leave_no_gap() -> None:
    assert text(COUNT).split("\n")[2] == ""
    assert text(COUNT).split("\n")[3].startswith("Reason")


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        (AnswerKind.SINGLE_CHOICE, "Reply with the letter of the one right option: nothing else, no reasons."),
        (AnswerKind.MULTI_SELECT, "Reply with the letters of all right options, joined by commas: nothing else, no reasons."),
        (AnswerKind.NUMBER, "Reply with one number in digits: nothing else, no reasons."),
        (AnswerKind.YES_NO, "Reply with yes or no: nothing else, no reasons."),
        (AnswerKind.OPEN, "Reply with a short answer: nothing else, no reasons."),
    ],
)
def test_direct_asks_for_the_answer_alone_and_for_no_tag(kind: AnswerKind, last: str) -> None:
    assert text(replace(COLOUR, kind=kind), "direct").split("\n") == ["What colour is it?", "A. red", "B. blue", "", last]
    assert "direct" in UNTAGGED


def test_short_is_one_line_with_a_hint_of_a_word() -> None:
    assert text(COLOUR, "short") == "What colour is it? A red B blue"
    assert text(replace(COLOUR, kind=AnswerKind.MULTI_SELECT), "short") == "What colour is it? A red B blue all"
    assert text(COUNT, "short") == "How many are there? number"
    assert text(replace(COUNT, kind=AnswerKind.YES_NO), "short") == "How many are there? yes or no"
    assert text(replace(COUNT, kind=AnswerKind.OPEN), "short") == "How many are there?"


def test_plain_adds_nothing_whatever_the_kind() -> None:
    """Line breaks inside a question stay, as instruction data has them."""
    assert text(COLOUR, "plain") == "What colour is it?\nA. red\nB. blue"
    for kind in AnswerKind:
        assert text(replace(COUNT, kind=kind), "plain") == "How many\n are there?"


def test_media_come_first_and_the_system_text_is_optional() -> None:
    user = {"role": "user", "content": [{"type": "video", "video": "a.mp4"}, {"type": "text", "text": text(COLOUR)}]}
    assert render(COLOUR) == [user]
    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert render(COLOUR, system="Be brief.") == [system, user]


def test_a_records_own_system_message_stands_in_place_of_the_recipes() -> None:
    own = replace(COLOUR, extra={"system": "You are a painter."})
    assert [message["role"] for message in render(own)] == ["system", "user"]
    assert render(own, system="Be brief.")[0]["content"] == [{"type": "text", "text": "You are a painter."}]
    for nothing in ("", " ", None, {"a": 1}):
        assert render(replace(COLOUR, extra={"system": nothing}), system="Be brief.") == render(COLOUR, system="Be brief.")


def test_prompts_with_and_without_a_system_message_make_one_table() -> None:
    """As the trainer keeps them: a column cannot hold texts beside lists."""
    records = [COLOUR, replace(COLOUR, extra={"system": "a"}), replace(COLOUR, history=(("q", "a"),))]
    table = pyarrow.Table.from_pylist([{"prompt": render(record, "short")} for record in records])
    assert [[message["role"] for message in prompt] for prompt in table["prompt"].to_pylist()] == [
        ["user"],
        ["system", "user"],
        ["user", "assistant", "user"],
    ]


def test_parts_follow_the_media_of_the_record() -> None:
    def parts(*media: MediaRef) -> list[tuple[str, str]]:
        content = render(COLOUR.with_media(media), "short")[0]["content"]
        return [(part["type"], part[part["type"]]) for part in content]

    question = ("text", text(COLOUR, "short"))
    assert parts() == [question]
    assert parts(MediaRef("audio", "a.wav")) == [("audio", "a.wav"), question]
    both = parts(MediaRef("video", "a.mp4", sound="a.mp4"), MediaRef("audio", "b.wav"))
    assert both == [("video", "a.mp4"), ("audio", "b.wav"), question]


def test_the_answer_is_not_in_the_prompt() -> None:
    record = replace(COLOUR, kind=AnswerKind.OPEN, options=(), target="vermilion", response="<think>t</think><answer>vermilion</answer>")
    for template in TEMPLATES:
        assert "vermilion" not in str(render(record, template))


def test_unknown_template_names_the_known() -> None:
    with pytest.raises(
        InputError, match=r"unknown prompt template 'shrt'; did you mean 'short'\? known: context_think_answer, direct, plain, short"
    ):
        render(COLOUR, "shrt")
