"""What a page holds of heads and of quarantines: as they stand in their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnistage.data import quarantine
from omnistage.data.body import drawing
from omnistage.data.body.skeleton import joints_m
from omnistage.stages import files
from omnistage.stages.report import collect, heads
from omnistage.stages.report.reading import Notes
from report_run import recorded, with_heads

FLAT = np.broadcast_to(np.eye(3), (24, 3, 3))


def turned(degrees: float) -> np.ndarray:
    """The pose at rest with its left hip's neighbour, joint 4, bent about x."""
    angle = np.radians(degrees)
    pose = FLAT.copy()
    pose[4] = [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    return pose


def row(name: str, right: Any, value: Any, control: str | None = None) -> dict[str, Any]:
    return {"id": name, "task": "quality", "control": control, "target_values": list(right), "value": value}


def collected(folder: Path, rows: list[dict[str, Any]], notes: Notes | None = None) -> dict[str, Any]:
    scores = {"head": "mos", "tasks": {"quality": {"n": 2, "missing": 0}}, "controls": {}}
    files.write_json(folder / "head" / "scores.json", scores)
    files.write_lines(folder / "head" / "predictions.jsonl", rows)
    found: dict[str, Any] = heads.collect({"stages": [{"name": "mos", "kind": "head"}]}, {"mos": folder}, notes or Notes())["mos"]
    return found


def test_points_are_the_predictions(tmp_path: Path) -> None:
    rows = [
        row("b", [60.0], {"values": {"score": 58.5}}),
        row("a", [20.0], {"values": {"score": 25.0}}),
        row("c", [30.0], None),
        row("a", [20.0], {"values": {"score": 44.0}}, "blank"),
    ]
    real, blank = collected(tmp_path, rows)["points"]
    assert (real["ids"], real["true"], real["made"], real["control"], real["of"]) == (["a", "b"], [20.0, 60.0], [25.0, 58.5], None, 2)
    assert (blank["made"], blank["control"]) == ([44.0], "blank")


def test_poses_are_drawn_from_the_nearest_to_the_farthest(tmp_path: Path) -> None:
    rows = [row(f"p{bent}", FLAT.reshape(-1).tolist(), {"rotations": turned(bent).tolist()}) for bent in (90, 0, 30)]
    found = collected(tmp_path, rows)
    assert [pose["id"] for pose in found["poses"]["shown"]] == ["p0", "p30", "p90"]
    assert [(pose["rank"], pose["of"]) for pose in found["poses"]["shown"]] == [(1, 3), (2, 3), (3, 3)]
    farthest = found["poses"]["shown"][-1]
    assert farthest["made"] == drawing.pose_json(turned(90))["joints_mm"]
    assert farthest["true"] == drawing.pose_json(FLAT)["joints_mm"]
    apart = np.linalg.norm(joints_m(turned(90)) - joints_m(FLAT), axis=-1).mean() * 1000
    assert farthest["mpjpe_mm"] == pytest.approx(apart, abs=0.1)
    assert len(found["skeleton"]["parents"]) == 24


def test_poses_in_the_frame_of_a_camera_are_stood_upright(tmp_path: Path) -> None:
    """Turned by 180 degrees about x, as a camera sees it, a body is drawn as it stands without."""
    camera = FLAT.copy()
    camera[0] = np.diag([1.0, -1.0, -1.0])
    found = collected(tmp_path, [row("p", camera.reshape(-1).tolist(), {"rotations": camera.tolist()})])["poses"]
    assert found["in_camera"]
    assert np.allclose(found["shown"][0]["true"], drawing.pose_json(FLAT)["joints_mm"], atol=0.2)


def test_each_task_has_its_own_frame(tmp_path: Path) -> None:
    """Three records of a camera and one of a body that stands: neither is drawn upside down, and the page says which was turned."""
    camera = FLAT.copy()
    camera[0] = np.diag([1.0, -1.0, -1.0])
    rows = [row(f"p{at}", camera.reshape(-1).tolist(), {"rotations": camera.tolist()}) for at in range(3)]
    rows.append(row("q", FLAT.reshape(-1).tolist(), {"rotations": FLAT.tolist()}) | {"task": "text"})
    notes = Notes()
    found = collected(tmp_path, rows, notes)["poses"]
    assert (found["turned"], found["in_camera"]) == (["quality"], False)
    for pose in found["shown"]:
        assert np.allclose(pose["true"], drawing.pose_json(FLAT)["joints_mm"], atol=0.2), pose["task"]
    assert "poses of quality are in the frame of a camera" in notes.lines[0]["line"]


ODD: list[dict[str, Any]] = [
    {"task": None},
    {"task": ["x"]},
    {"id": {"a": 1}},
    {"control": ["blank"]},
    {"target_values": "20"},
    {"target_values": {"score": 20}},
    {"target_values": ["twenty"]},
    {"target_values": [10**400]},
    {"value": "25"},
    {"value": {"values": {"score": [25]}}},
    {"value": {"values": {"score": 10**400}}},
    {"value": {"rotations": [[1.0], [1.0, 2.0]]}},
    {"value": {"rotations": "flat"}},
    {"value": {"rotations": [10**400]}},
]


def test_odd_rows_are_left_out_and_said(tmp_path: Path) -> None:
    """Beside rows that are right, of both kinds."""
    pose = row("p", FLAT.reshape(-1).tolist(), {"rotations": FLAT.tolist()})
    right = [row("a", [20.0], {"values": {"score": 25.0}}), pose]
    notes = Notes()
    found = collected(tmp_path, [*right, *(given | changes for given in right for changes in ODD)], notes)
    assert found["points"][0]["ids"] == ["a"]
    assert [shown["id"] for shown in found["poses"]["shown"]] == ["p"]
    said = f"{tmp_path.name}/head/predictions.jsonl: {2 * len(ODD)} rows are no predictions of a head and are left out"
    assert [note["line"] for note in notes.lines] == [said]


@pytest.mark.parametrize("scores", [[], {}, {"tasks": []}, {"tasks": {"a": 1}, "controls": {}}, {"tasks": {}, "controls": {"blank": 3}}])
def test_odd_figures_are_left_out_and_said(scores: Any, tmp_path: Path) -> None:
    files.write_json(tmp_path / "head" / "scores.json", scores)
    notes = Notes()
    assert heads.collect({"stages": [{"name": "mos", "kind": "head"}]}, {"mos": tmp_path}, notes) == {}
    assert "head/scores.json is left out" in notes.lines[0]["line"]


def test_many_poses_are_a_stated_few(tmp_path: Path) -> None:
    rows = [row(f"p{bent:03d}", FLAT.reshape(-1).tolist(), {"rotations": turned(bent).tolist()}) for bent in range(100)]
    found = collected(tmp_path, rows)["poses"]
    assert found["of"] == 100
    assert len(found["shown"]) == heads.MOST_POSES
    assert [found["shown"][at]["id"] for at in (0, -1)] == ["p000", "p099"]


def test_a_run_of_heads_alone_has_been_measured(tmp_path: Path) -> None:
    run = with_heads(tmp_path / "run")
    said = [note["line"] for note in collect.collect(run)["notes"] if note["section"] == "accuracy"]
    assert "no answers have been measured; what heads put out stands under Heads" in said
    assert not any(line.startswith("nothing has been measured") for line in said)


def test_a_quarantine_is_told_by_its_reasons(tmp_path: Path) -> None:
    path = tmp_path / "train.quarantine.jsonl"
    entries = [
        quarantine.Entry("a", "train.json: record 1", "train.json", ("silent",), "silent: no sound in 'x.mp4'"),
        quarantine.Entry(None, "train.json: record 2", "train.json", ("missing", "silent"), "missing: no file"),
    ]
    quarantine.write(path, [quarantine.Checked("train.json", None, True)], entries)
    run = recorded(tmp_path / "run", {}, data=[{"path": "train.json", "quarantine": str(path)}])
    (listed,) = collect.collect(run)["data"]["video"]["quarantines"]
    assert (listed["rows"], listed["codes"]) == (2, {"silent": 2, "missing": 1})
    assert [example["id"] for example in listed["examples"]] == ["a", None]
    path.unlink()
    found = collect.collect(run)
    assert found["data"]["video"]["quarantines"][0]["rows"] is None
    assert any("quarantine train.quarantine.jsonl is left out" in note["line"] for note in found["notes"])


def test_a_relative_quarantine_is_that_of_the_folder_in_which_the_run_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the page is made, also where another file has the name."""
    began, other = tmp_path / "began", tmp_path / "other"
    for folder, count in ((began, 2), (other, 1)):
        (folder / "data").mkdir(parents=True)
        entries = [quarantine.Entry(f"r{at}", f"train.json: record {at}", "train.json", ("silent",), "silent") for at in range(count)]
        quarantine.write(folder / "data" / "bad.jsonl", [quarantine.Checked("train.json", None, True)], entries)
    run = recorded(began / "runs" / "one", {}, data=[{"path": "train.json", "quarantine": "data/bad.jsonl"}])
    held = files.read_json(run / "run.json")
    held["recipe"]["run_dir"] = "runs/one"
    files.write_json(run / "run.json", held)
    for here in (began, tmp_path, other):
        monkeypatch.chdir(here)
        (listed,) = collect.collect(run)["data"]["video"]["quarantines"]
        assert listed["rows"] == 2, here
