"""BVH files that the tests write, of bodies whose bones point elsewhere at rest; and a real one where it is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from omnistage.data.body.bvh import CMU, Bvh, read, retarget
from omnistage.data.body.skeleton import joints_m, skeleton
from omnistage.data.errors import InputError
from omnistage.data.rotations import Floats, geodesic_deg

BODY = skeleton()
CMU_FILE = Path("/usr/share/assimp/models/BVH/01_01.bvh")
needs_cmu = pytest.mark.skipif(not CMU_FILE.exists(), reason="needs the Debian package assimp-testmodels")

# Name, parent, place at rest: legs apart, arms hanging forward, a neck and a spine of two joints, and the first joint of a hand.
Joints = Sequence[tuple[str, str | None, tuple[float, float, float]]]
STANDING: Joints = [
    ("hips", None, (0, 90, 0)),
    *[("back", "hips", (0, 12, -3)), ("chest", "back", (1, 20, -2)), ("neck", "chest", (0, 20, 3)), ("nape", "neck", (0, 5, 2))],
    *[("head", "nape", (0, 6, 4))],
    *[
        ("l thigh", "hips", (9, -5, 1)),
        ("l shin", "l thigh", (18, -35, 4)),
        ("l foot", "l shin", (3, -40, -5)),
        ("l toe", "l foot", (2, -4, 12)),
    ],
    *[
        ("r thigh", "hips", (-9, -5, 1)),
        ("r shin", "r thigh", (-6, -39, 9)),
        ("r foot", "r shin", (-9, -38, -7)),
        ("r toe", "r foot", (-1, -5, 12)),
    ],
    *[
        ("l arm", "chest", (16, 14, 1)),
        ("l elbow", "l arm", (14, -24, 5)),
        ("l hand", "l elbow", (4, -20, 14)),
        ("l palm", "l hand", (1, -6, 4)),
    ],
    *[
        ("r arm", "chest", (-16, 14, 1)),
        ("r elbow", "r arm", (-19, -20, 3)),
        ("r hand", "r elbow", (-9, -19, 12)),
        ("r palm", "r hand", (0, -7, 3)),
    ],
]
MAPPING = {
    "Pelvis": "hips",
    "Spine1": "back",
    "Spine3": "chest",
    "Neck": "neck",
    "Head": "head",
    "L_Hip": "l thigh",
    "L_Knee": "l shin",
    "L_Ankle": "l foot",
    "L_Foot": "l toe",
    "R_Hip": "r thigh",
    "R_Knee": "r shin",
    "R_Ankle": "r foot",
    "R_Foot": "r toe",
    "L_Shoulder": "l arm",
    "L_Elbow": "l elbow",
    "L_Wrist": "l hand",
    "L_Hand": "l palm",
    "R_Shoulder": "r arm",
    "R_Elbow": "r elbow",
    "R_Wrist": "r hand",
    "R_Hand": "r palm",
}
LIMBS = [
    *[(f"{side}_{start}", f"{side}_{end}") for side in "LR" for start, end in (("Hip", "Knee"), ("Knee", "Ankle"), ("Ankle", "Foot"))],
    *[
        (f"{side}_{start}", f"{side}_{end}")
        for side in "LR"
        for start, end in (("Shoulder", "Elbow"), ("Elbow", "Wrist"), ("Wrist", "Hand"))
    ],
]
ORDERS = ("ZXY", "XYZ", "YZX", "ZYX", "YXZ", "XZY")
SMALL = """HIERARCHY
ROOT hips
{
  OFFSET 1 2 3
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT leg
  {
    OFFSET 0 -4 0
    CHANNELS 1 Xrotation
    End Site
    {
      OFFSET 0 -5 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.025
1 2 3 90 0 0 45
4 5 6 10 20 30 -90
"""


def write(path: Path, joints: Joints, angles_FJ3: Floats, order: str = "ZXY", turn: Rotation | None = None) -> Path:
    """A BVH file: joint k's three turns in degrees about the axes of `order`; `turn` turns the whole body at rest."""
    turn = turn or Rotation.identity()
    lines = ["HIERARCHY"]
    names = [name for name, _, _ in joints]

    def below(at: int, depth: int) -> None:
        name, parent, offset = joints[at]
        pad = "  " * depth
        turned = " ".join(f"{part:.9f}" for part in turn.apply(offset))
        rotations = " ".join(f"{axis}rotation" for axis in order)
        channels = f"3 {rotations}" if parent else f"6 Xposition {rotations} Zposition Yposition"
        lines.extend([f"{pad}{'JOINT' if parent else 'ROOT'} {name}", f"{pad}{{", f"{pad}  OFFSET {turned}", f"{pad}  CHANNELS {channels}"])
        children = [index for index, (_, above, _) in enumerate(joints) if above == name]
        for child in children:
            below(child, depth + 1)
        if not children:
            lines.extend([f"{pad}  End Site", f"{pad}  {{", f"{pad}    OFFSET 0 1 0", f"{pad}  }}"])
        lines.append(f"{pad}}}")

    below(0, 0)
    # The numbers of a frame stand in the order in which joints are opened.
    opened = [names.index(" ".join(line.split()[1:])) for line in lines if line.split()[0] in ("ROOT", "JOINT")]
    lines += ["MOTION", f"Frames: {len(angles_FJ3)}", "Frame Time: 0.0333"]
    for angles in angles_FJ3:
        row = [7.0, *angles[opened[0]], 9.0, 8.0, *angles[opened[1:]].ravel()]
        lines.append(" ".join(f"{number:.9f}" for number in row))
    path.write_text("\n".join(lines) + "\n")
    return path


def places(joints: Joints, angles_FJ3: Floats, order: str, turn: Rotation | None = None) -> dict[str, Floats]:
    """Each joint's place [F, 3], by scipy: turns about axes that go along are scipy's capital letters."""
    turn = turn or Rotation.identity()
    found: dict[str, tuple[Rotation, Floats]] = {}
    for at, (name, parent, offset) in enumerate(joints):
        own = Rotation.from_euler(order, angles_FJ3[:, at], degrees=True)
        if parent is None:
            found[name] = own, np.zeros((len(angles_FJ3), 3))
        else:
            above, start = found[parent]
            found[name] = above * own, start + above.apply(turn.apply(offset))
    return {name: place for name, (_, place) in found.items()}


def error_deg(ours: Floats, theirs: Mapping[str, Floats], mapping: Mapping[str, str], bones: Sequence[tuple[str, str]]) -> float:
    """The largest angle between bones of the body's joints [F, 24, 3] and the same ones of the file, in degrees."""
    worst = 0.0
    for start, end in bones:
        first = ours[:, BODY.names.index(end)] - ours[:, BODY.names.index(start)]
        second = theirs[mapping[end]] - theirs[mapping[start]]
        sine, cosine = np.linalg.norm(np.cross(first, second), axis=-1), (first * second).sum(-1)
        worst = max(worst, float(np.degrees(np.arctan2(sine, cosine)).max()))
    return worst


def angles(seed: int, frames: int = 4) -> Floats:
    return np.random.default_rng(seed).normal(scale=40, size=(frames, len(STANDING), 3))


def test_what_a_file_holds(tmp_path: Path) -> None:
    (tmp_path / "small.bvh").write_text(SMALL)
    file = read(tmp_path / "small.bvh")
    assert (file.names, file.parents, file.frame_time_s) == (("hips", "leg"), (-1, 0), 0.025)
    assert file.offsets_J3.tolist() == [[1, 2, 3], [0, -4, 0]]
    assert_allclose(file.rotations_FJ33[0, 0], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-15)
    assert_allclose(file.rotations_FJ33[1, 0], Rotation.from_euler("ZXY", [10, 20, 30], degrees=True).as_matrix(), atol=1e-15)
    assert_allclose(file.rotations_FJ33[:, 1], Rotation.from_euler("X", [[45], [-90]], degrees=True).as_matrix(), atol=1e-15)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n", "\r\n"),
        ("\n{", " {"),
        ("JOINT leg", "JOINT left leg"),
        ("1 2 3 90 0 0 45\n4", "1 2 3 90\n0 0 45 4"),
        ("Frame Time: 0.025", "Frame  Time :\t2.5e-2"),
        ("HIERARCHY", "\ufeffHIERARCHY"),
        ("    End Site\n    {\n      OFFSET 0 -5 0\n    }\n", ""),
        ("\n4 5 6", "\n\n 4 5 6"),
    ],
)
def test_ways_of_writing_that_programs_have(tmp_path: Path, old: str, new: str) -> None:
    assert old in SMALL
    for name, text in (("plain", SMALL), ("other", SMALL.replace(old, new))):
        (tmp_path / name).write_text(text, "utf-8", newline="")
    plain, other = read(tmp_path / "plain"), read(tmp_path / "other")
    assert_allclose(other.rotations_FJ33, plain.rotations_FJ33)
    assert (other.parents, other.frame_time_s) == (plain.parents, plain.frame_time_s)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("HIERARCHY", "HEIRARCHY", "line 1: got 'HEIRARCHY'; allowed: HIERARCHY"),
        ("OFFSET 0 -4 0", "OFFSET 0 x 0", "line 8: got 'x'; allowed: a finite number"),
        ("OFFSET 0 -4 0", "OFFSET 0 nan 0", "line 8: got 'nan'; allowed: a finite number"),
        ("    OFFSET 0 -4 0\n", "", "line 13: joint 'leg' has no OFFSET; allowed: an OFFSET for each joint"),
        ("CHANNELS 1 Xrotation", "CHANNELS 1 Wrotation", "line 9: got the channel 'Wrotation'; allowed: Xposition, "),
        ("CHANNELS 1 Xrotation", "CHANNELS 2 Xrotation Xrotation", "line 9: got the channel 'Xrotation'; allowed: Xposition, "),
        ("CHANNELS 1", "CHANNELS 7", "line 9: got '7' as the number of channels; allowed: 0 to 6"),
        ("CHANNELS 1", "CHANNELS one", "line 9: got 'one' as the number of channels; allowed: 0 to 6"),
        ("JOINT leg", "JOINT hips", "line 7: got 'hips' as the name of a joint; allowed: a name that no other joint has"),
        ("JOINT leg", "JOINT", "line 7: got '' as the name of a joint; allowed: a name that no other joint has"),
        ("JOINT leg", "BONE leg", "line 6: got 'BONE'; allowed: OFFSET, CHANNELS, JOINT, End Site or }"),
        ("}\nMOTION", "MOTION", "line 15: got 'MOTION'; allowed: OFFSET, CHANNELS, JOINT, End Site or }"),
        (SMALL[SMALL.index("    End") :], "", "line 9: the hierarchy ends too early; allowed: OFFSET, CHANNELS, JOINT, End Site or }"),
        (SMALL, "", "line 0: the hierarchy ends too early; allowed: HIERARCHY"),
        ("MOTION", "MOVEMENT", "line 16: got 'MOVEMENT'; allowed: MOTION"),
        ("MOTION", "ROOT other { OFFSET 0 0 0 }\nMOTION", "line 16: got 'ROOT other { OFFSET 0 0 0 }'; allowed: MOTION"),
        ("Frames: 2", "Frames: 2.5", "line 17: got '2.5' frames; allowed: a whole number above 0"),
        ("Frames: 2", "Frames: 0", "line 17: got '0' frames; allowed: a whole number above 0"),
        ("Frames: 2", "Frames: 3", "line 18: got 14 numbers after the frame time; allowed: 3 frames x 7 channels = 21"),
        ("Frames: 2\n", "", "line 17: got 'Frame Time: 0.025'; allowed: Frames: and a number"),
        ("0.025", "0", "line 18: got '0' as the frame time; allowed: seconds above 0"),
        ("0.025", "fast", "line 18: got 'fast'; allowed: finite numbers"),
        ("-90\n", "", "line 18: got 13 numbers after the frame time; allowed: 2 frames x 7 channels = 14"),
        ("20 30", "20 thirty", "line 20: got 'thirty'; allowed: finite numbers"),
        ("20 30", "20 inf", "line 20: got 'inf'; allowed: finite numbers"),
    ],
)
def test_a_malformed_file_is_one_line(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in SMALL
    path = tmp_path / "bad.bvh"
    path.write_text(SMALL.replace(old, new, 1))
    with pytest.raises(InputError) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}: {told}")
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.bvh: cannot be read \(No such file or directory\); allowed: a BVH file$"):
        read(tmp_path / "none.bvh")
    (tmp_path / "binary.bvh").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match=r"binary\.bvh: cannot be read \(it is not text\); allowed: a BVH file$"):
        read(tmp_path / "binary.bvh")


@given(st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_read_or_refused_and_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    words = SMALL.split(" ")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(words) - 1))
        words[at] = data.draw(
            st.sampled_from(["", "{", "}", "JOINT", "End", "OFFSET", "CHANNELS 3", "\n", "9e999", "-", "Frames: 1", "\0"])
        )
    path = tmp_path / "damaged.bvh"
    path.write_text(" ".join(words))
    told = str(path)
    try:
        file = read(path)
    except InputError as error:
        told = str(error)
    else:
        assert np.isfinite(file.rotations_FJ33).all()
    assert told.startswith(str(path))


def test_a_file_nested_deeper_than_python_calls(tmp_path: Path) -> None:
    depth = 5000
    opened = "".join(f"{'JOINT' if at else 'ROOT'} j{at} {{ OFFSET 0 1 0 CHANNELS 0\n" for at in range(depth))
    path = tmp_path / "deep.bvh"
    path.write_text(f"HIERARCHY\n{opened}{'}' * depth}\nMOTION\nFrames: 1\nFrame Time: 1\n")
    assert read(path).parents == tuple(range(-1, depth - 1))


@pytest.mark.parametrize("order", ORDERS)
def test_limbs_point_where_they_point_in_the_file(tmp_path: Path, order: str) -> None:
    turns = angles(1)
    pose = retarget(read(write(tmp_path / "a.bvh", STANDING, turns, order)), MAPPING)
    theirs = places(STANDING, turns, order)
    assert pose.shape == (4, 24, 3, 3)
    assert_allclose(pose @ np.swapaxes(pose, -1, -2), np.broadcast_to(np.eye(3), pose.shape), atol=1e-9)
    # The spine and the neck have a joint more in the file or in the body than in the other.
    assert error_deg(joints_m(pose), theirs, MAPPING, [*LIMBS, ("Spine1", "Spine3"), ("Neck", "Head")]) < 1e-3


def test_copied_rotations_would_not(tmp_path: Path) -> None:
    """What the retargeting is for: with the file's local rotations as they are, limbs point 10 degrees and more elsewhere."""
    turns = angles(1)
    file = read(write(tmp_path / "a.bvh", STANDING, turns))
    copied = np.broadcast_to(np.eye(3), (4, 24, 3, 3)).copy()
    for ours, theirs in MAPPING.items():
        copied[:, BODY.names.index(ours)] = file.rotations_FJ33[:, file.names.index(theirs)]
    assert error_deg(joints_m(copied), places(STANDING, turns, "ZXY"), MAPPING, LIMBS) > 10


def test_a_file_whose_body_lies_and_looks_elsewhere_at_rest(tmp_path: Path) -> None:
    """Other rigs have z up or look along x: the same movement, turned as a whole, gives the same pose, turned as a whole."""
    turn = Rotation.from_euler("xyz", [90, 20, 65], degrees=True)
    upright = retarget(read(write(tmp_path / "a.bvh", STANDING, np.zeros((1, len(STANDING), 3)))), MAPPING)
    lying = retarget(read(write(tmp_path / "b.bvh", STANDING, np.zeros((1, len(STANDING), 3)), turn=turn)), MAPPING)
    assert_allclose(lying[0, 0], turn.as_matrix() @ upright[0, 0], atol=1e-7)
    assert_allclose(lying[:, 1:], upright[:, 1:], atol=1e-7)
    turns = angles(2)
    moved = retarget(read(write(tmp_path / "c.bvh", STANDING, turns, turn=turn)), MAPPING)
    assert error_deg(joints_m(moved), places(STANDING, turns, "ZXY", turn), MAPPING, LIMBS) < 1e-3


def test_a_body_that_stands_in_a_t_keeps_the_files_rotations(tmp_path: Path) -> None:
    """Our own rest pose as a BVH file: nothing is to be aligned, and the local rotations come back as they are."""
    parents = [None if parent < 0 else BODY.names[parent] for parent in BODY.parents]
    own: Joints = [(name, above, tuple(offset)) for name, above, offset in zip(BODY.names, parents, BODY.offsets_J3.tolist(), strict=True)]
    turns = np.random.default_rng(3).normal(scale=30, size=(3, 24, 3))
    pose = retarget(read(write(tmp_path / "own.bvh", own, turns)), {name: name for name in BODY.names})
    assert_allclose(pose, Rotation.from_euler("ZXY", turns.reshape(-1, 3), degrees=True).as_matrix().reshape(pose.shape), atol=1e-7)


def test_a_bone_that_points_the_other_way_at_rest(tmp_path: Path) -> None:
    """A file whose shins point up at rest, where ours point down: half a turn, about some axis."""
    up: Joints = [(name, above, (0, 40, 0) if name == "l foot" else offset) for name, above, offset in STANDING]
    straight: Joints = [(name, above, (0, -40, 0) if name == "l shin" else offset) for name, above, offset in up]
    turns = angles(4)
    pose = retarget(read(write(tmp_path / "a.bvh", straight, turns)), MAPPING)
    assert error_deg(joints_m(pose), places(straight, turns, "ZXY"), MAPPING, LIMBS) < 1e-3


def test_joints_without_a_counterpart_stay_as_they_are_at_rest(tmp_path: Path) -> None:
    file = read(write(tmp_path / "a.bvh", STANDING, angles(5)))
    few = {name: MAPPING[name] for name in ("Pelvis", "L_Hip", "R_Hip", "Neck", "L_Elbow")}
    pose = retarget(file, few)
    kept = [joint for joint, name in enumerate(BODY.names) if name not in few]
    assert_allclose(pose[:, kept], np.broadcast_to(np.eye(3), (4, len(kept), 3, 3)), atol=1e-12)
    assert geodesic_deg(pose[:, BODY.names.index("L_Elbow")], np.eye(3)).min() > 5


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        ({**MAPPING, "L_Thumb": "l hand"}, "unknown joint of the body 'L_Thumb'; known: Head, "),
        ({**MAPPING, "Head": "haed"}, "unknown joint of the BVH file 'haed'; did you mean 'head'"),
        (CMU, "unknown joint of the BVH file 'Hips'"),
        ({"Pelvis": "hips"}, "'L_Hip' is missing; Pelvis, L_Hip, R_Hip, Neck say which way the body faces"),
    ],
)
def test_a_mapping_that_does_not_fit(tmp_path: Path, mapping: dict[str, str], told: str) -> None:
    with pytest.raises(InputError, match=f"^mapping of BVH joints: {told}"):
        retarget(read(write(tmp_path / "a.bvh", STANDING, angles(0))), mapping)


def test_a_body_without_width_is_refused(tmp_path: Path) -> None:
    flat: Joints = [(name, above, (0, -5, 1) if "thigh" in name else offset) for name, above, offset in STANDING]
    with pytest.raises(InputError, match=r"^BVH file: at rest its hips or its spine have no length"):
        retarget(read(write(tmp_path / "a.bvh", flat, angles(0))), MAPPING)


@pytest.fixture(scope="module")
def cmu() -> Bvh:
    return read(CMU_FILE)


@needs_cmu
def test_the_real_file_is_whole(cmu: Bvh) -> None:
    assert (len(cmu.names), cmu.rotations_FJ33.shape, cmu.frame_time_s) == (31, (2752, 31, 3, 3), 0.0083333)


@needs_cmu
def test_limbs_of_the_real_file_point_where_they_should(cmu: Bvh) -> None:
    pose = retarget(cmu)
    found: list[tuple[Rotation, Floats]] = []
    for joint, parent in enumerate(cmu.parents):
        own = Rotation.from_matrix(cmu.rotations_FJ33[:, joint])
        above, start = found[parent] if parent >= 0 else (Rotation.identity(), np.zeros((len(pose), 3)))
        found.append((above * own, start + above.apply(cmu.offsets_J3[joint])))
    theirs = {name: place for name, (_, place) in zip(cmu.names, found, strict=True)}
    assert error_deg(joints_m(pose), theirs, CMU, [*LIMBS, ("Spine1", "Spine2"), ("Spine2", "Spine3"), ("Neck", "Head")]) < 0.01


@needs_cmu
def test_somebody_who_jumps_has_arms_and_legs_on_their_sides(cmu: Bvh) -> None:
    """Seen in the pelvis's own axes, through all frames: the head above, each shoulder on its side; feet mostly far below, knees apart."""
    pose = retarget(cmu)
    pose[:, 0] = np.eye(3)
    joints = joints_m(pose)
    at = {name: joints[:, joint] for joint, name in enumerate(BODY.names)}
    assert (at["Head"][:, 1] > 0.4).all()
    assert max(np.median(at[f"{side}_Ankle"][:, 1]) for side in "LR") < -0.7
    assert (at["L_Shoulder"][:, 0] > 0).all()
    assert (at["R_Shoulder"][:, 0] < 0).all()
    assert np.median(at["L_Knee"][:, 0]) > 0 > np.median(at["R_Knee"][:, 0])
