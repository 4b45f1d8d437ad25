"""HIS-Bench (arXiv 2503.12955): questions about what a person does in a 3D scene, in both layouts that its code reads.

One JSON list for each task, or a folder of them (read in the order of their names). For models that see a rendering of the scene:

    {"task": "activity", "source": "PROX", "scene": "MPH11", "motion": "MPH11_00034_01", "start": 12.0, "end": 16.0,
     "qa": [{"question": "What is the person doing?", "answer": "Sitting on the sofa."}]}

whose clip is `<media root>/<source>/motions/<motion>/video_render.mp4`, or `video_rgb.mp4` where there is no rendering. And the native one:

    {"task": "activity", "data_id": "d1", "scene_id": "scene0001", "motion_id": "000123", "qa": [{"question": ..., "answer": ...}]}

It names motion tokens and no clip, and a question about something that is not shown is no sample: a rendering must lie at
`<media root>/motions/<motion_id>/video_render.mp4` (or `video_rgb.mp4`) or `<media root>/<motion_id>.mp4`, else `MediaError`.

`qa` is a dialogue: each of its questions becomes a record whose `history` holds those before it with their reference answers.

`start` and `end` are kept in `extra` as they stand and nothing is cut: the published code takes them for seconds in one place, and for
frames of PROX and seconds of all else in another. The whole clip is shown, so cut clips beforehand where a question is about a part.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from omnistage.data.errors import MediaError, RecordError
from omnistage.data.formats.media_root import MediaRoot
from omnistage.data.formats.parts import is_finite, rows_of
from omnistage.data.formats.rows import Chained, Fields, Mapped, distinct, perceived, shown
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record

RENDERINGS = ("video_render.mp4", "video_rgb.mp4")
_HOLDS = "task, qa, and source and motion or scene_id and motion_id"


def read(path: Path, *, media_root: Path, modality: Modality | None = None) -> Iterator[Record]:
    """The records of one file, or of all `.json` files of a folder; all are silent `VIDEO`.

    `TEXT` as `modality` leaves the clip out (what can be guessed without it); the renderings have no sound. Raises `RecordError` for
    another modality and for a row that does not hold what is described above, `MediaError` for a clip that is missing or outside
    `media_root`.
    """
    seen_as = perceived(modality, (Modality.VIDEO, Modality.TEXT), path.name)
    root = MediaRoot(media_root)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise RecordError(f"{path.name}: the folder holds no .json file; allowed: one JSON list for each task")
    return distinct(Chained([_records(file, root, seen_as) for file in files]))


def _records(file: Path, root: MediaRoot, modality: Modality) -> Mapped[tuple[int, Fields], Record]:
    def made(row: tuple[int, Fields]) -> Iterator[Record]:
        position, fields = row
        return _turns(fields, f"{file.stem}-{position}", root, modality)

    return Mapped(rows_of(file, _HOLDS), made)


def _turns(fields: Fields, default_id: str, root: MediaRoot, modality: Modality) -> Iterator[Record]:
    task = fields.text("task")
    media = () if modality is Modality.TEXT else (MediaRef("video", _clip(fields, root)),)
    _check_times(fields)
    history: list[tuple[str, str]] = []
    for turn, pair in enumerate(_qa(fields)):
        question, answer = pair.text("question"), pair.text("answer")
        yield Record(
            id=f"{default_id}-{turn}",
            modality=modality,
            task=task,
            kind=AnswerKind.OPEN,
            question=question,
            target=answer,
            media=media,
            history=tuple(history),
            source=fields.where,
            extra=fields.others(("task", "qa")) | pair.others(("question", "answer")) | {"turn": turn},
        )
        history.append((question, answer))


def _qa(fields: Fields) -> list[Fields]:
    """All turns, checked before the first is given out."""
    allowed = "a list of objects with question and answer"
    pairs = fields.need("qa", allowed)
    if not isinstance(pairs, list) or not pairs:
        raise fields.error("qa", f"got {'an empty list' if pairs == [] else shown(pairs)}; allowed: {allowed}")
    for turn, pair in enumerate(pairs):
        if not isinstance(pair, dict):
            raise fields.error(f"qa[{turn}]", f"got {shown(pair)}; allowed: an object with question and answer")
    return [Fields(pair, fields.where, f"qa[{turn}].") for turn, pair in enumerate(pairs)]


def _check_times(fields: Fields) -> None:
    times = {name: fields.values[name] for name in ("start", "end") if fields.values.get(name) is not None}
    for name, time in times.items():
        if not is_finite(time) or time < 0:
            raise fields.error(name, f"got {shown(time)}; allowed: a number that is not negative, or null")
    if len(times) == 2 and not times["start"] < times["end"]:
        raise fields.error("end", f"got {times['end']}, and start is {times['start']}; allowed: a number above start")


def _clip(fields: Fields, root: MediaRoot) -> str:
    if fields.values.get("motion_id") is not None:
        field, motion = "motion_id", fields.text("motion_id")
        places = [*(f"motions/{motion}/{name}" for name in RENDERINGS), f"{motion}.mp4"]
        hint = "the native layout names no clip"
    else:
        field, motion = "motion", fields.text("motion", "a string; in the native layout motion_id")
        places = [f"{fields.text('source')}/motions/{motion}/{name}" for name in RENDERINGS]
        hint = "the rendering of the motion"
    clip = root.first(places, f"{fields.where}: {field}")
    if clip is not None:
        return clip
    allowed = f"one of {', '.join(places)} under the media root {str(root.folder)!r}"
    raise MediaError(f"{fields.where}: {field}: {motion!r} has no clip ({hint}); allowed: {allowed}", "missing")
