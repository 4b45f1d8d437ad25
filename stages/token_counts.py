"""How many tokens each record takes, counted by laying it out as for training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from omnistage.data.errors import InputError
from omnistage.data.records import Record
from omnistage.rl.encoding import Encoder

SENSES = ("image", "video", "audio")


def count(records: Sequence[Record], encoder: Encoder) -> tuple[list[dict[str, Any]], list[tuple[Record, str]]]:
    """The tokens of each record, in all and by part (`text`, and `image`, `video` and `audio` placeholders), and the refused with why."""
    tokenizer = encoder.processor.tokenizer
    ids = {sense: tokenizer.convert_tokens_to_ids(getattr(tokenizer, f"{sense}_token")) for sense in SENSES}
    counted: list[dict[str, Any]] = []
    refused: list[tuple[Record, str]] = []
    for record in tqdm(records, desc="tokens", unit="record", disable=None, leave=False):
        try:
            row = encoder.encode(record)
        except InputError as error:
            refused.append((record, str(error)))
            continue
        media = {sense: row.ids.count(token) for sense, token in ids.items()}
        parts = {"text": len(row.ids) - sum(media.values())} | {sense: n for sense, n in media.items() if n}
        place = {"id": record.id, "source": record.source, "modality": str(record.modality)}
        counted.append({**place, "total": len(row.ids), "parts": parts})
    return counted, refused


def summary(counted: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Per modality: `records`, the `mean` and the `most` tokens of a record, and the mean of each of its `parts`."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in counted:
        rows[one["modality"]].append(one)
    out: dict[str, Any] = {}
    for modality, held in rows.items():
        totals = [one["total"] for one in held]
        names = list(dict.fromkeys(name for one in held for name in one["parts"]))
        parts = {name: sum(one["parts"].get(name, 0) for one in held) / len(held) for name in names}
        out[modality] = {"records": len(held), "mean": sum(totals) / len(held), "most": max(totals), "parts": parts}
    return out
