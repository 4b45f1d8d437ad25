"""What a thinking concludes: the other half of `extract`, for the reasoning check.

The last explicit conclusion counts ('so B', 'the answer is 4', 'C is correct'); where there is none, what was named last: an option's text
(for multi-select all that are named), a number, yes or no. What is denied ('so B is wrong', 'not the red one') is not concluded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from string import ascii_letters, digits

from omnistage.data.records import AnswerKind
from omnistage.rewards import expression
from omnistage.rewards.extract import UNREAD_NUMBERS, joined, only, value_at, without_spaced_thousands
from omnistage.rewards.lexer import Word, Wording, is_number, plain, vocabulary, words_of

_CUES = vocabulary("so thus therefore hence answer answers conclude conclusion choose select pick")
_LINKS = _CUES | vocabulary(
    "the a an is are was must be should would it it's this that there i we have final correct right best option options choice choices "
    "letter letters number count total"
)
_MOST_LINKS = 6
_CONNECTORS = frozenset({"and", "or", "also", "plus", "both", "option", "options"})
_AFFIRM = frozenset({"correct", "right", "answer"})
_AFFIRM_LINKS = frozenset({"is", "are", "must", "be", "the", "only", "best", "clearly"})
_SENTENCE_END = re.compile(r"[.!?\n]")

# A conclusion stands at the end.
MOST_READ = 20_000
_SPACE = re.compile(r"\s")
_AROUND = ".,;:!?*\"'"
# What makes an expression of two numbers: '1 / 2'; behind '=' stands a number of its own.
_OPERATOR = re.compile(r"[ \t]*+(?:[/^+\u00d7\u00f7\u00b7\u22c5]|\*{1,2})[ \t]*+[-+(]?+[0-9\\]")
_EQUALS = re.compile(r"[ \t]*+=[ \t]*+[-+(]?+[0-9\\]")
# 'one half', '2 million'.
_PARTS = UNREAD_NUMBERS | vocabulary("third thirds quarter quarters")
# A number is there, and it is not known which.
_UNREADABLE = ""


def conclusion_of(thinking: str, kind: AnswerKind, options: Sequence[str]) -> str | None:
    """What the thinking concludes, in the normal form of `Record.target`; None when it states no conclusion that can be read.

    Never raises. Only the last 20,000 characters are read, in a time that grows linearly with them. A number may be an expression ('1/2').
    Nothing is read for open answers, levels, scalars and poses.
    """
    text = plain(_end_of(thinking))
    match kind:
        case AnswerKind.SINGLE_CHOICE:
            return _single_choice(Wording(text, tuple(options)))
        case AnswerKind.MULTI_SELECT:
            return _multi_select(Wording(text, tuple(options)))
        case AnswerKind.NUMBER:
            return _number(without_spaced_thousands(text))
        case AnswerKind.YES_NO:
            return _yes_no(words_of(text))
        case AnswerKind.OPEN | AnswerKind.LEVEL | AnswerKind.SCALAR | AnswerKind.POSE:
            return None


def _end_of(thinking: str) -> str:
    """The last characters, without the half of a word or a number that they may begin with."""
    return thinking if len(thinking) <= MOST_READ else thinking[-MOST_READ:].lstrip(f"{ascii_letters}{digits}.,'+-")


def _single_choice(wording: Wording) -> str | None:
    def at(place: int) -> str | None:
        return only(_named_from(wording, place, several=False))

    explicit = _last_explicit(wording.words, at, lambda place: _affirmed_letter(wording, place))
    if explicit is not None:
        return explicit
    mentioned = [mention.letter for mention in wording.affirmed_mentions()]
    return mentioned[-1] if mentioned else None


def _multi_select(wording: Wording) -> str | None:
    def at(place: int) -> str | None:
        return joined(_named_from(wording, place, several=True))

    return _last_explicit(wording.words, at) or joined(wording.texts())


def _number(text: str) -> str | None:
    words = words_of(text)

    def at(place: int) -> str | None:
        is_pronoun = _runs_on(words, place, "one") and not _counts_parts(words, place)
        return _value_at(text, words, place) if is_number(words[place]) and not is_pronoun else None

    explicit = _last_explicit(words, at)
    if explicit is not None:
        return explicit or None
    # 'The last one' is no count; only where nothing else is a number may 'one' be it.
    places = [at for at, word in enumerate(words) if is_number(word)]
    sure = [at for at in places if words[at].folded != "one"] or places
    return (_value_at(text, words, sure[-1]) or None) if sure else None


def _value_at(text: str, words: Sequence[Word], place: int) -> str | None:
    """The number at a word, or the value of the expression that it stands in ('1/2', of '2+2=4' the 4); `_UNREADABLE` for any other."""
    word = words[place]
    first, after = max(0, word.start - expression.MOST_CHARACTERS), word.end + expression.MOST_CHARACTERS
    before = _SPACE.split(text[first : word.start])[-1]
    behind = _SPACE.split(text[word.end : after], maxsplit=1)[0]
    _, equals, whole = f"{before}{word.raw}{behind}".strip(_AROUND).rpartition("=")
    if expression.is_compound(whole) or (equals and expression.is_expression(whole)):
        value = expression.value_of(whole)
        return value if value is not None and expression.value_of(value) == value else _UNREADABLE
    joined_before = place > 0 and is_number(words[place - 1]) and _OPERATOR.match(text, words[place - 1].end)
    if joined_before or _OPERATOR.match(text, word.end) or _EQUALS.match(text, word.end) or _counts_parts(words, place):
        return _UNREADABLE
    return value_at(words, place)


def _counts_parts(words: Sequence[Word], place: int) -> bool:
    """Whether a word is the 'one' of 'one half', the '2' of '2 million'."""
    return any(word.folded in _PARTS and word.start == words[place].end + 1 for word in words[place + 1 : place + 2])


def _yes_no(words: list[Word]) -> str | None:
    def at(place: int) -> str | None:
        return words[place].folded if words[place].folded in ("yes", "no") and not _runs_on(words, place, "no") else None

    said = [word.folded for word in words if word.folded in ("yes", "no")]
    return _last_explicit(words, at) or (said[-1] if said else None)


def _runs_on(words: Sequence[Word], place: int, folded: str) -> bool:
    """Whether a word is followed by another with nothing but a space between: 'no doubt', 'one can see'."""
    return words[place].folded == folded and place + 1 < len(words) and words[place + 1].start == words[place].end + 1


def _last_explicit(
    words: Sequence[Word], read: Callable[[int], str | None], stated: Callable[[int], str | None] = lambda place: None
) -> str | None:
    """What `read` finds after the last cue that leads to something, or what `stated` finds without a cue, whichever is later."""
    for place in reversed(range(len(words))):
        found = stated(place)
        if found is None and words[place].folded in _CUES:
            found = _after_cue(words, place, read)
        if found is not None:
            return found
    return None


def _after_cue(words: Sequence[Word], cue: int, read: Callable[[int], str | None]) -> str | None:
    for place in range(cue + 1, min(cue + 2 + _MOST_LINKS, len(words))):
        found = read(place)
        if found is not None or words[place].folded not in _LINKS:
            return found
    return None


def _named_from(wording: Wording, place: int, several: bool) -> set[str]:
    """Options named without interruption from word `place` on.

    One option ends at the first word that does not name it. Several go on over 'and' and commas to the end of the sentence.
    """
    named: set[str] = set()
    while place < len(wording.words):
        letters, after = _named_at(wording, place, several)
        if letters:
            if not wording.denied(place, after):
                named |= letters
        elif not (named and wording.words[place].folded in _CONNECTORS):
            break
        if after < len(wording.words) and _ends(wording, after, letters, several):
            break
        place = after
    return named


def _named_at(wording: Wording, place: int, runs: bool) -> tuple[set[str], int]:
    mention = wording.mentions.get(place)
    if mention is not None:
        return {mention.letter}, mention.after
    letter = wording.letter_at(place)
    if letter is not None:
        return {letter} & set(wording.allowed), place + 1
    word = wording.words[place]
    if runs and len(word.raw) > 1 and word.raw.isupper() and wording.is_run(word):
        return set(word.raw), place + 1
    return set(), place + 1


def _ends(wording: Wording, after: int, letters: set[str], several: bool) -> bool:
    """Whether a sentence ends before word `after`; the point in 'C. dark red' ends none."""
    if not _SENTENCE_END.search(wording.gap(after)):
        return False
    mention = wording.mentions.get(after)
    repeats = mention is not None and {mention.letter} == letters
    return not repeats and not (several and wording.gap(after).isspace())


def _affirmed_letter(wording: Wording, place: int) -> str | None:
    """The letter in 'C is correct', 'C must be the answer'."""
    letter = wording.letter_at(place)
    if letter is None or letter not in wording.allowed or wording.denied(place, place + 1):
        return None
    following = [word.folded for word in wording.words[place + 1 : place + 6]]
    links = 0
    while links < len(following) and following[links] in _AFFIRM_LINKS:
        links += 1
    return letter if 0 < links < len(following) and following[links] in _AFFIRM else None
