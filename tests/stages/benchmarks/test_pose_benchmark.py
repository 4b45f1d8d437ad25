from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from figures_of import figures_of, scored
from omnistage.data.errors import InputError
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record
from omnistage.data.rotations import Floats, axis_angle_to_matrices, matrices_to_six
from omnistage.stages.benchmarks.answered_pose import REST_J33
from omnistage.stages.benchmarks.base import Scored
from omnistage.stages.benchmarks.items import Prediction
from omnistage.stages.benchmarks.pose import BENCHMARK, figures, score, upstream, with_embedding
from omnistage.stages.benchmarks.pose_retrieval import retrieved

ELBOW, FINGER = 18, 23
FOREARM_M, HAND_M = 0.2482, 0.0918
# What a left forearm that is turned from the side to above moves: wrist and hand, each by the root of 2 times its distance to the elbow.
MPJPE_MM = 1000 * math.sqrt(2) * (FOREARM_M + FOREARM_M + HAND_M) / 24


def turned(joint: int, degrees: float = 90.0, axis: int = 2) -> Floats:
    """The rest pose with one joint turned."""
    angles = np.zeros((24, 3))
    angles[joint, axis] = math.radians(degrees)
    return axis_angle_to_matrices(angles)


def described(name: str, pose: Floats, **extra: Any) -> Record:
    values = tuple(pose.reshape(-1).tolist())
    return Record(name, Modality.TEXT, "text_to_pose", AnswerKind.POSE, f"{name} Give the pose.", name, values=values, extra=extra)


def pictured(name: str, path: str, pose: Floats) -> Record:
    media, values = (MediaRef("image", path),), tuple(pose.reshape(-1).tolist())
    return Record(name, Modality.IMAGE, "image_to_pose", AnswerKind.POSE, "The pose?", "the pose", media, values=values)


def by_head(record: Record, *poses: Floats, raw: str | None = None) -> Prediction:
    values = [{"rotations": pose.tolist()} for pose in poses]
    return Prediction(record.id, "greedy", raw, "ok", head={"name": "pose", "values": values})


def by_text(record: Record, text: str) -> Prediction:
    return Prediction(record.id, "greedy", text, "ok")


def written(numbers: Floats) -> str:
    return " ".join(f"{number:.6f}" for number in numbers.reshape(-1))


def test_errors_by_hand() -> None:
    """An elbow turned by 90 degrees and answered as the rest pose. The wrist is off by sqrt(2)·0.2482 m and the hand by sqrt(2)·0.34 m, all
    other joints by 0; the angle is 90/24 = 3.75 degrees; of 216 elements four are off by 1, so 100·4/216."""
    record = described("up", turned(ELBOW))
    found = score(record, by_head(record, REST_J33), False)
    assert MPJPE_MM == pytest.approx(34.66002, abs=1e-5)
    assert found.numbers["mpjpe_mm"] == pytest.approx(MPJPE_MM, abs=1e-9)
    assert found.numbers["geodesic_deg"] == pytest.approx(3.75, abs=1e-9)
    assert found.numbers["mpjre_l1x100"] == pytest.approx(100 * 4 / 216, abs=1e-9)
    assert found.value == found.numbers["pa_mpjpe_mm"] == found.numbers["rest_pose/pa_mpjpe_mm"]
    assert found.value > 0
    assert (found.valid, found.answer, found.reason) == (True, "head 'pose'", "head 'pose'")


def test_a_body_that_is_turned_as_a_whole_has_no_error_after_procrustes() -> None:
    """A root turned by 180 degrees about y: PA-MPJPE 0, the angle 180/24, MPJPE as far as the arms reach."""
    record = described("back", REST_J33)
    found = score(record, by_head(record, turned(0, 180, axis=1)), False)
    assert found.value == pytest.approx(0, abs=1e-6)
    assert found.numbers["geodesic_deg"] == pytest.approx(7.5, abs=1e-6)
    assert found.numbers["mpjpe_mm"] > 300
    assert found.numbers["rest_pose/mpjpe_mm"] == 0


def test_fingers_of_posescript_are_left_out() -> None:
    """A turned 24th joint is no error of the first 22; a turned elbow is one of the wrist's alone: sqrt(2)·0.2482 m of 22 joints."""
    finger, elbow = described("finger", turned(FINGER), joints=22), described("elbow", turned(ELBOW), joints=22)
    none = score(finger, by_head(finger, REST_J33), False).numbers
    assert none == pytest.approx(dict.fromkeys(none, 0.0), abs=1e-9)
    whole = described("finger", turned(FINGER))
    assert score(whole, by_head(whole, REST_J33), False).numbers["geodesic_deg"] == pytest.approx(3.75, abs=1e-9)
    found = score(elbow, by_head(elbow, REST_J33), False).numbers
    assert found["mpjpe_mm"] == pytest.approx(1000 * math.sqrt(2) * FOREARM_M / 22, abs=1e-9)
    assert found["geodesic_deg"] == pytest.approx(90 / 22, abs=1e-9)
    assert found["mpjre_l1x100"] == pytest.approx(100 * 4 / (22 * 9), abs=1e-9)


def test_a_head_of_22_joints_answers_a_record_of_22() -> None:
    record, whole = described("a", turned(ELBOW), joints=22), described("b", turned(ELBOW))
    assert score(record, by_head(record, turned(ELBOW)[:22]), False).value == pytest.approx(0, abs=1e-6)
    with pytest.raises(InputError, match=r"^b: head 'pose': its rotations have the shape \[22, 3, 3\]; allowed: \[24 or more, 3, 3\]$"):
        score(whole, by_head(whole, turned(ELBOW)[:22]), False)


@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize("numbers", [144, 216])
def test_a_pose_in_numbers_as_matrices(numbers: int, tagged: bool) -> None:
    record, pose = described("up", turned(ELBOW)), turned(ELBOW)
    text = written(pose if numbers == 216 else matrices_to_six(pose, "columns"))
    found = score(record, by_text(record, f"<answer>{text}</answer>" if tagged else text), tagged)
    assert (found.valid, found.reason) == (True, "numbers")
    assert found.value == pytest.approx(0, abs=1e-3)
    assert found.numbers["geodesic_deg"] == pytest.approx(0, abs=1e-3)


def test_a_pose_in_numbers_as_axis_angle() -> None:
    record = described("up", turned(ELBOW))
    angles = np.zeros((24, 3))
    angles[ELBOW, 2] = math.pi / 2
    assert score(record, by_text(record, written(angles)), False).numbers["mpjpe_mm"] == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize(
    ("prediction", "reason"),
    [
        (Prediction("up", "greedy", None, "error", error="status 500"), "status 500"),
        (Prediction("up", "greedy", "", "empty"), "not answered"),
        (Prediction("up", "greedy", "Sure, it is <POSE>.", "ok"), "unreadable"),
        (Prediction("up", "greedy", "0 " * 71, "truncated"), "unreadable"),
        (Prediction("up", "greedy", "0 " * 72, "ok", head={"name": "pose", "values": []}), "the head was not read"),
    ],
)
def test_a_missing_pose_is_the_rest_pose_and_not_valid(prediction: Prediction, reason: str) -> None:
    found = score(described("up", turned(ELBOW)), prediction, False)
    assert (found.valid, found.answer, found.reason) == (False, None, f"{reason}; the rest pose stands in")
    assert found.numbers["mpjpe_mm"] == found.numbers["rest_pose/mpjpe_mm"] == pytest.approx(MPJPE_MM, abs=1e-9)


def test_a_question_may_ask_for_numbers() -> None:
    asked = BENCHMARK.options["numbers"](described("up", REST_J33))
    assert asked.question.startswith("up Give the pose. Answer with 72 numbers and nothing else: ")


def test_where_tags_are_asked_for_numbers_outside_them_are_none() -> None:
    record = described("up", turned(ELBOW))
    assert not score(record, by_text(record, "0 " * 72), True).valid


def test_of_several_poses_the_first_counts() -> None:
    record = described("up", turned(ELBOW))
    assert score(record, by_head(record, turned(ELBOW), REST_J33, raw="<POSE> <POSE>"), False).value == pytest.approx(0, abs=1e-6)
    assert score(record, by_head(record, turned(ELBOW), raw=" <POSE> "), False).answer == "<POSE>"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"values": {"score": 1.0}}, "puts out values; allowed: rotations"),
        ({"rotations": [[1, 0], [0]]}, "its rotations are no numbers in rows of one length"),
        ({"rotations": np.zeros((24, 3, 3)).tolist()}, "its matrices are no rotations"),
        ({"rotations": (REST_J33 * [1, 1, -1]).tolist()}, "its matrices are no rotations; allowed: orthonormal ones that are no mirrors"),
        ({"rotations": np.full((24, 3, 3), np.nan).tolist()}, "its matrices are no rotations"),
    ],
)
def test_a_head_that_puts_out_no_pose_is_refused(value: dict[str, Any], message: str) -> None:
    record = described("up", turned(ELBOW))
    with pytest.raises(InputError) as caught:
        score(record, Prediction("up", "greedy", None, "ok", head={"name": "pose", "values": [value]}), False)
    assert str(caught.value).startswith("up: head 'pose'")
    assert message in str(caught.value)


def test_records_without_a_pose_are_refused() -> None:
    short = Record("short", Modality.TEXT, "text_to_pose", AnswerKind.POSE, "?", "a", values=(1.0,))
    with pytest.raises(InputError, match=r"^short: is of kind pose with 1 values; allowed: a pose with 216, 24 rotation matrices"):
        score(short, by_text(short, ""), False)
    flat = described("flat", np.zeros((24, 3, 3)))
    with pytest.raises(InputError, match=r"^flat: its values are no 24 rotation matrices"):
        score(flat, by_text(flat, ""), False)
    odd = described("odd", REST_J33, joints=25)
    with pytest.raises(InputError, match=r"^odd: extra\.joints is 25; allowed: 1 to 24$"):
        score(odd, by_text(odd, ""), False)


def test_figures_of_one_task_are_means_beside_the_rest_pose() -> None:
    """Errors 0 (right) and MPJPE_MM (missing): half of it in the mean, and the whole for the rest pose. PA-MPJPE comes first."""
    records = [described("a", turned(ELBOW)), described("b", turned(ELBOW))]
    items = scored(BENCHMARK, records, [by_head(records[0], turned(ELBOW)), None])
    found = figures_of(BENCHMARK, items)
    assert list(found)[:4] == ["pa_mpjpe_mm", "rest_pose/pa_mpjpe_mm", "mpjpe_mm", "rest_pose/mpjpe_mm"]
    assert len(found) == 8
    assert found["mpjpe_mm"] == pytest.approx(MPJPE_MM / 2, abs=1e-6)
    assert found["rest_pose/mpjpe_mm"] == pytest.approx(MPJPE_MM, abs=1e-9)
    assert found["geodesic_deg"] == pytest.approx(3.75 / 2, abs=1e-6)
    assert {(figure.higher_is_better, figure.unit) for figure in figures(records)[:2]} == {(False, "mm")}
    assert figures(records)[-1].unit == "x100, unofficial"


def test_the_baseline_is_the_rest_pose() -> None:
    records = [described("a", turned(ELBOW)), described("b", turned(ELBOW))]
    assert BENCHMARK.baseline is not None
    made = BENCHMARK.baseline[1](records)
    found = figures_of(BENCHMARK, [Scored(record, None, one) for record, one in zip(records, made, strict=True)])
    assert found["mpjpe_mm"] == found["rest_pose/mpjpe_mm"] == pytest.approx(MPJPE_MM, abs=1e-9)
    assert all(one.valid for one in made)


def test_two_tasks_weigh_the_same_and_stand_alone_too() -> None:
    """Descriptions 0 and MPJPE_MM, one image MPJPE_MM: the mean of 1/2 and 1 of it, not 2/3."""
    records = [described("a", turned(ELBOW)), described("b", turned(ELBOW)), pictured("c", "c.png", turned(ELBOW))]
    found = figures_of(BENCHMARK, scored(BENCHMARK, records, [by_head(records[0], turned(ELBOW)), None, None]))
    assert found["mpjpe_mm"] == pytest.approx(0.75 * MPJPE_MM, abs=1e-6)
    assert found["text_to_pose/mpjpe_mm"] == pytest.approx(0.5 * MPJPE_MM, abs=1e-6)
    assert found["image_to_pose/mpjpe_mm"] == pytest.approx(MPJPE_MM, abs=1e-9)
    assert len(found) == 24


def test_upstream_joins_by_the_images_name_and_skips_what_is_missing() -> None:
    """`walk/1.jpg` is right and `run/1.jpg`, whose right pose is the rest pose, too; `run/2.jpg` has no pose. Ours: errors 0, 0 and
    MPJPE_MM, a third of it. Upstream the second pose stands for the first as well, and the third is gone: half of it, over two."""
    up = turned(ELBOW)
    records = [pictured("a", "walk/1.jpg", up), pictured("b", "run/1.jpg", REST_J33), pictured("c", "run/2.jpg", up)]
    items = scored(BENCHMARK, records, [by_head(records[0], up), by_head(records[1], REST_J33), None])
    assert figures_of(BENCHMARK, items)["mpjpe_mm"] == pytest.approx(MPJPE_MM / 3, abs=1e-6)
    found = upstream(items)
    assert found["mpjpe_mm"] == pytest.approx(MPJPE_MM / 2, abs=1e-6)
    assert found["pa_mpjpe_mm"] == pytest.approx(items[2].score.numbers["pa_mpjpe_mm"] / 2, abs=1e-6)
    assert (found["n"], found["overwritten"], found["skipped"]) == (2, 1, 1)


def test_upstream_says_nothing_of_descriptions() -> None:
    record = described("a", turned(ELBOW))
    expected = {"n": 0, "overwritten": 0, "skipped": 0, "mpjpe_mm": None, "pa_mpjpe_mm": None}
    assert upstream(scored(BENCHMARK, [record], [by_head(record, REST_J33)])) == expected


EMBEDDING = """
import numpy as np

def names(texts, rotations):
    '''Text 'n' is the n-th axis; a pose is the axis of its root's turn in tens of degrees.'''
    turns = np.degrees(np.arctan2(rotations[:, 0, 1, 0], rotations[:, 0, 0, 0]))
    return np.eye(12)[[int(text) for text in texts]], np.eye(12)[np.round(turns / 10).astype(int)]

def fails(texts, rotations):
    raise KeyError("no such word")

def one(texts, rotations):
    return np.zeros((len(texts), 3))

def short(texts, rotations):
    return np.zeros((len(texts), 3)), np.zeros((1, 3))

def endless(texts, rotations):
    return np.full((len(texts), 3), np.inf), np.zeros((len(texts), 3))
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "embedding.py"
    path.write_text(EMBEDDING)
    return str(path)


def test_retrieval_by_an_embedding_of_ones_own(file: str) -> None:
    """Twelve descriptions; ten poses are right, and the last two missing, so they are the rest pose, as item 0's own is.

    Text 0 finds its pose and two that are as near: rank 2. Texts 1 to 9 rank 0. Texts 10 and 11 find all twelve equally far: rank 11, a hit
    at 20 alone. Poses 10 and 11 find text 0 nearer and ten others as near as the right one: rank 11. So 10/12, 10/12 and 1, both ways."""
    benchmark = with_embedding(f"{file}:names")
    records = [described(str(at), turned(0, 10 * at)) for at in range(12)]
    answers = [by_head(record, turned(0, 10 * at)) if at < 10 else None for at, record in enumerate(records)]
    items = scored(benchmark, records, answers)
    assert benchmark.together is not None
    whole = [item._replace(score=new) for item, new in zip(items, benchmark.together(items), strict=True)]
    found = figures_of(benchmark, whole)
    recall = {f"recall_{way}_at_{k}": share for way in ("p2t", "t2p") for k, share in ((5, 10 / 12), (10, 10 / 12), (20, 1))}
    assert {name: found[name] for name in found if name.startswith("recall")} == pytest.approx(recall, abs=1e-12)
    assert (whole[1].score.value, whole[1].score.numbers["mpjpe_mm"]) == (items[1].score.value, items[1].score.numbers["mpjpe_mm"])
    assert file in benchmark.notes
    assert "absent" not in benchmark.notes


def test_the_two_ways_differ_and_images_take_no_part() -> None:
    """Texts weigh 1 to 7 and all poses 1, but the fourth 2. A text but the fourth finds its pose no nearer than the six others: rank 6; so
    1/7 at 5. Pose j finds 6 - j texts heavier than its own: ranks 6, 5, 4 ... 0, so 5/7 at 5. All are found at 10."""
    records = [described(str(at), REST_J33) for at in range(7)] + [pictured("image", "a.png", REST_J33)]
    items = scored(BENCHMARK, records, [by_head(record, REST_J33) for record in records])
    weights = np.ones((7, 1))
    weights[3] = 2
    found = retrieved(items, lambda texts, rotations: (np.arange(1.0, 8)[:, None], weights))
    shares = {name: np.mean([one.numbers[name] for one in found[:7]]) for name in ("t2p_at_5", "p2t_at_5", "t2p_at_10", "p2t_at_10")}
    assert shares == pytest.approx({"t2p_at_5": 1 / 7, "p2t_at_5": 5 / 7, "t2p_at_10": 1, "p2t_at_10": 1}, abs=1e-12)
    assert found[7] == items[7].score
    assert [figure.groups for figure in figures(records, retrieval=True) if figure.name == "recall_t2p_at_5"] == [(tuple(range(7)),)]


def test_an_embedding_that_says_nothing_hits_by_no_luck() -> None:
    """All as near as each other: the right one is the last of 6, so nothing is hit at 5."""
    records = [described(str(at), REST_J33) for at in range(6)]
    items = scored(BENCHMARK, records, [by_head(record, REST_J33) for record in records])
    found = retrieved(items, lambda texts, rotations: (np.ones((6, 2)), np.ones((6, 2))))
    assert {one.numbers["t2p_at_5"] for one in found} == {0.0}
    assert {one.numbers["p2t_at_10"] for one in found} == {1.0}


def test_without_an_embedding_there_is_no_retrieval_and_a_note_says_so() -> None:
    assert BENCHMARK.together is None
    assert not [figure for figure in figures([described("a", REST_J33)]) if "recall" in figure.name]
    assert "is absent: it takes an embedding" in BENCHMARK.notes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails", "embedding: it fails: KeyError: 'no such word'"),
        ("one", "embedding: its arrays have the shapes"),
        ("short", "embedding: its arrays have the shapes [2, 3] and [1, 3]; allowed: twice [2, D]"),
        ("endless", "embedding: its arrays hold numbers that are not finite; allowed: finite numbers"),
    ],
)
def test_an_embedding_that_gives_something_else(file: str, name: str, message: str) -> None:
    benchmark = with_embedding(f"{file}:{name}")
    records = [described("1", REST_J33), described("2", REST_J33)]
    items = scored(BENCHMARK, records, [by_head(record, REST_J33) for record in records])
    assert benchmark.together is not None
    with pytest.raises(InputError) as caught:
        benchmark.together(items)
    assert str(caught.value).startswith(message)


def test_an_embedding_that_is_not_there(file: str) -> None:
    for name, message in {
        "names": "embedding 'names': allowed: 'path/file.py:function'",
        f"{file}:name": "unknown function 'name'; did you mean 'names'",
        "gone.py:names": "file 'gone.py' does not exist",
        f"{file}:np": "is 'module', not a function",
    }.items():
        with pytest.raises(InputError) as caught:
            with_embedding(name)
        assert message in str(caught.value)
