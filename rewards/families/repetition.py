"""Does the completion repeat itself?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import PositiveInt

from omnistage.rewards.base import reward
from omnistage.rewards.extract import text_of, words_in


@reward(range=(-1, 0), looks_at=[])
def repetition(completions: Sequence[Any], *, n: PositiveInt = 3, **columns: Any) -> list[float]:
    """Minus the share of the completion's word n-grams that stood in it before: -(1 - distinct n-grams / n-grams).

    After Yeo et al. 2025, arXiv 2502.03373, appendix C.2; 0 for fewer than `n` words. Words are compared whatever their case; Chinese and
    Japanese characters are words, and so are the tags' names.
    """
    return [_repeated(text_of(completion), n) for completion in completions]


def _repeated(text: str, n: int) -> float:
    words = words_in(text)
    total = len(words) - n + 1
    if total < 1:
        return 0.0
    distinct = len(set(zip(*(words[start : start + total] for start in range(n)), strict=True)))
    return distinct / total - 1
