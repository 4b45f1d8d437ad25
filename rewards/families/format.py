"""Is the completion one thinking and one answer that can be read, with a context before them where one is asked for?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omnistage.rewards.base import reward
from omnistage.rewards.extract import answer_of, is_well_formed, text_of
from omnistage.rewards.grade import kind_of, read


@reward(range=(0, 1), looks_at=["form"])
def format(
    completions: Sequence[Any], kind: Sequence[str], options: Sequence[Sequence[str]], *, context: bool = False, **columns: Any
) -> list[float]:
    """1 for one thinking, then one answer that can be read for its kind, with nothing around them; else 0.

    `context: true` wants a context before them, as the prompt `context_think_answer` asks for. All columns hold one value a completion.
    Raises `InputError` for an unknown kind.
    """
    return [float(_fits(text_of(row[0]), row[1], row[2], context)) for row in zip(completions, kind, options, strict=True)]


def _fits(text: str, kind: str, options: Sequence[str], context: bool) -> bool:
    answer = answer_of(text)
    return is_well_formed(text, context=context) and answer is not None and read(answer, kind_of(kind), options) is not None
