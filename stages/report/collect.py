"""What a run directory says, as plain data: nothing is computed here that the run or its summary computes, and nothing is written.

`collect(run)` gives one JSON-able object, the same for a page on disk and for a live view of a run under way:

    {"run": {...}, "stages": [...], "summary": {...} | null, "figures": {stage: ...}, "heads": {stage: ...}, "data": {...},
     "plan": {...} | null, "notes": [{"section", "line"}]}

Sections that a run does not have are null or empty, and `notes` says in a line why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnistage.data.errors import InputError, OmnistageError
from omnistage.stages import files, lock
from omnistage.stages.report import curves, heads
from omnistage.stages.report.places import Places
from omnistage.stages.report.reading import Notes, json_of, lines_of, number, object_of, plain

START = "00-start"
# Of figures that `collect` was asked to leave out.
LATER = "what was measured is being put together"
# Files from which a summary follows.
_MEASURED = ("evaluation/scores.json", "head/scores.json", "gate.json", "choice.json", "seconds.json", "start.json", "against.json")


def collect(run: Path, *, with_plan: bool = False, with_summary: bool = True) -> dict[str, Any]:
    """All that a run directory says; with `with_plan` what `omnistage plan` reckons of its recipe, too, which loads torch.

    A summary that has to be made anew loads torch, too; without `with_summary` it is left out, and `notes` says so.

    Raises:
        InputError: the folder holds no run.
    """
    held = held_by(run)
    notes = Notes()
    recipe = held["recipe"]
    folders = {stage["name"]: run / f"{number:02d}-{stage['name']}" for number, stage in enumerate(recipe["stages"], start=1)}
    summary = _summary(run, recipe, folders, notes, anew=with_summary)
    places = Places(run, recipe)
    running = lock.is_held(run)
    stages = [_stage(stage, folders[stage["name"]], notes, running=running) for stage in recipe["stages"]]
    evaluated = {"(start)": run / START, **folders}
    figures = {name: found for name, folder in evaluated.items() if (found := _figures(folder, notes))}
    of_heads = heads.collect(recipe, folders, notes)
    if not figures and not of_heads:
        notes.say("accuracy", "nothing has been measured: the recipe has no evaluation, or no stage of it is done")
    elif not figures:
        notes.say("accuracy", "no answers have been measured; what heads put out stands under Heads")
    found = {
        "run": _run(run, held, stages, figures),
        "stages": stages,
        "summary": summary,
        "figures": figures,
        "heads": of_heads,
        "data": {stage["name"]: data for stage in recipe["stages"] if (data := _data(stage, folders[stage["name"]], places, notes))},
        "plan": _plan(recipe, run, notes) if with_plan else None,
        "notes": notes.lines,
    }
    return dict(plain(found))


def held_by(run: Path) -> dict[str, Any]:
    """What stands in `run.json`. Raises `InputError` where the folder holds no run."""
    if not run.is_dir():
        raise InputError(f"{run}: no such folder; allowed: the folder of a run (run_dir)")
    if not (run / "run.json").is_file():
        raise InputError(f"{run} holds no run.json; allowed: the folder that `omnistage run` wrote (run_dir)")
    held = files.read_json(run / "run.json")
    stages = held.get("recipe", {}).get("stages") if isinstance(held, dict) and isinstance(held.get("recipe"), dict) else None
    if not isinstance(stages, list) or not all(isinstance(stage, dict) and isinstance(stage.get("name"), str) for stage in stages):
        raise InputError(f"{run / 'run.json'}: holds no recipe with stages; allowed: what `omnistage run` wrote")
    return dict(held)


def _run(run: Path, held: Mapping[str, Any], stages: Sequence[Mapping[str, Any]], figures: Mapping[str, Any]) -> dict[str, Any]:
    recipe = held["recipe"]
    clock = {name: sum(stage["seconds"].get(name, 0.0) for stage in stages) for name in ("train_s", "evaluate_s")}
    start = _seconds(run / START, Notes())
    setups = [figure["setup"] for figure in figures.values() if figure["setup"]]
    return {
        "name": run.resolve().name,
        "state": state_of(run, all(stage["state"] == "done" for stage in stages)),
        "seconds": clock | {"render_s": start.get("render_s", 0.0), "start_evaluate_s": start.get("evaluate_s", 0.0)},
        "seed": recipe.get("seed"),
        "source": Path(str(held["source"])).name if held.get("source") else None,
        "versions": held.get("versions", {}),
        "model": recipe.get("model", {}),
        "launch": recipe.get("launch", {}),
        "media": recipe.get("media", {}),
        "prompt": recipe.get("prompt"),
        "evaluation": recipe.get("evaluation"),
        "device": next((setup.get("device") for setup in setups if setup.get("device")), None),
        "setup": setups[-1] if setups else None,
        "recipe": recipe,
    }


def state_of(run: Path, done: bool) -> str:
    """`running`, `done` or `stopped`, told from the run's locks and whether its stages are done."""
    if lock.is_held(run):
        return "running"
    return "done" if done else "stopped"


def state_of_stage(stage: Mapping[str, Any], folder: Path, *, running: bool) -> str:
    """`done`, `begun` or `waiting`; `running` says that the run is under way."""
    if stage.get("kind") == "evaluate":
        done = (folder / "evaluation" / "scores.json").exists()
    else:
        done = files.is_whole(folder / "model") or (not running and _was_done(stage, folder))
    return "done" if done else "begun" if folder.exists() and any(folder.iterdir()) else "waiting"


def _was_done(stage: Mapping[str, Any], folder: Path) -> bool:
    """Whether a stage whose model is not here, as in a copy without weights, left what is only written behind its model.

    A run under way would train such a stage anew.
    """
    if any((folder / part / "scores.json").exists() for part in ("evaluation", "head")):
        return True
    if stage.get("choose") is not None:
        # Written before the model is, which is one of these.
        return (folder / "choice.json").exists() and not any((folder / "checkpoints").glob("checkpoint-*"))
    return "train_s" in _seconds(folder, Notes())


def _stage(stage: Mapping[str, Any], folder: Path, notes: Notes, *, running: bool) -> dict[str, Any]:
    name = stage["name"]
    metrics = curves.of_stage(folder / "metrics.jsonl", notes)
    state = state_of_stage(stage, folder, running=running)
    if state == "waiting":
        notes.say("curves", f"stage {name} has not begun")
    return {
        "name": name,
        "folder": folder.name,
        "kind": stage.get("kind"),
        "modality": stage.get("modality"),
        "state": state,
        "steps": metrics["last"],
        "of": stage.get("steps"),
        "seconds": _seconds(folder, notes),
        "measured": (folder / "evaluation" / "scores.json").exists(),
        "rewards": _rewards(stage, notes),
        "settings": {key: stage.get(key) for key in SETTINGS if stage.get(key) is not None},
        "gate": object_of(folder / "gate.json", notes, "run"),
        "choice": object_of(folder / "choice.json", notes, "run"),
        "nonfinite": list(lines_of(folder / "nonfinite.jsonl", notes, "curves"))[:100],
        "metrics": metrics,
        "rollouts": len(list((folder / "rollouts").glob("step-*.parquet"))),
    }


SETTINGS = (
    *("learning_rate", "batch_size", "num_generations", "prompts_per_step", "beta", "reference", "temperature", "loss", "scale_rewards"),
    *("max_completion_length", "iterations", "freeze", "lora", "epochs"),
)


def _seconds(folder: Path, notes: Notes) -> dict[str, float]:
    """What a stage took, by name."""
    found = object_of(folder / "seconds.json", notes, "run") or {}
    return {name: seconds for name, value in found.items() if (seconds := number(value)) is not None}


def _rewards(stage: Mapping[str, Any], notes: Notes) -> list[dict[str, Any]]:
    out = []
    listed = stage.get("rewards") or []
    for use in listed if isinstance(listed, list) else [listed]:
        weight = number(use.get("weight", 1.0)) if isinstance(use, dict) else None
        if weight is None:
            notes.say("rollouts", f"stage {stage['name']} has a reward without a weight that is a number; it is left out")
        else:
            out.append({"name": _label(use), "weight": weight})
    return out


def _label(use: Mapping[str, Any]) -> str:
    """The name under which a reward is logged."""
    return str(use.get("label") or str(use.get("name", "")).rpartition(":")[2])


def _figures(folder: Path, notes: Notes) -> dict[str, Any] | None:
    """What the evaluation in a stage's folder found: every figure of every run with its interval, and how it was made."""
    scores = json_of(folder / "evaluation" / "scores.json", notes, "accuracy")
    if not isinstance(scores, dict) or "runs" not in scores:
        return None
    return scores | {"setup": object_of(folder / "evaluation" / "setup.json", notes, "accuracy")}


def _summary(run: Path, recipe: Mapping[str, Any], folders: Mapping[str, Path], notes: Notes, *, anew: bool) -> dict[str, Any] | None:
    """The run's `summary.json` where it is of what the directory holds now, else the same computed anew."""
    path = run / "summary.json"
    made = [folder / name for folder in (run / START, *folders.values()) for name in _MEASURED]
    there = [file for file in made if file.exists()]
    if not any(file.name == "scores.json" for file in there):
        return None
    if path.exists() and all(file.stat().st_mtime <= path.stat().st_mtime for file in there):
        found = json_of(path, notes, "accuracy")
        if isinstance(found, dict) and _is_of(found, folders):
            return {name: value for name, value in found.items() if name != "run_dir"}
    if not anew:
        notes.say("accuracy", LATER)
        return None
    try:
        from omnistage.stages.measure import summary
        from omnistage.stages.recipe import loading

        resolved = loading.build(loading.Recipe, dict(recipe) | {"run_dir": str(run)}, str(run / "run.json"))
        return {name: value for name, value in summary.build(resolved, run).items() if name != "run_dir"}
    except Exception as error:  # noqa: BLE001
        # Its files are checked as they are written; by now anything may stand in them.
        said = str(error) if isinstance(error, OmnistageError) else f"{type(error).__name__}: {error}"
        notes.say("accuracy", f"the summary could not be made: {' '.join(said.split())[:300]}")
        return None


def _is_of(found: Mapping[str, Any], folders: Mapping[str, Path]) -> bool:
    """Whether a summary has every stage that is measured, and no other."""
    stages, *others = found.get("stages", []), found.get("evaluations", {}), found.get("heads", {})
    if not isinstance(stages, list) or not all(isinstance(part, dict) for part in (*stages, *others)):
        return False
    told = {stage.get("name") for stage in stages} | {name for part in others for name in part}
    measured = {name for name, folder in folders.items() for part in ("evaluation", "head") if (folder / part / "scores.json").exists()}
    return told == measured


def _data(stage: Mapping[str, Any], folder: Path, places: Places, notes: Notes) -> dict[str, Any] | None:
    """What a stage drew of its sources, and the rows in their quarantines, by reason."""
    drawn = json_of(folder / "data.json", notes, "data") or []
    listed = []
    for source in stage.get("data") or []:
        path = source.get("quarantine")
        if path is not None:
            listed.append(_quarantine(str(path), places, notes))
    return {"sources": drawn, "quarantines": listed} if drawn or listed else None


def _quarantine(path: str, places: Places, notes: Notes) -> dict[str, Any]:
    from omnistage.data import quarantine

    try:
        found = quarantine.read(places.file(path))
    except InputError as error:
        notes.say("data", f"quarantine {Path(path).name} is left out: {' '.join(str(error).split())[:200]}")
        return {"path": path, "rows": None, "codes": {}, "examples": []}
    codes: dict[str, int] = {}
    for entry in found.entries:
        for code in entry.codes:
            codes[code] = codes.get(code, 0) + 1
    examples = [{"id": entry.id, "source": entry.source, "reason": entry.reason[:500]} for entry in found.entries[:20]]
    return {"path": path, "rows": len(found.entries), "codes": codes, "examples": examples}


def _plan(recipe: Mapping[str, Any], run: Path, notes: Notes) -> dict[str, Any] | None:
    """What `omnistage plan` says of each stage; None where it cannot say, which is noted."""
    from omnistage.stages.plan import report
    from omnistage.stages.recipe import loading

    try:
        return report.plan(loading.build(loading.Recipe, dict(recipe), str(run / "run.json")), ask_hub=False)
    except Exception as error:  # noqa: BLE001
        # Configurations and annotation files may be anything by now.
        said = str(error) if isinstance(error, OmnistageError) else f"{type(error).__name__}: {error}"
        notes.say("throughput", f"no plan beside it: {' '.join(said.split())[:200]}")
        return None
