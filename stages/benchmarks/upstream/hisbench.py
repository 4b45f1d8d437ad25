"""HIS-Bench's scorer, faults included: a task's score is the sum of its grades divided by the number of repeats, not a mean.

Of a record with several turns only the last one's grade is kept. All repeats of a record hold the grade of the last one, since one object
is written n_r times, so the sum over repeats divided by their number is the sum of the last repeat's grades. A judge that failed there is
0 without a word. "Full marks" are 2 for each record: 100 for the 50 records that a sub-task has in the paper, and another number for any
other selection.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omnistage.stages.benchmarks.base import Scored

BEST = 2.0


def report(scored: Sequence[Scored], tagged: bool = False) -> dict[str, Any]:
    """{"scorer", "tasks": {task: {"score", "full_marks", "records"}}, "average", "n_r"}; `average` is the mean of the tasks' scores.

    Scores are None where answers wait for a judge and none was asked: it did not fail, and upstream scores nothing without one.
    """
    last: dict[tuple[str, str], Scored] = {}
    for item in scored:
        # The turns of a dialogue share the place of their record.
        record = (item.record.task, item.record.source or item.record.id)
        if record not in last or _turn(item) > _turn(last[record]):
            last[record] = item
    tasks: dict[str, list[float]] = {}
    for (task, _), item in last.items():
        tasks.setdefault(task, []).append(_grade(item))
    repeats = max((len(_marks(item)) for item in scored), default=0)
    waiting = repeats == 0 and any(item.score.value is None for item in scored)
    scores = {task: None if waiting else sum(grades) for task, grades in tasks.items()}
    return {
        "scorer": "score_eval.py",
        "tasks": {
            task: {"score": scores[task], "full_marks": BEST * len(grades), "records": len(grades)} for task, grades in tasks.items()
        },
        "average": None if waiting or not tasks else sum(map(sum, tasks.values())) / len(tasks),
        "n_r": repeats,
    }


def _turn(item: Scored) -> int:
    return int(item.record.extra.get("turn", 0))


def _marks(item: Scored) -> list[float | None]:
    return list((item.score.judge or {}).get("marks", []))


def _grade(item: Scored) -> float:
    marks = _marks(item)
    return float(marks[-1] or 0.0) if marks else 0.0
