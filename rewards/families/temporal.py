"""Is the answer right because the frames come in their order? (T-GRPO: Feng et al. 2025, Video-R1, arXiv 2503.21776)

For a group of completions of one prompt, p is the share that is right, and q the share that is right among completions of the same prompt
whose frames were shuffled in time:

    right completions score 1 where p > q and p - q >= margin, else 0; wrong ones score 0

Their code asks for p >= 0.8 q, which also holds where order does not matter; here such a group earns nothing. As the bonus is for right
answers alone, it puts more weight on the groups that earn it and never speaks against accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from pydantic import NonNegativeFloat

from omnistage.data.records import Modality
from omnistage.rewards.base import reward
from omnistage.rewards.extract import text_of
from omnistage.rewards.grade import grade_completion, naming

MOVING = frozenset({Modality.VIDEO, Modality.AUDIO_VIDEO})
_ROUNDING = 1e-9


@reward(range=(0, 1), looks_at=["answer"], needs=["shuffled"])
def temporal(
    completions: Sequence[Any],
    target: Sequence[str],
    kind: Sequence[str],
    options: Sequence[Sequence[str]],
    modality: Sequence[str],
    record_id: Sequence[str],
    shuffled: Sequence[Sequence[Any]],
    *,
    margin: NonNegativeFloat = 0.0,
    **columns: Any,
) -> list[float | None]:
    """1 for a right completion of a group that is right more often than with shuffled frames, by `margin` or more, else 0.

    A group is rows of one record next to each other, as far as one call sees them; column `shuffled` holds for each row completions with
    shuffled frames, and those of all its rows are taken together. Unscored without a moving picture (text, image, audio), for answers that
    are not graded (`grade`), and for a group without shuffled completions. All columns hold one value a completion.
    Raises `InputError` as `grade` does, and names the record.
    """
    scores: list[float | None] = []
    for _, group in groupby(range(len(completions)), key=lambda row: record_id[row]):
        rows = list(group)
        if any(modality[row] not in MOVING for row in rows):
            scores += [None] * len(rows)
            continue
        ordered, other = [], []
        for row in rows:
            with naming(record_id, row):
                ordered.append(_right(completions[row], target[row], kind[row], options[row]))
                other += [_right(text, target[row], kind[row], options[row]) for text in shuffled[row]]
        known, known_other = _known(ordered), _known(other)
        if not known or not known_other:
            scores += [None] * len(rows)
            continue
        gain = sum(known) / len(known) - sum(known_other) / len(known_other)
        earned = gain > _ROUNDING and gain >= margin - _ROUNDING
        scores += [None if right is None else float(right and earned) for right in ordered]
    return scores


def _right(completion: Any, target: str, kind: str, options: Sequence[str]) -> bool | None:
    score = grade_completion(text_of(completion), target=target, kind=kind, options=options).score
    return None if score is None else score == 1


def _known(graded: Sequence[bool | None]) -> list[bool]:
    return [right for right in graded if right is not None]
