"""Does the answer follow from the thinking?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omnistage.rewards.conclusion import conclusion_of
from omnistage.rewards.extract import answer_of, read_answer, text_of, thinking_of
from omnistage.rewards.grade import kind_of


def reasoning(completions: Sequence[Any], kind: Sequence[str], options: Sequence[Sequence[str]], **columns: Any) -> list[float | None]:
    """1 when the answer is what the thinking concludes, 0 when it is another or cannot be read; unscored where nothing is concluded.

    The target plays no part: a wrong answer that follows from its thinking scores 1. Open answers are unscored. All columns hold
    one value a completion. Raises `InputError` for an unknown kind.
    """
    return [_agreement(text_of(row[0]), row[1], row[2]) for row in zip(completions, kind, options, strict=True)]


def _agreement(text: str, kind_name: str, options: Sequence[str]) -> float | None:
    kind = kind_of(kind_name)
    concluded = conclusion_of(thinking_of(text) or "", kind, options)
    if concluded is None:
        return None
    answer = answer_of(text)
    return float(answer is not None and read_answer(answer, kind, options) == concluded)
