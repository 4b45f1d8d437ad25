"""What a head is worth: figures worked out by hand, clips as the unit of the bootstrap, and nothing left out."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from head_data import POSES, SCORES, posed
from omnistage.data.body.skeleton import Skeleton, skeleton
from omnistage.data.errors import InputError
from omnistage.data.records import AnswerKind, Modality, Record
from omnistage.data.rotations import axis_angle_to_matrices
from omnistage.rl.heads.spec import HeadSpec
from omnistage.stages.measure import correlation, head_values, summary
from omnistage.stages.recipe.schema import HeadStage

LEVELS = {"kind": "levels", "words": ["bad", "good", "best"], "centres": [0.0, 10.0, 40.0]}
PLAIN = Record("r", Modality.VIDEO, "quality", AnswerKind.SCALAR, "how good ?", "1", values=(1.0,), source="file: record 0")


def spec_of(given: dict[str, Any], **changes: Any) -> HeadSpec:
    return HeadSpec.model_validate(given | changes)


def row(name: str, right: float, made: float | None, **changes: Any) -> dict[str, Any]:
    """A line of predictions.jsonl; `made` None: the answer did not hold the head's token."""
    value = None if made is None else {"values": {"score": made}}
    line = {"id": name, "task": "quality", "kind": "scalar", "target": f"{right}", "target_values": [right], "value": value}
    return line | changes


def test_correlations_and_errors_of_numbers() -> None:
    """1, 2, 4, 8 read as 3, 2, 4, 9: differences 2, 0, 0, 1; of six pairs five stand in order."""
    rows = [row(str(at), right, made) for at, (right, made) in enumerate(zip((1.0, 2.0, 4.0, 8.0), (3.0, 2.0, 4.0, 9.0), strict=True))]
    found = head_values.scores(rows, spec_of(SCORES), {r["id"]: r["id"] for r in rows}, np.zeros(1))["quality"]
    assert (found["n"], found["missing"]) == (4, 0)
    score = found["score"]
    assert score["mae"]["value"] == pytest.approx(3 / 4)
    assert score["rmse"]["value"] == pytest.approx((5 / 4) ** 0.5)
    assert score["krcc"]["value"] == pytest.approx((5 - 1) / 6)
    # Ranks 1 2 3 4 and 2 1 3 4.
    assert score["srcc"]["value"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert score["plcc"]["value"] == pytest.approx(np.corrcoef([1, 2, 4, 8], [3, 2, 4, 9])[0, 1])


def test_the_bootstrap_draws_clips_and_not_records() -> None:
    """Twenty copies of each of six clips' records say no more than one of each does."""
    generator = np.random.default_rng(0)
    right, made = generator.normal(size=6), generator.normal(size=6)
    for metric in correlation.NUMBER_METRICS.values():
        once = head_values.interval(metric, made, right, [str(at) for at in range(6)])
        copied = head_values.interval(metric, made.repeat(20), right.repeat(20), [str(at // 20) for at in range(120)])
        for bound in ("low", "high"):
            assert copied[bound] == pytest.approx(once[bound], abs=0.02)
    # As records they would seem to be known far better.
    apart = head_values.interval(correlation.rmse, made.repeat(20), right.repeat(20), [str(at) for at in range(120)])
    assert apart["high"] - apart["low"] < 0.5 * (once["high"] - once["low"])


def test_an_answer_without_the_token_is_the_mean_and_counted() -> None:
    """Right 10 and 20, the second not answered: scored as the training mean, 14."""
    spec = spec_of(SCORES, anchor={"at": "token", "token": "<MOS>"})
    trained_on = [replace(PLAIN, values=(value,)) for value in (10.0, 18.0)]
    mean = head_values.mean_answer([*trained_on, replace(PLAIN, kind=AnswerKind.OPEN, values=())], spec)
    assert mean.tolist() == [14.0]
    found = head_values.scores([row("a", 10.0, 10.0), row("b", 20.0, None)], spec, {"a": "a", "b": "b"}, mean)["quality"]
    assert (found["n"], found["missing"], found["score"]["mae"]["value"]) == (2, 1, 3.0)


def test_words_have_their_numbers() -> None:
    """A head of numbers that learned from words is measured on words: the middle of their fifths. One of levels on both."""
    word = {"kind": "level", "target": "good", "target_values": []}
    spec = spec_of(SCORES)
    assert head_values.mean_answer([replace(PLAIN, kind=AnswerKind.LEVEL, target="good", values=())], spec).tolist() == [70.0]
    found = head_values.scores([row("a", 0.0, 65.0, **word), row("b", 30.0, 30.0)], spec, {"a": "a", "b": "b"}, np.zeros(1))["quality"]
    assert found["score"]["mae"]["value"] == 2.5

    levels = spec_of(SCORES, codec=LEVELS, losses=[{"name": "cross_entropy"}])
    said = [
        row("a", 0.0, 12.0, **word) | {"value": {"level": "good", "values": {"score": 12.0}}},
        row("b", 0.0, None, **word),
        row("c", 40.0, 0.0) | {"value": {"level": "bad", "values": {"score": 0.0}}},
    ]
    found = head_values.scores(said, levels, {"a": "a", "b": "b", "c": "c"}, np.array([10.0]))["quality"]
    assert found["level_accuracy"]["value"] == 0.5
    assert found["score"]["mae"]["value"] == pytest.approx((2 + 0 + 40) / 3)
    assert any(
        "level_accuracy" in line
        for line in summary.heads_table({"x": {"head": "mos", "stale": True, "tasks": {"q": found}, "controls": {}}})
    )


def test_poses_beside_the_mean_pose() -> None:
    """The mean of turns by -20 and 40 degrees about one axis is 10; one answer is right, one is missing and is the mean."""

    def turned(degrees: float) -> Record:
        turns = axis_angle_to_matrices(np.tile([[0.0, 0.0, np.radians(degrees)]], (24, 1)))
        return replace(posed(PLAIN, 0), values=tuple(turns.ravel().tolist()))

    spec = spec_of(POSES)
    mean = head_values.mean_answer([turned(-20), turned(40)], spec)
    assert np.abs(mean - np.reshape(turned(10).values, (24, 3, 3))).max() < 1e-12
    rows = [
        row(name, 0.0, None, kind="pose", target_values=list(turned(degrees).values), value=value)
        for name, degrees, value in (("a", 70, {"rotations": np.reshape(turned(70).values, (24, 3, 3)).tolist()}), ("b", 40, None))
    ]
    found = head_values.scores(rows, spec, {"a": "a", "b": "b"}, mean)["quality"]
    assert found["missing"] == 1
    assert found["geodesic_deg"]["value"] == pytest.approx(15.0)
    assert found["geodesic_deg"]["mean_pose"] == pytest.approx(45.0)
    assert found["pa_mpjpe_mm"]["value"] < found["pa_mpjpe_mm"]["mean_pose"]


def test_millimetres_are_those_of_the_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body twice as large makes twice the error; the file of one is asked for before anything is trained."""
    ours = skeleton()
    large = Skeleton(ours.names, ours.parents, 2 * ours.offsets_J3)
    pose, other = (np.reshape(posed(PLAIN, seed).values, (24, 3, 3)) for seed in (0, 1))
    rows = [row("a", 0.0, None, kind="pose", target_values=pose.ravel().tolist(), value={"rotations": other.tolist()})]
    small, big = (head_values.scores(rows, spec_of(POSES), {"a": "a"}, pose, body)["quality"] for body in (None, large))
    for name in ("mpjpe_mm", "pa_mpjpe_mm"):
        assert big[name]["value"] == pytest.approx(2 * small[name]["value"])
    assert big["geodesic_deg"] == small["geodesic_deg"]

    monkeypatch.setitem(sys.modules, "smplx", None)
    given = {"name": "pose", "kind": "head", "head": POSES, "data": [{"path": "a.json"}], "learning_rate": 1e-3, "steps": 1}
    stage = HeadStage.model_validate(given | {"evaluation": {"data": [{"path": "b.json"}], "body": str(tmp_path / "SMPL_NEUTRAL.pkl")}})
    with pytest.raises(InputError, match="needs the package smplx"):
        head_values.check([posed(PLAIN, 0)], stage)


def test_poses_of_another_number_of_joints_are_compared_by_angles() -> None:
    """Places are known of 24 joints alone."""
    spec = spec_of(POSES, codec={"kind": "rot6d", "joints": 2})
    pose = np.tile(np.eye(3), (2, 1, 1))
    rows = [row("a", 0.0, None, kind="pose", target_values=pose.ravel().tolist(), value={"rotations": pose.tolist()})]
    found = head_values.scores(rows, spec, {"a": "a"}, pose)["quality"]
    assert found["geodesic_deg"]["value"] == 0.0
    assert set(found) == {"n", "missing", "geodesic_deg"}


def test_a_constant_has_no_correlation() -> None:
    made, right = np.full(5, 3.0), np.arange(5.0)
    assert [metric(made, right) for metric in (correlation.srcc, correlation.plcc, correlation.krcc)] == [0.0] * 3
    assert np.isfinite(list(head_values.interval(correlation.srcc, made, right, ["a"] * 5).values())).all()
    assert correlation.srcc(right**3, right) == pytest.approx(stats.spearmanr(right**3, right).statistic) == 1.0
