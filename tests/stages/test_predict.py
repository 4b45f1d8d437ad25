"""What predictions leave on disk: one file a pose under any record's id, and places of the body that was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from head_data import posed
from omnistage.data.body.skeleton import Skeleton, joints_m, skeleton
from omnistage.data.records import AnswerKind, Modality, Record
from omnistage.rl.heads.predict import Prediction
from omnistage.stages import files, predict

PLAIN = Record("r", Modality.VIDEO, "pose", AnswerKind.OPEN, "what is the pose ?", "")


def test_any_id_names_a_file_of_its_own(tmp_path: Path) -> None:
    """Ids that no file name holds, that are alike without what it cannot hold, or that are far too long."""
    records = [replace(PLAIN, id=name) for name in ("../up", "a/b", "a b", "ü", "姿勢", "x" * 500, "</script>", ".")]
    rotations = np.reshape(posed(PLAIN, 0).values, (24, 3, 3)).tolist()
    found = [Prediction([{"rotations": rotations}] * 2, "<POSE> and <POSE>") for _ in records]
    rows = predict.write(tmp_path / "out", records, found)
    poses = [value["pose"] for row in rows for value in row["values"]]
    assert len(set(poses)) == 2 * len(records)
    assert {(tmp_path / "out" / pose).resolve().parent for pose in poses} == {tmp_path / "out" / "poses"}
    assert all((tmp_path / "out" / pose).with_suffix(".png").is_file() for pose in poses)
    assert [row["id"] for row in files.read_lines(tmp_path / "out" / "predictions.jsonl")] == [record.id for record in records]


def test_places_are_those_of_the_body(tmp_path: Path) -> None:
    ours = skeleton()
    large = Skeleton(ours.names, ours.parents, 2 * ours.offsets_J3)
    rotations = np.reshape(posed(PLAIN, 0).values, (24, 3, 3))
    [row] = predict.write(tmp_path, [PLAIN], [Prediction([{"rotations": rotations.tolist()}])], large)
    held = files.read_json(tmp_path / row["values"][0]["pose"])
    assert np.abs(np.array(held["joints_mm"]) - 2000 * joints_m(rotations)).max() < 0.1


def test_rotations_of_another_body_stay_in_the_line(tmp_path: Path) -> None:
    two = np.tile(np.eye(3), (2, 1, 1)).tolist()
    [row] = predict.write(tmp_path, [PLAIN], [Prediction([{"rotations": two}])])
    assert row["values"] == [{"rotations": two}]
    assert not (tmp_path / "poses").exists()
