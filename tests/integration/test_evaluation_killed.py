"""300 items, three kills without warning, and two processes: the same predictions and scores, byte for byte, as in one go."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from omnistage.stages import files
from world import World

ITEMS = 300
FILES = ("items.jsonl", "predictions.jsonl", "scores.jsonl", "scores.json")
KILLS = 3


@pytest.fixture(scope="module")
def questions(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hundred questions about eight clips with picture and sound."""
    rows = json.loads((world.data / "train_audio_video.json").read_text())
    path = tmp_path_factory.mktemp("annotations") / "items.json"
    path.write_text(json.dumps([rows[number % len(rows)] | {"id": f"item-{number}"} for number in range(ITEMS)]))
    return path


def command(world: World, questions: Path, out: Path, *more: str) -> list[str]:
    reading = ["--data", str(questions), "--media-root", str(world.data), "--modality", "audio_video", "--prompt", "short"]
    asking = ["--batch-size", "4", "--max-new-tokens", "8", "--controls", "muted", "--out", str(out)]
    return [sys.executable, "-m", "omnistage.launch", "evaluate", str(world.checkpoint), *reading, *asking, *more]


@pytest.fixture(scope="module")
def in_one_go(world: World, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    done = subprocess.run(command(world, questions, out), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def batches_done(out: Path) -> int:
    return sum(len(files.read_lines(path)) for path in (out / "parts").glob("*.jsonl"))


def same(out: Path, whole: Path) -> None:
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert not (out / "parts").exists()


def test_an_evaluation_that_is_killed_three_times_is_the_same_in_the_end(
    world: World, questions: Path, in_one_go: Path, tmp_path: Path
) -> None:
    """150 batches; killed somewhere in each of three parts of them, at moments that no line of the file waits for."""
    out, chance = tmp_path / "out", random.Random(7)
    for part in range(KILLS):
        until = chance.randrange(part * 45 + 5, part * 45 + 40)
        asking = subprocess.Popen(command(world, questions, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while batches_done(out) < until:
            assert asking.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        time.sleep(chance.random() * 0.1)
        asking.send_signal(signal.SIGKILL)
        asking.wait()
        assert not (out / "predictions.jsonl").exists()
    done = subprocess.run(command(world, questions, out), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    same(out, in_one_go)
    scores = json.loads((out / "scores.json").read_text())
    assert scores["runs"]["greedy"]["counts"]["items"] == ITEMS


def test_two_processes_leave_what_one_leaves(world: World, questions: Path, in_one_go: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(command(world, questions, out, "--processes", "2"), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("items, predictions, scores and card") == 1
    same(out, in_one_go)


def test_saved_predictions_are_scored_again_without_the_model(in_one_go: Path, tmp_path: Path) -> None:
    """Scoring imports no torch, and gives the same bytes."""
    for name in ("setup.json", "items.jsonl", "predictions.jsonl"):
        (tmp_path / name).write_bytes((in_one_go / name).read_bytes())
    asked = (
        f"import sys; from omnistage.launch import cli; code = cli.main(['score', {str(tmp_path)!r}]); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", asked + "; sys.exit(code)"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("scores.jsonl", "scores.json", "card.md"):
        assert (tmp_path / name).read_bytes() == (in_one_go / name).read_bytes(), name
