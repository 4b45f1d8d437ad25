"""TensorBoard's event files as tests read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event


def all_of(folder: Path) -> list[Any]:
    """Every event of the files of a folder."""
    found: list[Any] = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        raw, start = path.read_bytes(), 0
        while start < len(raw):
            length = int.from_bytes(raw[start : start + 8], "little")
            found.append(Event.FromString(raw[start + 12 : start + 12 + length]))
            start += 12 + length + 4
    return found


def events_of(folder: Path) -> dict[tuple[str, int], Any]:
    """Every value of the files of a folder, by tag and step."""
    return {(value.tag, event.step): value for event in all_of(folder) for value in event.summary.value}
