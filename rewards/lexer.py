"""A sentence as words, and which of them name an option: what `extract` and `conclusion` are built on.

Every pattern is possessive or bounded and every loop looks a fixed number of words around it, so time grows linearly with the text.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from string import ascii_letters, ascii_uppercase
from typing import NamedTuple

# Full-width forms, ideographic space, comma and full stop, minus sign and typographic apostrophe, as their ASCII selves.
_PLAIN = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 32, 0x3001: 44, 0x3002: 46, 0x2212: 45, 0x2019: 39}
# Chinese and Japanese put no spaces between words: each character stands for itself.
_IDEOGRAPH = r"\u3040-\u30ff\u3400-\u9fff"
_NUMBER = r"(?<![A-Za-z0-9_.])(?<![0-9],)(?:(?<!-)[-+])?(?:[0-9]++(?:[.,][0-9]++)*+|\.[0-9]++)(?![A-Za-z0-9_])"
_WORD = re.compile(rf"(?P<number>{_NUMBER})|[{_IDEOGRAPH}]|[^\W_{_IDEOGRAPH}]++(?:['-][^\W_{_IDEOGRAPH}]++)*+")
_SENTENCE_END = re.compile(r"[.!?:;\n]")
_STATEMENT_END = re.compile(r"[.!?;\n]")
_CLAUSE_END = re.compile(r"[.,!?;\n]")
_MARKUP = re.compile(r"</?[A-Za-z]{1,10}>")
# Less, more, unequal, plus or minus; '-> 4' and '=> 4' are arrows.
_COMPARES = r"(?<![-=])>|[<\u2264-\u2267\u2a7d\u2a7e\u2260\u00b1]|!="
_BEFORE_NUMBER = re.compile(_COMPARES)
_SIGN = re.compile(rf"[+]|{_COMPARES}")
_AFTER_NUMBER = re.compile(rf"[ \t]*+(?:{_SIGN.pattern}|\.{{2,3}}[0-9])")
_RANGE_SIGN = re.compile(r"[ \t]*+(?:-{1,2}+>?|[~\u2013\u2026\u2192]|\.{2,3})[ \t]*+")


def vocabulary(text: str) -> frozenset[str]:
    """The words of a text, without order."""
    return frozenset(text.split())


def _phrases(text: str) -> frozenset[str]:
    return frozenset(text.split(", "))


# Words that may stand around a letter without making the sentence say anything else.
FILLERS = vocabulary(
    "the my correct right final best only both either just answer answers option options choice choices letter letters "
    "is are must should be and or so it it's"
)
_BEFORE_LOWERCASE = vocabulary("answer answers option options choice choices letter is are so choose select pick")
_NAMES_A_LETTER = vocabulary("option choice letter")
_AFTER_LETTER = FILLERS | vocabulary(
    "because since as for can cannot can't isn't doesn't does nor but not instead except excluding besides"
)
_TO = vocabulary("to through thru until till")
_BETWEEN_LETTERS = _TO | vocabulary("plus minus")
EXCEPT = vocabulary("except excepting excluding besides minus")
_LISTING = vocabulary("or and nor the option options choice letter")

_DENY_AFTER = vocabulary("isn't aren't can't cannot doesn't don't wasn't weren't won't couldn't wouldn't")
_DENIES = _DENY_AFTER | vocabulary("not never neither nor without than hardly barely scarcely didn't shouldn't mustn't 不 非")
_DENY_BEFORE = (
    _DENIES
    | vocabulary("except excepting excluding besides exclude excludes excluded eliminate eliminates eliminated reject rejects rejected")
    | _phrases("instead of, exception of, none of, neither of, opposite of, apart from, aside from, except for, no longer")
    | _phrases("rule out, rules out, ruled out, ruling out")
)
# What may stand between a denial and what it denies: 'not exactly B', 'I do not think it is B'.
_DENY_LINKS = vocabulary(
    "a an the option choice letter be been really actually exactly precisely quite necessarily very even likely probably definitely "
    "definite clearly clear simple to it is it's that there are was were think believe say call choose pick select look looks seem seems "
    "appear appears feel feels minus negative 是"
)
_ALL = vocabulary("all any anything anyone anybody each every everything everyone everybody whatever")
_VERBS = vocabulary("is are was were can could does do did seems looks must would should")
_DENY_AFTER_VERB = vocabulary("not never wrong incorrect false out unlikely impossible eliminated excluded ruled")
# '4 are not moving' counts them; '4 is not right' takes the 4 back.
_JUDGES = vocabulary("is was isn't wasn't can't cannot seems looks must could not")
_WRONG = vocabulary("wrong incorrect false impossible unlikely")
_RIGHT = vocabulary("right correct true answer")

_BOUNDS = (
    vocabulary("than least most over under above below beyond between within exceed exceeds exceeding max maximum min minimum")
    | vocabulary("leq geq le ge lt gt ne neq pm")
    | _phrases("up to, many as, few as, much as, little as, or equal, or equal to")
    | _phrases("至 少, 至 多, 最 少, 最 多, 大 于, 小 于, 多 于, 少 于, 超 过, 不 到")
)
_SUMS = _phrases("add up to, adds up to, adding up to")
_OPTION_BOUNDS = _phrases("between, at least, at most, up to")
_BOUND_LINKS = vocabulary("about around approximately roughly exactly precisely just only some a an the of minus negative")
_LIMITS = vocabulary("plus upward upwards max maximum minimum tops")
_EXTREMES = vocabulary("least most minimum maximum")
_ADDS = vocabulary("or and maybe possibly perhaps 以")
_FURTHER = vocabulary(
    "more fewer less greater higher lower larger bigger smaller older younger longer shorter above below over under up upward upwards "
    "beyond 上 下"
)
# How many words before another can deny or bound it.
_REACH = 8

_TO_TEN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBER_WORDS = {name: str(value) for value, name in enumerate(_TO_TEN)}


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


class Naming(NamedTuple):
    """The words `first` to `after` (exclusive) name the option `letter`: by the letter, by the text, or by both side by side."""

    first: int
    after: int
    letter: str
    by_letter: bool
    by_text: bool
    denied: bool


def plain(text: str) -> str:
    """The text with full-width forms and typographic signs as ASCII; of the same length."""
    return text.translate(_PLAIN)


def words_of(text: str) -> list[Word]:
    """The words of a plain text, numbers with their sign and separators as one word."""
    return [Word(m[0], m[0].casefold(), m.start(), m.end(), m["number"] is not None) for m in _WORD.finditer(text)]


def folded_words_of(text: str) -> list[str]:
    """The words of a plain text, case-folded; quicker than `words_of`."""
    return [found[0].casefold() for found in _WORD.finditer(text)]


def is_number(word: Word) -> bool:
    """Whether a word is a number in digits or one of `NUMBER_WORDS`."""
    return word.number or word.folded in NUMBER_WORDS


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
        found, phrases, at = {}, _option_words(self.options, self.allowed), 0
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

    @cached_property
    def named(self) -> list[Naming]:
        """All that names an option, in order; a letter and its own text side by side ('B. sad', 'sad (B)') are one."""
        spans: list[tuple[int, int, str, bool, bool]] = []
        for at in range(len(self.words)):
            letter, mention = self.letter_at(at), self.mentions.get(at)
            if letter is not None:
                span = (at, at + 1, letter, True, False)
            elif mention is not None:
                span = (*mention, False, True)
            else:
                continue
            if spans and spans[-1][1:3] == (at, span[2]):
                last = spans.pop()
                span = (last[0], span[1], last[2], last[3] or span[3], last[4] or span[4])
            spans.append(span)
        return [Naming(*span, self.denied(span[0], span[1])) for span in spans]

    def says(self, words: Collection[str]) -> bool:
        """Whether one of the words stands outside every option's text."""
        return any(word.folded in words and at not in self._inside_mention for at, word in enumerate(self.words))

    def bare_letters(self, runs: bool) -> set[str]:
        """The letters of a text that is nothing but letters and words around them; empty for any other text.

        With `runs`, 'AC' is A and C; a lower-case run must be in order ('ac'), for it could be a word.
        """
        letters: set[str] = set()
        for at, word in enumerate(self.words):
            if word.folded in FILLERS:
                continue
            if not (_is_letter(word) or (runs and self.is_run(word))) or (letters and _RANGE_SIGN.fullmatch(self.gap(at))):
                return set()
            letters |= set(word.raw.upper())
        return letters

    def is_run(self, word: Word) -> bool:
        """Whether a word is letters of the options only, without separators."""
        in_order = all(a < b for a, b in zip(word.raw, word.raw[1:], strict=False))
        return set(word.raw.upper()) <= set(self.allowed) and (word.raw.isupper() or (word.raw.islower() and in_order))

    def letters(self) -> set[str]:
        """The letters that the text names as options and does not deny."""
        return {naming.letter for naming in self.named if naming.by_letter and not naming.denied}

    def texts(self) -> set[str]:
        """The letters of the options whose texts are mentioned and not denied."""
        return {naming.letter for naming in self.named if naming.by_text and not naming.denied}

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
        following, last = self.words[at + 1], self.words[at + 1 : at + 3][-1]
        if following.folded in _AFTER_LETTER:
            return True
        if following.folded in _BETWEEN_LETTERS and (_is_capital(last) or last.folded in _NAMES_A_LETTER):
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

    def doubtful(self, texts: bool) -> bool:
        """Whether what is named cannot be taken at its word: 'not A or B', 'A to C', 'B. Not B', 'at least 2'.

        Without `texts`, only what is named by its letter is looked at.
        """
        named = [naming for naming in self.named if texts or naming.by_letter]
        affirmed = [naming for naming in named if not naming.denied]
        if not {naming.letter for naming in affirmed}.isdisjoint(naming.letter for naming in named if naming.denied):
            return True
        if any(one.denied and not other.denied and self._listed(one, other) for one, other in pairwise(named)):
            return True
        return any(self._begins_range(naming) or self._bounds_options(naming) for naming in affirmed)

    def _listed(self, one: Naming, other: Naming) -> bool:
        """Whether two namings stand in one list: 'A or B', 'A, B'."""
        if other.first - one.after > 3 or self._statements[other.first] >= one.after:
            return False
        return all(word.folded in _LISTING for word in self.words[one.after : other.first])

    def _begins_range(self, naming: Naming) -> bool:
        """Whether an option is the first of a range: 'A to C', 'A - C', 'happy through angry'."""
        at = naming.after
        if at == len(self.words):
            return False
        if self.words[at].folded in _TO and self._statements[at] < at:
            at += 1 + any(word.folded in _NAMES_A_LETTER for word in self.words[at + 1 : at + 2])
            letter = any(_is_letter(word) and word.raw.upper() in self.allowed for word in self.words[at : at + 1])
        elif _RANGE_SIGN.fullmatch(self.gap(at)):
            letter = self.letter_at(at) is not None
        else:
            return False
        return letter or (not naming.by_letter and at in self.mentions)

    def _bounds_options(self, naming: Naming) -> bool:
        """'at least B', 'B or higher', 'between A and C'; for a text that is a number, all that `bounds` finds."""
        if naming.by_text and not naming.by_letter and is_number(self.words[naming.first]):
            return self.bounds(naming.first, naming.after) and not self._has_its_sign(naming)
        following = self._following(naming.after, 2, self._clauses)
        if following[:1] == ["or"] and not _FURTHER.isdisjoint(following):
            return True
        return not _OPTION_BOUNDS.isdisjoint(_tails(self._lead(naming.first, self._clauses, _BOUND_LINKS)))

    def _has_its_sign(self, naming: Naming) -> bool:
        """Whether the sign that a number is compared with belongs to the text of the option: '5+' where an option is '5+'."""
        option = plain(self.options[self.allowed.index(naming.letter)])
        around = self.text[max(0, self.words[naming.first].start - 3) : self.words[naming.after - 1].end + 3]
        return bool(_SIGN.search(option)) and _unspaced(option) in _unspaced(around)

    def bounds(self, first: int, after: int) -> bool:
        """Whether the number in words `first` to `after` (exclusive) is only a bound: 'more than 4', '<5', '5+', '4 or more'."""
        before = self._unmarked[self.words[first - 1].end if first > 0 else 0 : self.words[first].start]
        if _BEFORE_NUMBER.search(before) or _AFTER_NUMBER.match(self._unmarked, self.words[after - 1].end):
            return True
        lead = self._lead(first, self._statements, _BOUND_LINKS)
        following = [word for word in self._following(after, 6, self._statements) if word != "even"]
        if _says_at_least(lead) or _says_at_least(following) or not _LIMITS.isdisjoint(following[:1]):
            return True
        if any(one in _ADDS and other in _FURTHER for one, other in pairwise(following)):
            return True
        tails = _tails(lead)
        return not _BOUNDS.isdisjoint(tails) and _SUMS.isdisjoint(tails)

    def denied(self, first: int, after: int) -> bool:
        """Whether the sentence says that words `first` to `after` (exclusive) are not the answer."""
        if self.denied_before(first) or self.taken_back(after):
            return True
        following = self._following(after, 3, self._clauses)
        if following and following[0] in _DENY_AFTER:
            return True
        return bool(following) and following[0] in _VERBS and not _DENY_AFTER_VERB.isdisjoint(following[1:])

    def denied_before(self, first: int) -> bool:
        """Whether what leads to word `first` denies it: 'not', 'I do not think it is', 'rather than', 'anything but', 'no'."""
        lead = self._lead(first, self._clauses, _DENY_LINKS)
        if not _DENY_BEFORE.isdisjoint(_tails(lead)) or _is_all_but(lead):
            return True
        # 'No it is B' denies nothing.
        return first > 0 and self.words[first - 1].folded == "no" and self.gap(first) == " " and self.words[first].folded != "no"

    def all_but(self, first: int) -> bool:
        """Whether word `first` is what a sentence leaves out: 'anything but', 'all of them but'."""
        return _is_all_but(self._lead(first, self._clauses, _DENY_LINKS))

    def taken_back(self, after: int) -> bool:
        """Whether the words from `after` on say that what stands before them is not right: 'is wrong', 'cannot be the answer'."""
        following = self._following(after, 4, self._clauses)
        if not following or following[0] not in _JUDGES:
            return False
        return not _WRONG.isdisjoint(following) or not (_DENIES.isdisjoint(following) or _RIGHT.isdisjoint(following))

    def _lead(self, first: int, starts: Sequence[int], skipped: Collection[str]) -> list[str]:
        """The last words before word `first` in its clause or sentence, less those at their end that may be skipped; an 'A' stays 'A'."""
        lead = [word.raw if _is_letter(word) else word.folded for word in self.words[max(starts[first], first - _REACH) : first]]
        while lead and lead[-1] in skipped:
            lead.pop()
        return lead

    def _following(self, after: int, count: int, starts: Sequence[int]) -> list[str]:
        """The next `count` words from `after` on, as far as they stand in one clause or sentence with the word before them."""
        places = range(after, min(after + count, len(self.words)))
        return [self.words[at].folded for at in places if starts[at] < after]

    @cached_property
    def _clauses(self) -> list[int]:
        return self._starts(_CLAUSE_END)

    @cached_property
    def _statements(self) -> list[int]:
        return self._starts(_STATEMENT_END)

    def _starts(self, end: re.Pattern[str]) -> list[int]:
        """For every word the first word of the part that it stands in, when `end` ends a part."""
        starts: list[int] = []
        for at in range(len(self.words)):
            starts.append(at if at == 0 or end.search(self.gap(at)) else starts[-1])
        return starts

    @cached_property
    def _unmarked(self) -> str:
        """The text with spaces for its markup: '<b>4</b>' compares nothing."""
        return _MARKUP.sub(lambda tag: " " * len(tag[0]), self.text)


def _is_letter(word: Word) -> bool:
    return len(word.raw) == 1 and word.raw in ascii_letters


def _is_capital(word: Word) -> bool:
    return _is_letter(word) and word.raw.isupper()


def _tails(words: Sequence[str]) -> set[str]:
    """The last word, the last two and the last three, as phrases."""
    return {" ".join(words[-count:]) for count in (1, 2, 3)}


def _unspaced(text: str) -> str:
    return "".join(text.casefold().split())


def _is_all_but(words: Sequence[str]) -> bool:
    return words[-1:] == ["but"] and not _ALL.isdisjoint(words)


def _says_at_least(words: Sequence[str]) -> bool:
    """'at least', 'at the very most', 'at a minimum'."""
    return any(word == "at" and not _EXTREMES.isdisjoint(words[at + 1 : at + 4]) for at, word in enumerate(words))


def _option_words(options: Sequence[str], letters: str) -> dict[str, list[tuple[tuple[str, ...], str]]]:
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
