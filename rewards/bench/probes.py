"""Completions whose worth is known, made from a record: right ones in several wordings, and ones with a fault or more.

Each fault is in one or more aspects: the answer is wrong or missing, the form is broken, the thinking concludes something else, or it
mentions nothing of the evidence. A reward that looks at an aspect must not give its best value to a completion with a fault in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from string import ascii_uppercase

from omnistage.data.evidence import evidence_of
from omnistage.data.records import LEVELS, AnswerKind, Record
from omnistage.rewards.base import Aspect

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
GOLD, BARE_GOLD, WRONG = "gold", "thinking mentions nothing", "wrong answer"
SIZES = (10_000, 100_000, 1_000_000)

_NOTHING_MENTIONED = "I looked and I listened."
_ANSWER: frozenset[Aspect] = frozenset({"answer"})
_FORM: frozenset[Aspect] = frozenset({"form"})
_THINKING: frozenset[Aspect] = frozenset({"thinking"})
_EVIDENCE: frozenset[Aspect] = frozenset({"evidence"})
_ALL: frozenset[Aspect] = _ANSWER | _FORM | _THINKING | _EVIDENCE


@dataclass(frozen=True, slots=True)
class Probe:
    """A completion and the aspects in which it is at fault (none: it deserves the best value).

    `unanswered`: it may earn no more than a wrong answer does. `tells`: the aspect that a reward looks at if this probe lowers its
    value (below that of gold; for the answer, below that of gold that mentions nothing either).
    """

    name: str
    text: str
    faults: frozenset[Aspect] = frozenset()
    unanswered: bool = False
    tells: Aspect | None = None


def probes_of(record: Record) -> Iterator[Probe]:
    """All probes of a record; those that its kind of answer has no use for are left out."""
    gold, wrong = gold_of(record), wrong_of(record)
    seen = _mentions(record)
    because, otherwise = _thinking(record, gold, seen), _thinking(record, wrong, seen)
    yield Probe(GOLD, _whole(because, gold))
    yield Probe("gold, spaced out", f"<think>\n{because}\n</think>\n\n<answer> {gold}\n</answer>\n")
    for name, answer in wordings_of(record, gold):
        yield Probe(f"gold as {name}", _whole(because, answer))
    yield Probe(WRONG, _whole(otherwise, wrong), _ANSWER, tells=None if seen else "answer")
    if seen:
        # What is mentioned may hold the right answer, for whoever reads it there.
        yield Probe(BARE_GOLD, _whole(_NOTHING_MENTIONED, gold), _EVIDENCE, tells="evidence")
        yield Probe("wrong answer, nothing mentioned", _whole(_NOTHING_MENTIONED, wrong), _ANSWER | _EVIDENCE, tells="answer")
    yield Probe("wrong answer, right thinking", _whole(because, wrong), _ANSWER | _THINKING)
    yield Probe("wrong answer, gold behind it", f"{_whole(otherwise, wrong)} {gold}", _ANSWER | _FORM)
    yield Probe("wrong answer, gold before it", f"{gold} {_whole(otherwise, wrong)}", _ANSWER | _FORM)
    for name, answer in near_misses_of(record, gold, wrong):
        yield Probe(name, _whole(otherwise, answer), _ANSWER)
    yield Probe("empty answer", _whole(because, ""), _ANSWER | _FORM, unanswered=True)
    yield Probe("punctuation for an answer", _whole(because, " .,; "), _ANSWER | _FORM, unanswered=True)
    yield Probe("gold without tags", gold, _ANSWER | _FORM, unanswered=True)
    yield Probe("gold in the thinking alone", f"<think>{because}</think>", _ANSWER | _FORM, unanswered=True)
    yield Probe("answer never closed", f"<think>{because}</think><answer>{gold}", _ANSWER | _FORM, unanswered=True)
    yield Probe("nothing", "", _ALL, unanswered=True)
    yield Probe("no thinking", f"<answer>{gold}</answer>", _FORM | _EVIDENCE, tells="form")
    yield Probe("empty thinking", f"<think> </think><answer>{gold}</answer>", _FORM | _EVIDENCE)
    yield Probe("thinking outside its tags", f"{because}<think></think><answer>{gold}</answer>", _FORM | _EVIDENCE)
    yield Probe("repeated blocks", _whole(because, gold) * 2, _FORM)
    yield Probe("gold, then a wrong answer", _whole(because, gold) + _whole(otherwise, wrong), _ANSWER | _FORM)
    yield Probe("wrong answer, then gold", _whole(otherwise, wrong) + _whole(because, gold), _FORM)
    yield Probe("text behind the answer", f"{_whole(because, gold)} I hope this helps.", _FORM)
    yield Probe("text before the thinking", f"Sure. {_whole(because, gold)}", _FORM)
    yield Probe("answer before the thinking", f"<answer>{gold}</answer><think>{because}</think>", _FORM)
    yield Probe("thinking concludes otherwise", _whole(otherwise, gold), _THINKING, tells="thinking")


def long_probes(size: int) -> Iterator[Probe]:
    """Texts of `size` characters that hold no answer and that careless patterns take long over."""
    for name, piece in (
        ("opening tags", "<think>"),
        ("answers never closed", "<answer>"),
        ("closing tags", "</answer></think>"),
        ("brackets", "("),
        ("digits", "9"),
        ("powers", "9^"),
        ("spaces", " "),
        ("line ends", "\n"),
        ("letters", "A, B, "),
        ("no letters", "\u0000\u202e\U0001f600"),
        ("words", "so the answer is not "),
    ):
        yield Probe(f"{size:,} characters of {name}", (piece * (size // len(piece) + 1))[:size], _ALL - _EVIDENCE)


def gold_of(record: Record) -> str:
    """The right answer as a policy would write it: the target, or the numbers of a pose."""
    if record.kind is AnswerKind.POSE and record.values:
        return " ".join(f"{value:.6f}" for value in record.values)
    return record.target


def wrong_of(record: Record) -> str:
    """One answer of the right kind that is not right."""
    target, letters = record.target, ascii_uppercase[: max(2, len(record.options))]
    match record.kind:
        case AnswerKind.SINGLE_CHOICE:
            return next(letter for letter in letters if letter != target)
        case AnswerKind.MULTI_SELECT:
            others = [letter for letter in letters if letter not in target.split(",")]
            return ",".join(others) if others else letters[0] if target != letters[0] else letters[1]
        case AnswerKind.YES_NO:
            return "no" if target == "yes" else "yes"
        case AnswerKind.LEVEL:
            return LEVELS[-1] if LEVELS.index(target) < len(LEVELS) // 2 else LEVELS[0]
        case AnswerKind.NUMBER:
            return str(Decimal(target) + 3)
        case AnswerKind.SCALAR:
            return str(Decimal(target) + max(abs(Decimal(target)), Decimal(1000)))
        case AnswerKind.POSE if record.values:
            return " ".join(f"{-value:.6f}" for value in record.values)
        case _:
            return "something else altogether"


def wordings_of(record: Record, gold: str) -> Iterator[tuple[str, str]]:
    """The right answer in other words."""
    match record.kind:
        case AnswerKind.SINGLE_CHOICE:
            yield from {"'b'": gold.lower(), "'B.'": f"{gold}.", "'(b)'": f"({gold.lower()})", "'Answer: B'": f"Answer: {gold}"}.items()
            if record.options:
                yield "'B. text'", f"{gold}. {record.options[ascii_uppercase.index(gold)]}"
        case AnswerKind.MULTI_SELECT:
            letters = gold.split(",")
            yield from {"'C, A'": ", ".join(reversed(letters)), "'A and C'": " and ".join(letters), "lines": "\n".join(letters)}.items()
            yield "'ac'", "".join(letters).lower() if len(letters) > 1 else gold.lower()
        case AnswerKind.NUMBER:
            yield "'4.0'", gold if "." in gold else f"{gold}.0"
            yield "'The answer is 4'", f"The answer is {gold}"
            if gold.isdecimal() and int(gold) < len(NUMBER_WORDS):
                yield "a word", NUMBER_WORDS[int(gold)]
        case AnswerKind.YES_NO | AnswerKind.LEVEL:
            yield from {"'YES'": gold.upper(), "'Yes.'": f"{gold.capitalize()}."}.items()
        case AnswerKind.SCALAR:
            yield "'3.50'", f"{gold}0" if "." in gold else f"{gold}.00"
        case _:
            return


def near_misses_of(record: Record, gold: str, wrong: str) -> Iterator[tuple[str, str]]:
    """Wrong answers that a careless grader takes for right ones."""
    match record.kind:
        case AnswerKind.SINGLE_CHOICE:
            yield "two letters", f"{gold} or {wrong}"
            yield "denied gold", f"not {gold}"
        case AnswerKind.MULTI_SELECT:
            letters = gold.split(",")
            if len(letters) > 1:
                yield "a part of the letters", letters[0]
            everything = ",".join(ascii_uppercase[: len(record.options)])
            if everything != gold:
                yield "all letters", everything
        case AnswerKind.NUMBER:
            if gold.lstrip("-").isdecimal():
                yield "a number that begins alike", f"{gold}7"
                if len(gold.lstrip("-")) > 1:
                    yield "the first digit", gold[:-1]
            yield "two numbers", f"{gold} or {wrong}"
        case AnswerKind.YES_NO:
            yield "both", "yes and no"
        case AnswerKind.LEVEL:
            yield "two levels", f"{gold} or {wrong}"
        case _:
            return


def _whole(thinking: str, answer: str) -> str:
    return f"<think>{thinking}</think><answer>{answer}</answer>"


def _mentions(record: Record) -> str:
    evidence = evidence_of(record)
    verbs = {"sight": "I see", "sound": "I hear"}
    return " ".join(f"{verbs[sense]} {text.split('|')[0]}." for sense, texts in evidence.items() for text in texts)


def _thinking(record: Record, answer: str, mentions: str) -> str:
    if record.kind is AnswerKind.POSE:
        return f"{mentions} I look at each joint.".strip()
    return f"{mentions} So the answer is {answer}.".strip()
