"""A sentence as words, and which of them name an option: what `extract` and `conclusion` are built on.

Every pattern is possessive or bounded and every loop looks a fixed number of words around it, so time grows linearly with the text.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import ascii_letters, ascii_uppercase
from typing import NamedTuple

# Full-width forms, ideographic space, comma and full stop, minus sign and typographic apostrophe, as their ASCII selves.
_PLAIN = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 32, 0x3001: 44, 0x3002: 46, 0x2212: 45, 0x2019: 39}
# Chinese and Japanese put no spaces between words: each character stands for itself.
_IDEOGRAPH = r"\u3040-\u30ff\u3400-\u9fff"
_NUMBER = r"(?<![A-Za-z0-9_.])(?<![0-9],)(?:(?<!-)[-+])?(?:[0-9]++(?:[.,][0-9]++)*+|\.[0-9]++)(?![A-Za-z0-9_])"
_WORD = re.compile(rf"(?P<number>{_NUMBER})|[{_IDEOGRAPH}]|[^\W_{_IDEOGRAPH}]++(?:['-][^\W_{_IDEOGRAPH}]++)*+")
_SENTENCE_END = re.compile(r"[.!?:;\n]")


def vocabulary(text: str) -> frozenset[str]:
    """The words of a text, without order."""
    return frozenset(text.split())


# Words that may stand around a letter without making the sentence say anything else.
FILLERS = vocabulary(
    "the my correct right final best only both either just answer answers option options choice choices letter letters "
    "is are must should be and or so it it's"
)
_BEFORE_LOWERCASE = vocabulary("answer answers option options choice choices letter is are so choose select pick")
_NAMES_A_LETTER = vocabulary("option choice letter")
_AFTER_LETTER = FILLERS | vocabulary("because since as for can cannot can't isn't doesn't does nor but not")
_ARTICLES = vocabulary("a an the option choice letter")
_DENY_NEXT = vocabulary("not never neither nor without than isn't aren't wasn't weren't cannot can't")
_VERBS = vocabulary("is are was were can could does do did seems looks must would should")
_DENY_AFTER_VERB = vocabulary("not never wrong incorrect false out unlikely impossible eliminated excluded ruled")
_DENY_AFTER = vocabulary("isn't aren't can't cannot doesn't don't wasn't weren't won't couldn't wouldn't")


class Word(NamedTuple):
    """One word: as written, case-folded, where it stands in the plain text, and whether it is a number in digits."""

    raw: str
    folded: str
    start: int
    end: int
    number: bool


class Mention(NamedTuple):
    """The words `first` to `after` (exclusive) are the text of the option `letter`."""

    first: int
    after: int
    letter: str


def plain(text: str) -> str:
    """The text with full-width forms and typographic signs as ASCII; of the same length."""
    return text.translate(_PLAIN)


def words_of(text: str) -> list[Word]:
    """The words of a plain text, numbers with their sign and separators as one word."""
    return [Word(m[0], m[0].casefold(), m.start(), m.end(), m["number"] is not None) for m in _WORD.finditer(text)]


def letters_for(options: Collection[str]) -> str:
    """The letters of the options: 'ABCD' for four."""
    return ascii_uppercase[: len(options)]


@dataclass(frozen=True)
class Wording:
    """A plain text read against options."""

    text: str
    options: tuple[str, ...]

    @cached_property
    def words(self) -> list[Word]:
        return words_of(self.text)

    @cached_property
    def allowed(self) -> str:
        return letters_for(self.options)

    @cached_property
    def mentions(self) -> dict[int, Mention]:
        """Texts of options, longest first and at word boundaries, by their first word."""
        found, phrases, at = {}, _phrases(self.options, self.allowed), 0
        while at < len(self.words):
            mention = self._mention_at(at, phrases)
            if mention is not None:
                found[at] = mention
            at = at + 1 if mention is None else mention.after
        return found

    @cached_property
    def _inside_mention(self) -> frozenset[int]:
        return frozenset(at for mention in self.mentions.values() for at in range(mention.first, mention.after))

    def _mention_at(self, at: int, phrases: dict[str, list[tuple[tuple[str, ...], str]]]) -> Mention | None:
        for phrase, letter in phrases.get(self.words[at].folded, ()):
            if tuple(word.folded for word in self.words[at : at + len(phrase)]) == phrase:
                return Mention(at, at + len(phrase), letter)
        return None

    def says(self, word: str) -> bool:
        """Whether a word stands outside every option's text."""
        return any(w.folded == word and at not in self._inside_mention for at, w in enumerate(self.words))

    def bare_letters(self, runs: bool) -> set[str]:
        """The letters of a text that is nothing but letters and words around them; empty for any other text.

        With `runs`, 'AC' is A and C; a lower-case run must be in order ('ac'), for it could be a word.
        """
        letters: set[str] = set()
        for word in self.words:
            if word.folded in FILLERS:
                continue
            if not (_is_letter(word) or (runs and self.is_run(word))):
                return set()
            letters |= set(word.raw.upper())
        return letters

    def is_run(self, word: Word) -> bool:
        """Whether a word is letters of the options only, without separators."""
        in_order = all(a < b for a, b in zip(word.raw, word.raw[1:], strict=False))
        return set(word.raw.upper()) <= set(self.allowed) and (word.raw.isupper() or (word.raw.islower() and in_order))

    def letters(self) -> set[str]:
        """The letters that the text names as options and does not deny."""
        named = ((at, self.letter_at(at)) for at in range(len(self.words)))
        return {letter for at, letter in named if letter is not None and not self.denied(at, at + 1)}

    def texts(self) -> set[str]:
        """The letters of the options whose texts are mentioned and not denied."""
        return {mention.letter for mention in self.affirmed_mentions()}

    def affirmed_mentions(self) -> Iterator[Mention]:
        """Mentions that are not denied, in their order."""
        return (mention for mention in self.mentions.values() if not self.denied(mention.first, mention.after))

    def letter_at(self, at: int) -> str | None:
        """The letter that word `at` names as an option, or None: not a letter, an article, a pronoun, or part of something else."""
        word = self.words[at]
        letter = word.raw.upper()
        if not _is_letter(word) or at in self._inside_mention or self._is_abbreviation(at):
            return None
        if (letter == "I" or word.raw.islower()) and letter not in self.allowed:
            return None
        before, after = self.gap(at), self.gap(at + 1)
        if before[-1:] in ("(", "[", "{") and after[:1] in (")", "]", "}"):
            return letter
        names = self._lowercase_names(at) if word.raw.islower() else self._uppercase_names(at, letter)
        return letter if names else None

    def _uppercase_names(self, at: int, letter: str) -> bool:
        """Every capital but the article 'A' at the start of a sentence and the pronoun 'I'."""
        if letter not in ("A", "I") or at + 1 == len(self.words) or not self.gap(at + 1).isspace():
            return True
        if self.words[at + 1].folded in _AFTER_LETTER:
            return True
        if at > 0 and self.words[at - 1].folded in _NAMES_A_LETTER:
            return True
        return letter == "A" and at > 0 and not _SENTENCE_END.search(self.gap(at))

    def _lowercase_names(self, at: int) -> bool:
        """A small letter only as a list mark ('c.', 'c)') or right after a word such as 'answer'."""
        before, after = self.gap(at), self.gap(at + 1)
        if before[-1:] in ("", " ", "\n", "\t", "*", "(") and after[:1] in (".", ")", ":"):
            return True
        if at == 0 or self.words[at - 1].folded not in _BEFORE_LOWERCASE or before.strip(" :*\"'"):
            return False
        return self.words[at].raw not in ("a", "i") or not after.isspace() or self.words[at - 1].folded in _NAMES_A_LETTER

    def _is_abbreviation(self, at: int) -> bool:
        """'e.g.', 'U.S.', '2-D': a letter that is glued to its neighbours."""
        glued_before = at > 0 and self.gap(at) in (".", "-")
        glued_after = at + 1 < len(self.words) and self.gap(at + 1) == "." and len(self.words[at + 1].raw) == 1
        return glued_before or glued_after

    def gap(self, at: int) -> str:
        """What stands between word `at - 1` and word `at`."""
        start = self.words[at - 1].end if at > 0 else 0
        return self.text[start : self.words[at].start] if at < len(self.words) else self.text[start:]

    def denied(self, first: int, after: int) -> bool:
        """Whether the sentence says that words `first` to `after` (exclusive) are not the answer."""
        back = first - 1
        while back >= max(0, first - 2) and self.words[back].folded in _ARTICLES:
            back -= 1
        if back >= 0 and self.words[back].folded in _DENY_NEXT:
            return True
        if back >= 1 and (self.words[back - 1].folded, self.words[back].folded) == ("instead", "of"):
            return True
        following = [word.folded for word in self.words[after : after + 3]]
        if following and following[0] in _DENY_AFTER:
            return True
        return bool(following) and following[0] in _VERBS and not _DENY_AFTER_VERB.isdisjoint(following[1:])


def _is_letter(word: Word) -> bool:
    return len(word.raw) == 1 and word.raw in ascii_letters


def _phrases(options: Sequence[str], letters: str) -> dict[str, list[tuple[tuple[str, ...], str]]]:
    """Options' words by their first word, longest first. A text that is one letter, or that two options share, names none of them."""
    owners: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for letter, option in zip(letters, options, strict=False):
        words = words_of(plain(option))
        if words and not (len(words) == 1 and _is_letter(words[0])):
            owners[tuple(word.folded for word in words)].append(letter)
    phrases: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
    for phrase in sorted(owners, key=len, reverse=True):
        if len(owners[phrase]) == 1:
            phrases[phrase[0]].append((phrase, owners[phrase][0]))
    return phrases
