"""The one door through which a model's text comes in: its tags, the normal form of its answer, and what its thinking mentions.

Training, the format check, the reasoning check and evaluation all read through here, so they cannot disagree about what was answered.
Nothing here raises for any text, and time grows linearly with its length.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal

from omnistage.data.records import LEVELS, AnswerKind
from omnistage.rewards.lexer import EXCEPT, NUMBER_WORDS, Word, Wording, folded_words_of, is_number, letters_for, plain, vocabulary

_TAG = re.compile(r"</?(?:think|answer)>")
_TAG_OR_CONTEXT = re.compile(r"</?(?:context|think|answer)>")
_THINK_TAG = re.compile(r"<(?P<closes>/?)think>")
_PARTS = ("think", "answer")

# Reading 'two hundred' as 2 would be worse than not reading it.
UNREAD_NUMBERS = vocabulary(
    "half dozen eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy "
    "eighty ninety hundred thousand million billion"
)
_POWER = re.compile(r"[0-9)][ \t]{0,4}(?:\^|\*\*)[ \t]{0,4}[-+(]?[0-9]")
_JOINS = vocabulary("or and to through thru till until")
_MINUS = frozenset({"minus", "negative"})
# 'A or B' selects neither; what 'all except B' selects is not said.
_SELECTS_NOTHING = EXCEPT | {"or"}
# Whoever writes a number more often than this gives no answer, and each place takes time to look at.
_MOST_TIMES = 100
# 'no doubt' is no 'no'.
_NO_MATTER = vocabulary("answer clue doubt idea question telling wonder")
# 'Yes, because there is no dog': what leads to the yes, what ends it, and which 'no' counts things instead of answering.
_LEADS_TO_ANSWER = vocabulary("the my final answer is")
_ENDS_ANSWER = re.compile(r"[,.:;!\n\u2013\u2014-]")
_SAYS_NO = vocabulary("or nor not but say says said answer answers maybe perhaps rather it he she they")
_NO_THING = vocabulary(
    "answer clue idea telling way after again although and as at because before but by for from he here if in is it no not now of on or "
    "she since so than that the then there they this though to unless we when while with yes you"
)
_SEPARATORS = re.compile(r"[\s,;()\[\]{}]++")
_FLOAT = re.compile(r"[-+]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][-+]?+[0-9]++)?+")
# Longer than any float that a program writes.
_MOST_DIGITS = 40
# Thousands set off by spaces, ordinary, unbreakable or thin ones: '4 000'.
_SPACED = r"[1-9][0-9]{0,2}+(?P<space>[ \u00a0\u2009\u202f])[0-9]{3}(?:(?P=space)[0-9]{3})*+"
_SPACED_ALONE = re.compile(rf"[-+]?+{_SPACED}(?:\.[0-9]++)?+\.?+")
_SPACED_IN_TEXT = re.compile(rf"(?<![\w.,/]){_SPACED}(?![\w/]|,[0-9])")
_LETTER_AND_TEXT = re.compile(r"\(?+(?P<letter>[a-z])[.):]\s++(?P<text>.++)")

# More than anybody answers; a pose of 216 numbers of 40 digits has fewer.
MOST_READ = 10_000

# More than any model writes in one completion; what stands behind is not split into words.
MOST_SPLIT = 250_000

# What takes a mention back: 'I do not see a red disc', 'neither a dog nor a cat', 'the red disc is missing'.
_NEGATES = vocabulary(
    "no not never without neither nor nobody lacks lacking cannot can't couldn't don't doesn't didn't isn't aren't wasn't weren't won't "
    "haven't hasn't 不 没 非 无"
)
_BEFORE_MENTION = vocabulary(
    "a an the any some such there is are was were be been being see sees seen hear hears heard notice find spot detect show shows shown "
    "contain contains have has sight sound sounds sign trace of 有 看 听 见 到 是"
)
_IS = vocabulary("is are was were be")
_IS_NOT = vocabulary("isn't aren't wasn't weren't cannot can't couldn't")
_PERCEIVED = vocabulary("visible audible present there here seen heard shown found")
_GONE = vocabulary("absent missing invisible inaudible")
_CLAUSE_END = re.compile(r"[.,!?;:\n]")
_REACH = 8
_VOWEL = re.compile(r"[aeiouy]")


def text_of(completion: str | Sequence[Mapping[str, Any]]) -> str:
    """The text of a completion as TRL hands it over: a string, or chat messages of which the last assistant message counts.

    Raises `TypeError` when it is neither, or when no message is the assistant's.
    """
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Sequence):
        spoken = [message for message in completion if isinstance(message, Mapping) and message.get("role") == "assistant"]
        if spoken:
            return _content(spoken[-1].get("content"))
    raise TypeError("a completion is a string or a list of messages with an assistant's among them")


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    raise TypeError(f"the content of an assistant's message is a string or a list of parts, not {type(content).__name__}")


def answer_of(text: str) -> str | None:
    """The stripped content of the last `<answer>...</answer>` that holds no other tag and stands in no thinking; None: not answered."""
    place = _answer_place(text)
    return None if place is None else text[place].strip()


def thinking_of(text: str) -> str | None:
    """The stripped content of the last `<think>...</think>`; it may mention answer tags. None when there is none."""
    place = _thinking_place(text)
    return None if place is None else text[place].strip()


def context_of(text: str) -> str | None:
    """The stripped content of the first `<context>...</context>`, what a model says of a clip before it reasons (HumanOmniV2, arXiv
    2506.21277); None when there is none before the thinking and the answer."""
    place = _context_place(text)
    return None if place is None else text[place].strip()


def segment_of(text: str, segment: Literal["context", "think", "answer"]) -> tuple[int, int] | None:
    """First character and end of what `context_of`, `thinking_of` or `answer_of` reads, its two tags included; None when there is none."""
    place = {"context": _context_place, "think": _thinking_place, "answer": _answer_place}[segment](text)
    return None if place is None else (place.start - len(f"<{segment}>"), place.stop + len(f"</{segment}>"))


def _answer_place(text: str) -> slice | None:
    last = max(text.rfind("<think>"), text.rfind("</think>"))
    tags: list[re.Match[str]] = []
    for place in _blocks_from_the_end(text, "answer"):
        if last < place.start:
            return place
        tags = tags or list(_THINK_TAG.finditer(text))
        after = bisect(tags, place.start, key=re.Match.start)
        holds_tag = after < len(tags) and tags[after].start() < place.stop
        in_thinking = 0 < after < len(tags) and not tags[after - 1]["closes"] and tags[after]["closes"]
        if not holds_tag and not in_thinking:
            return place
    return None


def _thinking_place(text: str) -> slice | None:
    return next(_blocks_from_the_end(text, "think"), None)


def _context_place(text: str) -> slice | None:
    tags = list(islice(_TAG_OR_CONTEXT.finditer(text), 2))
    if [tag[0] for tag in tags] != ["<context>", "</context>"]:
        return None
    return slice(tags[0].end(), tags[1].start())


def _blocks_from_the_end(text: str, name: str) -> Iterator[slice]:
    """What stands between an opening and the next closing tag of a name, with neither of them inside; each character is looked at once
    or twice."""
    opening, closing = f"<{name}>", f"</{name}>"
    before = len(text)
    while (last := text.rfind(closing, 0, before)) >= 0:
        start = text.rfind(opening, 0, last)
        if start < 0:
            return
        yield slice(start + len(opening), text.find(closing, start))
        before = start


def is_well_formed(text: str, *, context: bool = False) -> bool:
    """Whether the text is exactly `<think>...</think>`, `<answer>...</answer>`, neither of them empty, and white space around them.

    With `context` a `<context>...</context>` that is not empty stands before them, and must.
    """
    parts = ("context", *_PARTS) if context else _PARTS
    wanted = [tag for part in parts for tag in (f"<{part}>", f"</{part}>")]
    tags = list(islice((_TAG_OR_CONTEXT if context else _TAG).finditer(text), len(wanted) + 1))
    if [tag[0] for tag in tags] != wanted:
        return False
    inside = [text[opening.end() : closing.start()] for opening, closing in zip(tags[::2], tags[1::2], strict=True)]
    ends = [0, *(tag.end() for tag in tags[1::2])]
    outside = [text[end:start] for end, start in zip(ends, [*(tag.start() for tag in tags[::2]), len(text)], strict=True)]
    return all(part.strip() for part in inside) and not any(part.strip() for part in outside)


def read_answer(answer: str, kind: AnswerKind, options: Sequence[str]) -> str | None:
    """The normal form of `Record.target` ('B', 'A,C', '10', 'yes'; open: the stripped text), or None when it cannot be read.

    An answer that names two different letters, numbers, or both yes and no, where one is asked for, cannot be read; nor can one that only
    denies ('not 4', 'anything but B'), bounds ('more than 4', '4 or more', '<5') or spans a range ('A to C'); nor can one of more than
    10,000 characters, unless it is open.
    """
    if kind is AnswerKind.OPEN:
        return answer.strip() or None
    if len(answer) > MOST_READ:
        return None
    text = plain(answer)
    match kind:
        case AnswerKind.SINGLE_CHOICE:
            return _single_choice(text, options)
        case AnswerKind.MULTI_SELECT:
            return _multi_select(text, options)
        case AnswerKind.NUMBER | AnswerKind.SCALAR:
            return _number(text)
        case AnswerKind.YES_NO:
            return _yes_no(Wording(text, ()))
        case AnswerKind.LEVEL:
            return only({word.folded for word in Wording(text, ()).words} & set(LEVELS))
        case AnswerKind.POSE:
            return None


def read_numbers(answer: str) -> list[float] | None:
    """The numbers of an answer that is nothing but decimal numbers between white space, commas, semicolons and brackets; else None.

    '1e999' is infinite: whoever measures with the numbers looks whether they are finite. More than 10,000 characters are not read.
    """
    if len(answer) > MOST_READ:
        return None
    pieces = [piece for piece in _SEPARATORS.split(plain(answer)) if piece]
    if not pieces or any(len(piece) > _MOST_DIGITS or not _FLOAT.fullmatch(piece) for piece in pieces):
        return None
    return [float(piece) for piece in pieces]


def words_in(text: str) -> list[str]:
    """The case-folded words of a text, each Chinese and Japanese character as one; of its first 250,000 characters."""
    return folded_words_of(plain(text[:MOST_SPLIT]))


def mentions(text: str, phrases: Collection[str], most_words: int | None = None) -> set[str]:
    """The phrases that a text mentions: word for word whatever the case, number and tense ('dogs', 'barking' for 'dog barks').

    A mention that is denied ('no dog', 'I cannot hear a dog', 'the dog is missing') is none. `most_words` leaves out what stands
    after so many words, and nothing is looked for behind the first 250,000 characters.
    """
    # Its words with their places are made where something is mentioned only.
    wording = Wording(plain(text[:MOST_SPLIT]), ())
    words = folded_words_of(wording.text)[:most_words]
    roots = {word: _root(word) for word in set(words)}
    sequence = [roots[word] for word in words]
    wanted: dict[str, list[tuple[list[str], str]]] = {}
    for phrase in phrases:
        parts = [_root(word) for word in words_in(phrase)]
        if parts:
            wanted.setdefault(parts[0], []).append((parts, phrase))
    found: set[str] = set()
    for at, root in enumerate(sequence):
        for parts, phrase in wanted.get(root, ()):
            here = phrase not in found and sequence[at : at + len(parts)] == parts
            if here and not (_negated_before(wording, at) or _gone_after(wording, at + len(parts))):
                found.add(phrase)
    return found


def _root(word: str) -> str:
    """A word without the endings of number and tense; rough, but the same for both sides: 'clap', 'claps', 'clapped' and 'clapping'."""
    if len(word) < 4 or not word.isascii():
        return word
    word = word.removesuffix("'s")
    for ending in ("ing", "ed"):
        body = word.removesuffix(ending)
        if body != word and len(body) > 2 and _VOWEL.search(body) and not word.endswith("eed"):
            if body.endswith("i"):
                return f"{body[:-1]}y"
            doubled = body[-1] == body[-2] and body[-1] not in "lszaeiou"
            return body[:-1] if doubled else _without_e(body)
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    if len(word) > 4 and word.endswith("ie"):
        word = f"{word[:-2]}y"
    return _without_e(word)


def _without_e(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def _negated_before(wording: Wording, first: int) -> bool:
    """Whether the clause before word `first` denies it; of a list ('no dog or cat') every part."""
    if wording.denied_before(first):
        return True
    listed = False
    for at in range(first - 1, max(-1, first - 1 - _REACH), -1):
        if _CLAUSE_END.search(wording.gap(at + 1)):
            return False
        word = wording.words[at].folded
        if word in _NEGATES:
            return True
        listed = listed or word in ("or", "nor")
        if not listed and word not in _BEFORE_MENTION:
            return False
    return False


def _gone_after(wording: Wording, after: int) -> bool:
    """Whether the words from `after` on say that what stands before them is not there: 'is not visible', 'cannot be heard'."""
    following: list[str] = []
    for at in range(after, min(after + 4, len(wording.words))):
        if _CLAUSE_END.search(wording.gap(at)):
            break
        following.append(wording.words[at].folded)
    if not following or following[0] not in _IS | _IS_NOT:
        return False
    if following[0] in _IS and not _GONE.isdisjoint(following[1:2]):
        return True
    negated = following[0] in _IS_NOT or following[1:2] in (["not"], ["never"])
    return negated and not _PERCEIVED.isdisjoint(following[1:])


def _single_choice(text: str, options: Sequence[str]) -> str | None:
    exact = _exact_option(text, options) or _own_text(text, options)
    if exact is not None:
        return exact
    wording = Wording(text, tuple(options))
    letters = wording.bare_letters(runs=False)
    if not letters:
        letters = wording.letters()
        if wording.doubtful(texts=not letters):
            return None
    letter = only(letters or wording.texts())
    return letter if letter in set(wording.allowed) else None


def _multi_select(text: str, options: Sequence[str]) -> str | None:
    exact = _exact_option(text, options) or _own_text(text, options, least=2)
    if exact is not None:
        return exact
    wording = Wording(text, tuple(options))
    letters = wording.bare_letters(runs=True)
    if not letters:
        letters = wording.letters() | wording.texts()
        if wording.doubtful(texts=True) or any(wording.all_but(naming.first) for naming in wording.named):
            return None
    return joined(letters) if letters <= set(wording.allowed) and not wording.says(_SELECTS_NOTHING) else None


def _exact_option(text: str, options: Sequence[str]) -> str | None:
    """The letter of the one option that the whole text repeats; a single letter of the options is a letter, whatever the texts are."""
    letters, folded = letters_for(options), _folded(text)
    if len(folded) == 1 and folded.upper() in letters:
        return None
    whole = [letter for letter, option in zip(letters, options, strict=False) if _folded(plain(option)) == folded]
    return whole[0] if folded and len(whole) == 1 else None


def _own_text(text: str, options: Sequence[str], least: int = 1) -> str | None:
    """The letter of an option where the whole text is that letter and the option's own text, of `least` characters: 'C. Both A and B'.

    Where several options can be selected, 'A. C' may be two of them even if the text of A is 'C'.
    """
    found = _LETTER_AND_TEXT.fullmatch(_folded(text))
    letter = "" if found is None else found["letter"].upper()
    if found is None or letter not in letters_for(options):
        return None
    own = _folded(plain(options[letters_for(options).index(letter)]))
    return letter if len(own) >= least and found["text"].strip(" .\"'") == own else None


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .\"'")


def without_spaced_thousands(text: str) -> str:
    """The text with '4000' for '4 000'."""
    return _SPACED_IN_TEXT.sub(lambda found: found[0].replace(found["space"], ""), text)


def _number(text: str) -> str | None:
    # Among other words '4 000' could be two numbers.
    spaced = _SPACED_ALONE.fullmatch(text.strip())
    wording = Wording(text if spaced is None else text.strip().replace(spaced["space"], ""), ())
    words = wording.words
    if any(not UNREAD_NUMBERS.isdisjoint(word.folded.split("-")) for word in words):
        return None
    # '9^9' is no 9; expressions have a reader of their own (`grade.read`).
    if _POWER.search(wording.text):
        return None
    places = [at for at, word in enumerate(words) if is_number(word)]
    sure = [at for at in places if not _is_pronoun(words, at)] or places
    if len(sure) > _MOST_TIMES:
        return None
    if any(wording.denied_before(at) or wording.taken_back(at + 1) or wording.bounds(at, at + 1) for at in sure):
        return None
    return only({value_at(words, at) for at in sure})


def _is_pronoun(words: Sequence[Word], at: int) -> bool:
    """'The one on the left is 4': 'one' is mostly a pronoun, but not in 'one or two' and 'one to four'."""
    if words[at].folded != "one":
        return False
    beside = (words[at - 2 : at] if at > 1 else []), words[at + 1 : at + 3][::-1]
    return not any(len(pair) == 2 and is_number(pair[0]) and pair[1].folded in _JOINS for pair in beside)


def _yes_no(wording: Wording) -> str | None:
    said = [at for at, word in enumerate(wording.words) if word.folded in ("yes", "no")]
    if said and _begins_with_yes(wording, said):
        said = [at for at in said if not _counts_none(wording, at)]
    if any(wording.denied_before(at) or wording.taken_back(at + 1) or _is_no_matter(wording, at) for at in said):
        return None
    return only({wording.words[at].folded for at in said})


def _begins_with_yes(wording: Wording, said: Sequence[int]) -> bool:
    """Whether the only yes stands as an answer at the start: 'Yes, ...', 'The answer is yes: ...'."""
    if [wording.words[at].folded for at in said].count("yes") != 1 or wording.words[said[0]].folded != "yes":
        return False
    leads = all(word.folded in _LEADS_TO_ANSWER for word in wording.words[: said[0]])
    return leads and _ENDS_ANSWER.search(wording.gap(said[0] + 1)) is not None


def _counts_none(wording: Wording, at: int) -> bool:
    """Whether word `at` is the 'no' of 'there is no dog', 'he has no hat' and not an answer ('so it is no')."""
    if wording.words[at].folded != "no" or at == 0 or at + 1 == len(wording.words):
        return False
    before, following = wording.words[at - 1].folded, wording.words[at + 1].folded
    answers = before in _SAYS_NO or any(word.folded == "answer" for word in wording.words[max(0, at - 3) : at])
    return not answers and following not in _NO_THING and wording.gap(at).isspace() and wording.gap(at + 1).isspace()


def _is_no_matter(wording: Wording, at: int) -> bool:
    """'no doubt', 'no idea'."""
    following = wording.words[at + 1 : at + 2]
    return wording.words[at].folded == "no" and any(word.folded in _NO_MATTER for word in following) and wording.gap(at + 1).isspace()


def value_at(words: Sequence[Word], at: int) -> str | None:
    """The normal form of the number that word `at` is: '4', '-2.5'; None for digits that are no one number ('1,2', '2.5.1', 'minus -1')."""
    word = words[at]
    value = _canonical(word.raw) if word.number else NUMBER_WORDS[word.folded]
    if value in (None, "0") or at == 0 or words[at - 1].folded not in _MINUS:
        return value
    return None if value.startswith("-") else f"-{value}"


def _canonical(digits: str) -> str | None:
    body = digits.lstrip("+-")
    whole, point, fraction = body.partition(".")
    groups = whole.split(",")
    grouped = len(groups) == 1 or (1 <= len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:]))
    if not grouped or (point and not fraction.isdecimal()):
        return None
    # Digit by digit: a float or a decimal of fixed precision would call long numbers equal that are not.
    number = "".join(groups).lstrip("0") or "0"
    if fraction.rstrip("0"):
        number = f"{number}.{fraction.rstrip('0')}"
    return f"-{number}" if digits.startswith("-") and number != "0" else number


def only(values: Collection[str | None]) -> str | None:
    """The one element of a set; None when there is none or more than one."""
    return next(iter(values)) if len(values) == 1 else None


def joined(letters: set[str]) -> str | None:
    """Letters in order, joined by commas; None for none."""
    return ",".join(sorted(letters)) or None
