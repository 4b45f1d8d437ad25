from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from clip_files import write_image
from omnistage.data.checks import rows
from omnistage.data.errors import MediaError, RecordError
from omnistage.data.formats import read
from omnistage.data.formats.chatpose import AUTOMATIC, HUMAN, INDEX
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record
from omnistage.data.rotations import Floats, axis_angle_to_matrices

WALK = "BioMotionLab_NTroje/rub001/walk_poses.npz"


def matrices(record: Record) -> Floats:
    return np.array(record.values).reshape(24, 3, 3)


def turn(axis: int, degrees: float) -> Floats:
    vector = np.zeros(3)
    vector[axis] = math.radians(degrees)
    return axis_angle_to_matrices(vector)


def save(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def poses() -> Floats:
    """Two frames of SMPL-H: the second stands upright in AMASS (z up), has turned by 70 degrees, and leans."""
    poses = np.random.default_rng(0).normal(0, 0.5, (2, 156))
    # Rx(90) stands a y-up body up in a z-up world; the turn about z is by 70 degrees on top of it.
    half = math.radians(70) / 2
    w, x, y, z = (
        np.cos(half) * np.cos(np.pi / 4),
        np.cos(half) * np.sin(np.pi / 4),
        np.sin(half) * np.sin(np.pi / 4),
        np.sin(half) * np.cos(np.pi / 4),
    )
    angle = 2 * np.arccos(w)
    poses[1, :3] = np.array([x, y, z]) / np.sin(angle / 2) * angle
    return poses


@pytest.fixture
def posescript(tmp_path: Path, poses: Floats) -> Path:
    """posescript_release beside AMASS, as the two are laid out for ChatPose."""
    folder = tmp_path / "posescript_release"
    folder.mkdir()
    save(folder, INDEX, {"5": ["AMASS", WALK, 0], "17": ["AMASS", WALK, 1], "3": ["AMASS", "SSM/a_poses.npz", 0]})
    save(folder, HUMAN, {"17": " He walks. "})
    for name in AUTOMATIC:
        save(folder, name, {key: f"{key} by {name[10]}" for key in ("5", "17", "3")})
    save(folder, "train_ids.json", [17, "3"])
    for sequence in ("BMLrub/rub001/walk_poses.npz", "SSM/a_poses.npz"):
        (tmp_path / "AMASS" / sequence).parent.mkdir(parents=True)
        np.savez(tmp_path / "AMASS" / sequence, poses=poses, betas=np.zeros(16), gender="female")
    return folder


def load(path: Path, **arguments: Any) -> list[Record]:
    return list(read("chatpose", path, **arguments))


def pose(posescript: Path) -> list[Record]:
    return load(posescript, media_root=posescript.parent)


def test_a_pose_and_its_human_caption_become_a_record(posescript: Path, poses: Floats) -> None:
    record = pose(posescript)[1]
    expected = axis_angle_to_matrices(poses[1].reshape(52, 3)[:24])
    # Upright and without its yaw, the body faces the camera as SMPL's rest pose does, turned by Rx(+90) twice.
    expected[0] = turn(0, 90) @ turn(0, 90)
    assert_allclose(matrices(record), expected, atol=1e-12)
    assert record == Record(
        id="17",
        modality=Modality.TEXT,
        task="text_to_pose",
        kind=AnswerKind.POSE,
        question="He walks. Give the SMPL pose.",
        target="He walks.",
        values=record.values,
        source=f"{INDEX}: record 1",
        extra={"caption": "human6293", "dataset": "AMASS", "sequence": WALK, "frame": 1, "joints": 22},
    )


def test_yaw_goes_and_pitch_and_roll_stay(posescript: Path, poses: Floats, tmp_path: Path) -> None:
    root = axis_angle_to_matrices(poses[0, :3])
    for degrees in (0, 33, 180, -120):
        turned = turn(2, degrees) @ root
        angle = math.acos((np.trace(turned) - 1) / 2)
        skew = turned - turned.T
        axis = np.array([skew[2, 1], skew[0, 2], skew[1, 0]]) / (2 * math.sin(angle))
        poses[0, :3] = axis * angle
        np.savez(tmp_path / "AMASS/BMLrub/rub001/walk_poses.npz", poses=poses)
        upright = matrices(pose(posescript)[0])[0]
        left = turn(0, -90) @ upright
        assert abs(left[1, 0]) < 1e-12, "a turn about z is left"
        assert_allclose(left[2], root[2], atol=1e-9)


def test_automatic_captions_are_spread_and_always_the_same(posescript: Path) -> None:
    index = {str(key): ["AMASS", WALK, 0] for key in range(60)}
    save(posescript, INDEX, index)
    for name in AUTOMATIC:
        save(posescript, name, {key: f"{key} by {name[10]}" for key in index})
    first, second = pose(posescript), pose(posescript)
    assert first == second
    assert {record.extra["caption"] for record in first} == {"human6293", *(name[:-5] for name in AUTOMATIC)}
    assert all(record.target == f"{record.id} by {record.extra['caption'][-1]}" for record in first if record.id != "17")


def test_a_split_holds_its_own_poses(posescript: Path) -> None:
    records = load(posescript / "train_ids.json", media_root=posescript.parent / "AMASS")
    assert [(record.id, record.source) for record in records] == [("17", "train_ids.json: record 0"), ("3", "train_ids.json: record 1")]


def test_poses_without_a_caption_are_left_out(posescript: Path) -> None:
    for name in AUTOMATIC:
        (posescript / name).unlink()
    assert [record.id for record in pose(posescript)] == ["17"]


def test_poses_are_read_one_at_a_time(posescript: Path) -> None:
    (posescript.parent / "AMASS" / "SSM" / "a_poses.npz").unlink()
    assert [record.id for record in read("chatpose", posescript, media_root=posescript.parent, limit=2)] == ["5", "17"]


def test_behind_a_bad_pose_the_others_are_read(posescript: Path) -> None:
    """The first of four has no sequence, and the id of the third is no id."""
    save(posescript, INDEX, {key: ["AMASS", "gone.npz" if key == "5" else WALK, 0] for key in ("5", "17", "3")})
    found = rows.read("chatpose", str(save(posescript, "val_ids.json", ["5", "17", None, "3"])), media_root=str(posescript.parent))
    assert [record.id for record in found.records] == ["17", "3"]
    places = [(str(row.place), row.code) for row in found.refused]
    assert places == [("val_ids.json: record 0", "missing"), ("val_ids.json: record 2", "unreadable_row")]
    assert found.whole


NOT_POSES = {
    "a pickle": {"poses": np.array([{"a": 1}], dtype=object)},
    "SMPL": {"poses": np.zeros((2, 72))},
    "a flat list": {"poses": np.zeros(156)},
    "text": {"poses": np.full((2, 156), "a")},
    "no poses": {"trans": np.zeros((2, 3))},
    "not finite": {"poses": np.full((2, 156), np.nan)},
}


@pytest.mark.parametrize("what", NOT_POSES)
def test_sequences_that_hold_no_poses(posescript: Path, what: str) -> None:
    np.savez(posescript.parent / "AMASS" / "SSM" / "a_poses.npz", allow_pickle=True, **NOT_POSES[what])
    with pytest.raises(MediaError, match=rf"^{INDEX}: record 2: sequence: 'a_poses\.npz' .*; allowed: ") as caught:
        pose(posescript)
    assert "\n" not in str(caught.value)


def test_a_sequence_that_is_no_npz(posescript: Path) -> None:
    (posescript.parent / "AMASS" / "SSM" / "a_poses.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(MediaError, match=rf"^{INDEX}: record 2: sequence: 'a_poses\.npz' cannot be read .*allowed: an npz file with poses"):
        pose(posescript)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (INDEX, "{", rf"^{INDEX}: Expecting property name.*; allowed: JSON in UTF-8$"),
        (INDEX, [1], rf"^{INDEX}: it is a list; allowed: one JSON object from ids to entries$"),
        (
            INDEX,
            {"5": WALK},
            rf"^{INDEX}: record 0: entry of '5': got the string .*; allowed: \[\"AMASS\", \"<path of an npz file>\", <frame>\]$",
        ),
        (INDEX, {"5": ["AMASS", WALK]}, rf"^{INDEX}: record 0: entry of '5': got a list; allowed: "),
        (INDEX, {"5": ["AMASS", WALK, "0"]}, rf"^{INDEX}: record 0: frame: got the string \"0\"; allowed: a whole number"),
        (INDEX, {"5": ["AMASS", WALK, 1.5]}, rf"^{INDEX}: record 0: frame: got the number 1\.5; allowed: a whole number"),
        (INDEX, '{"5": ["AMASS", "a", NaN]}', rf"^{INDEX}: record 0: frame: got the number NaN; allowed: a whole number"),
        (INDEX, {"5": ["AMASS", WALK, 2]}, rf"^{INDEX}: record 0: frame: got 2, and 'walk_poses\.npz' has 2 frames; allowed: 0 to 1$"),
        (INDEX, {"99": ["AMASS", WALK, 0]}, rf"^{INDEX}: none of its poses has a caption; allowed: ids that human6293\.json, automatic_A"),
        (
            INDEX,
            {"5": ["AMASS", "gone/x.npz", 0]},
            rf"^{INDEX}: record 0: sequence: 'gone/x\.npz' is not there; allowed: one of gone/x\.npz, AMASS/",
        ),
        (INDEX, {"5": ["AMASS", "../x.npz", 0]}, rf"^{INDEX}: record 0: sequence: '\.\./x\.npz' leaves the media root"),
        (HUMAN, [], r"^human6293\.json: it is a list; allowed: one JSON object"),
        (
            HUMAN,
            {"17": ["He walks."]},
            rf"^{INDEX}: record 1: human6293\.json: caption of '17': got a list; allowed: a string that is not empty$",
        ),
        (INDEX, "[" * 100_000, rf"^{INDEX}: lists and objects stand in each other more than 100 deep"),
        ("automatic_C.json", "\x00", r"^automatic_C\.json: Expecting value.*; allowed: JSON in UTF-8$"),
    ],
)
def test_malformed_files_of_posescript(posescript: Path, name: str, content: Any, message: str) -> None:
    save(posescript, name, content)
    with pytest.raises((RecordError, MediaError), match=message) as caught:
        pose(posescript)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, r"^train_ids\.json: it is an object; allowed: one JSON list of ids$"),
        ([17, None], r"^train_ids\.json: record 1: id: got null; allowed: a string or a whole number$"),
        ([17, 18], rf"^train_ids\.json: record 1: id: '18' is not in {INDEX}; allowed: an id of it$"),
        ([17, "17"], r"^train_ids\.json: record 1: id: '17' is the id of record 0 too; allowed: an id of its own$"),
    ],
)
def test_malformed_splits(posescript: Path, content: Any, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        load(save(posescript, "train_ids.json", content), media_root=posescript.parent)


def test_a_folder_that_is_not_posescript(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"it holds no captions; allowed: a folder with human6293\.json or automatic_A\.json"):
        load(tmp_path)
    save(tmp_path, HUMAN, {"1": "a"})
    with pytest.raises(RecordError, match=f"it holds no {INDEX}; allowed: the folder posescript_release of PoseScript"):
        load(tmp_path)


def image_row(**fields: Any) -> dict[str, Any]:
    smpl = {"global_orient": [math.pi, 0, 0], "body_pose": [0.0] * 66 + [0, 0, math.pi / 2], "betas": [0.0] * 10}
    whole = {"image": "images/a.png", "smpl_params": smpl} | fields
    return {name: value for name, value in whole.items() if value is not ...}


def refined(**fields: Any) -> dict[str, Any]:
    """A row of RPE-Refined: a root that is turned by 90 degrees about x, and no other joint."""
    truth = {
        "smpl_param": {"shape": [0.0] * 10, "pose": [math.pi / 2, *[0.0] * 71], "trans": [0, 0, 3], "gender": "male"},
        "bbox": [0, 0, 1, 1],
    }
    turns = [{"from": "human", "value": "<image>\nWhere is the man in red?"}, {"from": "gpt", "value": "Sure, it is <POSE>."}]
    return {
        "id": "000003",
        "image": "image_00001.jpg",
        "real_image": "images/a.png",
        "conversations": turns,
        "ground_truth": truth,
    } | fields


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "a.png")
    return tmp_path


def test_an_image_and_its_pose_become_a_record(images: Path) -> None:
    (record,) = load(save(images, "train.json", [image_row(dataset="h36m")]))
    expected = np.stack([np.diag([1.0, -1, -1]), *[np.eye(3)] * 22, turn(2, 90)])
    assert_allclose(matrices(record), expected, atol=1e-12)
    assert record == Record(
        id="train-0",
        modality=Modality.IMAGE,
        task="image_to_pose",
        kind=AnswerKind.POSE,
        question="Can you predict the SMPL pose of the person in this image?",
        target="the pose of the person in the image",
        media=(MediaRef("image", str((images / "images" / "a.png").resolve())),),
        values=record.values,
        source="train.json: record 0",
        extra={"dataset": "h36m"},
    )


def test_a_row_of_rpe_refined(images: Path) -> None:
    (record,) = load(save(images, "refine_vqa_shape_withGT.json", [refined()]), modality=Modality.IMAGE)
    assert_allclose(matrices(record), np.stack([turn(0, 90), *[np.eye(3)] * 23]), atol=1e-12)
    assert (record.id, record.question, record.extra) == ("000003", "Where is the man in red?", {"image": "image_00001.jpg"})
    assert record.media[0].path == str((images / "images" / "a.png").resolve())


def test_lines_captions_and_questions_of_ones_own(images: Path) -> None:
    row = image_row(caption="sitting", question="How does he sit?", id=4)
    row["smpl_params"]["body_pose"] = np.zeros((23, 3)).tolist()
    (record,) = load(save(images, "train.jsonl", json.dumps(row) + "\n"))
    assert (record.id, record.question, record.target) == ("4", "How does he sit?", "sitting")
    assert record.source == "train.jsonl: line 1"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "it is the number 3; allowed: an object with image and smpl_params or ground_truth"),
        (image_row(image=...), "image: missing; allowed: the path of "),
        (image_row(image=["a.png"]), "image: got a list; allowed: the path of "),
        (image_row(smpl_params=...), "smpl_params: missing; allowed: one object with global_orient and body_pose, or ground_truth"),
        (image_row(smpl_params=[0] * 72), "smpl_params: got a list; allowed: one object"),
        (image_row(smpl_params={"global_orient": [0, 0, 0]}), "smpl_params.body_pose: missing; allowed: a list of 69 finite numbers"),
        (
            image_row(smpl_params={"global_orient": [0, 0], "body_pose": [0] * 69}),
            "smpl_params.global_orient: got 2 numbers; allowed: a list of 3",
        ),
        (
            image_row(smpl_params={"global_orient": 0, "body_pose": [0] * 69}),
            "smpl_params.global_orient: got the number 0; allowed: a list of 3",
        ),
        (
            image_row(smpl_params={"global_orient": [0, 0, "0"], "body_pose": []}),
            'smpl_params.global_orient: number 2 is the string "0"; allowed',
        ),
        (
            image_row(smpl_params={"global_orient": [0, 0, True], "body_pose": []}),
            "smpl_params.global_orient: number 2 is the truth value true",
        ),
        (refined(ground_truth={"pose": [0] * 72}), "ground_truth.smpl_param: missing; allowed: one object"),
        (refined(ground_truth={"smpl_param": {"pose": [0] * 69}}), "ground_truth.smpl_param.pose: got 69 numbers; allowed: a list of 72"),
        (refined(conversations=[]), "conversations: got a list; allowed: a list whose first entry is an object with a value"),
        (refined(conversations=[{"from": "human"}]), "conversations[0].value: missing; allowed: a string"),
        (image_row(caption=" "), 'caption: got the string " "; allowed: a string that is not empty'),
        (image_row(question=3), "question: got the number 3; allowed: a string that is not empty"),
        (image_row(id={}), "id: got an object; allowed: a string or a whole number"),
    ],
)
def test_malformed_rows_name_file_record_field_and_what_is_allowed(images: Path, entry: Any, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        load(save(images, "train.json", [image_row(), entry]))
    assert str(caught.value).startswith(f"train.json: record 1: {message}")
    assert "\n" not in str(caught.value)


def test_images_must_lie_under_the_root(images: Path) -> None:
    for named, problem in (("gone.png", "is no file under"), ("../a.png", "leaves the media root")):
        with pytest.raises(MediaError, match=rf"^train\.json: record 0: image: '{named}' {problem}"):
            load(save(images, "train.json", [image_row(image=named)]))


@pytest.mark.parametrize("modality", [Modality.TEXT, Modality.VIDEO])
def test_a_modality_that_images_do_not_have(images: Path, modality: Modality) -> None:
    with pytest.raises(RecordError, match=rf"^train\.json: modality '{modality}' is asked for; allowed: image$"):
        load(save(images, "train.json", [image_row()]), modality=modality)


def test_a_modality_that_text_does_not_have(posescript: Path) -> None:
    with pytest.raises(RecordError, match=r"modality 'image' is asked for; allowed: text$"):
        load(posescript, modality=Modality.IMAGE)


def pair(**fields: Any) -> dict[str, Any]:
    whole = {"text": "a goalkeeper who waits for the penalty", "pose": [math.pi / 2, *[0.0] * 71]} | fields
    return {name: value for name, value in whole.items() if value is not ...}


def test_a_description_with_its_pose_becomes_a_record(tmp_path: Path) -> None:
    (record,) = load(save(tmp_path, "spg_test.json", [pair(level=2)]))
    assert_allclose(matrices(record), np.stack([turn(0, 90), *[np.eye(3)] * 23]), atol=1e-12)
    assert record == Record(
        id="spg_test-0",
        modality=Modality.TEXT,
        task="text_to_pose",
        kind=AnswerKind.POSE,
        question="a goalkeeper who waits for the penalty, can you give the SMPL pose of this person?",
        target="a goalkeeper who waits for the penalty",
        values=record.values,
        source="spg_test.json: record 0",
        extra={"level": 2, "joints": 22},
    )


def test_of_smplh_the_first_24_joints_are_kept_and_a_row_may_say_more_of_itself(tmp_path: Path) -> None:
    """156 numbers in lists of three; the 24th joint is turned by 90 degrees about z, and so is the 25th, which is left out."""
    pose = [[0.0, 0.0, math.pi / 2 if joint in (23, 24) else 0.0] for joint in range(52)]
    row = pair(pose=pose, question="How does he stand?", id=4, joints=24)
    (record,) = load(save(tmp_path, "spg.jsonl", json.dumps(row) + "\n"), modality=Modality.TEXT)
    assert_allclose(matrices(record), np.stack([*[np.eye(3)] * 23, turn(2, 90)]), atol=1e-12)
    assert (record.id, record.question, record.extra, record.source) == ("4", "How does he stand?", {"joints": 24}, "spg.jsonl: line 1")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (pair(text=" "), 'text: got the string " "; allowed: a string that is not empty'),
        (pair(text=...), "text: missing; allowed: a string that is not empty"),
        (pair(pose=...), "pose: missing; allowed: a list of 72 or 156 finite numbers (axis-angle in radians)"),
        (pair(pose=[0.0] * 66), "pose: got 66 numbers; allowed: a list of 72 or 156"),
        (pair(joints=23), "joints: got the number 23; allowed: 22 or 24"),
        (pair(joints="22"), 'joints: got the string "22"; allowed: 22 or 24'),
        ("a walk", 'it is the string "a walk"; allowed: an object with text and pose'),
    ],
)
def test_malformed_pairs(tmp_path: Path, entry: Any, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        load(save(tmp_path, "spg.json", [pair(), entry]))
    assert str(caught.value).startswith(f"spg.json: record 1: {message}")


def test_a_modality_that_pairs_do_not_have(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"^spg\.json: modality 'image' is asked for; allowed: text$"):
        load(save(tmp_path, "spg.json", [pair()]), modality=Modality.IMAGE)
