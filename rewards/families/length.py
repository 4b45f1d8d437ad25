"""Is the completion of the wanted length?

Two shapes: `length` is 1 between two bounds and falls off softly on both sides; `overlong` only punishes what nears the generation's limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveInt

from omnistage.data.errors import InputError
from omnistage.rewards.base import reward
from omnistage.rewards.extract import text_of, thinking_of, words_in


@reward(range=(0, 1), looks_at=[])
def length(
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]] | None = None,
    *,
    least: NonNegativeInt = 0,
    most: NonNegativeInt | None = None,
    soft: NonNegativeInt = 0,
    unit: Literal["tokens", "words"] = "tokens",
    of: Literal["completion", "thinking"] = "completion",
    **columns: Any,
) -> list[float]:
    """1 for a length from `least` to `most`, falling linearly to 0 over `soft` more or fewer; at once for `soft` 0.

    Tokens are counted in the column `completion_ids`, an end-of-sequence token among them. Words are runs of letters and digits, and single
    characters of Chinese and Japanese; in the whole completion the four tags count as a word each. A missing thinking has length 0.
    Raises `InputError` for bounds that are missing or the wrong way round, and for tokens of the thinking, which no column counts.
    """
    if (least == 0 and most is None) or (most is not None and most < least):
        raise InputError(f"length: least is {least} and most is {most}; one of them must be a bound, and most at least least")
    if unit == "tokens" and of == "thinking":
        raise InputError("length: unit is 'tokens' and of is 'thinking'; a thinking is measured in words")
    if unit == "tokens":
        counts = _tokens("length", completion_ids)
    else:
        texts = (text_of(completion) for completion in completions)
        counts = [len(words_in(text if of == "completion" else thinking_of(text) or "")) for text in texts]
    outside = [max(least - count, 0 if most is None else count - most, 0) for count in counts]
    return [max(0.0, 1 - by / soft) if soft else float(by == 0) for by in outside]


@reward(range=(-1, 0), looks_at=[])
def overlong(
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]] | None = None,
    *,
    most: PositiveInt,
    soft: PositiveInt,
    **columns: Any,
) -> list[float]:
    """0 for a completion of up to `most - soft` tokens, then falling linearly to -1 at `most` tokens and beyond.

    DAPO's soft overlong punishment (Yu et al. 2025, arXiv 2503.14476, eq. 13), of the length of `completion_ids`.
    Raises `InputError` when `soft` is above `most`.
    """
    if soft > most:
        raise InputError(f"overlong: soft is {soft} and most is {most}; soft must be at most most")
    return [max(-1.0, min(0.0, (most - soft - count) / soft)) for count in _tokens("overlong", completion_ids)]


def _tokens(name: str, completion_ids: Sequence[Sequence[int]] | None) -> list[int]:
    if completion_ids is None:
        raise InputError(f"{name}: the rows have no column 'completion_ids' to count tokens in")
    return [len(ids) for ids in completion_ids]
