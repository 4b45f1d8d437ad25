"""ChatPose (arXiv 2311.18836): a body pose from a description (PoseScript over AMASS) or from an image.

**Text to pose.** The path is PoseScript's folder `posescript_release`, for all of its poses, or one of its split files (`train_ids.json`,
`val_ids.json`, a list of ids). The folder holds

    ids_2_dataset_sequence_and_frame_index.json   {"17": ["AMASS", "BMLrub/rub001/walk_poses.npz", 240], ...}
    human6293.json                                {"17": "The person leans to the left ...", ...}
    automatic_A.json ... automatic_F.json         the same, written by rules

and the media root (or `AMASS` in it) the sequences: npz files whose `poses` [frames, 156] are 52 axis-angle joints of SMPL-H. A human
caption wins; otherwise one of the automatic ones is taken, always the same for an id. A pose without a caption is left out:
`human6293.json` alone gives the human-written part. AMASS has renamed some of its sets; both names are looked for.

The yaw of the root is undone, and the z-up world of AMASS is stood upright for a camera: R = Rx(+90 deg) Ry Rx.

A JSON list, or one object a line, of descriptions with their poses, as ChatPose's SPG has pairs:

    {"text": "a goalkeeper who waits for the penalty", "pose": [72 numbers], "question": "...", "id": 3, "joints": 22}

`pose` is axis-angle of SMPL, or of SMPL-H (156 numbers), and left as it stands. The last three are optional: the question is SPG's
otherwise, and `joints` says how many of the first joints are SMPL's own (22 unless it says 24).

**Image to pose.** A JSON list, or one object a line, as of 4D-Humans

    {"image": "images/x.jpg", "smpl_params": {"global_orient": [3 numbers], "body_pose": [69 numbers]}, "caption": "sitting"}

or of RPE-Refined (arXiv 2507.13314), with `real_image` (which wins over `image`), `conversations` (its first turn is the question) and
`ground_truth.smpl_param.pose` [72 numbers]; all axis-angle in the frame of the camera, and left so. `caption`, `question` and `id` are
optional.

`values` are 24 rotations as 3 x 3 matrices, row by row (216 numbers): the root, then joints 1 to 23. In a pose of PoseScript, joints 22 and
23 are the first finger joints of SMPL-H that stand there, as in ChatPose's own training, and not the hands of SMPL: such a record has 22 in
`extra["joints"]`, the number of its first joints that a metric is about.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omnistage.data.errors import InputError, MediaError, RecordError
from omnistage.data.formats.media_root import MediaRoot
from omnistage.data.formats.parts import id_of, is_finite, rows_of
from omnistage.data.formats.places import Place, Row
from omnistage.data.formats.rows import Fields, Mapped, RowStream, distinct, perceived, shown
from omnistage.data.formats.streams import in_short, read_whole
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record
from omnistage.data.rotations import Floats, axis_angle_to_matrices, without_yaw

JOINTS = 24
SMPLH_JOINTS = 52
# The first joints, up to the wrists, are the same in SMPL and in SMPL-H.
SHARED_JOINTS = 22
INDEX = "ids_2_dataset_sequence_and_frame_index.json"
HUMAN = "human6293.json"
AUTOMATIC = tuple(f"automatic_{letter}.json" for letter in "ABCDEF")
# How PoseScript names a set of AMASS, and how the download is named today.
RENAMED = {
    "BioMotionLab_NTroje": "BMLrub",
    "DFaust_67": "DFaust",
    "Eyes_Japan_Dataset": "EyesJapanDataset",
    "MPI_HDM05": "HDM05",
    "MPI_Limits": "PosePrior",
    "MPI_mosh": "MoSh",
    "SSM_synced": "SSM",
    "Transitions_mocap": "Transitions",
}
TEXT_QUESTION = "{caption} Give the SMPL pose."
PAIR_QUESTION = "{text}, can you give the SMPL pose of this person?"
IMAGE_QUESTION = "Can you predict the SMPL pose of the person in this image?"
IMAGE_TARGET = "the pose of the person in the image"

_UPRIGHT = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
_ROW_FIELDS = frozenset({"id", "caption", "question", "conversations", "smpl_params", "ground_truth"})
_PAIR_FIELDS = frozenset({"id", "text", "pose", "question", "joints"})


def read(path: Path, *, media_root: Path, modality: Modality | None = None) -> Iterator[Record]:
    """The records of PoseScript's folder or of one of its splits, or of a file of descriptions with poses (`TEXT`), or of images with
    poses (`IMAGE`), in their order; the first row of a file says which of the two it is.

    The index and the captions of PoseScript are read whole (they are small), poses one at a time. Raises `RecordError` for a
    `modality` that the data does not have and for a row that does not hold what is described above, and `MediaError` for a sequence or
    image that is missing, unreadable or outside `media_root`.
    """
    posescript = path.is_dir() or (path.parent / INDEX).is_file()
    pairs = not posescript and _holds_pairs(path)
    perceived(modality, (Modality.TEXT if posescript or pairs else Modality.IMAGE,), path.name)
    if pairs:
        return distinct(_pairs(path))
    root = MediaRoot(media_root)
    return distinct(_text_to_pose(path, root) if posescript else _image_to_pose(path, root))


def _holds_pairs(path: Path) -> bool:
    """Whether its first row is a description with a pose. What is wrong with a file is told by whoever reads it."""
    try:
        _, fields = next(rows_of(path, ""))
    except (InputError, StopIteration):
        return False
    return "text" in fields.values and fields.values.keys().isdisjoint(("image", "real_image"))


def _pairs(path: Path) -> RowStream[Record]:
    def made(row: tuple[int, Fields]) -> Iterator[Record]:
        position, fields = row
        text = fields.text("text")
        joints = fields.values.get("joints", SHARED_JOINTS)
        if joints not in (SHARED_JOINTS, JOINTS) or isinstance(joints, bool):
            raise fields.error("joints", f"got {shown(joints)}; allowed: {SHARED_JOINTS} or {JOINTS}")
        asked = fields.values.get("question") is not None
        yield Record(
            id=id_of(fields, "id", f"{path.stem}-{position}"),
            modality=Modality.TEXT,
            task="text_to_pose",
            kind=AnswerKind.POSE,
            question=fields.text("question") if asked else PAIR_QUESTION.format(text=text),
            target=text,
            values=_values(axis_angle_to_matrices(_numbers(fields, "pose", 3 * JOINTS, 3 * SMPLH_JOINTS)[:JOINTS])),
            source=fields.where,
            extra=fields.others(_PAIR_FIELDS) | {"joints": int(joints)},
        )

    return Mapped(rows_of(path, "text and pose"), made)


def _image_to_pose(path: Path, root: MediaRoot) -> RowStream[Record]:
    def made(row: tuple[int, Fields]) -> Iterator[Record]:
        position, fields = row
        image = "real_image" if fields.values.get("real_image") is not None else "image"
        file = root.media(fields, image)
        caption = fields.values.get("caption")
        yield Record(
            id=id_of(fields, "id", f"{path.stem}-{position}"),
            modality=Modality.IMAGE,
            task="image_to_pose",
            kind=AnswerKind.POSE,
            question=_image_question(fields),
            target=IMAGE_TARGET if caption is None else fields.text("caption"),
            media=(MediaRef("image", file),),
            values=_values(axis_angle_to_matrices(_axis_angles(fields))),
            source=fields.where,
            extra=fields.others({*_ROW_FIELDS, image}),
        )

    return Mapped(rows_of(path, "image and smpl_params or ground_truth"), made)


def _image_question(fields: Fields) -> str:
    if fields.values.get("question") is not None:
        return fields.text("question")
    turns = fields.values.get("conversations")
    if turns is None:
        return IMAGE_QUESTION
    allowed = "a list whose first entry is an object with a value"
    if not isinstance(turns, list) or not turns or not isinstance(turns[0], dict):
        raise fields.error("conversations", f"got {shown(turns)}; allowed: {allowed}")
    first = Fields(turns[0], fields.where, f"{fields.prefix}conversations[0].")
    return first.text("value").replace("<image>", "").strip() or IMAGE_QUESTION


def _axis_angles(fields: Fields) -> Floats:
    """Axis-angle [24, 3]."""
    if fields.values.get("smpl_params") is None and fields.values.get("ground_truth") is not None:
        return _numbers(fields.below("ground_truth").below("smpl_param"), "pose", 3 * JOINTS)
    if fields.values.get("smpl_params") is None:
        raise fields.error("smpl_params", "missing; allowed: one object with global_orient and body_pose, or ground_truth.smpl_param.pose")
    smpl = fields.below("smpl_params")
    return np.concatenate([_numbers(smpl, "global_orient", 3), _numbers(smpl, "body_pose", 3 * JOINTS - 3)])


def _numbers(fields: Fields, field: str, *counts: int) -> Floats:
    """Axis-angle [joints, 3] of a flat list, or of a list of lists."""
    allowed = f"a list of {' or '.join(map(str, counts))} finite numbers (axis-angle in radians)"
    listed = fields.need(field, allowed)
    if not isinstance(listed, list):
        raise fields.error(field, f"got {shown(listed)}; allowed: {allowed}")
    flat = [value for entry in listed for value in (entry if isinstance(entry, list) else [entry])]
    for position, value in enumerate(flat):
        if not is_finite(value):
            raise fields.error(field, f"number {position} is {shown(value)}; allowed: {allowed}")
    if len(flat) not in counts:
        raise fields.error(field, f"got {len(flat)} numbers; allowed: {allowed}")
    return np.array(flat, np.float64).reshape(-1, 3)


def _values(matrices: Floats) -> tuple[float, ...]:
    return tuple(matrices.reshape(-1).tolist())


@dataclass(frozen=True)
class _PoseScript:
    """The index, and for each name of a caption file (without its ending) its captions by id."""

    index: dict[str, Any]
    captions: dict[str, dict[str, Any]]

    def caption(self, key: str, where: str) -> tuple[str, str] | None:
        """The caption of a pose and the name of its file, or None where it has none."""
        having = [name for name, texts in self.captions.items() if texts.get(key) is not None]
        if not having:
            return None
        automatic = [name for name in having if f"{name}.json" != HUMAN]
        # The same caption on every machine and in every run, and all kinds of them over the set.
        name = having[0] if having[0] not in automatic else automatic[zlib.crc32(key.encode()) % len(automatic)]
        text = self.captions[name][key]
        if not isinstance(text, str) or not text.strip():
            raise RecordError(f"{where}: {name}.json: caption of {key!r}: got {shown(text)}; allowed: a string that is not empty")
        return text.strip(), name


def _text_to_pose(path: Path, root: MediaRoot) -> RowStream[Record]:
    def made(row: Row) -> list[Record]:
        posescript, key = row.value
        where = str(row.place)
        if isinstance(key, bool) or not isinstance(key, int | str):
            raise RecordError(f"{where}: id: got {shown(key)}; allowed: a string or a whole number")
        key = str(key)
        if key not in posescript.index:
            raise RecordError(f"{where}: id: {key!r} is not in {INDEX}; allowed: an id of it")
        found = posescript.caption(key, where)
        return [] if found is None else [_pose(key, posescript.index[key], found, where, root)]

    return Mapped(_keys(path), made)


def _keys(path: Path) -> Iterator[Row]:
    """For each pose that is listed, PoseScript and the id."""
    folder = path if path.is_dir() else path.parent
    captions = {file[:-5]: _object(folder / file) for file in (HUMAN, *AUTOMATIC) if (folder / file).is_file()}
    if not captions:
        raise RecordError(f"{folder.name}: it holds no captions; allowed: a folder with {HUMAN} or {AUTOMATIC[0]} to {AUTOMATIC[-1]}")
    posescript = _PoseScript(_object(folder / INDEX), captions)
    listing = INDEX if path.is_dir() or path.name == INDEX else path.name
    keys = list(posescript.index) if listing == INDEX else _ids(path)
    if not any(texts.get(str(key)) is not None for key in keys for texts in captions.values()):
        names = ", ".join(f"{name}.json" for name in captions)
        raise RecordError(f"{listing}: none of its poses has a caption; allowed: ids that {names} hold")
    for position, key in enumerate(keys):
        yield Row(Place(listing, position), position, (posescript, key))


def _object(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise RecordError(f"{file.parent.name}: it holds no {file.name}; allowed: the folder posescript_release of PoseScript")
    content = read_whole(file)
    if not isinstance(content, dict):
        raise RecordError(f"{file.name}: it is {shown(content)}; allowed: one JSON object from ids to entries")
    return content


def _ids(file: Path) -> list[Any]:
    content = read_whole(file)
    if not isinstance(content, list):
        raise RecordError(f"{file.name}: it is {shown(content)}; allowed: one JSON list of ids")
    return content


def _pose(key: str, entry: Any, caption: tuple[str, str], where: str, root: MediaRoot) -> Record:
    allowed = '["AMASS", "<path of an npz file>", <frame>]'
    three = isinstance(entry, list) and len(entry) == 3 and isinstance(entry[0], str) and isinstance(entry[1], str) and entry[1].strip()
    if not three:
        raise RecordError(f"{where}: entry of {key!r}: got {shown(entry)}; allowed: {allowed}")
    dataset, sequence, frame = entry
    if not is_finite(frame) or frame != int(frame) or frame < 0:
        raise RecordError(f"{where}: frame: got {shown(frame)}; allowed: a whole number that is not negative")
    text, name = caption
    matrices = axis_angle_to_matrices(_frame(_sequence(sequence, where, root), int(frame), where)[:JOINTS])
    matrices[0] = _UPRIGHT @ without_yaw(matrices[0])
    return Record(
        id=key,
        modality=Modality.TEXT,
        task="text_to_pose",
        kind=AnswerKind.POSE,
        question=TEXT_QUESTION.format(caption=text),
        target=text,
        values=_values(matrices),
        source=where,
        extra={"caption": name, "dataset": dataset, "sequence": sequence, "frame": int(frame), "joints": SHARED_JOINTS},
    )


def _sequence(named: str, where: str, root: MediaRoot) -> Path:
    first, _, rest = named.partition("/")
    names = [named, f"{RENAMED[first]}/{rest}"] if first in RENAMED else [named]
    places = [f"{folder}{name}" for folder in ("", "AMASS/") for name in names]
    found = root.first(places, f"{where}: sequence")
    if found is None:
        allowed = f"one of {', '.join(places)} under the media root {str(root.folder)!r}"
        raise MediaError(f"{where}: sequence: {named!r} is not there; allowed: {allowed}", "missing")
    return Path(found)


def _frame(file: Path, frame: int, where: str) -> Floats:
    """Axis-angle [52, 3] of one frame."""
    allowed = f"an npz file with poses [frames, {3 * SMPLH_JOINTS}]"
    try:
        # A pickle in a downloaded file would run code.
        with np.load(file, allow_pickle=False) as arrays:
            poses = arrays["poses"]
    except Exception as error:
        problem = f"{type(error).__name__}: {in_short(error)}"
        raise MediaError(f"{where}: sequence: {file.name!r} cannot be read ({problem}); allowed: {allowed}") from error
    if poses.ndim != 2 or poses.shape[1] != 3 * SMPLH_JOINTS or poses.dtype.kind not in "fiu":
        raise MediaError(f"{where}: sequence: {file.name!r} has poses {list(poses.shape)} of {poses.dtype}; allowed: {allowed}")
    if frame >= len(poses):
        raise RecordError(f"{where}: frame: got {frame}, and {file.name!r} has {len(poses)} frames; allowed: 0 to {len(poses) - 1}")
    joints: Floats = poses[frame].astype(np.float64).reshape(SMPLH_JOINTS, 3)
    if not np.isfinite(joints).all():
        raise MediaError(f"{where}: sequence: {file.name!r} holds no finite pose at frame {frame}; allowed: finite numbers")
    return joints
