"""Where the numbers of `skeleton.json` come from. `python -m omnistage.data.body.proportions` prints that file.

Heights and lengths are shares of a body's height, as Drillis and Contini published them (Body Segment Parameters, Technical Report
1166.03, New York University, 1966; shown again in Winter, Biomechanics and Motor Control of Human Movement, figure 4.1). What their table
does not give, the width of the hip joints, the height of the pelvis above them and the ball of the foot, is measured on subject 1 of
the CMU motion capture database (mocap.cs.cmu.edu, free for any use; skeleton of `01_01.bvh` in cgspeed's conversion, Debian package
`assimp-testmodels`). Nothing comes from SMPL but the names and the parents of the joints.
"""

from __future__ import annotations

import json
import math
from typing import Any

HEIGHT_M = 1.7
# Drillis and Contini: heights above the sole, then lengths.
ANKLE, KNEE, HIP, SHOULDER, CHIN, EYE = 0.039, 0.285, 0.530, 0.818, 0.870, 0.936
SHOULDER_WIDTH, UPPER_ARM, FOREARM, HAND = 0.259, 0.186, 0.146, 0.108

# CMU: offsets of joints from their parents, in the file's unit; x to the left, y up, z forward.
CMU_OFFSETS = {
    "LeftUpLeg": (1.36306, -1.79463, 0.83929),
    "RightUpLeg": (-1.30552, -1.79463, 0.83929),
    "LeftLeg": (2.44811, -6.72613, 0.0),
    "RightLeg": (-2.54253, -6.98555, 0.0),
    "LeftFoot": (2.56220, -7.03959, 0.0),
    "RightFoot": (-2.56826, -7.05623, 0.0),
    "LeftToeBase": (0.15764, -0.43311, 2.32255),
    "RightToeBase": (-0.16473, -0.45259, 2.36315),
}
# Both legs, hip to ankle. That length stands in both sources, and so gives the unit as a share of the height.
_LEGS = sum(math.hypot(*CMU_OFFSETS[side + name]) for name in ("Leg", "Foot") for side in ("Left", "Right"))
_UNIT = 2 * (HIP - ANKLE) / _LEGS

MADE = (
    "Shares of a height of 1.7 m. Lengths and heights of legs, arms, shoulders, chin and eyes: Drillis and Contini 1966. Hip joints, "
    "pelvis above them and ball of the foot: CMU motion capture subject 1, both sides averaged, its leg as long as the table's. Neck: "
    "halfway between shoulders and chin; head: halfway between chin and eyes; spine: four equal parts from pelvis to neck; collars: a "
    "third of the way to the shoulders, at their height; hands: half a hand beyond the wrist. Depth only in the feet. Made by "
    "omnistage.data.body.proportions; nothing from an SMPL file but the joints' names and parents."
)


def skeleton() -> dict[str, Any]:
    """What `skeleton.json` holds: where it comes from, and 24 joints with their parent and their offset from it in metres at rest.

    At rest the body stands in a T: x to its left, y up, z forward, the pelvis at 0.
    """
    hip_x = _both("UpLeg", 0)
    pelvis_above_hips = -_both("UpLeg", 1)
    neck, head = (SHOULDER + CHIN) / 2, (CHIN + EYE) / 2
    vertebra = (neck - HIP - pelvis_above_hips) / 4
    half = SHOULDER_WIDTH / 2
    middle = {
        "Pelvis": (None, (0.0, 0.0, 0.0)),
        "Spine1": ("Pelvis", (0.0, vertebra, 0.0)),
        "Spine2": ("Spine1", (0.0, vertebra, 0.0)),
        "Spine3": ("Spine2", (0.0, vertebra, 0.0)),
        "Neck": ("Spine3", (0.0, vertebra, 0.0)),
        "Head": ("Neck", (0.0, head - neck, 0.0)),
    }
    left = {
        "Hip": ("Pelvis", (hip_x, -pelvis_above_hips, 0.0)),
        "Knee": ("Hip", (0.0, KNEE - HIP, 0.0)),
        "Ankle": ("Knee", (0.0, ANKLE - KNEE, 0.0)),
        "Foot": ("Ankle", (0.0, _both("ToeBase", 1), _both("ToeBase", 2))),
        "Collar": ("Spine3", (half / 3, SHOULDER - neck + vertebra, 0.0)),
        "Shoulder": ("Collar", (half * 2 / 3, 0.0, 0.0)),
        "Elbow": ("Shoulder", (UPPER_ARM, 0.0, 0.0)),
        "Wrist": ("Elbow", (FOREARM, 0.0, 0.0)),
        "Hand": ("Wrist", (HAND / 2, 0.0, 0.0)),
    }
    joints = [_joint(name, *middle[name]) if name in middle else _side(name, left) for name in ORDER]
    return {"source": MADE, "height_m": HEIGHT_M, "axes": "x to the body's left, y up, z forward", "joints": joints}


# SMPL's order: a parent always stands before its children.
ORDER = (
    *("Pelvis", "L_Hip", "R_Hip", "Spine1", "L_Knee", "R_Knee", "Spine2", "L_Ankle", "R_Ankle", "Spine3", "L_Foot", "R_Foot"),
    *("Neck", "L_Collar", "R_Collar", "Head", "L_Shoulder", "R_Shoulder", "L_Elbow", "R_Elbow", "L_Wrist", "R_Wrist", "L_Hand", "R_Hand"),
)


def _both(name: str, axis: int) -> float:
    """A component of CMU's offset as a share of the height: the mean of both sides, the right one mirrored in x."""
    mirrored = -1 if axis == 0 else 1
    return _UNIT * (CMU_OFFSETS["Left" + name][axis] + mirrored * CMU_OFFSETS["Right" + name][axis]) / 2


def _side(name: str, left: dict[str, tuple[str, tuple[float, float, float]]]) -> dict[str, Any]:
    side, own = name.split("_")
    parent, (x, y, z) = left[own]
    return _joint(name, f"{side}_{parent}" if parent in left else parent, (x if side == "L" else -x, y, z))


def _joint(name: str, parent: str | None, shares: tuple[float, float, float]) -> dict[str, Any]:
    return {"name": name, "parent": parent, "offset_m": [round(HEIGHT_M * share, 4) + 0.0 for share in shares]}


def text() -> str:
    """The file's text, one joint a line."""
    made = skeleton()
    lines = ",\n    ".join(json.dumps(joint) for joint in made.pop("joints"))
    head = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in made.items())
    return f'{{\n{head},\n  "joints": [\n    {lines}\n  ]\n}}\n'


if __name__ == "__main__":
    print(text(), end="")
