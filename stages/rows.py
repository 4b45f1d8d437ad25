"""The rows of a stage: read from its sources, checked before anything starts, and pooled so that a step holds one modality."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from omnistage.data import formats, media, quarantine
from omnistage.data.errors import InputError, MediaError
from omnistage.data.records import Record
from omnistage.rl.sampler import Pool
from omnistage.stages.main_process import say
from omnistage.stages.recipe.schema import Source

CONTROL_TOKEN = re.compile(r"<\|[A-Za-z0-9_]++\|>")


def read_source(source: Source) -> list[Record]:
    """Rows of one source.

    Raises:
        InputError: the file or a row of it is wrong, or it holds no row.
    """
    root = Path(source.media_root) if source.media_root else None
    records = list(formats.read(source.format, source.path, media_root=root, modality=source.modality, limit=source.limit))
    if not records:
        raise InputError(f"{source.path}: holds no record")
    return records if source.quarantine is None else _without(source.quarantine, records, source)


def _without(path: str, records: list[Record], source: Source) -> list[Record]:
    """The records that are not in quarantine; how many are left out is said, not silently done."""
    listed = quarantine.read(path)
    listed.verify(source.path)
    kept = listed.apply(records)
    if not kept:
        raise InputError(f"{source.path}: all of its {len(records)} records are in quarantine {path!r}")
    if len(kept) < len(records):
        say(f"{source.path}: {len(records) - len(kept)} of {len(records)} records are left out, as {path} says")
    return kept


def check_ids(records: Sequence[Record]) -> None:
    """Raises `InputError` when two rows share an id."""
    seen: dict[str, Record] = {}
    for record in records:
        if record.id in seen:
            raise InputError(f"{record.source}: id {record.id!r} is also that of {seen[record.id].source}; ids must differ within a stage")
        seen[record.id] = record


def check_text(records: Sequence[Record]) -> None:
    """Raises `InputError` for the first record whose text holds a control token: the model would read it as one, a clip's place say."""
    for record in records:
        for name, text in (("question", record.question), ("response", record.response or ""), *(("option", o) for o in record.options)):
            found = CONTROL_TOKEN.search(text)
            if found:
                raise InputError(f"{record.source}: its {name} holds {found[0]!r}, which the model reads as a control token")


def read_sources(sources: Sequence[Source]) -> list[Record]:
    """Rows of all sources, in order.

    Raises:
        InputError: a file or a row is wrong, or two rows share an id.
    """
    return pools(sources)[0]


def pools(sources: Sequence[Source]) -> tuple[list[Record], list[Pool]]:
    """Rows of all sources, and one pool for each modality of each source; a source's weight is shared out by its rows.

    Raises:
        InputError: a file or a row is wrong, or two rows share an id.
    """
    records: list[Record] = []
    out: list[Pool] = []
    for source in sources:
        block = read_source(source)
        for modality in dict.fromkeys(record.modality for record in block):
            indices = tuple(len(records) + index for index, record in enumerate(block) if record.modality is modality)
            out.append(Pool(indices, source.weight * len(indices) / len(block)))
        records += block
    check_ids(records)
    check_text(records)
    return records, out


def check_media(records: Sequence[Record]) -> None:
    """Open every distinct clip and see that it has the streams that its record asks for.

    Raises:
        MediaError: a clip is missing, unreadable, or has no picture or no sound where one is asked; the message names the record.
    """
    checked: set[tuple[str, str]] = set()
    for record in records:
        for ref in record.media:
            needs = [("sound" if ref.kind == "audio" else "picture", ref.path)]
            if ref.sound is not None:
                needs.append(("sound", ref.sound))
            for stream, path in needs:
                if (stream, path) in checked:
                    continue
                checked.add((stream, path))
                has = media.has_picture if stream == "picture" else media.has_sound
                try:
                    found = has(path)
                except MediaError as error:
                    raise MediaError(f"{record.source}: {error}") from error
                if not found:
                    raise MediaError(f"{record.source}: {path} has no {stream}, which a record of modality '{record.modality}' needs")
