"""Rows of a source: what is in quarantine stays out, and a quarantine that is not of this file is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnistage.data import quarantine
from omnistage.data.errors import InputError
from omnistage.stages import rows
from omnistage.stages.recipe.schema import Source
from world import World


def source(world: World, listed: Path, name: str = "video") -> Source:
    return Source(path=str(world.data / f"train_{name}.json"), media_root=str(world.data), modality="video", quarantine=str(listed))


def write(world: World, path: Path, count: int) -> None:
    file = world.data / "train_video.json"
    entries = [quarantine.Entry(r.id, r.source, str(file), "silent") for r in world.records("video")[:count]]
    quarantine.write(path, [quarantine.Checked(str(file), quarantine.digest_of(file))], entries)


def test_records_in_quarantine_are_left_out_and_counted(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(world, tmp_path / "q.jsonl", 3)
    kept = rows.read_source(source(world, tmp_path / "q.jsonl"))
    assert kept == world.records("video")[3:]
    assert f"3 of {len(world.records('video'))} records are left out" in capsys.readouterr().out


def test_a_quarantine_of_another_file_or_of_all_rows_is_refused(world: World, tmp_path: Path) -> None:
    write(world, tmp_path / "q.jsonl", 1)
    with pytest.raises(InputError, match="was not checked"):
        rows.read_source(source(world, tmp_path / "q.jsonl", "audio_video"))
    write(world, tmp_path / "all.jsonl", 10**6)
    with pytest.raises(InputError, match="are in quarantine"):
        rows.read_source(source(world, tmp_path / "all.jsonl"))
