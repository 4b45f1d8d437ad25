"""The quarantine of a check: which rows it holds and why, for which files it stands, and what it never takes the place of."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broken_clips import row, write_faults, write_rows
from clip_files import tone, write_clip, write_wav
from omnistage.data import quarantine
from omnistage.data.checks import doctor
from omnistage.data.checks.doctor import Report
from omnistage.data.errors import InputError
from omnistage.data.media import MediaLimits
from omnistage.data.quarantine import Checked, Entry
from omnistage.data.records import Modality

LIMITS = MediaLimits(fps=2.0, max_frames=8, max_sound_s=5.0)


def checked(folder: Path, *files: str | Path, **settings: Any) -> tuple[Report, quarantine.Quarantine]:
    """What the doctor says of files, and the quarantine that it writes to `q.jsonl`."""
    given = {"format": "humansense", "limits": LIMITS, "count": 1, "index": folder / "index.sqlite", **settings}
    report = doctor.check([str(file) for file in files], **given)
    report.write_quarantine(folder / "q.jsonl")
    return report, quarantine.read(folder / "q.jsonl")


def held(listed: quarantine.Quarantine) -> dict[str, tuple[str | None, tuple[str, ...]]]:
    return {entry.source: (entry.id, entry.codes) for entry in listed.entries}


def test_rows_that_give_no_record_are_held_by_their_place(tmp_path: Path) -> None:
    """Missing, of text, a mute clip (which is right where nothing asks for sound), and an answer 'Z' of A and B."""
    names = write_faults(tmp_path)
    rows = [row("ok.mp4"), row("gone.mp4"), row(names["unreadable"]), row("mute.mp4"), row("ok.mp4", "q?", "Z"), row("../x.mp4")]
    report, listed = checked(tmp_path, write_rows(tmp_path / "train.json", rows))
    assert [record.id for record in report.files[0].records] == ["train-0", "train-3"]
    assert held(listed) == {
        "train.json: record 1": (None, ("missing",)),
        "train.json: record 2": (None, ("unreadable",)),
        "train.json: record 4": (None, ("bad_answer",)),
        "train.json: record 5": (None, ("unreadable_row",)),
    }
    out = listed.of(tmp_path / "train.json")
    assert out.rows == set(held(listed))
    assert not any(out.has(record) for record in report.files[0].records)


def test_records_are_held_with_all_their_reasons(tmp_path: Path) -> None:
    names = write_faults(tmp_path)
    asked = [(n, f"{n}?") for n in ("ok", "silent", "too_short", "over_limits")] + [("silent", "silent?")]
    file = write_rows(tmp_path / "rows.json", [row(names[name], question) for name, question in asked])
    report, listed = checked(tmp_path, file, modality=Modality.AUDIO)
    assert held(listed) == {
        "rows.json: record 1": ("rows-1", ("silent",)),
        "rows.json: record 2": ("rows-2", ("too_short",)),
        "rows.json: record 4": ("rows-4", ("silent", "duplicate_row")),
    }
    assert [record.id for record in report.files[0].records if not listed.of(file).has(record)] == ["rows-0", "rows-3"]


def test_two_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Record 1 is silent in one of them and right in the other: same id, same place, another file."""
    for name, peak in (("v", 0.0), ("a", 0.5)):
        (tmp_path / name).mkdir()
        write_wav(tmp_path / name / "0.wav", [tone(1.0)])
        write_wav(tmp_path / name / "1.wav", [np.float32(peak) * tone(1.5)])
        write_rows(tmp_path / name / "train.json", [row("0.wav", f"{name}?"), row("1.wav", f"{name}!")])
    files = [tmp_path / "v" / "train.json", tmp_path / "a" / "train.json"]
    report, listed = checked(tmp_path, *files)
    left_out = [[record.id for record in rows.records if listed.of(rows.path).has(record)] for rows in report.files]
    assert left_out == [["train-1"], []]


def test_of_two_equal_files_the_one_that_is_named_is_meant(tmp_path: Path) -> None:
    """The same rows in two folders, with a silent clip in one; a copy elsewhere may be of either, and is held to both."""
    for name, peak in (("v", 0.0), ("a", 0.5)):
        (tmp_path / name).mkdir()
        write_wav(tmp_path / name / "0.wav", [np.float32(peak) * tone(1.0)])
        write_rows(tmp_path / name / "train.json", [row("0.wav")])
    shutil.copy(tmp_path / "v" / "train.json", tmp_path / "moved.json")
    report, listed = checked(tmp_path, tmp_path / "v" / "train.json", tmp_path / "a" / "train.json")
    copies = [tmp_path / name for name in ("v/train.json", "a/train.json", "moved.json")]
    silent = [listed.of(copy).has(report.files[0].records[0]) for copy in copies]
    assert silent == [True, False, True]


def test_a_file_that_changed_or_was_not_checked_is_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", 8, 4)
    file = write_rows(tmp_path / "rows.json", [row("a.mp4")])
    _, listed = checked(tmp_path, file)
    assert listed.files == (Checked(file, quarantine.digest_of(file), True),)
    assert listed.of(file) == quarantine.Listed(frozenset(), frozenset())
    Path(file).write_text(Path(file).read_text() + " ")
    with pytest.raises(InputError, match=r"rows\.json: has changed since it was checked; quarantine '.*q\.jsonl' is for "):
        listed.of(file)
    with pytest.raises(InputError, match=r"train\.json: was not checked"):
        listed.of(write_rows(tmp_path / "train.json", []))


def test_a_folder_of_files_is_known_by_what_they_hold(tmp_path: Path) -> None:
    folder = tmp_path / "his"
    folder.mkdir()
    asked = {"task": "t", "motion_id": "m", "qa": [{"question": "q", "answer": "a"}]}
    write_clip(tmp_path / "m.mp4", 4, 2)
    for name in ("a", "b"):
        (folder / f"{name}.json").write_text(json.dumps([asked | {"task": name}]))
    _, listed = checked(tmp_path, folder, format="hisbench", media_root=str(tmp_path))
    listed.of(folder)
    shutil.move(folder, tmp_path / "moved")
    listed.of(tmp_path / "moved")
    (tmp_path / "moved" / "b.json").write_text(json.dumps([asked]))
    with pytest.raises(InputError, match="was not checked"):
        listed.of(tmp_path / "moved")


def test_a_folder_without_json_is_known_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    quarantine.write(tmp_path / "q.jsonl", [Checked(str(tmp_path / "own"), None)], [])
    quarantine.read(tmp_path / "q.jsonl").of(tmp_path / "own")
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="was not checked"):
        quarantine.read(tmp_path / "q.jsonl").of(tmp_path / "other")


def test_it_stands_for_what_was_read_and_not_for_what_is_there_when_it_is_written(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", 8, 4)
    file = Path(write_rows(tmp_path / "rows.json", [row("a.mp4")]))
    report = doctor.check([str(file)], format="humansense", limits=LIMITS, count=1, index=tmp_path / "index.sqlite")
    write_rows(file, [row("a.mp4"), row("gone.mp4")])
    report.write_quarantine(tmp_path / "q.jsonl")
    with pytest.raises(InputError, match="has changed since it was checked"):
        quarantine.read(tmp_path / "q.jsonl").of(file)


CHANGING = """
from omnistage.data.records import AnswerKind, Modality, Record

def read(path, *, media_root, modality=None):
    yield Record("a", Modality.TEXT, "t", AnswerKind.OPEN, "q", "a")
    path.write_text(path.read_text() + "more")
"""


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "reader.py").write_text(CHANGING)
    (tmp_path / "rows.txt").write_text("one")
    with pytest.raises(InputError, match=r"rows\.txt: it was changed while it was read; check it again$"):
        checked(tmp_path, tmp_path / "rows.txt", format=f"{tmp_path / 'reader.py'}:read")


def test_where_a_file_breaks_off_nothing_is_held(tmp_path: Path) -> None:
    """What stands behind is not known, so that a run must stop there, quarantine or not."""
    write_clip(tmp_path / "a.mp4", 8, 4)
    file = Path(write_rows(tmp_path / "cut.json", [row("a.mp4"), row("gone.mp4"), row("a.mp4", "b?")]))
    file.write_text(file.read_text()[:-20])
    report, listed = checked(tmp_path, file)
    assert held(listed) == {"cut.json: record 1": (None, ("missing",))}
    assert [row.place is None for row in report.files[0].refused] == [False, True]
    assert [file.whole for file in listed.files] == [False]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("rows.json", "it is the annotation file '.*rows.json'"),
        ("link.json", "it is the annotation file '.*rows.json'"),
        ("held_out.json", "it is the annotation file '.*held_out.json'"),
        ("notes.txt", "it exists and is no quarantine"),
        (".", "it exists and is no quarantine"),
    ],
)
def test_nothing_else_is_written_over(tmp_path: Path, target: str, reason: str) -> None:
    given = [write_rows(tmp_path / name, []) for name in ("rows.json", "held_out.json")]
    (tmp_path / "link.json").symlink_to(given[0])
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=rf"^quarantine '.*': {reason}; choose another file$"):
        quarantine.check_target(tmp_path / target, given)


def test_a_quarantine_may_take_the_place_of_another_one(tmp_path: Path) -> None:
    (tmp_path / "old.jsonl").write_text('{"omnistage": "quarantine", "version": 1, "files": []}\n')
    quarantine.write(tmp_path / "q.jsonl", [], [])
    for name in ("old.jsonl", "q.jsonl", "none.jsonl"):
        quarantine.check_target(tmp_path / name, [])


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Names that are no UTF-8 and half characters too; all else stays readable."""
    files = (Checked("größe.json", "0" * 64), Checked("a\udcff.json", None, False))
    entries = (Entry("\ud800", "größe.json: record 1", "größe.json", ("silent", "bad_answer"), "a\u2028b"), Entry(None, "x", "y", (), ""))
    quarantine.write(tmp_path / "q.jsonl", files, entries)
    assert quarantine.read(tmp_path / "q.jsonl") == quarantine.Quarantine(str(tmp_path / "q.jsonl"), files, entries)
    quarantine.write(tmp_path / "q.jsonl", files[:1], [])
    assert "größe.json" in (tmp_path / "q.jsonl").read_bytes().decode()


HEADER = '{"omnistage": "quarantine", "version": 2, "files": []}\n'
WHOLE = {"id": "a", "source": "s", "file": "f", "codes": ["silent"], "reason": "r"}
OTHERS = [
    "",
    "{}\n",
    "[]\n",
    "x\n",
    "[" * 100_000,
    HEADER.replace("2", "1"),
    HEADER.replace("[]", "3"),
    HEADER.replace("[]", '[{"path": "\\u0000", "sha256": null}]'),
    HEADER.replace("[]", '[{"path": "\\ud800", "sha256": null}]'),
    *(HEADER + json.dumps(WHOLE | change) for change in ({"id": ["a"]}, {"source": None}, {"codes": 3}, {"codes": [3]}, {"more": 1})),
    HEADER + json.dumps({"id": "a"}),
]


@pytest.mark.parametrize("text", OTHERS)
def test_other_files_are_no_quarantine(tmp_path: Path, text: str) -> None:
    (tmp_path / "q").write_text(text)
    with pytest.raises(InputError, match="quarantine"):
        quarantine.read(tmp_path / "q")
    with pytest.raises(InputError, match="cannot be read"):
        quarantine.read(tmp_path / "none")
