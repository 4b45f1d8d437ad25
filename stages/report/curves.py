"""A stage's `metrics.jsonl` as columns, thinned out evenly where there are more steps than a screen has points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnistage.stages.report.reading import Notes, lines_of, number

# Steps of one stage that a page holds; of more, every second, third ... and the last.
MOST_STEPS = 1500
# What a trainer logs once, at its end, or is the step in another unit.
_NO_CURVES = frozenset({"step", "epoch", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos"})


def of_stage(path: Path, notes: Notes, most: int = MOST_STEPS) -> dict[str, Any]:
    """`{"steps", "columns": {name: [value | null]}, "rows", "every", "last", "once": {name: value}}` of a stage.

    Of `rows` logged steps every `every`th is in `steps`, and the last one. A line with the number of an earlier one takes its place: it is
    of a step that was done again.
    """
    by_step: dict[int, dict[str, Any]] = {}
    once: dict[str, float] = {}
    for row in lines_of(path, notes, "curves"):
        step = number(row.get("step"))
        if step is None:
            continue
        once |= {name: value for name in sorted(_NO_CURVES - {"step", "epoch"}) if (value := number(row.get(name))) is not None}
        curves = {name: number(value) for name, value in row.items() if name not in _NO_CURVES}
        if curves:
            by_step.setdefault(int(step), {}).update(curves)
    steps = sorted(by_step)
    every = max(1, -(-len(steps) // most))
    shown = steps[::every] + ([steps[-1]] if steps and (len(steps) - 1) % every else [])
    names = dict.fromkeys(name for step in shown for name in by_step[step])
    columns = {name: [by_step[step].get(name) for step in shown] for name in names}
    return {"steps": shown, "columns": columns, "rows": len(steps), "every": every, "last": steps[-1] if steps else 0, "once": once}
