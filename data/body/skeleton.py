"""24 joints with SMPL's names and parents, and where a pose puts them.

A pose is 24 rotations: joint 0's is the orientation of the whole body, every other one is relative to the parent's. With G for rotations
and p for places in the world, o for a joint's offset from its parent at rest:

    G(joint) = G(parent) R(joint),        p(joint) = p(parent) + G(parent) o(joint)

Offsets at rest are our own (`skeleton.json` says from where), because SMPL's files may not be passed on; `rl.body` reads a user's file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from omnistage.data.errors import InputError
from omnistage.data.rotations import Floats

if TYPE_CHECKING:
    from torch import Tensor

# numpy's arrays for scoring without a model, torch's tensors where a gradient is asked for: the same few lines serve both.
Array = TypeVar("Array", Floats, "Tensor")


@dataclass(frozen=True, eq=False)
class Skeleton:
    """`names` [J]; `parents` [J], each before its children and -1 for the first; `offsets_J3` in metres from the parent, at rest.

    At rest the body stands in a T: x to its left, y up, z forward. The first offset is the place of the first joint.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets_J3: Floats


@cache
def skeleton() -> Skeleton:
    """The body of `skeleton.json`, 1.7 m tall."""
    joints = json.loads(Path(__file__).with_name("skeleton.json").read_text("utf-8"))["joints"]
    names = tuple(joint["name"] for joint in joints)
    parents = tuple(-1 if joint["parent"] is None else names.index(joint["parent"]) for joint in joints)
    offsets = np.array([joint["offset_m"] for joint in joints])
    # One and the same for all who ask.
    offsets.setflags(write=False)
    return Skeleton(names, parents, offsets)


def joints_m(rotations: ArrayLike, body: Skeleton | None = None) -> Floats:
    """Rotations [..., J, 3, 3] -> places of the joints [..., J, 3] in metres; `body` is `skeleton()` unless given.

    Raises:
        InputError: another shape.
    """
    body = body or skeleton()
    matrices = np.asarray(rotations, np.float64)
    check_shape(matrices.shape, body)
    return follow(matrices, body.offsets_J3, body.parents, np.stack)[1]


def check_shape(shape: Sequence[int], body: Skeleton) -> None:
    """Raises `InputError` unless it is the shape of one rotation matrix for each of the body's joints."""
    if tuple(shape[-3:]) != (len(body.names), 3, 3):
        raise InputError(f"pose: got the shape {list(shape)}; allowed: [..., {len(body.names)}, 3, 3], one rotation a joint")


def follow(rotations: Array, offsets: Array, parents: Sequence[int], stack: Callable[[Sequence[Array], int], Array]) -> tuple[Array, Array]:
    """Local rotations [..., J, 3, 3] and offsets [J, 3] -> rotations [..., J, 3, 3] and places [..., J, 3] in the world.

    `stack` is numpy's or torch's. Products are written out as sums: as matrix products, autocast or TF32 would round them to a
    millimetre and more.
    """
    turned = [rotations[..., 0, :, :]]
    # Spread over the leading axes, as every other place is.
    places = [0 * rotations[..., 0, :, 0] + offsets[0]]
    for joint, parent in enumerate(parents[1:], 1):
        turned.append((turned[parent][..., :, :, None] * rotations[..., joint, None, :, :]).sum(-2))
        places.append(places[parent] + (turned[parent] * offsets[joint]).sum(-1))
    return stack(turned, -3), stack(places, -2)
