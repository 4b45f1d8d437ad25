"""Annotation files read one row at a time, so that a row that cannot be read is a finding and not the end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from omnistage.data import formats, quarantine
from omnistage.data.errors import InputError
from omnistage.data.formats.places import Place, code_of, place_of
from omnistage.data.formats.reading import ReaderError
from omnistage.data.records import Modality, Record


@dataclass(frozen=True)
class Refused:
    """A row that gave no record: where it stands (`None`: nothing behind it was read), the name of what is wrong, and what it is."""

    place: Place | None
    code: str
    message: str


@dataclass
class Rows:
    """What could be read of one file: its records, the rows that were refused, whether all of it was read, and the digest of its bytes."""

    path: str
    records: list[Record] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    whole: bool = True
    sha256: str | None = None


def read(format: str, path: str, *, media_root: str | None = None, modality: Modality | None = None) -> Rows:
    """The rows of one file.

    A reader whose iterator gives further records after an error, as ours do (`formats.rows.Mapped`), is read to its end. A generator ends
    at its first bad row: that one is named, and `whole` is false, as it is for a file whose JSON breaks off.

    Raises:
        InputError: the format is unknown, the file or the media root is missing, a user's reader fails, or the file changes meanwhile.
    """
    reading = formats.read(format, path, media_root=media_root, modality=modality)
    rows = Rows(path, sha256=quarantine.digest_of(path))
    while True:
        try:
            rows.records.append(next(reading))
        except StopIteration:
            break
        except ReaderError:
            raise
        except InputError as error:
            rows.refused.append(Refused(place_of(error), code_of(error), " ".join(str(error).split())))
    rows.whole = reading.whole
    if not rows.whole and rows.refused and all(row.place is not None for row in rows.refused):
        # An iterator that gave an error and then nothing: whether that was its last row, it does not say.
        rows.refused[-1] = replace(rows.refused[-1], place=None)
    if quarantine.digest_of(path) != rows.sha256:
        raise InputError(f"{path}: it was changed while it was read; check it again")
    return rows
