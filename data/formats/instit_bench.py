"""Inst-It Bench (arXiv 2412.03565): questions about single, numbered things in images and in clips.

Four splits, as a JSON list, as one JSON object a line (`.jsonl`), or as parquet in the way of the Hugging Face hub (`.parquet`). An entry
of `video_multi_choice`:

    {"question_id": "001-02", "question": "How does the role of [5] change from <4> to <5>?", "choice_a": "[5] sits down.",
     "choice_b": "[5] leaves.", "choice_c": "[5] waits.", "choice_d": "[5] lifts [6].", "answer": "D", "video_path": "videos_vpt/001"}

`[5]` is the thing with this number drawn on it, `<4>` the fourth frame. Without choices the answer is text (`image_open_ended`,
`video_open_ended`). `video_path` is a folder of frames, which is a clip of one frame a second, or of the row's `fps`; a file does too. In
place of it the image splits have `image`: a path, or in parquet the bytes of the file. Those are written once, under the name of their
content, to `.omnistage/images/` in the media root.

Ids are made of split and `question_id`, which the open-ended and the multiple-choice form of one question share.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from omnistage.data.errors import MediaError, RecordError
from omnistage.data.formats.rows import (
    Fields,
    Mapped,
    distinct,
    media_path,
    media_refs,
    object_of,
    perceived,
    shown,
    stream_lines,
    stream_list,
)
from omnistage.data.media import frame_files, resolve
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record

CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
IMAGE_CACHE = ".omnistage/images"
# Rows of a parquet file that become Python objects at once, with their images.
BATCH_ROWS = 16
FOLDERS_KEPT = 1024

FrameChecker = Callable[[str], None]

_FIELDS = frozenset({"question", "answer", "image", "video_path", *CHOICES})
_SIGNATURES = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg", b"BM": ".bmp"}


def read(path: Path, *, media_root: Path, modality: Modality | None = None) -> Iterator[Record]:
    """The records of one file, in its order: `IMAGE` or `VIDEO`, or `TEXT` (blind) where `modality` says so.

    Raises `RecordError` for a row that does not hold what is described above and `MediaError` for an image or a folder of frames that is
    missing, empty, outside `media_root`, or no image.
    """
    has_frames = frame_checker(media_root)

    def made(place: tuple[str, Any]) -> list[Record]:
        source, entry = place
        return [_record(object_of(entry, source, "question_id, question and answer"), media_root, modality, has_frames)]

    return distinct(Mapped(_rows(path), made), "question_id")


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Where each row stands, and the row."""
    match path.suffix.lower():
        case ".parquet":
            for row, entry in enumerate(_parquet(path)):
                yield f"{path.name}: record {row}", entry
        case ".jsonl":
            for line, entry in stream_lines(path):
                yield f"{path.name}: line {line}", entry
        case ".json":
            for row, entry in enumerate(stream_list(path)):
                yield f"{path.name}: record {row}", entry
        case suffix:
            raise RecordError(f"{path.name}: the file ends in {suffix!r}; allowed: .json, .jsonl, .parquet")


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    # Imported here: other formats need not wait for it.
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            # One group of rows at a time: asked for all of them, it takes the whole file into memory before the first batch.
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group]):
                    yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise RecordError(f"{path.name}: the file cannot be read: {problem[:160]}; allowed: a whole parquet file") from error


def _record(top: Fields, media_root: Path, modality: Modality | None, has_frames: FrameChecker) -> Record:
    name = top.name("question_id")
    is_choice = any(top.values.get(field) is not None for field in CHOICES)
    options = tuple(top.text(field, "the text of this choice, or none of the four") for field in CHOICES) if is_choice else ()
    sense = _sense(top)
    seen_as = perceived(modality, (sense, Modality.TEXT), top.where)
    clip = _image(top, media_root) if sense is Modality.IMAGE else clip_or_frames(top, "video_path", media_root, has_frames)
    task = f"{sense}_{'multi_choice' if is_choice else 'open_ended'}"
    return Record(
        id=f"{task}-{name}",
        modality=seen_as,
        task=task,
        kind=AnswerKind.SINGLE_CHOICE if is_choice else AnswerKind.OPEN,
        question=top.text("question"),
        target=_letter(top) if is_choice else top.text("answer"),
        media=at_rate(media_refs(clip, seen_as), top),
        options=options,
        source=top.where,
        extra={field: value for field, value in top.others(_FIELDS).items() if value is not None},
    )


def _sense(top: Fields) -> Modality:
    has_image, has_video = (top.values.get(field) is not None for field in ("image", "video_path"))
    if has_image == has_video:
        raise top.error("image", f"{'given beside' if has_image else 'missing, and so is'} video_path; allowed: one of image, video_path")
    return Modality.IMAGE if has_image else Modality.VIDEO


def _letter(top: Fields) -> str:
    allowed = "one of A, B, C, D"
    letter = top.text("answer", allowed).upper()
    if letter not in ("A", "B", "C", "D"):
        raise top.error("answer", f"got {shown(top.values['answer'])}; allowed: {allowed}")
    return letter


def _image(top: Fields, media_root: Path) -> str:
    """The path of an image that is named, or given as a struct of its bytes and its name."""
    value = top.values["image"]
    if isinstance(value, str):
        return media_path(top, "image", media_root)
    if not isinstance(value, dict) or not value.keys() <= {"bytes", "path"}:
        raise top.error("image", f"got {shown(value)}; allowed: a path, or in parquet a struct of bytes and path")
    content = value.get("bytes")
    if content is None:
        return media_path(top.below("image"), "path", media_root)
    if not isinstance(content, bytes):
        raise top.error("image.bytes", f"got {shown(content)}; allowed: the bytes of an image file, which only parquet can hold")
    return _kept(content, media_root, f"{top.where}: image.bytes")


def _kept(content: bytes, media_root: Path, where: str) -> str:
    """The path of a file with this content in the cache; written when it is not there."""
    suffix = next((suffix for signature, suffix in _SIGNATURES.items() if content.startswith(signature)), None)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        suffix = ".webp"
    if suffix is None:
        raise MediaError(f"{where}: {len(content)} bytes that begin with {content[:8]!r}; allowed: a PNG, JPEG, BMP or WebP file")
    try:
        path = Path(resolve(f"{IMAGE_CACHE}/{hashlib.sha256(content).hexdigest()}{suffix}", media_root))
        if not (path.is_file() and path.stat().st_size == len(content)):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Whole or not there: another process may write the same image, or read it.
            part = path.with_name(f".{path.name}.{os.getpid()}")
            part.write_bytes(content)
            part.replace(path)
    except MediaError as error:
        raise MediaError(f"{where}: {error}") from error
    except OSError as error:
        cause = f"{error.strerror}: {error.filename!r}"
        raise MediaError(f"{where}: cannot be kept in {IMAGE_CACHE} ({cause}); allowed: a media root that can be written to") from error
    return str(path)


def frame_checker(media_root: Path) -> FrameChecker:
    """A check of a folder of frames, made once for each folder: it must hold images, and none of them may lead out of the media root."""

    def check(folder: str) -> None:
        files = frame_files(folder)
        if not files:
            raise MediaError(f"{folder!r} is a folder without frames; allowed: a clip, or a folder of images")
        for file in files:
            resolve(file, media_root)

    return lru_cache(maxsize=FOLDERS_KEPT)(check)


def clip_or_frames(fields: Fields, field: str, media_root: Path, has_frames: FrameChecker) -> str:
    """The path of a clip, which may be a folder of frames, that a field names."""
    path = media_path(fields, field, media_root, folders=True)
    if os.path.isdir(path):
        try:
            has_frames(path)
        except MediaError as error:
            raise MediaError(f"{fields.where}: {fields.prefix}{field}: {error}") from error
    return path


def at_rate(media: tuple[MediaRef, ...], fields: Fields) -> tuple[MediaRef, ...]:
    """The media, with the row's `fps` on folders of frames. Raises `RecordError` for a rate that is no positive number."""
    fps = fields.values.get("fps")
    if fps is None:
        return media
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < float("inf"):
        raise fields.error("fps", f"got {shown(fps)}; allowed: frames a second, a positive number")
    return tuple(replace(ref, fps=float(fps)) if os.path.isdir(ref.path) else ref for ref in media)
