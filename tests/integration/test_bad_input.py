"""Bad input ends a run before it starts: one line that says where and what, exit code 2, and no run directory."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnistage.launch import cli
from omnistage.stages import files
from small_run import command, grpo, omnistage, write
from world import World

Change = Callable[[Path, dict[str, Any]], None]


@pytest.fixture
def place(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with its own copy of the rendered clips."""
    shutil.copytree(world.data, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def given_files(world: World) -> dict[str, Any]:
    """A good recipe on files that are there already; each test spoils one thing."""
    source = {"path": "data/train_video.json", "modality": "video"}
    stage = grpo("video", data=[source], steps=1, save_every=None)
    held_out = {"path": "data/held_out_video.json", "modality": "video"}
    return {
        "run_dir": "run",
        "prompt": "short",
        "model": {"path": str(world.checkpoint), "dtype": "float32"},
        "media": {"min_pixels": 784, "max_pixels": 12544},
        "evaluation": {"data": [held_out], "before": False},
        "stages": [stage],
    }


def rows(change: Callable[[list[dict[str, Any]]], None]) -> Change:
    def spoil(place: Path, recipe: dict[str, Any]) -> None:
        path = place / "data" / "train_video.json"
        found = json.loads(path.read_text())
        change(found)
        path.write_text(json.dumps(found))

    return spoil


def text(content: str) -> Change:
    def spoil(place: Path, recipe: dict[str, Any]) -> None:
        (place / "data" / "train_video.json").write_text(content)

    return spoil


def clip(content: bytes | None) -> Change:
    def spoil(place: Path, recipe: dict[str, Any]) -> None:
        path = place / "data" / json.loads((place / "data" / "train_video.json").read_text())[2]["video_path"]
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)

    return spoil


def stage(**changes: Any) -> Change:
    return lambda place, recipe: recipe["stages"][0].update(changes)


def cold_start(place: Path, recipe: dict[str, Any]) -> None:
    recipe["stages"][0] = {
        "name": "cold_start",
        "kind": "sft",
        "data": [{"path": "data/train_video.json", "modality": "video"}],
        "learning_rate": 1e-3,
        "steps": 1,
        "batch_size": 2,
    }


def leaked(place: Path, recipe: dict[str, Any]) -> None:
    recipe["evaluation"]["data"] = [{"path": "data/train_video.json", "modality": "video"}]


def lonely(place: Path, recipe: dict[str, Any]) -> None:
    recipe["evaluation"] |= {"controls": ["swapped"]}
    recipe["evaluation"]["data"][0]["limit"] = 1


CASES: dict[str, tuple[Change, str]] = {
    "no file": (lambda place, recipe: (place / "data" / "train_video.json").unlink(), "train_video.json"),
    "no JSON": (text("[{"), "train_video.json"),
    "no list": (text("{}"), "list"),
    "no record": (text("[]"), "no record"),
    "unknown pattern": (rows(lambda r: r[1]["questions"].update(question_pattern="Judgement")), "record 1"),
    "answer not among options": (rows(lambda r: r[0]["questions"].update(answer="Z")), "record 0"),
    "no question": (rows(lambda r: r[3]["questions"].pop("question")), "question"),
    "two rows of one id": (rows(lambda r: r[1].update(id=r[0]["id"])), "id"),
    "clip missing": (clip(None), "record 2"),
    "clip is no clip": (clip(b"this is text"), "record 2"),
    "clip is empty": (clip(b""), "record 2"),
    "outside the media root": (rows(lambda r: r[0].update(video_path="../../etc/clip.mp4")), "record 0"),
    "no sound where sound is asked": (
        stage(data=[{"path": "data/train_video.json", "modality": "audio_video"}], modality="audio_video"),
        "no sound",
    ),
    "no picture where a picture is asked": (stage(data=[{"path": "data/train_audio.json", "modality": "video"}]), "no picture"),
    "no demonstration": (cold_start, "response"),
    "held-out clip is trained on": (leaked, "also a training clip"),
    "one record cannot be swapped": (lonely, "1 of its 1 held-out records"),
    "a control token in a question": (rows(lambda r: r[1]["questions"].update(question="What is <|VIDEO|> ?")), "'<|VIDEO|>'"),
    "no such format": (stage(data=[{"path": "data/train_video.json", "format": "humansens"}]), "humansense"),
    "no such reward file": (stage(rewards=[{"name": "absent.py:mine"}]), "absent.py"),
    "no such field of TRL": (stage(trainer={"warmup_stepz": 3}), "warmup_steps"),
    "a value that TRL refuses": (stage(trainer={"lr_scheduler_type": "lineer"}), "lineer"),
    "an attention that is not installed": (
        lambda place, recipe: recipe["model"].update(attention="flash_attention_2", dtype="bfloat16"),
        "sdpa",
    ),
    "an accumulation of its own": (stage(trainer={"gradient_accumulation_steps": 2}), "prompts_per_step"),
    "a field that the recipe sets": (stage(trainer={"max_steps": 3}), "steps"),
    "no further prompt to draw": (
        stage(prompts_per_step=8, dynamic_sampling={"rounds": 1}),
        "prompts_per_step is 8 and no source has more than 8 records",
    ),
    "no file of pass rates": (
        stage(data=[{"path": "data/train_video.json", "modality": "video", "pass_rate": {"file": "rates.jsonl"}}]),
        "rates.jsonl",
    ),
    "no checkpoint": (lambda place, recipe: recipe["model"].update(path="./data"), "config.json"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_and_nothing_starts(world: World, place: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, said = CASES[name]
    recipe = given_files(world)
    spoil(place, recipe)
    write(place / "recipe.yaml", recipe)
    code = cli.main(["run", "recipe.yaml"])
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("omnistage:")]
    assert code == 2
    assert len(error) == 1
    assert said in error[0]
    assert not (place / "run").exists()


def test_the_good_recipe_runs(world: World, place: Path) -> None:
    """The recipe that the cases spoil is good: unspoiled it trains from a checkpoint on files that were there already."""
    write(place / "recipe.yaml", given_files(world))
    done = omnistage("run", "recipe.yaml", cwd=place)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (place / "run" / "summary.json").is_file()
    changed = given_files(world) | {"seed": 7}
    write(place / "recipe.yaml", changed)
    again = omnistage("run", "recipe.yaml", cwd=place)
    assert again.returncode == 2
    assert "holds a run of another recipe: seed is 0 there and 7 here" in again.stderr


def two_processes(place: Path, recipe: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    write(place / "recipe.yaml", recipe | {"launch": {"engine": "ddp", "processes": 2}})
    return omnistage("run", "recipe.yaml", cwd=place)


@pytest.mark.parametrize("name", ["no file", "clip is no clip"])
def test_two_processes_say_it_once(world: World, place: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Both ranks meet the bad input. torchrun's banners are left out, the one about threads too."""
    monkeypatch.delenv("OMP_NUM_THREADS")
    spoil, said = CASES[name]
    recipe = given_files(world)
    spoil(place, recipe)
    done = two_processes(place, recipe)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("omnistage: ")
    assert said in line
    assert not (place / "run").exists()


def test_one_of_two_processes_fails_and_the_other_is_not_heard(world: World, place: Path) -> None:
    """Only the first rank takes the run's lock; the second waits for it, and loses its partner."""
    (place / "run").mkdir()
    with (place / "run" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = two_processes(place, given_files(world))
    assert (done.returncode, done.stderr) == (2, "omnistage: run_dir 'run': another run is using it\n")


@pytest.mark.parametrize("launch", [{"engine": "ddp", "processes": 2}, {"engine": "single"}])
def test_between_two_stages_a_second_run_is_refused(world: World, place: Path, launch: dict[str, Any]) -> None:
    """The first stage's workers are gone and the next ones load their libraries: the command holds the run directory by itself."""
    first = place / "run" / "01-one" / "model"
    recipe = given_files(world)
    stage = recipe["stages"][0] | {"steps": 1, "save_every": None}
    recipe |= {"stages": [stage | {"name": "one"}, stage | {"name": "two"}], "launch": {"engine": "ddp", "processes": 2, "threads": 1}}
    write(place / "recipe.yaml", recipe)
    other = write(place / "other.yaml", recipe | {"launch": launch})
    process = subprocess.Popen(command("run", "recipe.yaml"), cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 200
        while not files.is_whole(first) or _is_held(place / "run" / ".lock"):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.002)
        # Stopped, it starts no next ones, however slow the second command is.
        process.send_signal(signal.SIGSTOP)
        done = omnistage("run", other.name, cwd=place)
        assert (done.returncode, done.stderr.splitlines()[-1]) == (2, "omnistage: run_dir 'run': another run is using it")
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.communicate(timeout=100)
    assert process.returncode == 75


def _is_held(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_crash_shows_its_traceback(world: World, place: Path) -> None:
    """What nobody foresaw is no bad input: the user's file ends with an exception that even a guard against `Exception` lets through."""
    (place / "mine.py").write_text("class Unforeseen(BaseException): ...\n\nraise Unforeseen('of all things')\n")
    recipe = given_files(world)
    recipe["stages"][0]["rewards"] = [{"name": "mine.py:short"}]
    done = two_processes(place, recipe)
    assert done.returncode == 1
    assert "Traceback (most recent call last):" in done.stderr
    assert f'File "{place / "mine.py"}", line 3' in done.stderr
    assert "Unforeseen: of all things" in done.stderr
    assert "ChildFailedError" not in done.stderr
    assert "omnistage: " not in done.stderr


def test_sigterm_ends_the_workers_too(world: World, place: Path) -> None:
    """Two workers that are busy (in the user's file, which each of them runs) are gone when the command is; no guard against errors of
    that file takes the signal for one."""
    (place / "mine.py").write_text("import os, time\nopen(f'worker_{os.getpid()}', 'w').close()\ntime.sleep(250)\n")
    recipe = given_files(world) | {"launch": {"engine": "ddp", "processes": 2, "threads": 1}}
    recipe["stages"][0]["rewards"] = [{"name": "mine.py:short"}]
    write(place / "recipe.yaml", recipe)
    process = subprocess.Popen(command("run", "recipe.yaml"), cwd=place, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 200
        while len(workers := list(place.glob("worker_*"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
    finally:
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert said.endswith("what is done is saved, and the same command goes on\n")
    assert "Traceback" not in said
    assert [worker.name for worker in workers if Path(f"/proc/{worker.name.removeprefix('worker_')}").exists()] == []
