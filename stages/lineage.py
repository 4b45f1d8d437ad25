"""Which model a stage was trained from, so that a stage done again does not pass unnoticed by the stages after it."""

from __future__ import annotations

from pathlib import Path

from omnistage.stages import files

NAME = "start.json"


def note(out: Path, start: str) -> None:
    """Write beside a stage's results which model folder it starts from, and the digest of that folder's manifest."""
    files.write_json(out / NAME, {"model": start, "manifest": _digest(start)})


def is_stale(out: Path, start: str) -> bool:
    """Whether the stage in `out` was started from other weights than those that `start` holds now."""
    path = out / NAME
    return path.exists() and files.read_json(path)["manifest"] != _digest(start)


def _digest(folder: str) -> str | None:
    """None for a model that this program did not seal (a name on the hub, a downloaded folder)."""
    manifest = Path(folder) / files.MANIFEST
    return files.digest(manifest) if manifest.is_file() else None
