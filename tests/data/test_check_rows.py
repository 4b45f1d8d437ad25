"""What the doctor says of rows that a run would refuse, of rows that repeat, and of files of another layout to compare with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broken_clips import copy, remux, row, write_rows
from clip_files import write_clip
from omnistage.data import synth
from omnistage.data.checks import doctor, findings
from omnistage.data.checks.doctor import Report
from omnistage.data.checks.rows import Rows
from omnistage.data.errors import InputError
from omnistage.data.media import MediaLimits
from omnistage.data.records import AnswerKind, Modality, Record


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Report]:
    """The doctor with an index of its own and one worker."""

    def checked(*files: str | Path, **settings: Any) -> Report:
        given = {"format": "humansense", "limits": MediaLimits(), "count": 1, "index": tmp_path / "index.sqlite", **settings}
        return doctor.check([str(file) for file in files], **given)

    return checked


def faults(report: Report) -> list[tuple[str, str]]:
    return [(finding.code, finding.message) for finding in report.faults]


def record(name: str, target: str = "a", kind: AnswerKind = AnswerKind.OPEN, **changes: Any) -> Record:
    given = {"question": f"{name}?", "target": target, "source": f"f: {name}"}
    return Record(name, Modality.TEXT, "t", kind, **given | changes)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"question": "is <|AUDIO|> <|im_end|> heard?"}, "question holds '<|AUDIO|>'"),
        ({"response": "<|im_end|>"}, "response holds '<|im_end|>'"),
        ({"options": ("a", "<|VIDEO|>")}, "option holds '<|VIDEO|>'"),
        ({"history": (("q", "a"), ("q <|VIDEO|>", "a"))}, "history holds '<|VIDEO|>'"),
        ({"history": (("q", "<|im_end|>"),)}, "history holds '<|im_end|>'"),
        ({"extra": {"system": "<|im_start|>system"}}, "system message holds '<|im_start|>'"),
    ],
)
def test_control_tokens_are_found_in_every_text_that_the_model_reads(changes: dict[str, Any], name: str) -> None:
    (finding,) = findings.of([Rows("f", [record("a"), record("b", **changes)])], {})
    told = f"f: b: its {name}, which the model reads as a control token"
    assert (finding.code, finding.message, [one.id for _, one in finding.rows]) == ("control_token", told, ["b"])


@pytest.mark.parametrize(
    ("kind", "target", "values", "fault"),
    [
        (AnswerKind.NUMBER, "nan", (), "f: a: answer 'nan'; allowed: a finite number in digits"),
        (AnswerKind.NUMBER, "inf", (), "f: a: answer 'inf'; allowed: a finite number in digits"),
        (AnswerKind.SCALAR, "9" * 400, (1.0,), f"f: a: answer '{'9' * 400}'; allowed: a finite number in digits"),
        (AnswerKind.SCALAR, "9", (float("inf"),), "f: a: values are not 1 finite numbers, as an answer of the kind scalar has"),
        (AnswerKind.SCALAR, "9", (), "f: a: values are not 1 finite numbers, as an answer of the kind scalar has"),
        (AnswerKind.POSE, "sits", (0.0,) * 215, "f: a: values are not 216 finite numbers, as an answer of the kind pose has"),
        (AnswerKind.POSE, "sits", (float("nan"),) * 216, "f: a: values are not 216 finite numbers, as an answer of the kind pose has"),
        (AnswerKind.POSE, "sits", (0.0,) * 216, None),
        (AnswerKind.SCALAR, "9", (9.0,), None),
    ],
)
def test_numbers_of_a_users_reader_must_be_finite(kind: AnswerKind, target: str, values: tuple[float, ...], fault: str | None) -> None:
    found = findings.of([Rows("f", [record("a", target, kind, values=values)])], {})
    assert [(finding.code, finding.message) for finding in found] == ([("bad_answer", fault)] if fault else [])


def test_rows_of_one_id_are_a_fault() -> None:
    """Those that have one place too cannot be told apart by a quarantine."""
    rows = Rows("d/f", [record("a"), record("a", source="f: b", question="x?"), record("a", question="c?"), record("b")])
    found = findings.of([rows], {})
    assert [(finding.code, finding.message, len(finding.rows)) for finding in found] == [
        ("same_id", "f: b: id 'a' is also that of f: a", 1),
        ("same_id", "f: a: id 'a' is also that of f: a", 0),
    ]


def test_files_of_one_name_share_their_ids(tmp_path: Path, check: Callable[..., Report]) -> None:
    """A stage that draws from both would refuse them: the ids are made of the name of the file."""
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        write_clip(tmp_path / name / "a.mp4", 8, 4)
        write_rows(tmp_path / name / "train.json", [row("a.mp4", f"{name}{n}?") for n in range(3)])
    x, y = tmp_path / "x" / "train.json", tmp_path / "y" / "train.json"
    told = f"{y}: record 0: id 'train-0' is also that of {x}: record 0, and so it is with 2 more"
    assert faults(check(x, y)) == [("same_id", told)]
    assert faults(check(x)) == faults(check(y)) == []


def test_a_row_that_stands_in_two_files_is_found(tmp_path: Path, check: Callable[..., Report]) -> None:
    """The clip under another name too; the row that stands first may stay. Two answers to one question are a fault of both files."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    write_clip(tmp_path / "a" / "1.mp4", 8, 4)
    copy(tmp_path / "a" / "1.mp4", tmp_path / "b" / "2.mp4")
    first = write_rows(tmp_path / "a" / "train.json", [row("1.mp4"), row("1.mp4", "split?")])
    other = write_rows(tmp_path / "b" / "copy.json", [row("2.mp4"), row("2.mp4", "split?", "B"), row("2.mp4", "new?")])
    report = check(first, other)
    assert faults(report) == [
        ("duplicate_row", f"{other}: record 0: the same as {first}: record 0"),
        ("contradiction", f"{first}: record 1, {other}: record 1: the same question about the same media has the answers 'A', 'B'"),
    ]
    assert [[(file, one.source) for file, one in finding.rows] for finding in report.faults] == [
        [(other, "copy.json: record 0")],
        [(first, "train.json: record 1"), (other, "copy.json: record 1")],
    ]


def test_another_system_message_makes_another_question() -> None:
    asked = [record(name, question="q?", extra={"system": name[0]} if name[0] != "c" else {}) for name in ("a", "b", "c", "a2")]
    (finding,) = findings.of([Rows("f", asked)], {})
    assert (finding.code, finding.message) == ("duplicate_row", "f: a2: the same as f: a")


def test_files_to_compare_with_may_be_of_another_layout_and_elsewhere(tmp_path: Path, check: Callable[..., Report]) -> None:
    for name in ("train", "eval", "clips"):
        (tmp_path / name).mkdir()
    write_clip(tmp_path / "train" / "a.mp4", 20, 4, sound_s=3.0)
    remux(tmp_path / "train" / "a.mp4", tmp_path / "clips" / "b.mkv")
    train = write_rows(tmp_path / "train" / "train.json", [row("a.mp4")])
    asked = {"problem": "q", "problem_type": "numerical", "data_type": "video", "path": "b.mkv", "solution": "1"}
    (tmp_path / "eval" / "held_out.jsonl").write_text(json.dumps(asked))
    others = [str(tmp_path / "eval" / "held_out.jsonl")]
    report = check(train, against=others, against_format="video_r1", against_media_root=str(tmp_path / "clips"))
    assert [finding.code for finding in report.faults] == ["shared_media"]
    report = check(train, media_root=str(tmp_path / "train"), against=others, against_format="video_r1")
    assert [(finding.code, finding.is_fault) for finding in report.findings] == [("not_compared", False)]
    with pytest.raises(InputError, match="unknown format 'video_r2'"):
        check(train, against=others, against_format="video_r2")


def test_a_row_to_compare_with_that_says_nothing_is_a_fault(tmp_path: Path, check: Callable[..., Report]) -> None:
    write_clip(tmp_path / "a.mp4", 8, 4)
    train, held_out = write_rows(tmp_path / "train.json", [row("a.mp4")]), tmp_path / "held_out.json"
    held_out.write_text("[3]")
    report = check(train, against=[str(held_out)])
    assert [(finding.code, finding.refused) for finding in report.faults] == [("unreadable_row", ())]
    assert report.write_quarantine(tmp_path / "q.jsonl") == 0


def test_a_table_prints_whatever_a_name_holds() -> None:
    told = Report([Rows("a\udcff.json")], [], {}, 0, 0, [findings.Finding("missing", "a\x1b[31m\ud800")]).table()
    assert "a?.json: 0 records (none)" in told
    assert "  a?[31m?" in told
    assert told.encode()


def test_as_many_processes_as_processors_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 6}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert doctor._processors() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert doctor._processors() == 64


def test_rendered_sets_need_no_mending(tmp_path: Path, check: Callable[..., Report]) -> None:
    """The data of the demo: all files of one modality as one set, against its held-out file."""
    made = synth.render(tmp_path / "data", seed=1, cold_start=6, train=6, held_out=4, wrong={}, workers=1)
    for modality in ("video", "audio", "audio_video"):
        files = [made[f"{split}_{modality}"] for split in ("cold_start", "train")]
        report = check(*files, modality=Modality(modality), against=[str(made[f"held_out_{modality}"])])
        assert faults(report) == []
        assert [len(rows.records) for rows in (*report.files, *report.against)] == [6, 6, 4]


def test_clips_that_an_earlier_check_knew_are_put_into_the_cache(tmp_path: Path, check: Callable[..., Report]) -> None:
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", 8 if name == "a" else 12, 4)
    file = write_rows(tmp_path / "rows.json", [row("a.mp4"), row("b.mp4")])
    cache = (str(tmp_path / "cache"), 10**8)
    assert [check(file).probed, check(file).probed, check(file, cache=cache).probed, check(file, cache=cache).probed] == [2, 0, 2, 0]
    assert len([path for path in (tmp_path / "cache" / "entries").rglob("*") if path.is_file()]) == 2
