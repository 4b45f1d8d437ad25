"""The pose that an answer gives, and how far it is from the right one.

A pose is read off a head (`rotations`), or from an answer that is nothing but numbers: 72 (axis-angle in radians), 216 (3 x 3 matrices,
row by row), or 144 (six a joint, column by column, as ChatPose lays them out).

Errors are taken over the first joints that a record says are SMPL's (`extra["joints"]`, all 24 otherwise). Of a pose of PoseScript the last
two are fingers, and left out of angles and places alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from omnistage.data.body import metrics
from omnistage.data.body.skeleton import joints_m
from omnistage.data.errors import InputError
from omnistage.data.records import AnswerKind, Record
from omnistage.data.rotations import Floats, geodesic_deg
from omnistage.rewards.extract import answer_of
from omnistage.rewards.families.pose import read_pose
from omnistage.stages.benchmarks.items import Prediction

JOINTS = 24
# Standing in a T, without a turn of any joint.
REST_J33: Floats = np.tile(np.eye(3), (JOINTS, 1, 1))
REST_J33.setflags(write=False)
_MOST_SKEW = 1e-3


def right_of(record: Record) -> Floats:
    """The right rotations [24, 3, 3]. Raises `InputError` for a record that holds no single pose."""
    if record.kind is not AnswerKind.POSE or len(record.values) != REST_J33.size:
        told = f"is of kind {record.kind} with {len(record.values)} values"
        raise InputError(f"{record.id}: {told}; allowed: a pose with {REST_J33.size}, {JOINTS} rotation matrices row by row")
    right = np.reshape(np.asarray(record.values, np.float64), REST_J33.shape)
    if not _are_rotations(right):
        raise InputError(f"{record.id}: its values are no {JOINTS} rotation matrices; allowed: matrices row by row")
    return right


def joints_of(record: Record) -> int:
    """How many of the first joints errors are about."""
    given = record.extra.get("joints", JOINTS)
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= JOINTS:
        raise InputError(f"{record.id}: extra.joints is {given!r}; allowed: 1 to {JOINTS}")
    return given


def made_of(record: Record, prediction: Prediction, tagged: bool = False) -> tuple[Floats | None, str]:
    """The rotations [24, 3, 3] of an answer, None where it gives none, and where they come from.

    Where a head was read its first pose counts, even against the text. Joints that a head does not have are at rest. Raises `InputError`
    for a head that puts out no rotations, or fewer than the record's joints.
    """
    if prediction.head is not None:
        values = prediction.head.get("values") or []
        made = _of_head(record, prediction.head, values[0]) if values else None
        return made, f"head {prediction.head.get('name')!r}" if values else "the head was not read"
    text = prediction.raw or ""
    answer = answer_of(text)
    if answer is None and not tagged:
        answer = text.strip() or None
    if answer is None:
        return None, prediction.error or "not answered"
    made = read_pose(answer, "columns")
    return made, "unreadable" if made is None else "numbers"


def _of_head(record: Record, head: Mapping[str, Any], value: Mapping[str, Any]) -> Floats:
    about, least = f"{record.id}: head {head.get('name')!r}", joints_of(record)
    if "rotations" not in value:
        raise InputError(f"{about} puts out {', '.join(value) or 'nothing'}; allowed: rotations")
    try:
        given = np.asarray(value["rotations"], np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{about}: its rotations are no numbers in rows of one length; allowed: [joints][3][3]") from error
    if given.ndim != 3 or given.shape[1:] != (3, 3) or len(given) < least:
        raise InputError(f"{about}: its rotations have the shape {list(given.shape)}; allowed: [{least} or more, 3, 3]")
    if not _are_rotations(given):
        raise InputError(f"{about}: its matrices are no rotations; allowed: orthonormal ones that are no mirrors")
    return np.concatenate([given, REST_J33[len(given) :]])[:JOINTS]


def _are_rotations(matrices_J33: Floats) -> bool:
    skew = np.swapaxes(matrices_J33, -1, -2) @ matrices_J33 - np.eye(3)
    return bool((np.abs(skew) <= _MOST_SKEW).all() and (np.linalg.det(matrices_J33) > 0).all())


def errors(made_J33: Floats, right_J33: Floats, joints: int = JOINTS) -> dict[str, float]:
    """Errors of rotations [24, 3, 3] over the first `joints`, each 0 at best.

    `pa_mpjpe_mm` and `mpjpe_mm` (`data.body.metrics`, with the lengths of our own body), `geodesic_deg`, and `mpjre_l1x100`: 100 times the
    mean absolute difference of the matrices' elements. The last is what MPJRE, which ChatPose reports and nobody defines, most likely is.
    """
    made_J3, right_J3 = joints_m(made_J33)[:joints], joints_m(right_J33)[:joints]
    made_J33, right_J33 = made_J33[:joints], right_J33[:joints]
    return {
        "pa_mpjpe_mm": float(metrics.pa_mpjpe_mm(made_J3, right_J3)),
        "mpjpe_mm": float(metrics.mpjpe_mm(made_J3, right_J3)),
        "geodesic_deg": float(geodesic_deg(made_J33, right_J33).mean()),
        "mpjre_l1x100": float(100 * np.abs(made_J33 - right_J33).mean()),
    }
