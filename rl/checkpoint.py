"""A file that stands beside a checkpoint's weights, in a folder here or in a repository on the hub."""

from __future__ import annotations

from pathlib import Path

from transformers.utils import cached_file


def file_of(checkpoint: str | Path, name: str) -> Path | None:
    """The path of one file of a checkpoint, fetched where the checkpoint is a name on the hub; None where it has no such file."""
    if Path(checkpoint).exists():
        found = Path(checkpoint) / name
        return found if found.is_file() else None
    # What cannot be had is as if it were not there: the weights are fetched by the same name, and say why.
    fetched = cached_file(
        str(checkpoint),
        name,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if fetched is None else Path(fetched)
