"""What a reward is called with, and what it may say of itself.

    @reward(range=(0, 1), looks_at=["answer"])
    def right(completions, target, *, tolerance: float = 0.0, **columns):
        return [1.0 if ... else 0.0 for ...]

The decorator is optional: a plain TRL reward function, or a class whose instances are called like one, works as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar, get_args

from omnistage.data.errors import InputError, unknown_name
from omnistage.data.evidence import evidence_of
from omnistage.data.records import Record
from omnistage.rewards.extract import context_of

Segment = Literal["context", "think", "answer"]
Aspect = Literal["answer", "form", "thinking", "evidence"]
Need = Literal["shuffled", "heads"]
SEGMENTS: tuple[Segment, ...] = get_args(Segment)
ASPECTS: tuple[Aspect, ...] = get_args(Aspect)
NEEDS: tuple[Need, ...] = get_args(Need)

# One value a completion each; a reward function gets those that it has parameters for, or all of them with `**columns`.
ROW_COLUMNS: Mapping[str, str] = {
    "record_id": "id of the record",
    "target": "the right answer in its normal form: 'B', 'A,C', '10', 'yes', a level word, or text",
    "solution": "the same under the name that TRL's own rewards use",
    "kind": "single_choice, multi_select, number, yes_no, open, level, scalar or pose",
    "options": "texts of the options, without their letters",
    "values": "numbers of a scalar (one) or of a pose (216), else empty",
    "task": "the record's task",
    "modality": "text, image, video, audio or audio_video",
    "media": "paths of the clips",
    "question": "the question, without the prompt's template",
    "evidence": "what the record says is in the clip: {'sight': [...], 'sound': [...]}, alternatives joined by '|'",
    "reference_context": "what the record's demonstration says of the clip before it reasons (<context>), or null",
}
TRL_COLUMNS: Mapping[str, str] = {
    "prompts": "messages of the prompt",
    "completions": "messages of the completion, one assistant's turn",
    "completion_ids": "token ids of the completion",
    "trainer_state": "TRL's state of the training: step, epoch",
    "log_extra": "log_extra(column, values) adds the column REWARD/column to the recorded rollouts; `reason` is shown",
    "log_metric": "log_metric(name, value) adds a number to the metrics of the step",
    "environments": "TRL's environments, where there are any",
}
NEEDED_COLUMNS: Mapping[Need, str] = {
    "shuffled": "texts of completions of the same prompt whose frames were shuffled, a list for each completion",
    "heads": "what each head of the policy reads off the completion: {name: [value, ...]}, a value as `omnistage predict` gives it",
}
COLUMNS: frozenset[str] = frozenset({*ROW_COLUMNS, *TRL_COLUMNS, *NEEDED_COLUMNS})

# The column of a reward that says why each completion has its value.
REASON = "reason"

T = TypeVar("T", bound=Callable[..., Any])
_ABOUT = "__omnistage_reward__"


@dataclass(frozen=True, slots=True)
class About:
    """What a reward says of itself.

    `low` and `high` bound its values (infinite: not declared); a value outside is an error. `config` holds settings that stand where a
    recipe gives none. `looks_at` says which faults of a completion must lower it (None: `rewards check` finds out). `segment` names the
    part whose tokens its advantage reaches (None: the whole completion). `needs` names columns that the trainer makes for it alone.
    """

    name: str | None = None
    low: float = -math.inf
    high: float = math.inf
    config: Mapping[str, Any] = field(default_factory=dict)
    looks_at: frozenset[Aspect] | None = None
    segment: Segment | None = None
    needs: frozenset[Need] = frozenset()


def reward(
    *,
    name: str | None = None,
    range: tuple[float, float] | None = None,
    config: Mapping[str, Any] | None = None,
    looks_at: Collection[Aspect] | None = None,
    segment: Segment | None = None,
    needs: Collection[Need] = (),
) -> Callable[[T], T]:
    """Says of a reward function or class what `About` holds; the function itself stays as it is.

    Raises:
        InputError: a range that is empty or not finite, or an aspect, a segment or a need that does not exist.
    """
    if range is not None and not (math.isfinite(range[0]) and math.isfinite(range[1]) and range[0] < range[1]):
        raise InputError(f"a reward's range is {range}; must be two finite numbers, the lower one first")
    _all_known("aspect", looks_at or (), ASPECTS)
    _all_known("segment", () if segment is None else (segment,), SEGMENTS)
    _all_known("need", needs, NEEDS)
    low, high = range or (-math.inf, math.inf)
    what = About(name, low, high, dict(config or {}), None if looks_at is None else frozenset(looks_at), segment, frozenset(needs))

    return partial(marked, what=what)


def explain(columns: Mapping[str, Any], reasons: Sequence[str | None]) -> None:
    """Has it recorded why each completion has its value, as the reward's column `reason`; does nothing where nothing is recorded."""
    log_extra = columns.get("log_extra")
    if log_extra is not None:
        log_extra(REASON, list(reasons))


def marked(function: T, what: About) -> T:
    """The function, which now says `what` of itself."""
    setattr(function, _ABOUT, what)
    return function


def about(found: Any) -> About:
    """What a function, a class or an instance of it says of itself; nothing for one that is not decorated."""
    said = getattr(found, _ABOUT, None)
    return said if isinstance(said, About) else About()


def columns_of(record: Record) -> dict[str, Any]:
    """The row columns of a record, as rewards get them. Raises `RecordError` for evidence that is not a list of texts per sense."""
    return {
        "record_id": record.id,
        "target": record.target,
        "solution": record.target,
        "kind": str(record.kind),
        "options": list(record.options),
        "values": list(record.values),
        "task": record.task,
        "modality": str(record.modality),
        "media": [ref.path for ref in record.media],
        "question": record.question,
        "evidence": evidence_of(record),
        "reference_context": context_of(record.response or ""),
    }


def _all_known(what: str, names: Collection[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise InputError(f"a reward's decorator: {unknown_name(what, name, known)}")
