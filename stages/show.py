"""What the model gets to see of a record: its prompt as text, the tokens that each sense takes, and a contact sheet of its clips."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from omnistage.data import media, sheet
from omnistage.data.records import Record
from omnistage.rl.encoding import Encoder

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST_NAME = 100


def show(records: Sequence[Record], encoder: Encoder, out: Path | None) -> Iterator[str]:
    """A text for each record; with `out`, a PNG for each of its clips there, named after the record.

    Raises:
        InputError: a clip cannot be decoded, or the processor refuses it.
    """
    for record in records:
        row = encoder(record)
        tokenizer = encoder.processor.tokenizer
        counts = {
            sense: row.ids.count(tokenizer.convert_tokens_to_ids(getattr(tokenizer, f"{sense}_token")))
            for sense in ("image", "video", "audio")
        }
        told = ", ".join(f"{sense} {count}" for sense, count in counts.items() if count)
        lines = [
            f"{record.id}  ({record.source}; {record.modality}, {record.task}, {record.kind})",
            _folded(tokenizer.decode(row.ids), [getattr(tokenizer, f"{sense}_token") for sense in counts]),
            f"tokens: {len(row.ids)} in all" + (f", of these {told}" if told else ""),
            f"target: {record.target}" + (f"; response: {record.response}" if record.response else ""),
        ]
        for number, ref in enumerate(record.media):
            clip = media.decode(ref, encoder.shape.limits)
            lines.append(_clip_line(ref.path, clip))
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                path = out / f"{_name(record)}-{number}.png"
                sheet.draw(clip).save(path)
                lines.append(f"  sheet: {path}")
        yield "\n".join(lines)


def _name(record: Record) -> str:
    """The record's id where it can be the name of a file, else what is left of it and a digest: two ids have two names."""
    name = _UNSAFE.sub("_", record.id)[:_LONGEST_NAME]
    return name if name == record.id else f"{name}-{hashlib.sha256(record.id.encode()).hexdigest()[:8]}"


def _folded(text: str, placeholders: Sequence[str]) -> str:
    """The prompt with each run of one placeholder as `<|VIDEO|> x 32`."""
    for placeholder in placeholders:
        run = re.compile(f"(?:{re.escape(placeholder)})+")
        text = run.sub(lambda found, one=placeholder: f"{one} x {len(found[0]) // len(one)}", text)  # type: ignore[misc]
    return text


def _clip_line(path: str, clip: media.Clip) -> str:
    parts = []
    if clip.frames is not None:
        rate = "" if clip.fps is None else f" at {clip.fps:g} a second"
        parts.append(f"{len(clip.frames)} frames of {clip.frames.shape[2]} x {clip.frames.shape[1]}{rate}")
    if clip.sound is not None:
        parts.append(f"{len(clip.sound) / media.SOUND_RATE_HZ:.2f} s of sound")
    return f"  clip: {path}: {', '.join(parts)}"
