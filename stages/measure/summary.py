"""What a run gained: per stage and modality, before and after, with intervals; as numbers and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnistage.stages import files, run_directory
from omnistage.stages.measure import head_values
from omnistage.stages.measure.statistics import paired_difference
from omnistage.stages.recipe.schema import EvaluateStage, Recipe

Scores = dict[str, float]


def _right(folder: Path) -> dict[str, Scores]:
    """Per modality: 1 or 0 of each held-out item, by its id (greedy answers, real media)."""
    path = folder / "evaluation" / "predictions.jsonl"
    out: dict[str, Scores] = {}
    if path.exists():
        for row in files.read_lines(path):
            if row["control"] is None and not row["sampled"]:
                out.setdefault(row["modality"], {})[row["id"]] = float(row["score"] == 1)
    return out


def _modalities(folder: Path, before: dict[str, Scores]) -> dict[str, Any]:
    """Accuracy of each modality after a stage, and its paired difference to the stage's start where that was measured."""
    scores = files.read_json(folder / "evaluation" / "scores.json")
    after = _right(folder)
    out: dict[str, Any] = {}
    for modality, measured in scores["modalities"].items():
        entry = {key: measured[key] for key in ("accuracy", "n", "low", "high", "majority")}
        entry["sampled"] = scores.get("sampled", {}).get(modality, {}).get("accuracy")
        entry |= {"start": None, "gain": None, "gain_low": None, "gain_high": None}
        ids = list(after[modality])
        if modality in before and set(ids) == set(before[modality]):
            start = [before[modality][i] for i in ids]
            gain = paired_difference(start, [after[modality][i] for i in ids])
            entry |= {"start": sum(start) / len(start), "gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
        out[modality] = entry
    return out


def _seconds(folder: Path) -> dict[str, float]:
    path = folder / "seconds.json"
    return dict(files.read_json(path)) if path.exists() else {}


def _data(folder: Path) -> list[dict[str, Any]]:
    path = folder / run_directory.DATA
    return list(files.read_json(path)) if path.exists() else []


def build(recipe: Recipe, run_dir: Path) -> dict[str, Any]:
    """The summary of all stages that are done, in order; `gain` is against the stage's own start, paired by item.

    `stale` marks a stage whose predecessor was trained again after it, `data` says what it drew of each source and how many records of it
    were left out.
    """
    start = run_dir / "00-start"
    before = _right(start)
    clock = _seconds(start)
    result: dict[str, Any] = {"run_dir": str(run_dir), "seed": recipe.seed, "render_s": clock.get("render_s", 0.0), "stages": []}
    if (start / "evaluation" / "scores.json").exists():
        result["start"] = {"seconds": clock.get("evaluate_s", 0.0), "modalities": _modalities(start, {})}
    previous: str | None = None
    # What each stage answered, so that a stage is compared with the one that it started from.
    rights: dict[str, dict[str, Scores]] = {}
    for stage in recipe.stages:
        folder, clock = recipe.stage_dir(stage.name), _seconds(recipe.stage_dir(stage.name))
        measured = (folder / "evaluation" / "scores.json").exists()
        if isinstance(stage, EvaluateStage):
            if measured:
                result.setdefault("evaluations", {})[stage.name] = files.read_json(folder / "evaluation" / "scores.json")
            continue
        if stage.start is not None:
            previous, before = str(recipe.stage_dir(stage.start) / "model"), rights.get(stage.start, {})
        stale = previous is not None and run_directory.is_stale(folder, previous)
        if (folder / head_values.FOLDER / "scores.json").exists():
            spent = {"seconds": clock.get("train_s", 0.0), "evaluation_seconds": clock.get("evaluate_s", 0.0)}
            found = files.read_json(folder / head_values.FOLDER / "scores.json")
            result.setdefault("heads", {})[stage.name] = found | spent | {"stale": stale}
        # The next one starts from this stage, whether it was measured or not.
        previous, start_of_this, before = str(folder / "model"), before, _right(folder)
        rights[stage.name] = before
        if not measured:
            continue
        result["stages"].append(
            {
                "name": stage.name,
                "kind": stage.kind,
                "modality": str(getattr(stage, "modality", "")) or None,
                "stale": stale,
                "seconds": clock.get("train_s", 0.0),
                "evaluation_seconds": clock.get("evaluate_s", 0.0),
                "data": _data(folder),
                # What a stage gained over a model that it was not trained from says nothing.
                "modalities": _modalities(folder, {} if stale else start_of_this),
            }
        )
        controls = files.read_json(folder / "evaluation" / "scores.json").get("controls")
        if controls:
            result["controls"] = {
                name: {
                    modality: {key: entry[key] for key in ("accuracy", "n", "low", "high", "majority")} for modality, entry in by.items()
                }
                for name, by in controls.items()
            }
    return result


def table(result: dict[str, Any]) -> str:
    """The summary for a terminal: accuracy of each modality after each stage (the forgetting matrix), its change, controls, and time."""
    stages, evaluations = result["stages"], result.get("evaluations", {})
    heads = result.get("heads", {})
    if not stages and not evaluations:
        if heads:
            return "\n".join(heads_table(heads))
        return "nothing was measured: the recipe has no evaluation, or no stage of it is done"
    measured = [stage["modalities"] for stage in stages] + [scores["modalities"] for scores in evaluations.values()]
    modalities = list(dict.fromkeys(modality for found in measured for modality in found))
    lines = ["", "held-out accuracy in % (greedy; [95 % interval]; change over the stage's start; * = the stage's own modality)"]
    head = f"{'after':<16}" + "".join(f"{m:^32}" for m in modalities) + f"{'train s':>9}"
    lines += [head, "-" * len(head)]

    def row(name: str, found: Mapping[str, str], after: str = "") -> None:
        lines.append(f"{name:<16.16}" + "".join(f"{found.get(m, ''):^32}" for m in modalities) + after)

    if "start" in result:
        row("(start)", {m: _cell(entry) for m, entry in result["start"]["modalities"].items()})
    for stage in stages:
        cells = {m: _cell(entry, own=stage["modality"] == m) for m, entry in stage["modalities"].items()}
        row(stage["name"], cells, f"{stage['seconds']:>9.0f}{'  (from an earlier model)' if stage['stale'] else ''}")
    if stages:
        row("majority class", {m: f"{100 * entry['majority']:.1f}" for m, entry in stages[-1]["modalities"].items()})
    for name, by in result.get("controls", {}).items():
        row(name, {m: f"{100 * entry['accuracy']:.1f}" for m, entry in by.items()})
    for name, scores in evaluations.items():
        row(name, {m: _cell(entry) for m, entry in scores["modalities"].items()})
    for stage in stages:
        for source in stage["data"]:
            if left_out := sum(source["left_out"].values()):
                why = ", ".join(f"{name} {count}" for name, count in source["left_out"].items() if count)
                lines.append(
                    f"{stage['name']}: {left_out} of {source['records'] + left_out} records of {source['path']} were left out ({why})"
                )
    counts = ", ".join(f"{m} {measured[-1][m]['n']}" for m in measured[-1])
    timed = [*stages, *(found for name, found in heads.items() if name not in {stage["name"] for stage in stages})]
    total = sum(spent["seconds"] + spent["evaluation_seconds"] for spent in timed) + result["render_s"]
    lines.append(f"n: {counts}; rendering {result['render_s']:.0f} s, all together {total:.0f} s")
    return "\n".join([*lines, *heads_table(heads)])


def heads_table(heads: Mapping[str, Any]) -> list[str]:
    """The figures of heads (`head/scores.json`, by stage), a line for each number or error, with the controls behind it."""
    lines = []
    for stage, found in heads.items():
        stands = ", from an earlier model" if found["stale"] else ""
        lines += ["", f"head {found['head']} after {stage}{stands} (held out; [95 % interval]; the same with media that cannot tell)"]
        for task, entry in found["tasks"].items():
            missing = f", {entry['missing']} answered without it" if entry["missing"] else ""
            lines.append(f"  {task} (n {entry['n']}{missing})")
            for name, figure in _figures(entry):
                controls = [
                    f"{control} {dict(_figures(by[task]))[name]['value']:.2f}" for control, by in found["controls"].items() if task in by
                ]
                if "mean_pose" in figure:
                    controls.append(f"mean pose {figure['mean_pose']:.1f}")
                place = f"{figure['value']:>8.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"
                lines.append(f"    {name:<24}{place:<28}{'; '.join(controls)}".rstrip())
    return lines


def _figures(entry: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float]]]:
    """The figures of a task under one name each: those of a pose, or those of each number."""
    out: list[tuple[str, Mapping[str, float]]] = []
    for name, found in entry.items():
        if isinstance(found, Mapping) and "value" in found:
            out.append((name, found))
        elif isinstance(found, Mapping):
            out += [(f"{name} {metric}", figure) for metric, figure in found.items()]
    return out


def _cell(entry: Mapping[str, Any], *, own: bool = False) -> str:
    text = f"{100 * entry['accuracy']:.1f} [{100 * entry['low']:.0f}, {100 * entry['high']:.0f}]"
    if entry.get("gain") is not None:
        text += f" {100 * entry['gain']:+.1f}"
    return text + ("*" if own else "")


def scores_table(scores: Mapping[str, Any]) -> str:
    """One measurement (`scores.json`) for a terminal: modalities, their tasks, and the controls."""
    lines = [f"{'':<20}{'n':>7}{'accuracy [95 %]':>20}{'majority':>10}{'unanswered':>12}"]

    def add(name: str, entry: Mapping[str, Any]) -> None:
        accuracy = f"{100 * entry['accuracy']:.1f} [{100 * entry['low']:.0f}, {100 * entry['high']:.0f}]"
        lines.append(f"{name:<20}{entry['n']:>7}{accuracy:>20}{100 * entry['majority']:>10.1f}{entry['unanswered']:>12}")

    for modality, entry in scores["modalities"].items():
        add(modality, entry)
        for task, found in entry["tasks"].items():
            lines.append(f"  {task:<18}{found['n']:>7}{100 * found['accuracy']:>13.1f}")
    for control, by in scores.get("controls", {}).items():
        for modality, entry in by.items():
            add(f"{modality} {control}", entry)
    return "\n".join(lines)
