"""`omnistage data check` as it is typed: real clips, real faults, exit codes, and a second run that decodes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from broken_clips import AGED_NS, copy, row, write_faults, write_rows
from clip_files import write_clip
from omnistage.data import quarantine
from omnistage.launch import cli
from world import World


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))
    return tmp_path


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "omnistage.launch", "data", "check", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check(*arguments: str) -> tuple[int, str, str]:
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def report(*arguments: str) -> dict[str, Any]:
    code, out, err = check(*arguments, "--json")
    assert err == ""
    told: dict[str, Any] = json.loads(out)
    assert code == (1 if told["faults"] else 0)
    return told


def found(told: dict[str, Any]) -> dict[str, list[str | None]]:
    out: dict[str, list[str | None]] = {}
    for finding in told["findings"]:
        out.setdefault(finding["code"], []).extend(record["id"] for record in finding["records"])
    return out


def test_clean_files_end_with_0_and_say_so(folder: Path) -> None:
    write_clip(folder / "a.mp4", 8, 4, sound_s=2.0)
    write_rows(folder / "rows.json", [row("a.mp4")])
    code, out, err = check("rows.json", "--workers", "1")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "rows.json: 1 records (video 1)"
    assert out.splitlines()[-1] == "nothing must be mended"


def test_every_fault_is_named_and_quarantined(folder: Path) -> None:
    names = write_faults(folder)
    heard = [row(names[name], f"{name}?", id=name) for name in ("ok", "no_sound", "silent", "too_short")]
    heard += [row(names["silent"], "again?", id="one"), row(names["ok"], "twice?", id="first"), row(names["ok"], "twice?", id="second")]
    write_rows(folder / "heard.json", heard)
    told = report("heard.json", "--modality", "audio", "--quarantine", "out/q.jsonl", "--workers", "2")
    assert found(told) == {
        "no_sound": ["no_sound"],
        "silent": ["silent", "one"],
        "too_short": ["too_short"],
        "duplicate_row": ["second"],
    }
    held = quarantine.read(folder / "out" / "q.jsonl")
    assert {entry.id for entry in held.entries} == {"no_sound", "silent", "one", "too_short", "second"}

    seen = [row(names[name], id=name) for name in ("ok", "unreadable", "truncated", "no_picture", "no_frames", "over_limits")]
    write_rows(folder / "seen.json", [*seen, row("gone.mp4", id="gone"), row(names["ok"], "And then?", id="read_too")])
    told = report("seen.json", "--modality", "video", "--fps", "2", "--max-frames", "8")
    kinds = ("unreadable", "truncated", "no_picture", "no_frames", "over_limits")
    assert found(told) == {"missing": [None], **{kind: [kind] for kind in kinds}}
    assert told["files"] == [{"path": "seen.json", "records": 7, "unreadable_rows": 1, "whole": True}]

    code, out, _ = check("seen.json", "--modality", "video")
    assert code == 1
    for kind in ("missing", "unreadable", "truncated", "no_picture", "no_frames"):
        assert f"FAULT  {kind}  1 found" in out
    assert "seen.json: record 2: '" + str(folder / "truncated.mkv") + "' is cut short" in out
    assert out.rstrip().endswith("5 things must be mended")


def test_bad_answer_is_named(folder: Path) -> None:
    write_clip(folder / "a.mp4", 8, 4)
    write_rows(folder / "rows.json", [row("a.mp4", answer="E")])
    (finding,) = report("rows.json")["findings"]
    assert finding["code"] == "bad_answer"
    assert "allowed: one letter of A to B" in finding["message"]
    assert finding["records"] == [{"id": None, "source": "rows.json: record 0", "file": "rows.json"}]


def test_clips_of_the_evaluation_are_found_in_training(folder: Path) -> None:
    write_clip(folder / "held_out.mp4", 20, 10, sound_s=2.0)
    copy(folder / "held_out.mp4", folder / "renamed.mp4")
    write_clip(folder / "mine.mp4", 30, 10, sound_s=3.0)
    write_rows(folder / "train.json", [row("renamed.mp4", id="leak"), row("mine.mp4", id="mine")])
    write_rows(folder / "eval.json", [row("held_out.mp4")])
    assert found(report("train.json", "--against", "eval.json")) == {"shared_media": ["leak"]}
    assert report("train.json")["faults"] == 0


def many(folder: Path, count: int) -> None:
    write_clip(folder / "clip.mp4", 12, 4, sound_s=2.0)
    for number in range(count):
        copy(folder / "clip.mp4", folder / f"{number}.mp4")
        os.utime(folder / f"{number}.mp4", ns=(AGED_NS, AGED_NS))
    write_rows(folder / "rows.json", [row(f"{number}.mp4", f"{number}?") for number in range(count)])


def test_second_run_decodes_nothing(folder: Path) -> None:
    """40 clips at first, then none; one that has changed is decoded alone."""
    many(folder, 40)
    runs = [report("rows.json", "--modality", "video") for _ in range(2)]
    assert [(told["probed"], told["remembered"]) for told in runs] == [(40, 0), (0, 40)]
    assert runs[0]["findings"] == runs[1]["findings"]
    os.utime(folder / "7.mp4")
    assert report("rows.json", "--modality", "video")["probed"] == 1
    assert report("rows.json", "--modality", "video", "--fresh")["probed"] == 40


def test_killed_check_goes_on_where_it_was(folder: Path) -> None:
    many(folder, 300)
    process = start("rows.json", "--modality", "video", "--workers", "1", "--index", "index.sqlite")
    deadline = time.monotonic() + 60
    while probes(folder / "index.sqlite") < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    kept = probes(folder / "index.sqlite")
    assert 5 <= kept < 300
    told = report("rows.json", "--modality", "video", "--index", "index.sqlite")
    assert (told["probed"], told["remembered"], told["faults"]) == (300 - kept, kept, 0)


def probes(index: Path) -> int:
    import sqlite3

    if not index.exists():
        return 0
    with sqlite3.connect(f"file:{index}?mode=ro", uri=True) as base:
        try:
            return int(base.execute("SELECT count(*) FROM probes").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


OWN = """
def fails(path, *, media_root, modality=None):
    yield {}["x"]

def none(path, *, media_root, modality=None):
    return None
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.json"], "annotation file 'none.json' does not exist"),
        (["rows.json", "--format", "humansens"], "unknown format 'humansens'; did you mean 'humansense'?"),
        (["rows.json", "--media-root", "none"], "media root 'none' does not exist"),
        (["rows.json", "--against", "none.json"], "annotation file 'none.json' does not exist"),
        (["rows.json", "--max-frames", "1"], "media limits: max_frames must be at least 2"),
        (["rows.json", "--tokens", "none"], "--tokens none: no folder of a model"),
        (["rows.json", "--index", "rows.json"], "index 'rows.json' cannot be used"),
        (["rows.json", "--cache", "rows.json"], "media cache 'rows.json': cannot be written"),
        (["rows.json", "--quarantine", "rows.json/q"], "quarantine 'rows.json/q': cannot be written"),
        (["rows.json", "--quarantine", "./rows.json"], "quarantine './rows.json': it is the annotation file 'rows.json'"),
        (["none.json", "--quarantine", "notes.txt"], "quarantine 'notes.txt': it exists and is no quarantine; choose another file"),
        (["rows.json", "./rows.json"], "./rows.json: it is the same file as rows.json; give it once"),
        (["rows.json", "--against-format", "video_r1"], "--against-format and --against-media-root are about the files of --against"),
        (
            ["rows.json", "--format", "own.py:fails"],
            "rows.json: format 'own.py:fails' failed before its first record: KeyError: 'x' (own.py",
        ),
        (["rows.json", "--format", "own.py:none"], "rows.json: format 'own.py:none' gave 'NoneType'; allowed: an iterator of records"),
    ],
)
def test_bad_input_is_one_line_and_ends_with_2(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "rows.json").write_text("[]" + " " * 200)
    (folder / "notes.txt").write_text("mine")
    (folder / "own.py").write_text(OWN)
    assert cli.main(["data", "check", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"omnistage: {message}")
    assert (folder / "rows.json").read_text().startswith("[]")
    assert (folder / "notes.txt").read_text() == "mine"


HOSTILE = {
    "deep.json": ("humansense", b"[" * 200_000),
    "deep.jsonl": ("conversations", b"[" * 100_000 + b"\n"),
    "deep_objects.jsonl": ("conversations", b'{"messages":' * 50_000 + b"\n"),
    "digits.jsonl": ("conversations", b'{"prompt": "q", "solution": ' + b"1" * 5000 + b"}\n"),
    "tags.jsonl": ("conversations", b'{"prompt": "q", "solution": "' + b"<answer>" * 100_000 + b'"}\n'),
    "path.jsonl": (
        "video_r1",
        b'{"problem": "q", "problem_type": "judge", "data_type": "audio", "path": "\\ud800.wav", "solution": "yes"}',
    ),
    "scalar.jsonl": ("conversations", b'{"prompt": "q", "kind": "scalar", "solution": "' + b"9" * 400 + b'"}'),
    "id.jsonl": ("conversations", b'{"prompt": "q", "id": "\\ud800", "solution": "a"}'),
    "folder": ("gen3dhf", None),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_a_fault_and_not_the_end(folder: Path, name: str) -> None:
    """In a process with 2 GB: one fault that names the row, with a quarantine asked for; `convert` refuses it in one line."""
    format, content = HOSTILE[name]
    if content is None:
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(content)
    limited = ["bash", "-c", 'ulimit -v 6000000; exec "$@"', "bash", sys.executable, "-m", "omnistage.launch", "data"]
    options = ["--format", format, "--workers", "1", "--quarantine", "q.jsonl", "--json"]
    done = subprocess.run([*limited, "check", name, *options], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")
    (finding,) = json.loads(done.stdout)["findings"]
    assert finding["message"].startswith(f"{name}: ")
    assert [entry.codes for entry in quarantine.read("q.jsonl").entries] in ([], [(finding["code"],)])
    done = subprocess.run([*limited, "convert", name, "--format", format, "--out", "out.jsonl"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"omnistage: {name}: ")
    assert done.stderr.count("\n") == 1


def test_what_is_compared_may_be_of_another_layout_and_elsewhere(folder: Path) -> None:
    (folder / "clips").mkdir()
    write_clip(folder / "a.mp4", 20, 10, sound_s=2.0)
    copy(folder / "a.mp4", folder / "clips" / "b.mp4")
    write_rows(folder / "train.json", [row("a.mp4", id="leak")])
    asked = {"problem": "q", "problem_type": "numerical", "data_type": "video", "path": "b.mp4", "solution": "1"}
    (folder / "held_out.jsonl").write_text(json.dumps(asked))
    given = ["train.json", "--against", "held_out.jsonl", "--against-format", "video_r1", "--against-media-root", "clips"]
    assert found(report(*given)) == {"shared_media": ["leak"]}


@pytest.mark.parametrize("wrong", [["--fps", "0"], ["--fps", "nan"], ["--workers", "0"], ["--modality", "smell"], []])
def test_wrong_usage_ends_with_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main(["data", "check", *(["rows.json", *wrong] if wrong else [])])
    assert done.value.code == 2


def test_help_and_check_load_no_torch(folder: Path) -> None:
    write_clip(folder / "a.mp4", 8, 4)
    write_rows(folder / "rows.json", [row("a.mp4")])
    code = """
import sys
from omnistage.launch.cli import main
if __name__ == "__main__":
    try:
        main(["data", "check", "--help"])
    except SystemExit:
        print("help", sorted({"numpy", "av", "torch", "pydantic"} & set(sys.modules)))
    main(["data", "check", "rows.json"])
    print("check", sorted({"torch", "transformers"} & set(sys.modules)))
"""
    (folder / "script.py").write_text(code)
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, timeout=60)
    assert "help []\n" in done.stdout, done.stderr
    assert done.stdout.endswith("check []\n")


def test_tokens_are_those_of_the_processor(folder: Path, world: World) -> None:
    """Each record's count against the encoder of a run with the same settings; the placeholders are what the towers give."""
    from omnistage.data import formats
    from omnistage.data.records import Modality
    from omnistage.stages import presentation
    from omnistage.stages.recipe.surroundings import Media

    file = str(world.data / "train_audio_video.json")
    told = report(file, "--modality", "audio_video", "--tokens", str(world.checkpoint), "--fps", "1", "--cache", "cache")
    shown = presentation.of_checkpoint(str(world.checkpoint))
    media = Media(**shown.media.model_dump() | {"fps": 1.0})
    encoder = presentation.encoder(shown.model_copy(update={"media": media}), str(world.checkpoint))
    records = list(formats.read("humansense", file, modality=Modality.AUDIO_VIDEO))
    counts = {one["id"]: one for one in told["tokens"]["records"]}
    assert len(counts) == len(records) == 8
    for record in records:
        row_ids = encoder(record).ids
        tokenizer = encoder.processor.tokenizer
        parts = counts[record.id]["parts"]
        assert counts[record.id]["total"] == len(row_ids) == sum(parts.values())
        for sense in ("video", "audio"):
            assert parts[sense] == row_ids.count(tokenizer.convert_tokens_to_ids(getattr(tokenizer, f"{sense}_token"))) > 0
    row_of = told["tokens"]["by_modality"]["audio_video"]
    assert row_of["records"] == 8
    assert row_of["most"] == max(one["total"] for one in counts.values())
    assert any((folder / "cache" / "entries").rglob("*"))
