"""The body of a pose in torch, differentiable: six numbers a joint to rotations, rotations to the places of joints.

What `data.rotations` and `data.body` do in numpy for scores and pictures, for losses; tests hold the two side by side. Everything is
computed in float32 or float64, whatever comes in: bfloat16 would round a joint's place to several millimetres.
"""

from __future__ import annotations

from pathlib import Path

import roma
import torch
from torch import Tensor

from omnistage.data.body.skeleton import Skeleton, check_shape, follow, skeleton
from omnistage.data.errors import InputError, unknown_name
from omnistage.data.rotations import LAYOUTS, Floats
from omnistage.data.user_code import one_line

# Below this length a vector is divided by it, so that what spans no plane gives no nan.
_MIN_LENGTH = 1e-8
# The slope of the arc sine is infinite at 180 degrees; cut off here, an angle of 180 degrees reads 179.95.
_MOST_SINE = 1 - 1e-7
# SMPL-X has SMPL's joints 0 to 21; SMPL's hands lie near the first joints of its middle fingers.
_OF_SMPLX = (*range(22), 28, 43)


def six_to_matrices(numbers: Tensor, layout: str) -> Tensor:
    """Six numbers [..., 6] in a layout of `data.rotations.LAYOUTS` -> rotations [..., 3, 3] by Gram-Schmidt, never nan for finite numbers.

    Two vectors that span no plane (a zero, or parallel ones) give a matrix that is no rotation, without a word: looking would make every
    step wait for the device. `data.rotations.six_to_matrices` refuses them where a pose is read for good.

    Raises:
        InputError: another layout or shape.
    """
    if numbers.shape[-1:] != (6,):
        raise InputError(f"6D rotation: got the shape {list(numbers.shape)}; allowed: [..., 6]")
    rows, columns = (3, 2) if _known(layout) == "interleaved" else (2, 3)
    pairs = _wide(numbers).unflatten(-1, (rows, columns))
    spanned: Tensor = roma.special_gramschmidt(pairs if layout == "interleaved" else pairs.mT, epsilon=_MIN_LENGTH)
    return spanned.mT if layout == "rows" else spanned


def matrices_to_six(matrices: Tensor, layout: str) -> Tensor:
    """Rotations [..., 3, 3] -> six numbers [..., 6] in a layout of `data.rotations.LAYOUTS`; `InputError` for another layout or shape."""
    if matrices.shape[-2:] != (3, 3):
        raise InputError(f"rotations: got the shape {list(matrices.shape)}; allowed: [..., 3, 3]")
    kept = matrices[..., :2, :] if _known(layout) == "rows" else matrices[..., :2]
    return (kept.mT if layout == "columns" else kept).flatten(-2)


def nearest_rotation(matrices: Tensor) -> Tensor:
    """The rotation [..., 3, 3] nearest to each matrix [..., 3, 3], a mean of rotations say (orthogonal Procrustes)."""
    made: Tensor = roma.special_procrustes(_wide(matrices))
    return made


def joints_m(rotations: Tensor, body: Skeleton | None = None) -> Tensor:
    """Rotations [..., J, 3, 3] -> places of the joints [..., J, 3] in metres; `body` is `data.body.skeleton.skeleton()` unless given.

    Raises:
        InputError: another shape.
    """
    body = body or skeleton()
    check_shape(rotations.shape, body)
    matrices = _wide(rotations)
    offsets = torch.tensor(body.offsets_J3, dtype=matrices.dtype, device=matrices.device)
    return follow(matrices, offsets, body.parents, lambda parts, axis: torch.stack(list(parts), axis))[1]


def geodesic_deg(first: Tensor, second: Tensor) -> Tensor:
    """Rotations [..., 3, 3], twice -> the angle [...] in degrees between them, for a loss: its gradient is finite at 0 and at 180 degrees.

    Figures come from `data.rotations.geodesic_deg`, which is exact at 180 degrees.
    """
    return torch.rad2deg(roma.rotmat_geodesic_distance(_wide(first), _wide(second), clamping=_MOST_SINE))


def smpl_skeleton(file: Path) -> Skeleton:
    """The joints at rest of the user's own SMPL or SMPL-X file, its mean shape, in place of `skeleton()`'s.

    A posed joint depends on these alone, not on vertices, so all that is asked of the package `smplx` is to read the file. Of SMPL-X
    joints 0 to 21 are taken and, as hands, the first joints of the middle fingers. Tested with files in SMPL's and SMPL-X's layout that
    the tests write; the registered files were not at hand.

    Raises:
        InputError: the package is not installed, or the file is not there or cannot be read.
    """
    try:
        import smplx
    except ImportError as error:
        raise InputError(f"body file {str(file)!r}: needs the package smplx; install omnistage[smpl]") from error
    allowed = "a file SMPL_*.pkl or SMPLX_*.npz (smplx tells models by the start of the name)"
    if not file.is_file():
        raise InputError(f"body file {str(file)!r}: is not there; allowed: {allowed}")
    try:
        model = smplx.create(str(file), ext=file.suffix[1:], use_pca=False)
        places = torch.einsum("jv,vc->jc", model.J_regressor, model.v_template).double().numpy()
        places = _smpl_joints(places)
    except Exception as error:
        raise InputError(f"body file {str(file)!r}: cannot be read ({one_line(error)}); allowed: {allowed}") from error
    own = skeleton()
    offsets = places.copy()
    offsets[1:] -= places[list(own.parents[1:])]
    return Skeleton(own.names, own.parents, offsets)


def _smpl_joints(places: Floats) -> Floats:
    """SMPL's 24 of the joints of SMPL (24) or SMPL-X (55)."""
    if len(places) not in (24, 55):
        raise ValueError(f"it has {len(places)} joints")
    return places if len(places) == 24 else places[list(_OF_SMPLX)]


def _known(layout: str) -> str:
    if layout not in LAYOUTS:
        raise InputError(unknown_name("6D layout", layout, LAYOUTS))
    return layout


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
