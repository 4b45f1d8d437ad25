"""Annotation files read one row at a time, so that a row that cannot be read is a finding and not the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omnistage.data import formats
from omnistage.data.errors import InputError
from omnistage.data.formats.rows import Mapped
from omnistage.data.records import Modality, Record


@dataclass
class Rows:
    """What could be read of one file: its records, the errors of the other rows, and whether all of it was read."""

    path: str
    records: list[Record] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    whole: bool = True


def read(format: str, path: str, *, media_root: str | None = None, modality: Modality | None = None) -> Rows:
    """The rows of one file.

    A reader whose iterator gives further records after an error, as ours do (`formats.rows.Mapped`), is read to its end. A generator ends
    at its first bad row: that one is named, and `whole` is false, as it is for a file whose JSON breaks off.

    Raises:
        InputError: the format is unknown, or the file or the media root is missing.
    """
    formats.read(format, path, media_root=media_root, modality=modality)
    where = Path(path)
    root = Path(media_root) if media_root is not None else where if where.is_dir() else where.parent
    reader: Iterator[Record] = iter(formats.reader_of(format)(where, media_root=root, modality=modality))
    rows = Rows(path)
    failed = False
    while True:
        try:
            record = next(reader)
        except StopIteration:
            rows.whole = reader.whole if isinstance(reader, Mapped) else not failed
            return rows
        except InputError as error:
            rows.errors.append(" ".join(str(error).split()))
            failed = True
            continue
        failed = False
        if isinstance(record, Record):
            rows.records.append(record)
        else:
            place = len(rows.records) + len(rows.errors)
            rows.errors.append(f"{where.name}: record {place}: format {format!r} gave {type(record).__name__!r}; allowed: Record")
