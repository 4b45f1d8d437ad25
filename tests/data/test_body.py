"""The body's numbers, where poses put its joints, how far poses are apart, and what pictures and pages of them hold."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from omnistage.data.body import bvh, proportions
from omnistage.data.body.drawing import COLOURS, LABEL_HEIGHT, PAPER, SIDE, draw, page, pose_json
from omnistage.data.body.metrics import mpjpe_mm, pa_mpjpe_mm
from omnistage.data.body.skeleton import joints_m, skeleton
from omnistage.data.errors import InputError
from omnistage.data.rotations import Floats, axis_angle_to_matrices

BODY = skeleton()
JSON = Path(str(proportions.__file__)).with_name("skeleton.json")
CMU_FILE = Path("/usr/share/assimp/models/BVH/01_01.bvh")
REST = np.tile(np.eye(3), (24, 1, 1))
RNG = np.random.default_rng(0)
SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)

seeds = st.integers(0, 2**31)


def random_pose(seed: int = 0) -> Floats:
    return axis_angle_to_matrices(np.random.default_rng(seed).normal(scale=0.6, size=(24, 3)))


def turned(joint: str, axis: int, degrees: float) -> Floats:
    """The rest pose with one joint turned about one axis."""
    pose = REST.copy()
    pose[BODY.names.index(joint)] = axis_angle_to_matrices(math.radians(degrees) * np.eye(3)[axis])
    return pose


def place(joints: Floats, name: str) -> Floats:
    found: Floats = joints[BODY.names.index(name)]
    return found


def test_the_file_is_what_the_script_makes() -> None:
    assert JSON.read_text() == proportions.text()


def test_names_and_parents_are_smpls() -> None:
    assert (BODY.names[0], BODY.names[15], BODY.names[22:], BODY.parents) == ("Pelvis", "Head", ("L_Hand", "R_Hand"), SMPL_PARENTS)


def test_left_mirrors_right() -> None:
    for joint, name in enumerate(BODY.names):
        other = {"L": "R", "R": "L"}.get(name[0], "") + name[1:] if name[1] == "_" else name
        mirrored = BODY.names.index(other)
        assert BODY.offsets_J3[joint].tolist() == (BODY.offsets_J3[mirrored] * (-1, 1, 1)).tolist()
        assert BODY.parents[joint] < 0 or name[1] != "_" or BODY.names[BODY.parents[joint]][:2] in (name[:2], "Pe", "Sp")


def test_at_rest_it_stands_in_a_t_and_as_tall_as_the_table_says() -> None:
    """Drillis and Contini, for 1.7 m: the ankle at 0.039, the knee at 0.285, the hip at 0.530, the shoulder at 0.818 of the height."""
    joints = joints_m(REST)
    sole = place(joints, "L_Ankle")[1] - 0.039 * 1.7
    heights = {name: place(joints, f"L_{name}")[1] - sole for name in ("Knee", "Hip", "Shoulder", "Elbow", "Wrist", "Hand")}
    shares = {"Knee": 0.285, "Hip": 0.530, "Shoulder": 0.818, "Elbow": 0.818, "Wrist": 0.818, "Hand": 0.818}
    assert heights == pytest.approx({name: 1.7 * share for name, share in shares.items()}, abs=5e-4)
    # The head's joint lies between chin and eyes, the shoulders 0.259 of the height apart, the toes in front.
    assert 0.870 < (place(joints, "Head")[1] - sole) / 1.7 < 0.936
    assert place(joints, "L_Shoulder")[0] - place(joints, "R_Shoulder")[0] == pytest.approx(0.259 * 1.7, abs=5e-4)
    assert place(joints, "L_Foot")[2] > 0.1
    assert place(joints, "L_Hand")[0] > 0 > place(joints, "R_Hand")[0]


@pytest.mark.skipif(not CMU_FILE.exists(), reason="needs the Debian package assimp-testmodels")
def test_the_numbers_of_cmu_stand_in_its_file() -> None:
    file = bvh.read(CMU_FILE)
    for name, offset in proportions.CMU_OFFSETS.items():
        assert file.offsets_J3[file.names.index(name)].tolist() == list(offset)


@given(seeds)
@settings(max_examples=20)
def test_joints_are_where_a_chain_of_turns_puts_them(seed: int) -> None:
    """Against scipy, each joint on its own: all turns from the pelvis down, each offset turned by what is above it."""
    pose = random_pose(seed)
    joints = joints_m(pose)
    for joint in range(24):
        chain = [joint]
        while BODY.parents[chain[0]] >= 0:
            chain.insert(0, BODY.parents[chain[0]])
        at, turn = np.zeros(3), Rotation.identity()
        for link in chain:
            at = at + turn.apply(BODY.offsets_J3[link].tolist())
            turn = turn * Rotation.from_matrix(pose[link])
        assert_allclose(joints[joint], at, atol=1e-12)


def test_a_bent_elbow_moves_what_is_below_it_alone() -> None:
    """The left forearm, 0.146 of 1.7 m, turned by 90 degrees about z, points up."""
    joints, at_rest = joints_m(turned("L_Elbow", 2, 90)), joints_m(REST)
    assert_allclose(place(joints, "L_Wrist") - place(joints, "L_Elbow"), [0, 0.2482, 0], atol=1e-12)
    moved = {BODY.names[joint] for joint in np.flatnonzero(np.abs(joints - at_rest).max(-1) > 1e-9)}
    assert moved == {"L_Wrist", "L_Hand"}


def test_leading_axes_are_kept_and_other_shapes_refused() -> None:
    batch = np.stack([random_pose(seed) for seed in range(6)]).reshape(2, 3, 24, 3, 3)
    assert joints_m(batch).shape == (2, 3, 24, 3)
    assert_allclose(joints_m(batch)[1, 2], joints_m(batch[1, 2]), atol=1e-15)
    with pytest.raises(InputError, match=r"^pose: got the shape \[23, 3, 3\]; allowed: \[\.\.\., 24, 3, 3\], one rotation a joint$"):
        joints_m(np.zeros((23, 3, 3)))


def test_mpjpe_is_the_mean_distance_in_millimetres_whatever_the_place() -> None:
    """One joint of 24 is 240 mm off: 10 mm."""
    right = joints_m(random_pose())
    answered = right + np.array([5.0, -3.0, 1.0])
    assert mpjpe_mm(answered, right) == pytest.approx(0, abs=1e-9)
    answered[20] += (0, 0.24, 0)
    assert mpjpe_mm(answered, right) == pytest.approx(10)
    assert mpjpe_mm([answered, right], [right, right]).tolist() == pytest.approx([10, 0], abs=1e-9)


@given(seeds, st.floats(0.2, 5))
@settings(max_examples=30)
def test_procrustes_undoes_turn_scale_and_shift(seed: int, scale: float) -> None:
    joints = joints_m(random_pose(seed))
    copy = scale * joints @ Rotation.random(rng=seed).as_matrix() + (1.0, -2.0, 3.0)
    assert pa_mpjpe_mm(copy, joints) < 1e-6
    assert pa_mpjpe_mm(joints, copy) < 1e-6


@given(seeds)
@settings(max_examples=30)
def test_procrustes_does_not_undo_a_mirror(seed: int) -> None:
    """A person who raises the left arm is not one who raises the right arm."""
    joints = joints_m(random_pose(seed))
    assert pa_mpjpe_mm(joints * (-1, 1, 1), joints) > 20


def test_procrustes_leaves_the_least_that_any_turn_scale_and_shift_leaves() -> None:
    """Its sum of squares, against a general optimiser from eight starts; the scale is a power of e, as one below 0 would be a mirror."""
    a, b = joints_m(random_pose(1)), joints_m(random_pose(2))

    def fitted(found: Floats) -> Floats:
        moved: Floats = np.exp(found[3]) * Rotation.from_rotvec(found[:3]).apply(a) + found[4:]
        return moved

    starts = [np.concatenate([Rotation.random(rng=seed).as_rotvec(), [0, 0, 0, 0]]) for seed in range(8)]
    found = [minimize(lambda tried: float(((fitted(tried) - b) ** 2).sum()), start) for start in starts]
    best = fitted(min(found, key=lambda one: float(one.fun)).x)
    assert pa_mpjpe_mm(a, b) == pytest.approx(1000 * np.linalg.norm(best - b, axis=-1).mean(), rel=1e-3)


def test_joints_in_one_point_are_as_far_off_as_the_body_is_wide() -> None:
    right = joints_m(REST)
    spread = 1000 * np.linalg.norm(right - right.mean(0), axis=-1).mean()
    assert pa_mpjpe_mm(np.zeros((24, 3)), right) == pytest.approx(spread)


@pytest.mark.parametrize("metric", [mpjpe_mm, pa_mpjpe_mm])
def test_joints_that_cannot_be_compared_are_refused(metric: Any) -> None:
    with pytest.raises(InputError, match=r"^joints: got the shapes \[22, 3\] and \[24, 3\]; allowed: twice the same"):
        metric(np.zeros((22, 3)), np.zeros((24, 3)))
    with pytest.raises(InputError, match="not finite"):
        metric(np.full((24, 3), np.nan), np.zeros((24, 3)))


def pixels(picture: Image.Image, colour: tuple[int, int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The columns and rows of the pixels of one colour."""
    rows, columns = np.nonzero((np.asarray(picture) == colour).all(-1))
    return columns, rows


def test_left_and_right_limbs_are_where_they_should_be() -> None:
    """From the front the body's left is on the right of the picture, from behind on its left; a raised left hand is above the head."""
    joints = joints_m(turned("L_Shoulder", 2, 90))
    middle = SIDE / 2
    for azimuth, side in ((0, 1), (180, -1)):
        picture = draw({"raised": joints}, azimuth)
        assert picture.size == (SIDE, SIDE + LABEL_HEIGHT)
        (left_x, left_y), (right_x, right_y) = (pixels(picture, COLOURS[name]) for name in "LR")
        assert side * (left_x.mean() - right_x.mean()) > 10
        assert left_y.min() < pixels(picture, COLOURS[""])[1].min(), "the raised hand is not the highest"
        assert right_y.max() > middle, "the right leg is not below the middle"
        # The right arm is stretched to its side, farther out than anything of the left.
        assert (side * right_x).min() < (side * left_x).min() - 50


def test_from_the_side_a_near_limb_hides_a_far_one_and_toes_point_to_the_left() -> None:
    """Seen from the body's left (90 degrees), a body that looks to z looks to the left, and its left leg hides the right one."""
    picture = draw({"rest": joints_m(REST)}, 90)
    legs = np.asarray(picture)[SIDE * 3 // 4 : SIDE]
    assert (legs == COLOURS["L"]).all(-1).any()
    assert not (legs == COLOURS["R"]).all(-1).any()
    columns, rows = pixels(picture, COLOURS["L"])
    assert columns[rows > rows.max() - 3].min() < columns[rows < rows.max() - 40].min() - 10


def test_several_poses_stand_side_by_side_at_one_scale() -> None:
    rest = joints_m(REST)
    picture = draw({"whole": rest, "half": rest / 2})
    assert picture.size == (2 * SIDE, SIDE + LABEL_HEIGHT)
    drawn = (np.asarray(picture)[:SIDE] != PAPER).any(-1).any(0)
    widths = [int(np.ptp(np.flatnonzero(drawn[start : start + SIDE]))) for start in (0, SIDE)]
    assert widths[0] == pytest.approx(2 * widths[1], abs=12)


@pytest.mark.parametrize("drawn", [draw, page])
def test_what_cannot_be_drawn_is_refused(drawn: Any) -> None:
    with pytest.raises(InputError, match=r"^drawing: got no pose; allowed: one or more$"):
        drawn({})
    with pytest.raises(InputError, match=r"^drawing: pose 'a' has joints \[22, 3\]; allowed: \[24, 3\], finite numbers in metres$"):
        drawn({"a": np.zeros((22, 3))})
    with pytest.raises(InputError, match="finite"):
        drawn({"a": np.full((24, 3), np.inf)})


class Page(HTMLParser):
    """The elements of a page in order, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.scripts: list[str] = []
        self._within = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)
        self._within = tag == "script"
        if self._within:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = self._within and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._within:
            self.scripts[-1] += data


def test_the_page_holds_the_poses_and_asks_for_nothing_else() -> None:
    poses = {"sitting": joints_m(random_pose(1)), "standing": joints_m(REST)}
    text = page(poses)
    held = Page(text)
    assert held.opened.count("script") == 2
    data = json.loads(held.scripts[0])
    assert [pose["label"] for pose in data["poses"]] == ["sitting", "standing"]
    assert_allclose(data["poses"][0]["joints_mm"], 1000 * poses["sitting"], atol=0.06)
    assert (data["parents"], data["names"]) == (list(BODY.parents), list(BODY.names))
    assert [data["colours"][joint] for joint in (1, 2, 3)] == ["rgb(35,105,190)", "rgb(205,65,45)", "rgb(120,120,120)"]
    assert re.findall(r"https?:|//\w+[.]|src=|href=|@import|url\(|fetch\(|import\(", text) == []


# Runs the page's script with a canvas that writes down lines as [colour, x from, y from, x to, y to], and tells them for each button.
RECORDER = """
const [data, script] = JSON.parse(require("fs").readFileSync(0, "utf8"));
let lines = [], from = [];
const pen = {
  clearRect() { lines = []; }, beginPath() {}, stroke() {},
  moveTo(x, y) { from = [x, y]; }, lineTo(x, y) { lines.push([this.strokeStyle, ...from, x, y]); },
};
const canvas = {width: 900, height: 900, getContext: () => pen, addEventListener() {}};
const buttons = [];
const document = {
  getElementById: id => id === "poses" ? {textContent: data} : {append(button) { buttons.push(button); }},
  querySelector: () => canvas,
  createElement: () => ({setAttribute() {}, addEventListener(kind, listener) { this[kind] = listener; }}),
};
require("vm").runInNewContext(script, {document, requestAnimationFrame() {}});
const drawn = buttons.map(button => { button.click(); return [button.textContent, lines]; });
console.log(JSON.stringify({title: document.title, drawn}));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
def test_the_script_of_the_page_draws_the_pose_of_each_button() -> None:
    held = Page(page({"rest": joints_m(REST), "raised": joints_m(turned("L_Shoulder", 2, 90))}, title="Two"))
    done = subprocess.run(["node", "-e", RECORDER], input=json.dumps(held.scripts), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    drawn = dict(told["drawn"])
    assert (told["title"], list(drawn), [len(lines) for lines in drawn.values()]) == ("Two", ["rest", "raised"], [23, 23])
    blue, red, _ = json.loads(held.scripts[0])["colours"][1:4]
    ends = {
        name: {colour: np.array([line[3:] for line in lines if line[0] == colour]) for colour in (blue, red)}
        for name, lines in drawn.items()
    }
    # Seen from the front: the body's left on the right of the canvas, and its raised hand above the head, where y is small.
    assert (ends["rest"][blue][:, 0] > 450).all()
    assert (ends["rest"][red][:, 0] < 450).all()
    assert ends["raised"][blue][:, 1].min() < ends["raised"][red][:, 1].min() - 100
    assert np.concatenate(list(ends["rest"].values())).min() > 0


@pytest.mark.parametrize("name", ["</script><script>alert(1)</script>", "<!--<script>", "]]>", 'a"\\b', "POSES_AS_JSON", "\u2028 &lt; é"])
def test_no_name_leaves_its_place_in_the_page(name: str) -> None:
    plain, held = Page(page({"a": joints_m(REST)})), Page(page({name: joints_m(REST)}, title=name))
    data = json.loads(held.scripts[0])
    assert (data["poses"][0]["label"], data["title"]) == (name, name)
    assert (held.opened, held.scripts[1]) == (plain.opened, plain.scripts[1])


def test_a_pose_as_json_says_the_same_three_times() -> None:
    pose = random_pose(3)
    held = json.loads(json.dumps(pose_json(pose)))
    assert set(held) == {"joints", "parents", "rotation_matrices", "axis_angle_rad", "joints_mm"}
    assert_allclose(held["rotation_matrices"], pose, atol=1e-6)
    assert_allclose(axis_angle_to_matrices(held["axis_angle_rad"]), pose, atol=3e-6)
    assert_allclose(held["joints_mm"], 1000 * joints_m(pose), atol=0.06)
    with pytest.raises(InputError, match=r"^pose: got the shape \[2, 24, 3, 3\]; allowed: \[24, 3, 3\], finite numbers$"):
        pose_json(np.stack([pose, pose]))
