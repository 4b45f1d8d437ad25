"""Is the thinking worth something: does the answer follow from it, and does it speak of what is in the clip?

    reasoning = sum over the scored parts of weight * part / sum of their weights        parts: consistency, evidence

Each part is a reward of its own too. None of them looks at the target; what a judge says of a thinking is `judge`'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import PositiveInt

from omnistage.data.errors import InputError, RewardError
from omnistage.data.evidence import SENSES
from omnistage.rewards.base import explain, reward
from omnistage.rewards.conclusion import conclusion_of
from omnistage.rewards.extract import answer_of, mentions, text_of, thinking_of
from omnistage.rewards.grade import kind_of, read

Part = Literal["consistency", "evidence"]
Evidence = Mapping[str, Sequence[str]]
CONSISTENCY_ALONE: Mapping[Part, float] = {"consistency": 1.0}


@reward(range=(0, 1), looks_at=["thinking"])
def consistency(completions: Sequence[Any], kind: Sequence[str], options: Sequence[Sequence[str]], **columns: Any) -> list[float | None]:
    """1 when the answer is what the thinking concludes, 0 when it is another or cannot be read; unscored where nothing is concluded.

    The target plays no part: a wrong answer that follows from its thinking scores 1. Open answers are unscored. All columns hold
    one value a completion. Raises `InputError` for an unknown kind.
    """
    return _told(columns, [_agreement(text_of(row[0]), row[1], row[2]) for row in zip(completions, kind, options, strict=True)])


@reward(range=(0, 1), looks_at=["evidence"])
def evidence(
    completions: Sequence[Any], evidence: Sequence[Evidence], *, most_words: PositiveInt | None = None, **columns: Any
) -> list[float | None]:
    """The share of what the record says is seen and heard in its clip that the thinking mentions; unscored where it says nothing.

    Each sense for which the record states something counts the same. A text or one of its alternatives (`"beep|tone"`) is mentioned by
    its words next to each other, whatever their case, number and tense, unless they are denied ('no beep'); once is enough. Column
    `evidence`: `data.evidence.evidence_of` of each completion's record.

    A thinking that lists all that clips of this kind can hold mentions everything too: words are counted here, not understood. With
    `most_words` only so many words from the start of the thinking count, and the list does not fit.
    """
    return _told(columns, [_grounding(text_of(text), stated, most_words) for text, stated in zip(completions, evidence, strict=True)])


@reward(range=(0, 1), looks_at=["thinking"])
def reasoning(
    completions: Sequence[Any],
    kind: Sequence[str],
    options: Sequence[Sequence[str]],
    evidence: Sequence[Evidence] | None = None,
    *,
    parts: Mapping[Part, float] = CONSISTENCY_ALONE,
    most_words: PositiveInt | None = None,
    **columns: Any,
) -> list[float | None]:
    """Whether the answer follows from the thinking (`consistency`), or the mean of several parts by their weights.

    A part that is not scored takes no part in the mean; a completion without any scored part is unscored. All columns hold one value a
    completion. Raises `InputError` for an unknown kind, and for `parts` that are none, unknown or not positive; `RewardError` where
    the rows have no column `evidence` and it is asked for.
    """
    if not parts or not set(parts) <= {"consistency", "evidence"} or not all(math.isfinite(w) and w > 0 for w in parts.values()):
        raise InputError(f"reasoning: parts is {dict(parts)}; must be weights above 0 for consistency, evidence or both")
    stated = evidence if evidence is not None else [None] * len(completions)
    if "evidence" in parts and evidence is None:
        raise RewardError("reasoning: the part 'evidence' needs the column 'evidence', and the rows have none")
    found: list[Found] = []
    for completion, row_kind, row_options, row_stated in zip(completions, kind, options, stated, strict=True):
        text = text_of(completion)
        scored: list[tuple[float, float]] = []
        reasons: list[str] = []
        for part, weight in parts.items():
            one = _agreement(text, row_kind, row_options) if part == "consistency" else _grounding(text, row_stated or {}, most_words)
            reasons.append(one.reason)
            if one.value is not None:
                scored.append((weight, one.value))
        value = sum(w * part_value for w, part_value in scored) / sum(w for w, _ in scored) if scored else None
        found.append(Found(value, "; ".join(reasons)))
    return _told(columns, found)


class Found(NamedTuple):
    """What a thinking is worth (None: not scored), and why."""

    value: float | None
    reason: str


def _told(columns: Mapping[str, Any], found: Sequence[Found]) -> list[float | None]:
    explain(columns, [one.reason for one in found])
    return [one.value for one in found]


def _agreement(text: str, kind_name: str, options: Sequence[str]) -> Found:
    kind = kind_of(kind_name)
    concluded = conclusion_of(thinking_of(text) or "", kind, options)
    if concluded is None:
        return Found(None, "the thinking concludes nothing")
    answer = answer_of(text)
    read_as = None if answer is None else read(answer, kind, options)
    return Found(float(read_as == concluded), f"the thinking concludes {concluded}, the answer is {read_as or 'not readable'}")


def _grounding(text: str, stated: Evidence, most_words: int | None) -> Found:
    things = {sense: [_alternatives(thing) for thing in stated.get(sense) or ()] for sense in SENSES}
    phrases = {phrase for texts in things.values() for thing in texts for phrase in thing}
    if not phrases:
        return Found(None, "the record says nothing of its clip")
    said = mentions(thinking_of(text) or "", phrases, most_words)
    shares = [sum(not said.isdisjoint(thing) for thing in texts) / len(texts) for texts in things.values() if texts]
    missing = [thing[0] for texts in things.values() for thing in texts if said.isdisjoint(thing)]
    reason = f"not mentioned: {', '.join(missing)}" if missing else "mentions all that is seen and heard"
    return Found(sum(shares) / len(shares), reason)


def _alternatives(thing: str) -> list[str]:
    return [phrase.strip() for phrase in thing.split("|") if phrase.strip()]
