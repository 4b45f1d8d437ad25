"""The body in torch: beside numpy, beside roma's rigid transforms, against finite differences; and a user's SMPL file, read by smplx."""

from __future__ import annotations

import math
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roma
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from omnistage.data import rotations as plain
from omnistage.data.body import skeleton as numbers
from omnistage.data.errors import InputError
from omnistage.rl.body import geodesic_deg, joints_m, matrices_to_six, six_to_matrices, smpl_skeleton

BODY = numbers.skeleton()
QUARTER_Z = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
SIX = {"columns": [0, 1, 0, -1, 0, 0], "interleaved": [0, -1, 1, 0, 0, 0], "rows": [0, -1, 0, 1, 0, 0]}


def random_pose(*leading: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    made = torch.Generator().manual_seed(seed)
    found: Tensor = roma.random_rotmat((*leading, 24), dtype=dtype, generator=made)
    return found


def about_z(degrees: float) -> Tensor:
    found: Tensor = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, math.radians(degrees)], dtype=torch.float64))
    return found


@pytest.mark.parametrize("layout", plain.LAYOUTS)
def test_a_quarter_turn_about_z_in_each_layout(layout: str) -> None:
    assert matrices_to_six(QUARTER_Z, layout).tolist() == SIX[layout]
    assert torch.equal(six_to_matrices(torch.tensor(SIX[layout], dtype=torch.float32), layout), QUARTER_Z)


@pytest.mark.parametrize("layout", plain.LAYOUTS)
def test_six_numbers_are_numpys_for_whatever_a_model_gives(layout: str) -> None:
    six = torch.randn(3, 24, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    matrices = six_to_matrices(six, layout)
    assert_allclose(matrices, plain.six_to_matrices(six.numpy(), layout), atol=1e-12)
    assert_allclose(matrices_to_six(matrices, layout), plain.matrices_to_six(matrices.numpy(), layout), atol=1e-15)
    assert torch.autograd.gradcheck(lambda given: six_to_matrices(given, layout), six[:1, :2].clone().requires_grad_())


@pytest.mark.parametrize("layout", plain.LAYOUTS)
def test_bfloat16_goes_there_and_back_within_a_degree(layout: str) -> None:
    """bfloat16 keeps 8 bits: numbers below 1 are off by 1/512 at most, so two unit vectors turn by less than 1 degree."""
    pose = random_pose(200)
    back = six_to_matrices(matrices_to_six(pose, layout).bfloat16(), layout)
    assert back.dtype == torch.float32
    assert_allclose(back @ back.mT, torch.eye(3).expand_as(back), atol=1e-5)
    error = geodesic_deg(back.double(), pose)
    assert 0.01 < error.max() < 1


@pytest.mark.parametrize("six", [[0.0] * 6, [1.0, 0, 0, 2, 0, 0], [0.0, 0, 0, 0, 1, 0]])
def test_two_vectors_that_span_no_plane_give_finite_numbers_and_gradients(six: list[float]) -> None:
    given = torch.tensor(six, requires_grad=True)
    matrix = six_to_matrices(given, "columns")
    matrix.sum().backward()
    assert given.grad is not None
    assert torch.isfinite(matrix).all()
    assert torch.isfinite(given.grad).all()


def test_joints_are_where_rigid_transforms_put_them() -> None:
    """roma composes each joint's turn and offset with its parent's, as homogeneous matrices would."""
    pose = random_pose(2, 3)
    joints = joints_m(pose)
    offsets = torch.tensor(BODY.offsets_J3)
    placed: list[Any] = []
    for joint, parent in enumerate(BODY.parents):
        own = roma.Rigid(pose[:, :, joint], offsets[joint].expand(2, 3, 3))
        placed.append(own if parent < 0 else placed[parent] @ own)
    assert_allclose(joints, torch.stack([one.translation for one in placed], -2), atol=1e-12)
    assert_allclose(joints, numbers.joints_m(pose.numpy()), atol=1e-12)


def test_the_gradient_is_that_of_finite_differences() -> None:
    """From six numbers to places, as a loss on joints goes; gradcheck compares with central differences in float64."""
    six = matrices_to_six(random_pose(1), "columns").requires_grad_()
    assert torch.autograd.gradcheck(lambda given: joints_m(six_to_matrices(given, "columns")), six)


def test_a_hand_is_moved_by_its_arm_alone() -> None:
    pose = random_pose().requires_grad_()
    joints_m(pose)[BODY.names.index("L_Hand")].sum().backward()
    assert pose.grad is not None
    moving = {BODY.names[joint] for joint in pose.grad.abs().sum((-2, -1)).nonzero().flatten().tolist()}
    assert moving == {"Pelvis", "Spine1", "Spine2", "Spine3", "L_Collar", "L_Shoulder", "L_Elbow", "L_Wrist"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_rounds_no_place(dtype: torch.dtype) -> None:
    pose = random_pose(4, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        under = joints_m(pose)
    assert torch.equal(under, joints_m(pose))
    assert_allclose(under, numbers.joints_m(pose.numpy()), atol=1e-6)
    assert joints_m(pose.bfloat16()).dtype == torch.float32


def test_a_turn_of_30_degrees_is_30_degrees() -> None:
    start = random_pose()
    assert_allclose(geodesic_deg(start @ about_z(30), start), 30, atol=1e-9)
    assert_allclose(geodesic_deg(start, random_pose(seed=1)), plain.geodesic_deg(start.numpy(), random_pose(seed=1).numpy()), atol=1e-9)


@pytest.mark.parametrize("degrees", [0.0, 180.0])
def test_the_angle_has_a_finite_slope_where_it_ends(degrees: float) -> None:
    turned = about_z(degrees).float().requires_grad_()
    angle = geodesic_deg(turned, torch.eye(3))
    angle.backward()
    assert angle.item() == pytest.approx(degrees, abs=0.06)
    assert turned.grad is not None
    assert torch.isfinite(turned.grad).all()


def test_layouts_and_shapes_are_checked() -> None:
    with pytest.raises(InputError, match="unknown 6D layout 'column'; did you mean 'columns'"):
        six_to_matrices(torch.zeros(6), "column")
    with pytest.raises(InputError, match="unknown 6D layout 'zhou'"):
        matrices_to_six(torch.eye(3), "zhou")
    with pytest.raises(InputError, match=r"^6D rotation: got the shape \[24, 9\]; allowed: \[\.\.\., 6\]$"):
        six_to_matrices(torch.zeros(24, 9), "rows")
    with pytest.raises(InputError, match=r"^rotations: got the shape \[3\]; allowed: \[\.\.\., 3, 3\]$"):
        matrices_to_six(torch.zeros(3), "rows")
    with pytest.raises(InputError, match=r"^pose: got the shape \[22, 3, 3\]; allowed: \[\.\.\., 24, 3, 3\]"):
        joints_m(torch.zeros(22, 3, 3))


def test_without_the_package_a_body_file_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "smplx", None)
    with pytest.raises(InputError, match=r"^body file '.*SMPL_NEUTRAL\.pkl': needs the package smplx; install omnistage\[smpl\]$"):
        smpl_skeleton(tmp_path / "SMPL_NEUTRAL.pkl")


def body_file(path: Path, joints: int, vertices: int) -> Path:
    """A file in the layout of SMPL (24 joints) or SMPL-X (55), of vertices and weights that are drawn by chance."""
    rng = np.random.default_rng(joints)
    parents = [-1, *BODY.parents[1:]]
    if joints == 55:
        # Jaw and eyes at the head, then five fingers of three joints at each wrist.
        fingers = [
            parent for wrist, first in ((20, 25), (21, 40)) for at in range(15) for parent in [wrist if at % 3 == 0 else first + at - 1]
        ]
        parents = [*parents[:22], 15, 15, 15, *fingers]
    held: dict[str, Any] = {
        "v_template": rng.normal(size=(vertices, 3)),
        "J_regressor": rng.dirichlet(np.full(vertices, 0.01), size=joints),
        "weights": np.eye(joints)[rng.integers(0, joints, vertices)],
        "shapedirs": rng.normal(size=(vertices, 3, 10 if joints == 24 else 20)),
        "posedirs": np.zeros((vertices, 3, 9 * (joints - 1)), np.float32),
        "kintree_table": np.array([parents, range(joints)]),
        "f": np.zeros((1, 3), np.int64),
    }
    if joints == 24:
        path.write_bytes(pickle.dumps(held))
        return path
    hands: dict[str, Any] = {
        f"hands_{what}{side}": np.zeros(shape) for side in "lr" for what, shape in (("components", (45, 45)), ("mean", 45))
    }
    np.savez(path, **held, **hands, lmk_faces_idx=np.zeros(51, np.int64), lmk_bary_coords=np.full((51, 3), 1 / 3))
    return path


@pytest.mark.parametrize(("name", "joints", "vertices"), [("SMPL_NEUTRAL.pkl", 24, 6890), ("SMPLX_NEUTRAL_2020.npz", 55, 10475)])
def test_a_users_file_puts_joints_where_smplx_does(tmp_path: Path, name: str, joints: int, vertices: int) -> None:
    smplx = pytest.importorskip("smplx", reason="needs the optional package smplx (omnistage[smpl])")
    file = body_file(tmp_path / name, joints, vertices)
    body = smpl_skeleton(file)
    model = smplx.create(str(file), ext=file.suffix[1:], use_pca=False)
    vectors = torch.randn(1, 24, 3, generator=torch.Generator().manual_seed(2))
    posed = model(global_orient=vectors[:, 0], body_pose=vectors[:, 1 : 24 if joints == 24 else 22].flatten(1)).joints[0].detach()
    right = posed[:24] if joints == 24 else posed[[*range(22), 28, 43]]
    assert_allclose(joints_m(roma.rotvec_to_rotmat(vectors)[0], body), right, atol=1e-5)


def test_a_body_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("smplx", reason="needs the optional package smplx (omnistage[smpl])")
    with pytest.raises(InputError, match=r"^body file '.*SMPL_NEUTRAL\.pkl': is not there; allowed: a file SMPL_\*\.pkl or SMPLX_\*\.npz"):
        smpl_skeleton(tmp_path / "SMPL_NEUTRAL.pkl")
    for name in ("SMPL_NEUTRAL.pkl", "SMPLX_NEUTRAL.npz", "body.pkl"):
        (tmp_path / name).write_bytes(b"no body")
        with pytest.raises(InputError, match=rf"^body file '.*{name}': cannot be read \(\w+: .*\); allowed: a file SMPL_"):
            smpl_skeleton(tmp_path / name)
