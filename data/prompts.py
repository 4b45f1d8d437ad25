"""What the policy reads: a record's question as text, and as chat messages with its media before it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from string import ascii_uppercase
from typing import Any

from omnistage.data.errors import InputError, unknown_name
from omnistage.data.records import LEVELS, AnswerKind, Record

_ANSWER_FORM: Mapping[AnswerKind, str] = {
    AnswerKind.SINGLE_CHOICE: "the letter of the one right option",
    AnswerKind.MULTI_SELECT: "the letters of all right options, joined by commas",
    AnswerKind.NUMBER: "one number in digits",
    AnswerKind.YES_NO: "yes or no",
    AnswerKind.OPEN: "a short answer",
    AnswerKind.LEVEL: f"one of {', '.join(LEVELS)}",
    AnswerKind.SCALAR: "one number in digits",
    AnswerKind.POSE: "a description of the pose",
}
CONTROL_TOKEN = re.compile(r"<\|[A-Za-z0-9_]++\|>")
_ANSWER_WORD: Mapping[AnswerKind, str] = {
    AnswerKind.SINGLE_CHOICE: "",
    AnswerKind.MULTI_SELECT: "all",
    AnswerKind.NUMBER: "number",
    AnswerKind.YES_NO: "yes or no",
    AnswerKind.OPEN: "",
    AnswerKind.LEVEL: "level",
    AnswerKind.SCALAR: "number",
    AnswerKind.POSE: "",
}


def _think_answer(record: Record) -> str:
    form = _ANSWER_FORM[record.kind]
    options = [f"{letter}. {option}" for letter, option in _lettered(record)]
    instruction = (
        "Reason step by step between <think> and </think>, then give only the final answer between <answer> and </answer>:\n"
        f"<think>your reasoning</think><answer>{form}</answer>"
    )
    return "\n".join([record.question.strip(), *options, "", instruction])


def _context_think_answer(record: Record) -> str:
    form = _ANSWER_FORM[record.kind]
    options = [f"{letter}. {option}" for letter, option in _lettered(record)]
    instruction = (
        "First say between <context> and </context> what is seen and heard, as far as the question needs it. Then reason step by step "
        "between <think> and </think>, and give only the final answer between <answer> and </answer>:\n"
        f"<context>what is seen and heard</context><think>your reasoning</think><answer>{form}</answer>"
    )
    return "\n".join([record.question.strip(), *options, "", instruction])


def _direct(record: Record) -> str:
    options = [f"{letter}. {option}" for letter, option in _lettered(record)]
    instruction = f"Reply with {_ANSWER_FORM[record.kind]}: nothing else, no reasons."
    return "\n".join([record.question.strip(), *options, "", instruction])


def _short(record: Record) -> str:
    options = [f"{letter} {option}" for letter, option in _lettered(record)]
    return " ".join(" ".join([record.question, *options, _ANSWER_WORD[record.kind]]).split())


def _lettered(record: Record) -> list[tuple[str, str]]:
    return list(zip(ascii_uppercase[: len(record.options)], record.options, strict=True))


def _plain(record: Record) -> str:
    return "\n".join([record.question.strip(), *(f"{letter}. {option}" for letter, option in _lettered(record))])


# `context_think_answer` is HumanOmniV2's order (arXiv 2506.21277). `direct` asks a model that was not taught tags for its answer alone;
# `short` is for tiny models that learned the form of the answer in a cold start and could not follow an instruction; `plain` adds nothing
# to a question, as published instruction data has it.
TEMPLATES: Mapping[str, Callable[[Record], str]] = {
    "think_answer": _think_answer,
    "context_think_answer": _context_think_answer,
    "direct": _direct,
    "short": _short,
    "plain": _plain,
}
# Templates whose answers stand in no tags.
UNTAGGED = frozenset({"direct", "plain"})


def text(record: Record, template: str = "think_answer") -> str:
    """The question of a record in the wording of a template; `InputError` for a name that is not in `TEMPLATES`."""
    if template not in TEMPLATES:
        raise InputError(unknown_name("prompt template", template, TEMPLATES))
    return TEMPLATES[template](record)


def system_of(record: Record, system: str | None = None) -> str | None:
    """The record's own system message (`extra["system"]`, a text) in place of `system`, where it has one."""
    own = record.extra.get("system")
    return own if isinstance(own, str) and own.strip() else system


def texts(record: Record) -> Iterator[tuple[str, str]]:
    """What the policy reads of a record, each text with its name."""
    yield "question", record.question
    if record.response is not None:
        yield "response", record.response
    for option in record.options:
        yield "option", option
    for turn in record.history:
        for part in turn:
            yield "history", part
    system = system_of(record)
    if system is not None:
        yield "system message", system


def control_token(record: Record) -> str | None:
    """Why a text of the record cannot be used: the model would read a part of it as a control token, a clip's place say. None: it can."""
    for name, part in texts(record):
        found = CONTROL_TOKEN.search(part)
        if found:
            return f"its {name} holds {found[0]!r}, which the model reads as a control token"
    return None


def render(record: Record, template: str = "think_answer", system: str | None = None) -> list[dict[str, Any]]:
    """Chat messages: the system text when given (a record's own stands in its place), the earlier turns, and the question last.

    The media stand before the first question. Only the last question is worded by the template. A video that is heard is still one video
    part; that its sound is used comes with the record's `MediaRef`, not with the messages.
    """
    system = system_of(record, system)
    # Parts, as all other contents are: a column of a table cannot hold texts beside lists.
    messages: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": [{"type": "text", "text": system}]}]
    parts: list[dict[str, Any]] = [{"type": ref.kind, ref.kind: ref.path} for ref in record.media]
    for question, answer in record.history:
        messages.append({"role": "user", "content": [*parts, {"type": "text", "text": question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        parts = []
    return [*messages, {"role": "user", "content": [*parts, {"type": "text", "text": text(record, template)}]}]
