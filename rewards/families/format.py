"""Is the completion one thinking and one answer that can be read, with a context before them where one is asked for?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omnistage.rewards.base import explain, reward
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
    faults = [_fault(text_of(row[0]), row[1], row[2], context) for row in zip(completions, kind, options, strict=True)]
    explain(columns, [fault or "well formed" for fault in faults])
    return [float(fault is None) for fault in faults]


def _fault(text: str, kind_name: str, options: Sequence[str], context: bool) -> str | None:
    kind, answer = kind_of(kind_name), answer_of(text)
    if not is_well_formed(text, context=context) or answer is None:
        return f"not {'one context, ' if context else ''}one thinking and one answer alone, in this order"
    return None if read(answer, kind, options) is not None else f"the answer is no {kind} answer"
