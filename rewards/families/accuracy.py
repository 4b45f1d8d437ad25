"""Is the answer right?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omnistage.rewards.base import explain, reward
from omnistage.rewards.extract import text_of
from omnistage.rewards.grade import Grade, grade_completion, naming


@reward(range=(0, 1), looks_at=["answer"])
def accuracy(
    completions: Sequence[Any],
    target: Sequence[str],
    kind: Sequence[str],
    options: Sequence[Sequence[str]],
    record_id: Sequence[str] | None = None,
    *,
    partial: bool = False,
    **columns: Any,
) -> list[float | None]:
    """1 for the right answer in the answer tag, else 0; half credit for an incomplete selection with `partial`.

    A number may be written as a plain mathematical expression. Scalars, poses and open answers are unscored, but for open ones whose
    target is a number or such an expression. All columns hold one value a completion, and each row is graded by its own kind.
    Raises `InputError` that names the record when a target cannot be read for its kind.
    """
    grades: list[Grade] = []
    for row, (completion, right, row_kind, row_options) in enumerate(zip(completions, target, kind, options, strict=True)):
        with naming(record_id, row):
            grades.append(grade_completion(text_of(completion), target=right, kind=row_kind, options=row_options, partial=partial))
    explain(columns, [one.reason if one.answer is None else f"{one.reason}: read as {one.answer}" for one in grades])
    return [one.score for one in grades]
