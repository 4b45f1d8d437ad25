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
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path

from omnistage.data.errors import MediaError, RecordError
from omnistage.data.formats.media_root import MediaRoot
from omnistage.data.formats.parts import at_rate
from omnistage.data.formats.places import BadPath, Place, Row
from omnistage.data.formats.rows import Fields, Mapped, distinct, media_refs, object_of, perceived, shown
from omnistage.data.formats.streams import in_short, stream_lines, stream_list
from omnistage.data.records import AnswerKind, Modality, Record

CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
IMAGE_CACHE = ".omnistage/images"
# Rows of a parquet file that become Python objects at once, with their images.
BATCH_ROWS = 16

_FIELDS = frozenset({"question", "answer", "image", "video_path", *CHOICES})
_SIGNATURES = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg", b"BM": ".bmp"}


def read(path: Path, *, media_root: Path, modality: Modality | None = None) -> Iterator[Record]:
    """The records of one file, in its order: `IMAGE` or `VIDEO`, or `TEXT` (blind) where `modality` says so.

    Raises `RecordError` for a row that does not hold what is described above and `MediaError` for an image or a folder of frames that is
    missing, empty, outside `media_root`, or no image.
    """
    root = MediaRoot(media_root)

    def made(row: Row) -> list[Record]:
        return [_record(object_of(row.value, str(row.place), "question_id, question and answer"), root, modality)]

    return distinct(Mapped(_rows(path), made), "question_id")


def _rows(path: Path) -> Iterable[Row]:
    match path.suffix.lower():
        case ".parquet":
            return _parquet(path)
        case ".jsonl":
            return stream_lines(path)
        case ".json":
            return stream_list(path)
        case suffix:
            raise RecordError(f"{path.name}: the file ends in {suffix!r}; allowed: .json, .jsonl, .parquet")


def _parquet(path: Path) -> Iterator[Row]:
    # Imported here: other formats need not wait for it.
    import pyarrow
    from pyarrow.parquet import ParquetFile

    position = count()
    try:
        with ParquetFile(path) as file:
            # One group of rows at a time: asked for all of them, it takes the whole file into memory before the first batch.
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group]):
                    for entry in batch.to_pylist():
                        at = next(position)
                        yield Row(Place(path.name, at), at, entry)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path.name}: the file cannot be read: {in_short(error)}; allowed: a whole parquet file") from error


def _record(top: Fields, root: MediaRoot, modality: Modality | None) -> Record:
    name = top.name("question_id")
    is_choice = any(top.values.get(field) is not None for field in CHOICES)
    options = tuple(top.text(field, "the text of this choice, or none of the four") for field in CHOICES) if is_choice else ()
    sense = _sense(top)
    seen_as = perceived(modality, (sense, Modality.TEXT), top.where)
    clip = _image(top, root) if sense is Modality.IMAGE else root.media(top, "video_path", folders=True)
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
        raise top.bad_answer("answer", f"got {shown(top.values['answer'])}; allowed: {allowed}")
    return letter


def _image(top: Fields, root: MediaRoot) -> str:
    """The path of an image that is named, or given as a struct of its bytes and its name."""
    value = top.values["image"]
    if isinstance(value, str):
        return root.media(top, "image")
    if not isinstance(value, dict) or not value.keys() <= {"bytes", "path"}:
        raise top.error("image", f"got {shown(value)}; allowed: a path, or in parquet a struct of bytes and path")
    content = value.get("bytes")
    if content is None:
        return root.media(top.below("image"), "path")
    if not isinstance(content, bytes):
        raise top.error("image.bytes", f"got {shown(content)}; allowed: the bytes of an image file, which only parquet can hold")
    return _kept(content, root, f"{top.where}: image.bytes")


def _kept(content: bytes, root: MediaRoot, where: str) -> str:
    """The path of a file with this content in the cache; written when it is not there."""
    suffix = next((suffix for signature, suffix in _SIGNATURES.items() if content.startswith(signature)), None)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        suffix = ".webp"
    if suffix is None:
        raise MediaError(f"{where}: {len(content)} bytes that begin with {content[:8]!r}; allowed: a PNG, JPEG, BMP or WebP file")
    try:
        path = Path(root.resolve(f"{IMAGE_CACHE}/{hashlib.sha256(content).hexdigest()}{suffix}"))
        if not (path.is_file() and path.stat().st_size == len(content)):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Whole or not there: another process may write the same image, or read it.
            part = path.with_name(f".{path.name}.{os.getpid()}")
            part.write_bytes(content)
            part.replace(path)
    except BadPath as error:
        raise BadPath(f"{where}: {error}") from error
    except OSError as error:
        cause = f"{error.strerror}: {error.filename!r}"
        raise MediaError(f"{where}: cannot be kept in {IMAGE_CACHE} ({cause}); allowed: a media root that can be written to") from error
    return str(path)
