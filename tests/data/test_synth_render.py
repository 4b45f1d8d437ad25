"""Rendering as a job: demonstrations that are wrong on purpose, going on after an interruption, refusing what does not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from omnistage.data.errors import InputError
from omnistage.data.records import Modality
from omnistage.data.synth import TASKS, job, render, sets
from omnistage.data.synth.encode import write_clip
from omnistage.data.synth.plan import items
from omnistage.data.synth.tasks import of_modality

SMALL: dict[str, Any] = {"seed": 1, "cold_start": 12, "train": 4, "held_out": 4}


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())
    return rows


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _times(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("name", "answer", "wrong"),
    [("colour", "A", "B"), ("colour", "D", "A"), ("count", "4", "1"), ("is_red", "yes", "no"), ("is_red", "no", "yes"), ("dial", "3", "1")],
)
def test_the_wrong_answer_is_the_next_in_a_circle(name: str, answer: str, wrong: str) -> None:
    case = next(case for case in TASKS[name].cases if case.answer == answer)
    assert TASKS[name].wrong_answer(case) == wrong


@pytest.mark.parametrize("name", TASKS)
def test_wrong_answers_are_wrong_and_use_every_answer_equally(name: str) -> None:
    task = TASKS[name]
    pairs = {(case.answer, task.wrong_answer(case)) for case in task.cases}
    assert all(right != wrong for right, wrong in pairs)
    assert sorted(wrong for _, wrong in pairs) == sorted(task.answers)


@pytest.mark.parametrize("modality", [Modality.VIDEO, Modality.AUDIO, Modality.AUDIO_VIDEO])
def test_a_mistaken_demonstration_perceives_rightly(modality: Modality) -> None:
    """Of 2000 demonstrations with a share of 0.3, 600 are mistaken with a standard deviation of 20.5: within 4 of them.

    A share of 1 is cut, task by task, to 0.9 of what chance gets wrong: 0.45 of two answers, 0.6 of three, 0.675 of four, 0.75 of six.
    """
    right, some, most = (items("cold_start", modality, seed=1, count=2000, wrong=wrong) for wrong in (0.0, 0.3, 1.0))
    assert 518 <= sum(item.row["wrong_on_purpose"] for item in some) <= 682
    assert not any(item.row["wrong_on_purpose"] for item in right)
    for task in of_modality(modality):
        mistaken = [item.row["wrong_on_purpose"] for item in most if item.task == task.name]
        share = 0.9 * (1 - 1 / len(task.answers))
        assert abs(sum(mistaken) - share * len(mistaken)) <= 4 * (len(mistaken) * share * (1 - share)) ** 0.5
    for item in some:
        task, questions = TASKS[item.task], item.row["questions"]
        said = task.wrong_answer(item.case) if item.row["wrong_on_purpose"] else item.case.answer
        assert questions["response"] == f"<think>{item.case.think}</think><answer>{said}</answer>"
        assert questions["answer"] == item.case.answer
    assert [(i.stream, i.case) for i in right] == [(i.stream, i.case) for i in some], "being wrong must not change the clips"


def test_only_the_cold_start_has_demonstrations(tmp_path: Path) -> None:
    made = render(tmp_path, **SMALL, wrong={"video": 1.0}, modalities=["video", "audio"])
    assert list(made) == [f"{split}_{modality}" for split in ("cold_start", "train", "held_out") for modality in ("video", "audio")]
    assert any(row["wrong_on_purpose"] for row in _rows(made["cold_start_video"]))
    assert not any(row["wrong_on_purpose"] for row in _rows(made["cold_start_audio"]))
    for name in ("train_video", "held_out_audio"):
        assert all("response" not in row["questions"] and "wrong_on_purpose" not in row for row in _rows(made[name]))


def test_the_second_call_touches_nothing(tmp_path: Path) -> None:
    made = render(tmp_path, **SMALL)
    before = _times(tmp_path)
    assert render(tmp_path, **SMALL, modalities=["audio_video", "audio", "video", "audio"]) == made
    assert _times(tmp_path) == before


def test_a_lost_clip_is_made_again(tmp_path: Path) -> None:
    render(tmp_path, **SMALL)
    before = _files(tmp_path)
    (tmp_path / "clips" / "train_video_00001.mp4").unlink()
    render(tmp_path, **SMALL)
    assert _files(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "there", "asked"),
    [({"seed": 2}, "'seed': 1", "'seed': 2"), ({"wrong": {"audio": 0.5}}, "'wrong': {}", r"'wrong': {'audio': 0\.5}")],
)
def test_other_arguments_are_refused_with_both(tmp_path: Path, change: dict[str, Any], there: str, asked: str) -> None:
    render(tmp_path, **SMALL, modalities=["audio"])
    with pytest.raises(InputError, match=rf"render\.json' was rendered with {{{there}}}, but {{{asked}}} is asked for"):
        render(tmp_path, **{**SMALL, **change}, modalities=["audio"])


def test_an_interrupted_call_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render(tmp_path / "whole", **SMALL)
    made = 0

    def interrupted(path: Path, *streams: Any) -> None:
        nonlocal made
        if made == 10:
            raise KeyboardInterrupt
        made += 1
        write_clip(path, *streams)

    with monkeypatch.context() as patch:
        patch.setattr(sets, "write_clip", interrupted)
        with pytest.raises(KeyboardInterrupt):
            render(tmp_path / "cut", **SMALL)
    before = _times(tmp_path / "cut" / "clips")
    assert len(before) == 10
    assert not (tmp_path / "cut" / "render.json").exists()
    with pytest.raises(InputError, match=r"render\.started\.json' was rendered with {'train': 4}, but {'train': 5} is asked for"):
        render(tmp_path / "cut", **{**SMALL, "train": 5})
    render(tmp_path / "cut", **SMALL)
    after = _times(tmp_path / "cut" / "clips")
    assert {name: after[name] for name in before} == before
    assert _files(tmp_path / "cut") == _files(tmp_path / "whole")


def test_clips_of_unknown_origin_are_refused(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "train_video_00000.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holds files, but .*render\.json' is not there to say which; give an empty folder"):
        render(tmp_path, **SMALL)


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "render.json").write_text("{")
    with pytest.raises(InputError, match=r"render\.json' is no JSON .*; give an empty folder"):
        render(tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": -1}, r"render: train must lie in 0\.\.4294967295, got -1"),
        ({"seed": 2**32}, r"render: seed must lie in 0\.\.4294967295, got 4294967296"),
        ({"wrong": {"video": 1.5}}, r"render: wrong\['video'\] must lie in 0\.\.1, got 1\.5"),
        ({"wrong": {"vido": 0.5}}, "unknown modality 'vido'; did you mean 'video'"),
        ({"modalities": ["text"]}, "unknown modality 'text'; known: audio, audio_video, video"),
        ({"workers": 0}, "render: workers must be at least 1, got 0"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        render(tmp_path / "out", **{**SMALL, **change})
    assert not (tmp_path / "out").exists()


def test_a_pool_makes_what_one_process_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render(tmp_path / "one", **SMALL, workers=1)
    monkeypatch.setattr(job, "WORTH_A_POOL", 2)
    pooled = tmp_path / "pooled"
    (pooled / "clips").mkdir(parents=True)
    assert len(list(job.in_pool(items("train", Modality.VIDEO, seed=1, count=4), pooled, sets._make_clip, 2))) == 4
    assert _files(pooled).items() <= _files(tmp_path / "one").items()
    render(tmp_path / "two", **SMALL, workers=2)
    assert _files(tmp_path / "two") == _files(tmp_path / "one")


def test_a_script_without_a_main_guard_still_ends(tmp_path: Path) -> None:
    """Its child processes cannot import it, so all is made in one process."""
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from omnistage.data.synth import job, render\n"
        "job.WORTH_A_POOL = 2\n"
        f"render({str(tmp_path / 'out')!r}, seed=1, cold_start=12, train=4, held_out=4, workers=2)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "bootstrapping phase" in done.stderr, "no child process was tried, so nothing was shown"
    render(tmp_path / "one", **SMALL, workers=1)
    assert _files(tmp_path / "out") == _files(tmp_path / "one")
