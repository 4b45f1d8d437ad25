"""Inst-It Dataset (arXiv 2412.03565): captions and questions about single, numbered things, as instructions with their answers.

One JSON list of clips (`inst_it_dataset_video_21k.json`) or of images (`inst_it_dataset_image_51k.json`):

    {"video_id": 7, "video_path": "videos/7", "video_level_caption": "[1] hands the cup to [2] ...",
     "frame_level_caption": [{"timestamp": 1, "frame_name": "frame_1.jpg", "instance_level": {"1": "A man in a red coat."},
                              "image_level": "[1] stands beside [2].", "temporal_change": ""}],
     "question_answer_pairs": [{"question": "What does [1] hold at <1>?", "answer": "A cup."}]}

    {"image_id": 9, "image_path": "images/9.jpg", "instance_level_caption": {"1": "A brown dog."}, "image_level_caption": "[1] sleeps."}

`[1]` is the thing with this number drawn on it, `<4>` the frame with this timestamp. One entry gives several records, in this order: for
each frame each of its things (`frame_instance`), the frame (`frame`) and what changed since the frame before (`temporal_change`, not for
the first frame); then the clip (`video`) and its questions as they stand (`question_answer`); for an image each thing (`image_instance`)
and the image (`image`). A caption that is null or empty gives no record. Captions are asked for in a few fixed wordings, drawn by the
record's id.
`video_path` is a folder of frames, one a second unless the entry has `fps`, or the file of a clip.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omnistage.data.formats.media_root import MediaRoot
from omnistage.data.formats.parts import at_rate
from omnistage.data.formats.places import Row
from omnistage.data.formats.rows import Fields, Mapped, media_refs, object_of, perceived, shown
from omnistage.data.formats.streams import stream_list
from omnistage.data.records import AnswerKind, Modality, Record

WORDINGS: Mapping[str, tuple[str, ...]] = {
    "frame_instance": (
        "Describe [{thing}] as it is at <{time}>.",
        "What can be seen of [{thing}] at <{time}>?",
        "At <{time}>, what is [{thing}], and what is it doing?",
    ),
    "frame": (
        "Describe everything that is seen at <{time}>, with the numbered things in it.",
        "What happens in the frame at <{time}>?",
        "How do the numbered things relate to each other at <{time}>?",
    ),
    "temporal_change": (
        "What changes from <{before}> to <{time}>?",
        "How does the scene at <{time}> differ from the one at <{before}>?",
        "Between <{before}> and <{time}>, what do the numbered things do?",
    ),
    "video": (
        "Describe the whole video, with what each numbered thing does and when.",
        "What happens in this video from its first frame to its last?",
        "Tell what the numbered things do in the course of this video.",
    ),
    "image_instance": (
        "Describe [{thing}].",
        "What can be seen of [{thing}] in this image?",
        "What is [{thing}], and what is it doing?",
    ),
    "image": (
        "Describe this image, with the numbered things in it.",
        "What is to be seen in this image?",
        "How do the numbered things in this image relate to each other?",
    ),
}


_VIDEO_FIELDS = frozenset({"video_path", "frame_level_caption", "question_answer_pairs", "video_level_caption"})
_IMAGE_FIELDS = frozenset({"image_path", "instance_level_caption", "image_level_caption"})
_PAIR_FIELDS = frozenset({"question", "answer"})
_MOST_DIGITS = 18


class _Item(NamedTuple):
    """One instruction of an entry: `part` makes its id; `question` is None where a wording is to be drawn and filled in."""

    task: str
    part: str
    answer: str
    question: str | None = None
    about: Mapping[str, str] = {}
    extra: Mapping[str, Any] = {}


def read(path: Path, *, media_root: Path, modality: Modality | None = None) -> Iterator[Record]:
    """The records of one annotation file, in its order: `VIDEO` or `IMAGE`, or `TEXT` (blind) where `modality` says so.

    Raises `RecordError` for an entry that does not hold what is described above and `MediaError` for an image, a clip or a folder of frames
    that is missing, empty or outside `media_root`.
    """
    root = MediaRoot(media_root)

    def made(row: Row) -> Iterator[Record]:
        top = object_of(row.value, str(row.place), "video_path or image_path, and captions")
        return _records(top, f"{path.stem}-{row.position}", root, modality)

    return Mapped(stream_list(path), made)


def _records(top: Fields, stem: str, root: MediaRoot, modality: Modality | None) -> Iterator[Record]:
    has_image, has_video = (top.values.get(field) is not None for field in ("image_path", "video_path"))
    if has_image == has_video:
        problem = "given beside" if has_image else "missing, and so is"
        raise top.error("video_path", f"{problem} image_path; allowed: one of video_path, image_path")
    sense = Modality.IMAGE if has_image else Modality.VIDEO
    seen_as = perceived(modality, (sense, Modality.TEXT), top.where)
    clip = root.media(top, "image_path") if has_image else root.media(top, "video_path", folders=True)
    media = at_rate(media_refs(clip, seen_as), top)
    name = "image_id" if has_image else "video_id"
    extra = {name: top.name(name)} | top.others({name, *(_IMAGE_FIELDS if has_image else _VIDEO_FIELDS)})
    for item in _image_items(top) if has_image else _video_items(top):
        identity = f"{stem}-{item.part}"
        yield Record(
            id=identity,
            modality=seen_as,
            task=item.task,
            kind=AnswerKind.OPEN,
            question=item.question if item.question is not None else _worded(item, identity),
            target=item.answer,
            media=media,
            response=item.answer,
            source=top.where,
            extra={**extra, **item.extra},
        )


def _worded(item: _Item, identity: str) -> str:
    wordings = WORDINGS[item.task]
    return wordings[zlib.crc32(identity.encode()) % len(wordings)].format(**item.about)


def _image_items(top: Fields) -> list[_Item]:
    items = []
    for thing, caption in _things(top, "instance_level_caption"):
        items.append(_Item("image_instance", f"instance-{thing}", caption, about={"thing": thing}, extra={"instance": thing}))
    if whole := _caption(top, "image_level_caption"):
        items.append(_Item("image", "image", whole))
    return items


def _video_items(top: Fields) -> list[_Item]:
    items: list[_Item] = []
    before: str | None = None
    times: set[str] = set()
    for frame in _objects(top, "frame_level_caption"):
        time = frame.name("timestamp").strip("<>")
        if not _is_number(time):
            raise frame.error("timestamp", f"got {shown(frame.values['timestamp'])}; allowed: a whole number, such as 4")
        if time in times:
            raise frame.error("timestamp", f"{time} is that of another frame too; allowed: a timestamp of its own")
        times.add(time)
        items += _frame_items(frame, time, before)
        before = time
    if whole := _caption(top, "video_level_caption"):
        items.append(_Item("video", "video", whole))
    for position, pair in enumerate(_objects(top, "question_answer_pairs")):
        question, answer = pair.text("question"), pair.text("answer")
        items.append(_Item("question_answer", f"qa-{position}", answer, question=question, extra=pair.others(_PAIR_FIELDS)))
    return items


def _frame_items(frame: Fields, time: str, before: str | None) -> list[_Item]:
    extra = {"timestamp": int(time)} | ({"frame_name": frame.text("frame_name")} if frame.values.get("frame_name") is not None else {})
    items = []
    for thing, caption in _things(frame, "instance_level"):
        about = {"thing": thing, "time": time}
        items.append(_Item("frame_instance", f"frame-{time}-{thing}", caption, about=about, extra=extra | {"instance": thing}))
    if whole := _caption(frame, "image_level"):
        items.append(_Item("frame", f"frame-{time}", whole, about={"time": time}, extra=extra))
    change = _caption(frame, "temporal_change")
    if change and before is not None:
        about = {"time": time, "before": before}
        items.append(_Item("temporal_change", f"change-{time}", change, about=about, extra=extra))
    return items


def _things(fields: Fields, field: str) -> Iterator[tuple[str, str]]:
    """Number and caption of each thing that has one."""
    if fields.values.get(field) is None:
        return
    things = fields.below(field)
    for thing in things.values:
        if not _is_number(thing):
            raise things.error(thing, "is no number of a thing; allowed: a whole number, such as '1'")
        if caption := _caption(things, thing):
            yield thing, caption


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


def _caption(fields: Fields, field: str) -> str | None:
    """The stripped text of a field; None where it is missing, null or empty."""
    value = fields.values.get(field)
    if value is not None and not isinstance(value, str):
        raise fields.error(field, f"got {shown(value)}; allowed: text, or null")
    return value.strip() or None if value is not None else None


def _objects(top: Fields, field: str) -> Iterator[Fields]:
    """The objects of a list that must be there, and may be empty."""
    values = top.need(field, "a list of objects")
    if not isinstance(values, list):
        raise top.error(field, f"got {shown(values)}; allowed: a list of objects")
    for position, value in enumerate(values):
        if not isinstance(value, dict):
            raise top.error(f"{field}[{position}]", f"got {shown(value)}; allowed: an object")
        yield Fields(value, top.where, f"{top.prefix}{field}[{position}].")
