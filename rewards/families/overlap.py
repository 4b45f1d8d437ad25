"""How much of a reference text, or of a set of letters, does the answer share?

| measure | of | value |
|---|---|---|
| `rouge1`, `rouge2` | open | F-measure of the words or word pairs in common, each as often as both have it (Lin 2004) |
| `rougeL` | open | F-measure of the longest common subsequence of words (Lin 2004) |
| `wer` | open | 1 - min(1, word errors / words of the reference); errors are substitutions, insertions and deletions |
| `f1` | multi_select | F-measure of the letters in common |

F = 2 PR / (P + R). Words are compared whatever their case and without punctuation; each Chinese and Japanese character is a word,
so `wer` of such a text is its character error rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from rapidfuzz.distance import LCSseq, Levenshtein

from omnistage.data.errors import InputError
from omnistage.data.records import AnswerKind
from omnistage.rewards.base import reward
from omnistage.rewards.extract import answer_of, text_of, words_in
from omnistage.rewards.grade import kind_of, naming, read

Measure = Literal["rouge1", "rouge2", "rougeL", "wer", "f1"]
# Comparing in order takes time for each pair of words.
MOST_COMPARED = 4000


@reward(range=(0, 1), looks_at=["answer"])
def overlap(
    completions: Sequence[Any],
    target: Sequence[str],
    kind: Sequence[str],
    options: Sequence[Sequence[str]],
    record_id: Sequence[str] | None = None,
    *,
    measure: Measure = "rougeL",
    **columns: Any,
) -> list[float | None]:
    """How much the answer has in common with the target, from 0 to 1, by a measure: rouge1, rouge2, rougeL, wer or f1; 0 for no answer.

    Unscored for other kinds of answer than the measure's, and for a target without words (`rouge2`: with fewer than two). `rougeL` and
    `wer` compare the first 4,000 words of each text in their order; the words behind them count as ones that are not in the other text.
    All columns hold one value a completion. Raises `InputError` that names the record for an unknown kind and for a selection
    that cannot be read.
    """
    scores: list[float | None] = []
    for row, (text, right, of, choices) in enumerate(zip(completions, target, kind, options, strict=True)):
        with naming(record_id, row):
            scores.append(_overlap(answer_of(text_of(text)), right, kind_of(of), choices, measure))
    return scores


def _overlap(answer: str | None, target: str, kind: AnswerKind, options: Sequence[str], measure: Measure) -> float | None:
    if kind is not (AnswerKind.MULTI_SELECT if measure == "f1" else AnswerKind.OPEN):
        return None
    if measure == "f1":
        right = read(target, kind, options)
        if right is None:
            raise InputError(f"target {target!r} is no {kind} answer to {len(options)} options")
        selected = None if answer is None else read(answer, kind, options)
        return 0.0 if selected is None else _shared(Counter(selected.split(",")), Counter(right.split(",")))
    reference = words_in(target)
    if len(reference) < (2 if measure == "rouge2" else 1):
        return None
    words = words_in(answer or "")
    match measure:
        case "rouge1":
            return _shared(Counter(words), Counter(reference))
        case "rouge2":
            return _shared(Counter(pairwise(words)), Counter(pairwise(reference)))
        case "rougeL":
            common = LCSseq.similarity(words[:MOST_COMPARED], reference[:MOST_COMPARED])
            return 2 * common / (len(words) + len(reference))
        case "wer":
            return 1 - min(1.0, _errors(words, reference) / len(reference))


def _shared(one: Counter[Any], other: Counter[Any]) -> float:
    """2 PR / (P + R), which is twice what is shared in what both have together."""
    return 2 * (one & other).total() / (one.total() + other.total())


def _errors(words: Sequence[str], reference: Sequence[str]) -> int:
    beyond = max(0, len(words) - MOST_COMPARED) + max(0, len(reference) - MOST_COMPARED)
    return Levenshtein.distance(words[:MOST_COMPARED], reference[:MOST_COMPARED]) + beyond
