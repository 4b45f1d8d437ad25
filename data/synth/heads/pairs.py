"""Poses with descriptions and with pictures, in the layouts that `data/formats/chatpose.py` reads.

`posescript/posescript_release` is PoseScript's folder, with two captions for each pose (`automatic_A.json`: sentences, `automatic_B.json`:
notes), of which the reader takes one. Its poses lie beside it in npz files as AMASS has them: 50 frames each, z up, turned by any yaw.
`images` holds pictures, and lists of their poses as 4D-Humans has them, in the frame of the camera.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from omnistage.data.formats.chatpose import AUTOMATIC, IMAGE_QUESTION, SMPLH_JOINTS, TEXT_QUESTION
from omnistage.data.rotations import Floats, axis_angle_to_matrices, matrices_to_axis_angle
from omnistage.data.synth.heads import poses
from omnistage.data.synth.heads.figures import figure

# Frames of a sequence: the reader opens it once for each of its poses.
FRAMES = 50
# The most that a figure is turned from the camera, in radians (14 degrees).
YAW = 0.25
AMASS = "AMASS"
CAPTIONS: dict[str, Callable[[poses.Choice], str]] = dict(zip(AUTOMATIC, (poses.sentences, poses.notes), strict=False))

# From a body at rest (y up) to AMASS's world (z up), and to a camera before it (y down, z away).
_Z_UP, _FACING = np.array([np.pi / 2, 0, 0]), np.array([np.pi, 0, 0])


@dataclass(frozen=True, slots=True)
class Described:
    """A pose by its key in PoseScript, its states, and its frame [52, 3] in a sequence."""

    key: str
    choice: poses.Choice
    axis_angles: Floats


@dataclass(frozen=True, slots=True)
class Motion:
    """A sequence: `file` under the folder of the set, and its frames [F, 156]."""

    file: str
    frames: Floats

    def write(self, out: Path) -> None:
        """Writes `poses`, as AMASS names them."""
        made = BytesIO()
        np.savez(made, poses=self.frames, mocap_framerate=1.0)
        _write_whole(out / self.file, made.getvalue())


@dataclass(frozen=True, slots=True)
class Pictured:
    """A pose [24, 3] in the frame of the camera, and its picture: `file` under the folder of the set; `stream` seeds what is drawn."""

    file: str
    stream: tuple[int, ...]
    choice: poses.Choice
    axis_angles: Floats

    def write(self, out: Path) -> None:
        """Draws the picture."""
        made = BytesIO()
        figure(np.random.default_rng(self.stream), self.axis_angles).save(made, "png")
        _write_whole(out / self.file, made.getvalue())

    def row(self) -> dict[str, Any]:
        """An entry in 4D-Humans' style, with a description."""
        root, *body = self.axis_angles.tolist()
        parameters = {"global_orient": root, "body_pose": [number for joint in body for number in joint]}
        return {"image": self.file, "smpl_params": parameters, "caption": poses.sentences(self.choice)}


def described(key: Sequence[int], split: str, count: int) -> list[Described]:
    """The poses of one set of PoseScript; `key` begins each of their random streams."""
    made = []
    for index in range(count):
        rng, choice, angles = _posed((*key, index, 0), split)
        root = axis_angle_to_matrices([0, 0, rng.uniform(-np.pi, np.pi)]) @ axis_angle_to_matrices(_Z_UP)
        joints = np.zeros((SMPLH_JOINTS, 3))
        joints[: len(angles)] = angles
        joints[0] = matrices_to_axis_angle(root)
        made.append(Described(f"{split}_{index:05d}", choice, joints))
    return made


def motions(split: str, made: Sequence[Described]) -> list[Motion]:
    """The sequences that hold the poses of a set, in their order."""
    frames = np.array([pose.axis_angles.reshape(-1) for pose in made])
    return [Motion(f"{AMASS}/{_sequence(split, start)}", frames[start : start + FRAMES]) for start in range(0, len(made), FRAMES)]


def index(split: str, made: Sequence[Described]) -> dict[str, list[Any]]:
    """Where each pose of a set lies: PoseScript's `ids_2_dataset_sequence_and_frame_index.json`."""
    return {pose.key: [AMASS, _sequence(split, place), place % FRAMES] for place, pose in enumerate(made)}


def pictured(key: Sequence[int], split: str, count: int) -> list[Pictured]:
    """The poses of one set of pictures; `key` begins each of their random streams."""
    made = []
    for index in range(count):
        rng, choice, angles = _posed((*key, index, 0), split)
        root = axis_angle_to_matrices(_FACING) @ axis_angle_to_matrices([0, rng.uniform(-YAW, YAW), 0])
        angles[0] = matrices_to_axis_angle(root)
        made.append(Pictured(f"{split}/{index:05d}.png", (*key, index, 1), choice, angles))
    return made


def corpus() -> list[str]:
    """Both questions, and every state of every part as each kind of caption has it."""
    most = max(map(len, poses.PARTS.values()))
    choices = [tuple(min(place, len(states) - 1) for states in poses.PARTS.values()) for place in range(most)]
    said = [TEXT_QUESTION.format(caption=caption(choice)) for caption in CAPTIONS.values() for choice in choices]
    return [IMAGE_QUESTION, *said]


def _posed(stream: tuple[int, ...], split: str) -> tuple[np.random.Generator, poses.Choice, Floats]:
    """The generator behind its first draws, the states, and their turns [24, 3]."""
    rng = np.random.default_rng(stream)
    choice = poses.chosen(rng, held_out=split == "held_out")
    return rng, choice, poses.varied(choice, rng)


def _sequence(split: str, place: int) -> str:
    """The npz file, under AMASS, of a pose by its place in the set."""
    return f"Rendered/{split}/{place // FRAMES:05d}_poses.npz"


def _write_whole(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)
