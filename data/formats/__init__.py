"""One reader per published layout, found by name; a user's own reader by its place.

A reader is a function `read(path, *, media_root, modality=None)` that yields records in the order of the file, one at a time: a file of a
million rows is never whole in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from omnistage.data.errors import InputError, unknown_name
from omnistage.data.formats import chatpose, conversations, gen3dhf, hisbench, humansense, instit_bench, instit_dataset, video_r1
from omnistage.data.formats.reading import OwnReading, Reading
from omnistage.data.records import Modality, Record
from omnistage.data.user_code import function_of_file, function_of_module

# Called as reader(path, media_root=..., modality=...); yields records in the order of the file.
Reader = Callable[..., Iterator[Record]]

READERS: dict[str, Reader] = {
    "chatpose": chatpose.read,
    "conversations": conversations.read,
    "gen3dhf": gen3dhf.read,
    "hisbench": hisbench.read,
    "humansense": humansense.read,
    "instit_bench": instit_bench.read,
    "instit_dataset": instit_dataset.read,
    "video_r1": video_r1.read,
}
ENTRY_POINTS = "omnistage.formats"


def known() -> list[str]:
    """The names that can be used as they are: built in and from installed plug-ins."""
    return sorted({*READERS, *_plugins()})


def reader_of(format: str) -> Reader:
    """The reader that a name leads to: a known one, `package.module:function`, or `path/file.py:function`.

    Raises:
        InputError: the name leads nowhere, the code cannot be loaded, or what is found cannot be called.
    """
    place, colon, attribute = format.rpartition(":")
    found: Any
    if colon:
        found = (function_of_file if place.endswith(".py") else function_of_module)(place, attribute, "format")
    elif format in READERS:
        return READERS[format]
    elif format in (plugins := _plugins()):
        found = function_of_module(plugins[format].module, plugins[format].attr, "format")
    else:
        raise InputError(unknown_name("format", format, known()) + "; your own: 'package.module:function' or 'path/file.py:function'")
    if not callable(found):
        raise InputError(f"format {format!r} is {type(found).__name__!r}, not a function from a path to records")
    return found  # type: ignore[no-any-return]


def read(
    format: str,
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    modality: Modality | None = None,
    limit: int | None = None,
) -> Reading:
    """The records of an annotation file, the first `limit` of them when that is given, each checked as it is drawn.

    Media are looked for under `media_root`, which is the file's own folder when not given. Raises `InputError` at once for an unknown
    format, a missing file or folder or a negative limit; drawing raises `RecordError` and `MediaError` for single rows.
    """
    reader = reader_of(format)
    path = Path(path)
    if not path.exists():
        raise InputError(f"annotation file {str(path)!r} does not exist")
    root = Path(media_root) if media_root is not None else path if path.is_dir() else path.parent
    if not root.is_dir():
        raise InputError(f"media root {str(root)!r} does not exist or is no folder")
    if limit is not None and limit < 0:
        raise InputError(f"limit must not be negative, got {limit}")
    if format in READERS:
        return Reading(format, path, reader(path, media_root=root, modality=modality), limit)
    return OwnReading(format, path, lambda: reader(path, media_root=root, modality=modality), limit)


def _plugins() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
