"""What a run gained: per stage and modality, before and after, with intervals; as numbers and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnistage.data.records import Record
from omnistage.stages import choose, files, gate, run_directory
from omnistage.stages.benchmarks import card, items, scoring
from omnistage.stages.benchmarks.base import majority
from omnistage.stages.benchmarks.columns import columns_of, scores_by_run
from omnistage.stages.benchmarks.figures import Figure
from omnistage.stages.benchmarks.items import GREEDY, Score
from omnistage.stages.measure import against, bootstrap, head_values
from omnistage.stages.measure.paired import paired
from omnistage.stages.recipe.choices import CONTROLS
from omnistage.stages.recipe.schema import EvaluateStage, Recipe

# Scorers whose values are shares; a distance in points or millimetres is no accuracy.
_SHARES = frozenset({"grade", "judge", "majority"})


@dataclass(frozen=True)
class Measured:
    """What one evaluation of a run found: its records, and per run (`greedy`, a sample, a control) the score of each id."""

    records: Sequence[Record]
    scores: Mapping[str, Mapping[str, Score]]

    def modalities(self, run: str) -> dict[str, dict[str, Any]]:
        """Accuracy of each modality in one run, with its interval over clips; none for a run that was not made, and none of a modality
        that has items without a share (scores, poses, answers that nobody has judged)."""
        out: dict[str, dict[str, Any]] = {}
        for modality, records in self.of_modality(run).items():
            figure = _all_of(records)
            found = bootstrap.interval(figure, columns_of(records, self.scores[run]))
            constant = bootstrap.value_of(figure, columns_of(records, {one.id: one for one in majority(records)}))
            out[modality] = {"accuracy": found.value, "n": len(records), "low": found.low, "high": found.high, "majority": constant}
        return out

    def of_modality(self, run: str) -> dict[str, list[Record]]:
        """The records of each modality that were asked in a run, where all of them have shares."""
        found = self.scores.get(run, {})
        asked: dict[str, list[Record]] = {}
        for record in self.records:
            if record.id in found:
                asked.setdefault(str(record.modality), []).append(record)
        return {name: records for name, records in asked.items() if all(_is_share(found[record.id]) for record in records)}


NOTHING = Measured((), {})


def right_of(found: Measured, modality: str) -> dict[str, float]:
    """1 or 0 of each item of a modality, by its id: greedy answers about the real media."""
    return {record.id: float(found.scores[GREEDY][record.id].value == 1) for record in found.of_modality(GREEDY).get(modality, [])}


def _is_share(score: Score) -> bool:
    return score.value is not None and score.scorer in _SHARES


def _all_of(records: Sequence[Record]) -> Figure:
    return Figure("accuracy", (tuple(range(len(records))),))


def measured_of(folder: Path) -> Measured:
    """What the evaluation in the folder of a stage found; nothing where there is none."""
    evaluation = folder / "evaluation"
    if not (evaluation / items.SCORES).exists():
        return NOTHING
    records = items.read_items(evaluation)
    return Measured(records, scores_by_run(evaluation, records))


def _modalities(found: Measured, before: Measured) -> dict[str, Any]:
    """Accuracy of each modality after a stage, and its paired difference, over clips, to the stage's start where that was measured."""
    sampled = found.modalities(f"{items.SAMPLE}0")
    asked, asked_before = found.of_modality(GREEDY), before.of_modality(GREEDY)
    out: dict[str, Any] = {}
    for modality, entry in found.modalities(GREEDY).items():
        entry |= {"sampled": sampled.get(modality, {}).get("accuracy")}
        entry |= {"start": None, "gain": None, "gain_low": None, "gain_high": None}
        records = asked[modality]
        if {record.id for record in asked_before.get(modality, [])} == {record.id for record in records}:
            runs = [columns_of(records, one.scores[GREEDY]) for one in (before, found)]
            gain = paired(_all_of(records), *runs)
            entry |= {"start": gain.before, "gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
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
    were left out; `gates` and `choices` hold the stages' `gate.json` and `choice.json`, an evaluate stage's `against` its comparison.
    """
    start = run_dir / "00-start"
    before = measured_of(start)
    clock = _seconds(start)
    result: dict[str, Any] = {"run_dir": str(run_dir), "seed": recipe.seed, "render_s": clock.get("render_s", 0.0), "stages": []}
    if (start / "evaluation" / "scores.json").exists():
        result["start"] = {"seconds": clock.get("evaluate_s", 0.0), "modalities": _modalities(before, NOTHING)}
    previous: str | None = None
    # What each stage answered, so that a stage is compared with the one that it started from.
    rights: dict[str, Measured] = {}
    asked: dict[str, Path] = {}
    for stage in recipe.stages:
        folder, clock = recipe.stage_dir(stage.name), _seconds(recipe.stage_dir(stage.name))
        measured = (folder / "evaluation" / scoring.FIGURES).exists()
        if isinstance(stage, EvaluateStage):
            if measured:
                compared = {"against": against.kept(folder, asked)}
                result.setdefault("evaluations", {})[stage.name] = files.read_json(folder / "evaluation" / "scores.json") | compared
            asked[stage.name] = folder
            continue
        if stage.start is not None:
            previous, before = str(recipe.stage_dir(stage.start) / "model"), rights.get(stage.start, NOTHING)
        stale = previous is not None and run_directory.is_stale(folder, previous)
        if (folder / head_values.FOLDER / "scores.json").exists():
            spent = {"seconds": clock.get("train_s", 0.0), "evaluation_seconds": clock.get("evaluate_s", 0.0)}
            found = files.read_json(folder / head_values.FOLDER / "scores.json")
            result.setdefault("heads", {})[stage.name] = found | spent | {"stale": stale}
        for name, kept in (("gates", gate.kept(folder)), ("choices", choose.kept(folder))):
            if kept is not None:
                result.setdefault(name, {})[stage.name] = kept | {"stale": stale}
        # The next one starts from this stage, whether it was measured or not.
        previous, start_of_this, before = str(folder / "model"), before, measured_of(folder)
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
                "modalities": _modalities(before, NOTHING if stale else start_of_this),
            }
        )
        controls = [run for run in before.scores if run in CONTROLS]
        if controls:
            result["controls"] = {name: before.modalities(name) for name in controls}
    return result


def table(result: dict[str, Any]) -> str:
    """The summary for a terminal: accuracy of each modality after each stage (the forgetting matrix), its change, controls, and time."""
    stages, evaluations = result["stages"], result.get("evaluations", {})
    heads = result.get("heads", {})
    if not stages and not evaluations:
        if heads or judged(result):
            return "\n".join([*judged(result), *heads_table(heads)])
        return "nothing was measured: the recipe has no evaluation, or no stage of it is done"
    measured = [stage["modalities"] for stage in stages]
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
    for stage in stages:
        for source in stage["data"]:
            if left_out := sum(source["left_out"].values()):
                why = ", ".join(f"{name} {count}" for name, count in source["left_out"].items() if count)
                lines.append(
                    f"{stage['name']}: {left_out} of {source['records'] + left_out} records of {source['path']} were left out ({why})"
                )
    lines += judged(result)
    counts = ", ".join(f"{m} {measured[-1][m]['n']}" for m in measured[-1]) if measured else "none"
    timed = [*stages, *(found for name, found in heads.items() if name not in {stage["name"] for stage in stages})]
    total = sum(spent["seconds"] + spent["evaluation_seconds"] for spent in timed) + result["render_s"]
    lines.append(f"n: {counts}; rendering {result['render_s']:.0f} s, all together {total:.0f} s")
    for name, scores in evaluations.items():
        lines += ["", f"{name}: {scores['benchmark']}", *card.text_table(scores)]
        if scores["against"] is not None:
            lines += against.table(scores["against"])
    return "\n".join([*lines, *heads_table(heads)])


def judged(result: Mapping[str, Any]) -> list[str]:
    """A line for each choice among checkpoints, and for each gate."""
    lines = []
    for stage, found in result.get("choices", {}).items():
        values = ", ".join(
            f"{entry['step']} ({'no value' if entry['value'] is None else card.printed(entry['value'], found)})" for entry in found["steps"]
        )
        lines.append(f"{stage}: step {found['chosen']} was chosen by {found['figure']}, of {values}")
    for found in result.get("gates", {}).values():
        lines.append(found["said"] + ("  (from an earlier model)" if found["stale"] else ""))
    return lines


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
