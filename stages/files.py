"""Files that are either whole or not there, and folders whose manifest is written last.

A checkpoint counts only when its manifest stands beside it and every file still has the size that the manifest says; whatever a killed
process left half written is thus never loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from omnistage.data.errors import InputError

MANIFEST = "manifest.json"
READERS = 8


def write_text(path: Path, text: str) -> None:
    """Write under a temporary name, flush to disk, rename: readers see the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def make_folder(folder: Path, option: str) -> None:
    """Make a folder that the user named. Raises `InputError`, opening with the `option`, where that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option} {folder}: cannot be written to ({error.strerror})") from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON value a line, whole or not at all."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """Raises `InputError` when the file is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error


def read_lines(path: Path) -> list[Any]:
    """Values of a file with one JSON value a line; a last line without its end was cut by a kill and is left out."""
    # Not splitlines: text inside a value may hold other line separators, as U+2028.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def read_log(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows of a stage's log, each with its `step`, and how many lines are none: a power loss may leave such."""
    rows: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    for line in lines:
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
    return rows, len(lines) - len(rows)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises `InputError` when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def digest_of_lines(rows: Iterable[Any]) -> str:
    """SHA-256 of what `write_lines` would write, in hexadecimal."""
    found = hashlib.sha256()
    for row in rows:
        found.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return found.hexdigest()


def seal(folder: Path) -> None:
    """Flush every file of `folder` to disk and write its manifest: sizes and SHA-256."""
    listed: dict[str, dict[str, Any]] = {}
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for path, found in zip(paths, digests(paths), strict=True):
        listed[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": found}
    write_json(folder / MANIFEST, listed)


def digests(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of several files at once: a checkpoint of many shards is read as fast as the disk gives it."""
    with ThreadPoolExecutor(max_workers=READERS) as pool:
        return list(pool.map(digest, paths))


def is_whole(folder: Path) -> bool:
    """Whether `folder` was sealed and holds every file of its manifest at its size."""
    listed = _manifest(folder)
    return listed is not None and all(_has_size(folder / name, entry) for name, entry in listed.items())


def damage(folder: Path) -> str | None:
    """What is wrong with a sealed folder, to the last bit of its files; None: nothing."""
    listed = _manifest(folder)
    if listed is None:
        return f"it was not finished ({MANIFEST} is missing or cut)"
    for name, entry in listed.items():
        if not _has_size(folder / name, entry):
            return f"{name} is missing or has not its {entry['bytes']} bytes"
    names = [name for name, entry in listed.items() if "sha256" in entry]
    for name, found in zip(names, digests([folder / name for name in names]), strict=True):
        if found != listed[name]["sha256"]:
            return f"{name} is not what was written (its SHA-256 differs)"
    return None


def _manifest(folder: Path) -> dict[str, dict[str, Any]] | None:
    try:
        listed: dict[str, dict[str, Any]] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return listed


def _has_size(path: Path, entry: dict[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == int(entry["bytes"])


def newest_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint (`checkpoint-STEP`) with the most steps, if any."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit() and is_whole(path)]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
