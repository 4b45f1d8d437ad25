"""What a killed process leaves half written is never taken for whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnistage.data.errors import InputError
from omnistage.stages import files


def checkpoint(folder: Path, step: int, *, sealed: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"x" * 100)
    (path / "sub").mkdir()
    (path / "sub" / "state.json").write_text("{}")
    if sealed:
        files.seal(path)
    return path


def test_newest_whole_checkpoint_wins(tmp_path: Path) -> None:
    checkpoint(tmp_path, 5)
    right = checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 15, sealed=False)
    assert files.newest_checkpoint(tmp_path) == right


@pytest.mark.parametrize("damage", ["shorter", "missing", "manifest"])
def test_a_damaged_checkpoint_falls_back(tmp_path: Path, damage: str) -> None:
    right = checkpoint(tmp_path, 5)
    newer = checkpoint(tmp_path, 10)
    if damage == "shorter":
        (newer / "model.safetensors").write_bytes(b"x" * 99)
    elif damage == "missing":
        (newer / "sub" / "state.json").unlink()
    else:
        (newer / files.MANIFEST).write_text("{")
    assert files.newest_checkpoint(tmp_path) == right


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    """To the last bit, which sizes do not tell."""
    whole = checkpoint(tmp_path, 5)
    assert files.damage(whole) is None
    (whole / "model.safetensors").write_bytes(b"x" * 99 + b"y")
    assert files.is_whole(whole)
    assert files.damage(whole) == "model.safetensors is not what was written (its SHA-256 differs)"
    (whole / "model.safetensors").write_bytes(b"x" * 99)
    assert files.damage(whole) == "model.safetensors is missing or has not its 100 bytes"
    assert files.damage(checkpoint(tmp_path, 10, sealed=False)) == "it was not finished (manifest.json is missing or cut)"


def test_no_checkpoint(tmp_path: Path) -> None:
    assert files.newest_checkpoint(tmp_path / "absent") is None


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert files.read_json(path) == {"a": 1}


@pytest.mark.parametrize("fault", ["text", "folder"])
def test_a_failed_write_leaves_nothing(fault: str, tmp_path: Path) -> None:
    """Where it fails as it writes, and as it renames."""
    path = tmp_path / "page.html"
    if fault == "folder":
        path.mkdir()
    with pytest.raises((OSError, UnicodeError)):
        files.write_text(path, "a" * 100_000 + "\ud800" * (fault == "text"))
    assert [entry for entry in tmp_path.iterdir() if not entry.is_dir()] == []


def test_lines_round_trip(tmp_path: Path) -> None:
    rows = [{"text": 'a "quoted"\nline — ü'}, {"n": 2}]
    files.write_lines(tmp_path / "rows.jsonl", rows)
    assert files.read_lines(tmp_path / "rows.jsonl") == rows


def test_unreadable_json_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{broken")
    with pytest.raises(InputError, match=r"run\.json: cannot be read as JSON"):
        files.read_json(tmp_path / "run.json")
