"""How far a run is: each stage's steps, newest figures, seconds a step and time left; of a few small files, without anything heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from omnistage.stages import lock
from omnistage.stages.report import collect
from omnistage.stages.report.reading import Notes, json_of, lines_of, number

# Logged lines over which the seconds of a step are averaged.
RECENT = 20
# What is told of a stage's newest line, and under which names it may be logged.
TOLD = {
    "reward": ("reward",),
    "accuracy": ("rewards/accuracy/mean", "mean_token_accuracy"),
    "loss": ("loss",),
    "kl": ("kl",),
    "no_spread": ("frac_reward_zero_std",),
}


def progress(run: Path) -> dict[str, Any]:
    """`{"run", "state", "left_s", "unknown", "start", "stages"}`.

    A stage has `step`, `of` (None: not known yet), `step_s`, `left_s` (None: not known), the newest of each figure of `TOLD`, and
    `held_out` (`{"name", "value", "low", "high", "n", "unit"}`) where it was measured. `left_s` is what training is still to take, over the
    stages whose time can be told; `unknown` names the others. Measuring between stages is not in it.

    Raises:
        InputError: the folder holds no run.
    """
    recipe = collect.held_by(run)["recipe"]
    folders = [run / f"{number:02d}-{stage['name']}" for number, stage in enumerate(recipe["stages"], start=1)]
    running = lock.is_held(run)
    stages = [_stage(stage, folder, running=running) for stage, folder in zip(recipe["stages"], folders, strict=True)]
    _reckon(stages)
    waiting = [stage for stage in stages if stage["state"] != "done" and stage["kind"] != "evaluate"]
    known = [stage["left_s"] for stage in waiting if stage["left_s"] is not None]
    return {
        "run": run.resolve().name,
        "state": collect.state_of(run, all(stage["state"] == "done" for stage in stages)),
        "left_s": round(sum(known), 1) if known else None,
        "unknown": [stage["name"] for stage in waiting if stage["left_s"] is None],
        "start": _held_out(run / collect.START),
        "stages": stages,
    }


def _stage(stage: Mapping[str, Any], folder: Path, *, running: bool) -> dict[str, Any]:
    rows: dict[int, dict[str, Any]] = {}
    for row in lines_of(folder / "metrics.jsonl", Notes(), "curves"):
        step = number(row.get("step"))
        if step is not None:
            rows.setdefault(int(step), {}).update(row)
    steps = sorted(rows)
    newest = {name: _newest(rows, steps, columns) for name, columns in TOLD.items()}
    seconds = [value for step in steps[-RECENT:] if (value := _seconds(rows[step])) is not None]
    return {
        "name": stage["name"],
        "kind": stage.get("kind"),
        "state": collect.state_of_stage(stage, folder, running=running),
        "step": steps[-1] if steps else 0,
        "of": _steps(stage, folder),
        "step_s": round(fmean(seconds), 4) if seconds else None,
        "left_s": None,
        **newest,
        "held_out": _held_out(folder) or _held_out_of_head(folder),
    }


def _newest(rows: Mapping[int, Mapping[str, Any]], steps: Sequence[int], columns: Sequence[str]) -> float | None:
    for step in reversed(steps[-RECENT:]):
        for column in columns:
            value = number(rows[step].get(column))
            if value is not None:
                return value
    return None


def _seconds(row: Mapping[str, Any]) -> float | None:
    """Of a step from one to the next, with waiting for clips."""
    step = number(row.get("step_seconds", row.get("step_time")))
    return None if step is None else step + (number(row.get("media/wait_s")) or 0.0)


def _steps(stage: Mapping[str, Any], folder: Path) -> int | None:
    """Optimizer steps of a stage; of one that goes by epochs from the records that it drew, which it notes as it begins."""
    if (steps := number(stage.get("steps"))) is not None:
        return int(steps)
    drawn = json_of(folder / "data.json", Notes(), "data")
    epochs, per_step = number(stage.get("epochs")), number(stage.get("prompts_per_step") or stage.get("batch_size"))
    if not isinstance(drawn, list) or not epochs or not per_step:
        return None
    records = sum(number(source.get("records")) or 0 for source in drawn if isinstance(source, dict))
    return int(number(stage.get("iterations")) or 1) * max(1, round(epochs * records / per_step)) if records else None


def _reckon(stages: Sequence[dict[str, Any]]) -> None:
    """Fill in `left_s`: by the stage's own seconds a step, of one that has none yet by those of the last one of its kind."""
    last: dict[str, float] = {}
    for stage in stages:
        own = stage["step_s"] if stage["step_s"] is not None else last.get(stage["kind"])
        if stage["step_s"] is not None:
            last[stage["kind"]] = stage["step_s"]
        if stage["state"] == "done":
            stage["left_s"] = 0.0
        elif own is not None and stage["of"] is not None:
            stage["left_s"] = round(max(0, stage["of"] - stage["step"]) * own, 1)


def _held_out(folder: Path) -> dict[str, Any] | None:
    """The headline of what was measured after a stage."""
    scores = json_of(folder / "evaluation" / "scores.json", Notes(), "accuracy")
    try:
        runs = scores["runs"]
        found = (runs.get("greedy") or next(iter(runs.values())))["figures"][scores["headline"]]
        figures = {name: number(found.get(name)) for name in ("value", "low", "high", "n")}
        return {"name": str(scores["headline"])} | figures | {"unit": found.get("unit")}
    except (TypeError, KeyError, AttributeError, StopIteration):
        return None


def _held_out_of_head(folder: Path) -> dict[str, Any] | None:
    """The headline of what a head put out, of the first task that has one: SRCC of numbers, PA-MPJPE of poses."""
    scores = json_of(folder / "head" / "scores.json", Notes(), "heads")
    tasks = scores.get("tasks") if isinstance(scores, dict) else None
    for task, entry in tasks.items() if isinstance(tasks, dict) else ():
        if not isinstance(entry, dict):
            continue
        posed = entry.get("pa_mpjpe_mm")
        ranked = next((one["srcc"] for one in entry.values() if isinstance(one, dict) and isinstance(one.get("srcc"), dict)), None)
        found, name, unit = (posed, "PA-MPJPE", "mm") if isinstance(posed, dict) else (ranked, "SRCC", "srcc")
        if found is not None and number(found.get("value")) is not None:
            figures = {key: number(found.get(key)) for key in ("value", "low", "high")}
            return {"name": f"{task} {name}"} | figures | {"n": number(entry.get("n")), "unit": unit}
    return None
