"""The rows of a stage: read from its sources, checked before anything starts, and pooled so that a step holds one modality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnistage.data import formats, media, pass_rates, prompts, quarantine
from omnistage.data.errors import InputError, MediaError
from omnistage.data.formats.places import in_file, place_of
from omnistage.data.quarantine import Listed
from omnistage.data.records import Record
from omnistage.rl.sampler import Pool
from omnistage.stages.main_process import say
from omnistage.stages.recipe.source import PassRate, Source


@dataclass(frozen=True, slots=True)
class Kept:
    """What is drawn of one source: its records, and how many were left out by which of its files (`quarantine`, `pass_rate`)."""

    source: Source
    records: list[Record]
    left_out: dict[str, int]

    def counts(self) -> dict[str, Any]:
        """As plain data, for the record of a run."""
        rate = self.source.pass_rate
        chosen = {"pass_rate": {"file": rate.file, "range": rate.bounds}} if rate else {}
        return {"path": self.source.path, "records": len(self.records), "left_out": self.left_out} | chosen


def read_source(source: Source) -> list[Record]:
    """Rows of one source without those that are in its quarantine or outside its range of pass rates; how many these are is said.

    Raises:
        InputError: the file or a row of it is wrong, no row is left, or the quarantine or the pass rates are not of this file.
    """
    return _kept(source).records


def _kept(source: Source) -> Kept:
    listed = None if source.quarantine is None else quarantine.read(source.quarantine).of(source.path)
    records, left_out = _read(source, listed or Listed(frozenset(), frozenset()))
    if not records and left_out:
        raise InputError(f"{source.path}: all of its {left_out} rows are in quarantine {source.quarantine!r}")
    if not records:
        raise InputError(f"{source.path}: holds no record")
    if left_out:
        say(f"{source.path}: {left_out} of {len(records) + left_out} records are left out, as {source.quarantine} says")
    by_file = {"quarantine": left_out} if source.quarantine else {}
    if source.pass_rate is None:
        return Kept(source, records, by_file)
    kept = _in_range(source.path, records, source.pass_rate)
    return Kept(source, kept, by_file | {"pass_rate": len(records) - len(kept)})


def _in_range(path: str, records: list[Record], wanted: PassRate) -> list[Record]:
    """The records whose pass rate is wanted."""
    shares = pass_rates.read(wanted.file).of(records)
    kept = [record for record, share in zip(records, shares, strict=True) if wanted.keeps(share)]
    if not kept:
        told = f"wanted is {wanted.bounds}, and its {len(records)} records have {min(shares):g} to {max(shares):g}"
        raise InputError(f"{path}: no record is left by its pass rate in {wanted.file!r}: {told}")
    if len(kept) < len(records):
        told = f"their pass rate in {wanted.file} is not {wanted.bounds}"
        say(f"{path}: {len(records) - len(kept)} of {len(records)} records are left out: {told}")
    return kept


def _read(source: Source, listed: Listed) -> tuple[list[Record], int]:
    """The records that are not listed, and how many rows are; a row that is listed need not be readable."""
    root = Path(source.media_root) if source.media_root else None
    reading = formats.read(source.format, source.path, media_root=root, modality=source.modality, limit=source.limit)
    records: list[Record] = []
    left_out = 0
    while True:
        try:
            record = next(reading)
        except StopIteration:
            return records, left_out
        except InputError as error:
            if str(place_of(error)) not in listed.rows:
                raise
            left_out += 1
            continue
        if listed.has(record):
            left_out += 1
        else:
            records.append(record)


def check_ids(files: Sequence[tuple[str, Sequence[Record]]]) -> None:
    """Raises `InputError` when two rows of annotation files (path, records) share an id."""
    seen: dict[str, tuple[str, Record]] = {}
    for path, records in files:
        for record in records:
            file, before = seen.setdefault(record.id, (path, record))
            if before is not record:
                told = f"id {record.id!r} is also that of {in_file(file, before.source)}; ids must differ within a stage"
                raise InputError(f"{in_file(path, record.source)}: {told}")


def check_text(records: Sequence[Record]) -> None:
    """Raises `InputError` for the first record with a text that holds a control token."""
    for record in records:
        if told := prompts.control_token(record):
            raise InputError(f"{record.source}: {told}")


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
    return counted_pools(sources)[:2]


def counted_pools(sources: Sequence[Source]) -> tuple[list[Record], list[Pool], list[Kept]]:
    """The same, and what was kept of each source."""
    blocks = [_kept(source) for source in sources]
    records: list[Record] = []
    out: list[Pool] = []
    for block in blocks:
        for modality in dict.fromkeys(record.modality for record in block.records):
            indices = tuple(len(records) + index for index, record in enumerate(block.records) if record.modality is modality)
            out.append(Pool(indices, block.source.weight * len(indices) / len(block.records)))
        records += block.records
    check_ids([(block.source.path, block.records) for block in blocks])
    check_text(records)
    return records, out, blocks


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
