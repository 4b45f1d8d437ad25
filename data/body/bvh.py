"""Motion capture files in BVH, and their poses on the 24 joints of a body.

A BVH file holds a hierarchy of joints with their offsets at rest, and for each frame the numbers of each joint's channels: turns in
degrees, one after the other in the order in which the channels stand, each about an axis as the turns before have left it. Where the body
is in the room (position channels) is left out: a pose has no place.

Copying a file's local rotations to another body crosses its legs, because bones point elsewhere at rest. With G for rotations in the
world, A for the turn from our bone at rest to the file's:

    G(ours) = G(file) A,        R(joint) = G(parent)^-1 G(joint)

and where the file bends a bone that is one bone here (a neck of two joints), G(file) A is turned on to where the bone really ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omnistage.data.body.skeleton import Skeleton, follow, skeleton
from omnistage.data.errors import InputError, unknown_name
from omnistage.data.rotations import Floats, axis_angle_to_matrices, six_to_matrices

AXES = ("X", "Y", "Z")
CHANNELS = (*(f"{axis}position" for axis in AXES), *(f"{axis}rotation" for axis in AXES))

# Our joints -> the joints of the CMU database in cgspeed's conversion. Its collars never move, and start so low that ours would shrug for
# ever if they pointed where its do. The hand turns at its finger base: LeftHand is the wrist's one axis.
CMU: Mapping[str, str] = {
    "Pelvis": "Hips",
    "Spine1": "LowerBack",
    "Spine2": "Spine",
    "Spine3": "Spine1",
    "Neck": "Neck",
    "Head": "Head",
    "L_Hip": "LeftUpLeg",
    "L_Knee": "LeftLeg",
    "L_Ankle": "LeftFoot",
    "L_Foot": "LeftToeBase",
    "R_Hip": "RightUpLeg",
    "R_Knee": "RightLeg",
    "R_Ankle": "RightFoot",
    "R_Foot": "RightToeBase",
    "L_Shoulder": "LeftArm",
    "L_Elbow": "LeftForeArm",
    "L_Wrist": "LeftFingerBase",
    "L_Hand": "LFingers",
    "R_Shoulder": "RightArm",
    "R_Elbow": "RightForeArm",
    "R_Wrist": "RightFingerBase",
    "R_Hand": "RFingers",
}
# These say which way a file's body faces at rest, so a mapping must have them.
FACING = ("Pelvis", "L_Hip", "R_Hip", "Neck")
# Shorter than this share of the file's longest bone, a bone points nowhere.
_NO_LENGTH = 1e-6


@dataclass(frozen=True, eq=False)
class Bvh:
    """J joints, each after its parent (-1 for the root), and F frames.

    `offsets_J3` are the joints' places at rest from their parents, in the file's unit; `rotations_FJ33` their local rotations.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets_J3: Floats
    rotations_FJ33: Floats
    frame_time_s: float


def read(path: Path) -> Bvh:
    """The joints and frames of a BVH file.

    Raises:
        InputError: the file cannot be read or is no BVH file; the line says where, what stands there and what is allowed.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"{path}: cannot be read ({problem}); allowed: a BVH file") from error
    hierarchy = _Hierarchy(path, lines)
    numbers, frame_time = _motion(path, lines, hierarchy.end, sum(map(len, hierarchy.channels)))
    locals_ = np.empty((len(numbers), len(hierarchy.names), 3, 3))
    at = 0
    for joint, channels in enumerate(hierarchy.channels):
        locals_[:, joint] = _turned(channels, numbers[:, at : at + len(channels)])
        at += len(channels)
    return Bvh(tuple(hierarchy.names), tuple(hierarchy.parents), np.array(hierarchy.offsets), locals_, frame_time)


def retarget(bvh: Bvh, mapping: Mapping[str, str] = CMU, body: Skeleton | None = None) -> Floats:
    """The file's frames as poses of `body`: local rotations [F, 24, 3, 3], joint 0's in the world of the file (y up, if y is up there).

    `mapping` names a joint of the file for joints of the body; a joint without one keeps its rotation at rest. A bone with a mapped joint
    at either end and no fork between points exactly where it points in the file; pelvis and chest, where several bones start, turn as
    they do there. How far a bone turns about itself is the file's.

    Raises:
        InputError: a name that the body or the file does not have, one of `FACING` missing, or a file whose hips or spine have no length.
    """
    body = body or skeleton()
    source = _sources(bvh, mapping, body)
    world_FJ33, places_FJ3 = follow(bvh.rotations_FJ33, bvh.offsets_J3, bvh.parents, np.stack)
    theirs_J3 = _at_rest(bvh.offsets_J3, bvh.parents)
    ours_J3 = _at_rest(body.offsets_J3, body.parents)
    facing = _facing(*(theirs_J3[source[body.names.index(name)]] for name in FACING))
    shortest = _NO_LENGTH * float(np.linalg.norm(bvh.offsets_J3, axis=-1).max())
    # At rest, from our bones to the file's; a last bone goes on as the one before it.
    align = {-1: facing}
    turned: list[Floats] = []
    for joint, parent in enumerate(body.parents):
        ends = _ends(joint, body.parents, source)
        align[joint] = align[parent] if not ends else facing
        if joint not in source:
            turned.append(turned[parent])
            continue
        bone = theirs_J3[source[ends[0]]] - theirs_J3[source[joint]] if len(ends) == 1 else np.zeros(3)
        own = world_FJ33[:, source[joint]]
        if np.linalg.norm(bone) > shortest:
            align[joint] = _between(facing @ (ours_J3[ends[0]] - ours_J3[joint]), bone) @ facing
            really_F3 = places_FJ3[:, source[ends[0]]] - places_FJ3[:, source[joint]]
            own = _between(own @ bone, really_F3) @ own
        turned.append(own @ align[joint])
    locals_ = [turned[0], *(np.swapaxes(turned[parent], -1, -2) @ turned[joint] for joint, parent in enumerate(body.parents) if joint)]
    return np.stack(locals_, axis=1)


class _Hierarchy:
    """The joints of the part before the frames; `end` is the number of lines it takes."""

    def __init__(self, path: Path, lines: Sequence[str]) -> None:
        self._path = path
        self._words = _words(lines)
        self.end = 0
        self.names: list[str] = []
        self.parents: list[int] = []
        self.offsets: list[list[float]] = []
        self.channels: list[list[str]] = []
        for word in ("HIERARCHY", "ROOT"):
            self._expect(word)
        self._joint(-1)
        self._rest()

    def _rest(self) -> None:
        """All joints below the root, without recursion: a file may be nested deeper than Python calls."""
        # The joint of each open brace; an end site has none of its own.
        open_ = [0]
        while open_:
            joint = open_[-1]
            word = self._next("OFFSET, CHANNELS, JOINT, End Site or }")
            match word:
                case "}":
                    if joint >= 0 and not self.offsets[joint]:
                        self._fail(f"joint {self.names[joint]!r} has no OFFSET", "an OFFSET for each joint")
                    open_.pop()
                case "OFFSET":
                    offset = [self._number() for _ in AXES]
                    if joint >= 0:
                        self.offsets[joint] = offset
                case "CHANNELS" if joint >= 0:
                    self.channels[joint] = self._channels()
                case "JOINT" if joint >= 0:
                    self._joint(joint)
                    open_.append(len(self.names) - 1)
                case "End" if joint >= 0:
                    self._name()
                    open_.append(-1)
                case _:
                    self._fail(f"got {word!r}", "OFFSET, CHANNELS, JOINT, End Site or }")

    def _joint(self, parent: int) -> None:
        name = self._name()
        if not name or name in self.names:
            self._fail(f"got {name!r} as the name of a joint", "a name that no other joint has")
        self.names.append(name)
        self.parents.append(parent)
        self.offsets.append([])
        self.channels.append([])

    def _name(self) -> str:
        """All words up to the brace that opens the joint: some programs write names of several words."""
        words = list(iter(lambda: self._next("a name and {"), "{"))
        return " ".join(words)

    def _channels(self) -> list[str]:
        count = self._next("a number of channels")
        if count not in map(str, range(len(CHANNELS) + 1)):
            self._fail(f"got {count!r} as the number of channels", f"0 to {len(CHANNELS)}")
        names = [self._next("a channel") for _ in range(int(count))]
        for name in names:
            if name not in CHANNELS or names.count(name) > 1:
                self._fail(f"got the channel {name!r}", f"{', '.join(CHANNELS)}, each once")
        return names

    def _number(self) -> float:
        word = self._next("a number")
        try:
            number = float(word)
        except ValueError:
            number = np.nan
        if not np.isfinite(number):
            self._fail(f"got {word!r}", "a finite number")
        return number

    def _expect(self, word: str) -> None:
        found = self._next(word)
        if found != word:
            self._fail(f"got {found!r}", word)

    def _next(self, allowed: str) -> str:
        self.end, word = next(self._words, (self.end, ""))
        if not word:
            self._fail("the hierarchy ends too early", allowed)
        return word

    def _fail(self, problem: str, allowed: str) -> None:
        raise InputError(f"{self._path}: line {self.end}: {problem}; allowed: {allowed}")


def _words(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        for word in line.replace("{", " { ").replace("}", " } ").split():
            yield number, word


def _motion(path: Path, lines: Sequence[str], start: int, channels: int) -> tuple[Floats, float]:
    """The numbers [frames, channels] after the hierarchy, and the seconds from frame to frame."""
    filled = [(number, line) for number, line in enumerate(lines[start:], start + 1) if line.strip()]
    found = []
    for place, (pattern, allowed) in enumerate(
        ((r"MOTION", "MOTION"), (r"Frames\s*:\s*(\S+)", "Frames: and a number"), (_TIME, _TIME_ALLOWED))
    ):
        number, line = filled[place] if place < len(filled) else (len(lines), "")
        match = re.fullmatch(pattern, line.strip())
        if match is None:
            raise InputError(f"{path}: line {number}: got {line.strip()[:40]!r}; allowed: {allowed}")
        found.append((number, match))
    (_, _), (frames_line, frames), (time_line, time) = found
    count = int(frames[1]) if re.fullmatch(r"[0-9]{1,9}", frames[1]) else 0
    if count == 0:
        raise InputError(f"{path}: line {frames_line}: got {frames[1]!r} frames; allowed: a whole number above 0")
    seconds = _as_numbers(path, [(time_line, time[1])])[0]
    if seconds <= 0:
        raise InputError(f"{path}: line {time_line}: got {time[1]!r} as the frame time; allowed: seconds above 0")
    numbers = _as_numbers(path, filled[3:])
    if len(numbers) != count * channels:
        held = f"{len(numbers)} numbers after the frame time"
        raise InputError(f"{path}: line {time_line}: got {held}; allowed: {count} frames x {channels} channels = {count * channels}")
    return numbers.reshape(count, channels), float(seconds)


_TIME, _TIME_ALLOWED = r"Frame\s+Time\s*:\s*(\S+)", "Frame Time: and seconds"


def _as_numbers(path: Path, lines: Sequence[tuple[int, str]]) -> Floats:
    """All numbers of the lines, given with their numbers in the file."""
    try:
        numbers = np.array(" ".join(line for _, line in lines).split(), np.float64)
    except ValueError:
        numbers = np.array([np.nan])
    if np.isfinite(numbers).all():
        return numbers
    number, word = next((number, word) for number, line in lines for word in line.split() if not _is_finite(word))
    raise InputError(f"{path}: line {number}: got {word[:40]!r}; allowed: finite numbers")


def _is_finite(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False


def _turned(channels: Sequence[str], numbers_FC: Floats) -> Floats:
    """One joint's rotations [F, 3, 3]: its turns in the order of its channels."""
    turned = np.broadcast_to(np.eye(3), (len(numbers_FC), 3, 3))
    for at, channel in enumerate(channels):
        if channel.endswith("rotation"):
            turned = turned @ axis_angle_to_matrices(np.radians(numbers_FC[:, at, None]) * np.eye(3)[AXES.index(channel[0])])
    return turned


def _sources(bvh: Bvh, mapping: Mapping[str, str], body: Skeleton) -> dict[int, int]:
    """Our joints by number -> the file's by number."""
    missing = [name for name in FACING if name not in mapping]
    if missing:
        raise InputError(f"mapping of BVH joints: {missing[0]!r} is missing; {', '.join(FACING)} say which way the body faces")
    for ours, theirs in mapping.items():
        for what, name, known in (("joint of the body", ours, body.names), ("joint of the BVH file", theirs, bvh.names)):
            if name not in known:
                raise InputError(f"mapping of BVH joints: {unknown_name(what, name, known)}")
    return {body.names.index(ours): bvh.names.index(theirs) for ours, theirs in mapping.items()}


def _ends(joint: int, parents: Sequence[int], source: Mapping[int, int]) -> list[int]:
    """The nearest mapped joints below this one; joints without a mapping are passed through."""
    ends = []
    for child in (child for child, parent in enumerate(parents) if parent == joint):
        ends += [child] if child in source else _ends(child, parents, source)
    return ends


def _at_rest(offsets_J3: Floats, parents: Sequence[int]) -> Floats:
    return follow(np.broadcast_to(np.eye(3), (len(parents), 3, 3)), offsets_J3, parents, np.stack)[1]


def _facing(pelvis: Floats, left: Floats, right: Floats, neck: Floats) -> Floats:
    """The rotation [3, 3] of the file's body at rest: from x left, y up, z forward to its own directions."""
    try:
        return six_to_matrices(np.concatenate([left - right, neck - pelvis]), "columns")
    except InputError as error:
        raise InputError("BVH file: at rest its hips or its spine have no length, or lie in one line; allowed: a body at rest") from error


def _between(first: Floats, second: Floats) -> Floats:
    """The shortest turns [..., 3, 3] that take directions [..., 3] of the first to those of the second; none where one has no length."""
    axis = np.cross(first, second)
    sine, cosine = np.linalg.norm(axis, axis=-1), (first * second).sum(-1)
    # Opposite directions: half a turn about any axis across them.
    least = np.abs(first) == np.abs(first).min(-1, keepdims=True)
    across = np.cross(first, least.astype(float))
    opposite = (sine <= 1e-12 * np.abs(cosine)) & (cosine < 0)
    axis = np.where(opposite[..., None], across, axis)
    length = np.linalg.norm(axis, axis=-1)
    angle = np.where(opposite, np.pi, np.arctan2(sine, cosine))
    return axis_angle_to_matrices(axis * (angle / np.where(length > 0, length, 1.0))[..., None])
