"""Video-R1 (arXiv 2503.21776) and HumanOmniV2 (arXiv 2506.21277): questions about clips, images and sounds, with a tagged solution.

One JSON list, or one object a line:

    {"problem_id": 7, "problem": "What does she do next?", "data_type": "video", "path": "clips/x.mp4",
     "problem_type": "multiple choice", "options": ["A. She waves.", "B. She leaves."], "solution": "<answer>B</answer>"}

`data_type` is video, image or audio. HumanOmniV2 names the file in `video` too, and its `path` may be an object:
{"image": ..., "audio": ...} is a picture with a sound, {"video": ..., "audio": ...} a video that is heard from another file. `problem_id`
or `id` becomes the id.

| problem_type | becomes | why |
|---|---|---|
| multiple choice | single_choice | one letter |
| emer_ov_mc | multi_select | one letter or several |
| numerical | number | right when equal |
| regression | scalar | the nearer the better, so the number is in `values` too |
| judge | yes_no | |
| free-form, OCR, emer_ov | open | text |

A solution that reasons (`<think>`, HumanOmniV2's `<context>`) is a demonstration and becomes `response`; so do Video-R1's `process` and
`solution` together. The task is the `problem_type`; all other fields are kept in `extra`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from omnistage.data.errors import unknown_name
from omnistage.data.formats.media_root import MediaRoot
from omnistage.data.formats.parts import answer_in, answer_text, id_of, modality_of, option_texts, perceived_as, rows_of, target_of
from omnistage.data.formats.rows import Fields, Mapped, distinct, shown
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record

KINDS = {
    "multiple choice": AnswerKind.SINGLE_CHOICE,
    "emer_ov_mc": AnswerKind.MULTI_SELECT,
    "numerical": AnswerKind.NUMBER,
    "regression": AnswerKind.SCALAR,
    "judge": AnswerKind.YES_NO,
    "free-form": AnswerKind.OPEN,
    "OCR": AnswerKind.OPEN,
    "emer_ov": AnswerKind.OPEN,
}
DATA_TYPES = ("video", "image", "audio")
_CHOICES = (AnswerKind.SINGLE_CHOICE, AnswerKind.MULTI_SELECT)
_REASONS = ("<think>", "<context>")
_FIELDS = frozenset({"id", "problem_id", "problem", "problem_type", "options", "solution", "process", "path", "video", "data_type"})


def read(path: Path, *, media_root: Path, modality: Modality | None = None) -> Iterator[Record]:
    """The records of one file, in its order.

    Without `modality` a video is silent, as for Video-R1; `AUDIO_VIDEO` makes it heard, as HumanOmniV2 does. Raises `RecordError` for a row
    that does not hold what is described above and `MediaError` for media that are missing or outside `media_root`.
    """
    rows = rows_of(path, "problem, problem_type, path and solution")
    root = MediaRoot(media_root)

    def made(row: tuple[int, Fields]) -> list[Record]:
        position, fields = row
        return [_record(fields, f"{path.stem}-{position}", root, modality)]

    return distinct(Mapped(rows, made))


def _record(fields: Fields, default_id: str, root: MediaRoot, modality: Modality | None) -> Record:
    problem_type = fields.text("problem_type", " | ".join(KINDS))
    if problem_type not in KINDS:
        raise fields.error("problem_type", unknown_name("problem type", problem_type, KINDS))
    kind = KINDS[problem_type]
    options = option_texts(fields) if kind in _CHOICES else ()
    solution = answer_text(fields, "solution", lambda: "a string, or a number")
    target = target_of(fields, "solution", kind, answer_in(fields, "solution", solution), options)
    media = _media(fields, root)
    return Record(
        id=id_of(fields, "problem_id" if fields.values.get("problem_id") is not None else "id", default_id),
        modality=modality if modality is not None else modality_of(media),
        task=problem_type,
        kind=kind,
        question=fields.text("problem"),
        target=target,
        media=perceived_as(fields, media, modality) if modality is not None else media,
        options=options,
        values=(float(target),) if kind is AnswerKind.SCALAR else (),
        response=_response(fields, solution),
        source=fields.where,
        extra=fields.others(_FIELDS),
    )


def _response(fields: Fields, solution: str) -> str | None:
    process = fields.values.get("process")
    if process is not None and not isinstance(process, str):
        raise fields.error("process", f"got {shown(process)}; allowed: a string")
    if process and process.strip():
        return f"{process.strip()}\n{solution}"
    return solution if any(tag in solution for tag in _REASONS) else None


def _media(fields: Fields, root: MediaRoot) -> tuple[MediaRef, ...]:
    field = "path" if fields.values.get("path") is not None else "video"
    if fields.values.get(field) is None:
        raise fields.error("path", "missing; allowed: the path of a file, or an object with image and audio")
    named = fields.values[field]
    if isinstance(named, dict):
        return _two_media(fields, field, root)
    data_type = fields.text("data_type", " | ".join(DATA_TYPES))
    file = root.media(fields, field)
    match data_type:
        case "video" | "image" | "audio":
            return (MediaRef(data_type, file),)
        case _:
            raise fields.error("data_type", unknown_name("data type", data_type, DATA_TYPES))


def _two_media(fields: Fields, field: str, root: MediaRoot) -> tuple[MediaRef, ...]:
    paths = fields.below(field)
    names = sorted(paths.values)
    if names not in (["audio", "image"], ["audio", "video"]):
        raise fields.error(field, f"it names {', '.join(names) or 'nothing'}; allowed: image and audio, or video and audio")
    sound = root.media(paths, "audio")
    if "image" in names:
        return (MediaRef("image", root.media(paths, "image")), MediaRef("audio", sound))
    return (MediaRef("video", root.media(paths, "video"), sound=sound),)
