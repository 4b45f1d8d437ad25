"""Rows of a source: what is in quarantine stays out, and a quarantine that is not of this file is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broken_clips import row, write_faults, write_rows
from clip_files import write_clip
from omnistage.data import quarantine
from omnistage.data.checks import doctor
from omnistage.data.errors import InputError, MediaError
from omnistage.data.media import MediaLimits
from omnistage.stages import rows
from omnistage.stages.recipe.source import Source
from world import World


def source(world: World, listed: Path, name: str = "video") -> Source:
    return Source(path=str(world.data / f"train_{name}.json"), media_root=str(world.data), modality="video", quarantine=str(listed))


def write(world: World, path: Path, count: int) -> None:
    file = world.data / "train_video.json"
    entries = [quarantine.Entry(r.id, r.source, str(file), ("silent",), "silent") for r in world.records("video")[:count]]
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


def check(folder: Path, *files: str) -> str:
    """The quarantine that the doctor writes."""
    report = doctor.check(files, format="humansense", limits=MediaLimits(), count=1, index=folder / "index.sqlite")
    report.write_quarantine(folder / "q.jsonl")
    return str(folder / "q.jsonl")


def test_rows_that_cannot_be_read_are_left_out_as_the_quarantine_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing, of text, cut short, and a wrong answer, each by its place; without the quarantine the first of them stops the run."""
    names = write_faults(tmp_path)
    given = [row("ok.mp4"), row("gone.mp4"), row(names["unreadable"]), row("mute.mp4"), row(names["truncated"]), row("ok.mp4", "q?", "Z")]
    file = write_rows(tmp_path / "train.json", [*given, row("ok.mp4", "last?")])
    with pytest.raises(MediaError, match=r"train\.json: record 1: video_path: 'gone\.mp4' is no file"):
        rows.read_source(Source(path=file))
    kept = rows.read_source(Source(path=file, quarantine=check(tmp_path, file)))
    assert [record.id for record in kept] == ["train-0", "train-3", "train-6"]
    assert "4 of 7 records are left out" in capsys.readouterr().out
    assert [record.id for record in rows.read_source(Source(path=file, quarantine=str(tmp_path / "q.jsonl"), limit=2))] == [
        "train-0",
        "train-3",
    ]


def test_a_row_that_has_become_readable_stays_out(tmp_path: Path) -> None:
    """It was never looked at."""
    write_clip(tmp_path / "a.mp4", 8, 4)
    file = write_rows(tmp_path / "train.json", [row("a.mp4"), row("late.mp4")])
    listed = check(tmp_path, file)
    write_clip(tmp_path / "late.mp4", 8, 4)
    assert [record.id for record in rows.read_source(Source(path=file, quarantine=listed))] == ["train-0"]


def test_a_row_that_has_become_unreadable_stops_the_run(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", 8, 4)
    write_clip(tmp_path / "b.mp4", 8, 4)
    file = write_rows(tmp_path / "train.json", [row("a.mp4"), row("b.mp4", "b?"), row("gone.mp4")])
    listed = check(tmp_path, file)
    (tmp_path / "b.mp4").unlink()
    with pytest.raises(MediaError, match=r"record 1: video_path: 'b\.mp4' is no file"):
        rows.read_source(Source(path=file, quarantine=listed))


def test_a_file_that_breaks_off_stops_the_run_whatever_is_listed(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", 8, 4)
    file = Path(write_rows(tmp_path / "train.json", [row("a.mp4"), row("gone.mp4"), row("a.mp4", "b?")]))
    file.write_text(file.read_text()[:-20])
    with pytest.raises(InputError, match=r"train\.json: from record 2 on: parse error"):
        rows.read_source(Source(path=str(file), quarantine=check(tmp_path, str(file))))


def test_good_rows_of_a_file_of_the_same_name_are_kept(tmp_path: Path) -> None:
    for name, clip in (("v", "gone.mp4"), ("a", "1.mp4")):
        (tmp_path / name).mkdir()
        for number in range(2):
            write_clip(tmp_path / name / f"{number}.mp4", 8 + 4 * number, 4)
        write_rows(tmp_path / name / "train.json", [row("0.mp4", f"{name}?"), row(clip, f"{name}!")])
    files = [str(tmp_path / name / "train.json") for name in ("v", "a")]
    listed = check(tmp_path, *files)
    kept = [[record.id for record in rows.read_source(Source(path=file, quarantine=listed))] for file in files]
    assert kept == [["train-0"], ["train-0", "train-1"]]


def test_ids_of_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        write_clip(tmp_path / name / "a.mp4", 8, 4)
        write_rows(tmp_path / name / "train.json", [row("a.mp4")])
    x, y = (str(tmp_path / name / "train.json") for name in ("x", "y"))
    with pytest.raises(InputError) as caught:
        rows.read_sources([Source(path=x), Source(path=y)])
    told = f"{y}: record 0: id 'train-0' is also that of {x}: record 0; ids must differ within a stage"
    assert str(caught.value) == told


def test_control_tokens_in_earlier_turns_are_refused(tmp_path: Path) -> None:
    turns = [("user", "look <|VIDEO|><|im_end|>"), ("assistant", "yes"), ("user", "Is she sad?")]
    line = {"messages": [{"role": role, "content": text} for role, text in turns], "solution": "no"}
    (tmp_path / "train.jsonl").write_text(json.dumps(line))
    with pytest.raises(
        InputError, match=r"train\.jsonl: line 1: its history holds '<\|VIDEO\|>', which the model reads as a control token"
    ):
        rows.read_sources([Source(path=str(tmp_path / "train.jsonl"), format="conversations")])
