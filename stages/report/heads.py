"""What the heads of a run said of its held-out records: points to scatter, and poses to draw, a stated number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omnistage.data.body import drawing, metrics
from omnistage.data.body.skeleton import joints_m, skeleton
from omnistage.data.rotations import Floats
from omnistage.stages.report.order import evenly
from omnistage.stages.report.reading import Notes, json_of, lines_of, number

MOST_POINTS = 1500
MOST_POSES = 24


def collect(recipe: Mapping[str, Any], folders: Mapping[str, Path], notes: Notes) -> dict[str, Any]:
    """By stage: the figures of `head/scores.json`, and points and poses from `head/predictions.jsonl`."""
    out: dict[str, Any] = {}
    for stage in recipe["stages"]:
        folder = folders[stage["name"]]
        scores = json_of(folder / "head" / "scores.json", notes, "heads")
        if scores is None:
            if stage.get("kind") == "head":
                notes.say("heads", f"stage {stage['name']}: its head has not been measured")
            continue
        if not _is_measured(scores):
            notes.say("heads", f"{folder.name}/head/scores.json is left out: it does not hold the figures of a head")
            continue
        path = folder / "head" / "predictions.jsonl"
        read = list(lines_of(path, notes, "heads"))
        rows = [row for row in read if _is_prediction(row)]
        if odd := len(read) - len(rows):
            notes.say("heads", f"{folder.name}/head/{path.name}: {odd} rows are no predictions of a head and are left out")
        points, poses = _points(rows), _poses(rows)
        turned, tasks = poses["turned"], poses["tasks"]
        if turned and set(turned) != set(tasks):
            notes.say(
                "heads", f"stage {stage['name']}: poses of {', '.join(turned)} are in the frame of a camera (y down), and are stood upright"
            )
        out[stage["name"]] = {"scores": scores, "points": points, "poses": poses, "skeleton": _skeleton() if poses["shown"] else None}
    return out


def _is_measured(scores: Any) -> bool:
    """Whether there are figures by task, and by altered media and task."""
    if not isinstance(scores, dict) or not isinstance(scores.get("tasks"), dict) or not isinstance(scores.get("controls"), dict):
        return False
    return all(isinstance(entry, dict) for part in (scores["tasks"], *scores["controls"].values()) for entry in _entries(part))


def _entries(part: Any) -> list[Any]:
    return list(part.values()) if isinstance(part, dict) else [None]


def _is_prediction(row: Mapping[str, Any]) -> bool:
    """Whether a row says of which record and task it is, and whatever numbers it holds are numbers."""
    right, value = row.get("target_values"), row.get("value")
    if not isinstance(row.get("task"), str) or not isinstance(row.get("id"), str) or not isinstance(row.get("control"), str | None):
        return False
    if not isinstance(right, list | None) or any(number(one) is None for one in right or ()) or not isinstance(value, dict | None):
        return False
    if value is None:
        return True
    if "rotations" in value:
        return _numbers(value["rotations"]) is not None
    return not isinstance(value.get("values"), dict) or all(number(one) is not None for one in value["values"].values())


def _numbers(value: Any) -> Floats | None:
    """Nested lists as an array of finite numbers; None where they are none."""
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if np.isfinite(found).all() else None


def _skeleton() -> dict[str, Any]:
    body = skeleton()
    sides = [name[:1] if name[1:2] == "_" else "" for name in body.names]
    colours = ["#{:02x}{:02x}{:02x}".format(*drawing.COLOURS[side]) for side in sides]
    return {"names": list(body.names), "parents": list(body.parents), "colours": colours}


def _points(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """True and predicted numbers of each task, name and control; of many, evenly spread ones over the true numbers."""
    found: dict[tuple[str, str, str], list[tuple[str, float, float]]] = {}
    for row in rows:
        value, right = row.get("value"), row.get("target_values") or []
        if not isinstance(value, dict) or not isinstance(value.get("values"), dict):
            continue
        for at, (name, said) in enumerate(value["values"].items()):
            true, made = number(right[at]) if at < len(right) else None, number(said)
            if true is not None and made is not None:
                found.setdefault((row["task"], name, row.get("control") or ""), []).append((str(row["id"]), true, made))
    out = []
    for (task, name, control), points in found.items():
        ordered = sorted(points, key=lambda point: (point[1], point[0]))
        kept = [ordered[at] for at in evenly(len(ordered), MOST_POINTS)]
        columns = {column: [point[at] for point in kept] for at, column in enumerate(("ids", "true", "made"))}
        out.append({"task": task, "name": name, "control": control or None, "of": len(points)} | columns)
    return out


def _poses(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Predicted poses beside the true ones as joints in mm, from the nearest to the farthest, evenly spread over their order.

    Of a task most of whose true bodies are upside down the poses are in the frame of a camera, and are stood upright: `turned`.
    """
    entries = []
    for row in rows:
        value, right = row.get("value"), row.get("target_values") or []
        if row.get("control") is None and isinstance(value, dict) and "rotations" in value and len(right) == 9 * len(skeleton().names):
            made = _numbers(value["rotations"])
            if made is not None and made.shape == (len(skeleton().names), 3, 3):
                true = np.asarray(right, np.float64).reshape(-1, 3, 3)
                error = float(metrics.mpjpe_mm(joints_m(made[None]), joints_m(true[None]))[0])
                entries.append((error, str(row["id"]), str(row["task"]), made, true))
    entries.sort(key=lambda entry: entry[:2])
    by_task: dict[str, list[Any]] = {}
    for entry in entries:
        by_task.setdefault(entry[2], []).append(entry)
    shown = []
    turned = []
    for task, found in by_task.items():
        in_camera = sum(_is_head_down(true) for *_, true in found) > len(found) / 2
        turned += [task] if in_camera else []
        for at in evenly(len(found), max(2, MOST_POSES // len(by_task))):
            error, name, _, made, true = found[at]
            joints = {"made": _stood(made, in_camera), "true": _stood(true, in_camera)}
            shown.append({"id": name, "task": task, "mpjpe_mm": round(error, 1), "rank": at + 1, "of": len(found)} | joints)
    all_turned = bool(turned) and len(turned) == len(by_task)
    return {"of": len(entries), "shown": shown, "in_camera": all_turned, "tasks": list(by_task), "turned": turned}


def _is_head_down(pose: Floats) -> bool:
    joints, names = joints_m(pose), list(skeleton().names)
    return bool(joints[names.index("Head"), 1] < joints[0, 1])


def _stood(pose: Floats, in_camera: bool) -> list[list[float]]:
    """Joints [24, 3] in mm, y up. In the frame of a camera y points down and z away from it: there a standing body is upside down."""
    joints = drawing.pose_json(pose)["joints_mm"]
    return [[x, -y, -z] for x, y, z in joints] if in_camera else joints
