"""What a head's values are worth on held-out records: correlations and errors with intervals, controls, and every value on disk.

`head/predictions.jsonl` holds a line for each record and control, `head/scores.json` the figures:

- numbers (per task and name): SRCC, PLCC, KRCC, RMSE and MAE, with 95 % intervals over clips (`bootstrap`); of a constant prediction the
  correlations are 0. A level word stands for the number that the head learned for it;
- poses (per task): MPJPE and PA-MPJPE in mm and the geodesic angle in degrees, beside those of the mean pose of the training records. Of
  poses of another number of joints than our body's, the angle alone.

An answer without the head's token is scored as the training records' mean (of numbers, or the mean pose), and counted as `missing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from omnistage.data.body import metrics
from omnistage.data.body.skeleton import Skeleton, joints_m
from omnistage.data.errors import RecordError
from omnistage.data.records import AnswerKind, Record
from omnistage.data.rotations import Floats, geodesic_deg
from omnistage.rl.body import smpl_skeleton
from omnistage.rl.encoding import Encoder
from omnistage.rl.heads import carried
from omnistage.rl.heads.codec import Numbers, Words, codec_of
from omnistage.rl.heads.predict import Prediction, Reader
from omnistage.rl.heads.spec import BODY_JOINTS, Affine, HeadSpec, Levels, Rotations
from omnistage.stages import files
from omnistage.stages.benchmarks.figures import Columns, Figure, Metric
from omnistage.stages.measure import bootstrap, controls
from omnistage.stages.measure.correlation import NUMBER_METRICS
from omnistage.stages.recipe.choices import Control
from omnistage.stages.recipe.schema import HeadMeasurement, HeadStage

FOLDER = "head"
RESAMPLES = 1000


def check(records: Sequence[Record], stage: HeadStage) -> None:
    """Raises `InputError` for a held-out record whose value the head does not put out, a control that cannot be made, and a body file
    that cannot be read."""
    codec = codec_of(stage.head)
    for record in records:
        if len(codec.targets(record)) != 1:
            raise RecordError(f"{record.source}: has no single value that the head {stage.head.name!r} puts out (kind {record.kind})")
    _body(stage.evaluation)
    for control in stage.evaluation.controls if stage.evaluation else []:
        controls.apply(control, [record for record in records if controls.applies(control, record.modality)], 0)


def measure(
    model: Qwen2_5OmniThinkerForConditionalGeneration,
    encoder: Encoder,
    records: Sequence[Record],
    trained_on: Sequence[Record],
    out: Path,
    stage: HeadStage,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Read the stage's head of every held-out record, and of its controls; write `head/predictions.jsonl` and, last, `head/scores.json`."""
    given = stage.evaluation
    if given is None:
        raise ValueError(f"stage {stage.name!r} has no evaluation")
    spec = stage.head
    reader = Reader(model, encoder, carried.chosen(carried.heads_of(model), spec.name, str(out)))
    rows: list[dict[str, Any]] = []
    names: list[Control | None] = [None, *given.controls]
    for control in names:
        shown = list(records)
        if control is not None:
            shown = controls.apply(control, [r for r in records if controls.applies(control, r.modality)], seed)
        rows += _shared_out(reader, shown, control, given)
    of_clip = {record.id: "|".join(ref.path for ref in record.media) or record.id for record in records}
    mean, body = mean_answer(trained_on, spec), _body(given)
    by_control = {name: scores([r for r in rows if r["control"] == name], spec, of_clip, mean, body) for name in names}
    result: dict[str, Any] = {"head": spec.name, "body": given.body, "tasks": by_control.pop(None), "controls": by_control}
    if PartialState().is_main_process:
        files.write_lines(out / FOLDER / "predictions.jsonl", rows)
        files.write_json(out / FOLDER / "scores.json", result)
    PartialState().wait_for_everyone()
    return result


def _body(given: HeadMeasurement | None) -> Skeleton | None:
    """The user's own body, None for ours. Raises `InputError` for a file that cannot be read."""
    return None if given is None or given.body is None else smpl_skeleton(Path(given.body))


def _shared_out(reader: Reader, shown: Sequence[Record], control: Control | None, given: HeadMeasurement) -> list[dict[str, Any]]:
    """The lines of all records, which are shared out over the processes; every process gets all of them, in the records' order."""
    state = PartialState()
    mine = range(state.process_index, len(shown), state.num_processes)
    found = reader([shown[at] for at in mine], batch_size=given.batch_size, max_new_tokens=given.max_new_tokens)
    rows = [(at, _row(shown[at], control, prediction)) for at, prediction in zip(mine, found, strict=True)]
    gathered = gather_object(rows) if state.num_processes > 1 else rows
    return [row for _, row in sorted(gathered, key=lambda item: item[0])]


def _row(record: Record, control: Control | None, prediction: Prediction) -> dict[str, Any]:
    row: dict[str, Any] = {"id": record.id, "task": record.task, "modality": str(record.modality), "kind": str(record.kind)}
    row |= {"control": control, "target": record.target, "target_values": list(record.values), "answer": prediction.text}
    return row | {"count": len(prediction.values), "value": prediction.values[0] if prediction.values else None}


def scores(
    rows: Sequence[Mapping[str, Any]], spec: HeadSpec, clips: Mapping[str, str], mean: Floats, body: Skeleton | None = None
) -> dict[str, dict[str, Any]]:
    """Figures by task from rows of `predictions.jsonl`; `clips` names the clip of each id, over which the bootstrap draws, `mean` is what
    `mean_answer` gives, and `body` has the lengths that turn poses into places (None: ours)."""
    out: dict[str, dict[str, Any]] = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        groups = [clips[row["id"]] for row in of_task]
        entry: dict[str, Any] = {"n": len(of_task), "missing": sum(row["value"] is None for row in of_task)}
        if isinstance(spec.codec, Rotations):
            entry |= _pose_scores(of_task, spec.codec.joints, groups, mean, body)
        else:
            entry |= _number_scores(of_task, spec, groups, mean)
        out[task] = entry
    return out


def _number_scores(rows: Sequence[Mapping[str, Any]], spec: HeadSpec, groups: Sequence[str], mean: Floats) -> dict[str, Any]:
    codec = spec.codec
    names = _names(codec)
    right = np.array([_right_numbers(row["kind"], row["target"], row["target_values"], spec) for row in rows])
    made = np.array([mean if row["value"] is None else [row["value"]["values"][name] for name in names] for row in rows])
    out: dict[str, Any] = {}
    for at, name in enumerate(names):
        out[name] = {metric: interval(found, made[:, at], right[:, at], groups) for metric, found in NUMBER_METRICS.items()}
    if isinstance(codec, Levels):
        levels = [row for row in rows if row["kind"] == str(AnswerKind.LEVEL)]
        if levels:
            hits = np.array([float(row["value"] is not None and row["value"]["level"] == row["target"]) for row in levels])
            of_levels = [group for group, row in zip(groups, rows, strict=True) if row["kind"] == str(AnswerKind.LEVEL)]
            out["level_accuracy"] = interval(None, hits, hits, of_levels, unit="share")
    return out


def _names(codec: Affine | Levels | Rotations) -> list[str]:
    return codec.names if isinstance(codec, Affine) else ["score"]


def _right_numbers(kind: str, target: str, values: Sequence[float], spec: HeadSpec) -> list[float]:
    """The numbers of a record, which may say a word instead."""
    if kind == str(AnswerKind.SCALAR):
        return [float(value) for value in values]
    codec = codec_of(spec)
    if isinstance(codec, Numbers):
        return [codec.of_level(target)]
    if isinstance(codec, Words):
        return [codec.spec.centres[codec.spec.words.index(target)]]
    raise ValueError(f"a head of poses is not compared with a record of kind {kind}")


def interval(
    metric: Metric | None, made: Floats, right: Floats, groups: Sequence[str], seed: int = 0, *, unit: str = ""
) -> dict[str, float]:
    """A metric (None: the mean of `made`) with its 95 % interval over draws of whole clips (`bootstrap`).

    Of a single clip its records are drawn, and of a single record the bounds are its value.
    """
    names, clip = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        clip = np.arange(len(made))
    numbers = {"made": made.astype(np.float64), "right": right.astype(np.float64)}
    columns = Columns(numbers["made"], np.ones(len(made), dtype=np.bool_), clip, numbers)
    figure = Figure("", (tuple(range(len(made))),), metric=metric, unit=unit)
    value, low, high = bootstrap.interval(figure, columns, seed=seed, resamples=RESAMPLES)
    return {"value": value, "low": value if np.isnan(low) else low, "high": value if np.isnan(high) else high}


def mean_answer(records: Sequence[Record], spec: HeadSpec) -> Floats:
    """What is answered best without looking: the mean [numbers] of the records that the head learns from, or their mean pose.

    A mean pose is the rotation [joints, 3, 3] of each joint that is nearest to all of its rotations in the records (the chordal mean).
    """
    if not isinstance(spec.codec, Rotations):
        codec = codec_of(spec)
        asked = [record for record in records if len(codec.targets(record))]
        mean: Floats = np.mean([_right_numbers(str(r.kind), r.target, r.values, spec) for r in asked], axis=0)
        return mean
    poses = [np.asarray(record.values).reshape(-1, spec.codec.joints, 3, 3) for record in records if record.kind is AnswerKind.POSE]
    left, _, right = np.linalg.svd(np.concatenate(poses).mean(0))
    flip = np.ones((spec.codec.joints, 3))
    flip[:, 2] = np.linalg.det(left @ right)
    nearest: Floats = left * flip[:, None] @ right
    return nearest


def _pose_scores(
    rows: Sequence[Mapping[str, Any]], joints: int, groups: Sequence[str], mean: Floats, body: Skeleton | None
) -> dict[str, Any]:
    right = np.array([row["target_values"] for row in rows]).reshape(-1, joints, 3, 3)
    made = np.array([mean if row["value"] is None else row["value"]["rotations"] for row in rows])
    constant = np.broadcast_to(mean, right.shape)
    out: dict[str, Any] = {}
    for name, each in POSE_METRICS.items():
        if joints != BODY_JOINTS and name != "geodesic_deg":
            continue
        ours, baseline = each(made, right, body), each(constant, right, body)
        out[name] = interval(None, ours, ours, groups) | {"mean_pose": float(baseline.mean())}
    return out


# Errors [N] of poses [N, joints, 3, 3] of a body.
POSE_METRICS: dict[str, Callable[[Floats, Floats, Skeleton | None], Floats]] = {
    "mpjpe_mm": lambda made, right, body: metrics.mpjpe_mm(joints_m(made, body), joints_m(right, body)),
    "pa_mpjpe_mm": lambda made, right, body: metrics.pa_mpjpe_mm(joints_m(made, body), joints_m(right, body)),
    "geodesic_deg": lambda made, right, _: geodesic_deg(made, right).mean(-1),
}
