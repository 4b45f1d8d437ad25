"""Bad input ends a run before it starts: one line that says where and what, exit code 2, and no run directory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnistage.launch import cli
from small_run import grpo, omnistage, write
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
    "one record cannot be swapped": (lonely, "one held-out record"),
    "no such format": (stage(data=[{"path": "data/train_video.json", "format": "humansens"}]), "humansense"),
    "no such reward file": (stage(rewards=[{"name": "absent.py:mine"}]), "absent.py"),
    "no such field of TRL": (stage(trainer={"warmup_stepz": 3}), "warmup_steps"),
    "a field that the recipe sets": (stage(trainer={"max_steps": 3}), "steps"),
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
