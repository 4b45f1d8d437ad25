"""One reader per published layout, found by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from omnistage.data.errors import InputError, unknown_name
from omnistage.data.formats import humansense
from omnistage.data.records import Modality, Record

# Called as reader(path, media_root=..., modality=...); yields records in the order of the file.
Reader = Callable[..., Iterator[Record]]

READERS: dict[str, Reader] = {"humansense": humansense.read}


def read(
    format: str,
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    modality: Modality | None = None,
    limit: int | None = None,
) -> Iterator[Record]:
    """The records of an annotation file, the first `limit` of them when that is given, each checked as it is drawn.

    Media are looked for under `media_root`, which is the file's own folder when not given. Raises `InputError` at once for an unknown
    format, a missing file or folder or a negative limit; the reader raises `RecordError` and `MediaError` for single rows.
    """
    if format not in READERS:
        raise InputError(unknown_name("format", format, READERS))
    path = Path(path)
    if not path.is_file():
        raise InputError(f"annotation file {str(path)!r} does not exist or is no file")
    root = path.parent if media_root is None else Path(media_root)
    if not root.is_dir():
        raise InputError(f"media root {str(root)!r} does not exist or is no folder")
    if limit is not None and limit < 0:
        raise InputError(f"limit must not be negative, got {limit}")
    return islice(READERS[format](path, media_root=root, modality=modality), limit)
