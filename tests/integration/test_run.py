"""`omnistage run` as a user starts it: a whole run, a run that is killed in every stage, and what stands on disk afterwards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tensorboardX.proto.event_pb2 import Event

from omnistage.rewards import rollouts
from omnistage.rewards.grade import grade_completion
from omnistage.stages import files
from small_run import REWARD_FILE, command, grpo, omnistage, recipe, sources, write

STAGES = ("01-cold_start", "02-video", "03-audio", "04-audio_video")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of an uninterrupted run, which keeps features of frozen towers on disk."""
    folder = tmp_path_factory.mktemp("finished")
    media = recipe()["media"] | {"feature_cache": {"path": "features", "max_gb": 1}}
    write(folder / "recipe.yaml", recipe(media=media))
    done = omnistage("run", "recipe.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "held-out accuracy" in done.stdout
    return folder / "run"


def test_the_run_directory_holds_what_was_promised(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert [stage["name"] for stage in summary["stages"]] == ["cold_start", "video", "audio", "audio_video"]
    for stage in summary["stages"]:
        assert stage["seconds"] > 0
        for modality in ("video", "audio", "audio_video"):
            entry = stage["modalities"][modality]
            assert entry["n"] == 12
            assert 0 <= entry["low"] <= entry["accuracy"] <= entry["high"] <= 1
            if stage["name"] != "cold_start":
                assert entry["accuracy"] == pytest.approx(entry["start"] + entry["gain"])
    assert set(summary["controls"]["swapped"]) == {"video", "audio", "audio_video"}
    for name in STAGES:
        rows = files.read_lines(finished / name / "metrics.jsonl")
        assert [row["step"] for row in rows if "loss" in row] == list(range(1, 7))
        assert files.is_whole(finished / name / "model")
        predictions = files.read_lines(finished / name / "evaluation" / "predictions.jsonl")
        assert sum(row["run"] == "greedy" for row in predictions) == 36
        # A stage that had nothing to learn would make every test of resuming pass.
        assert all(row["grad_norm"] > 0 for row in rows if "loss" in row)
    logged = files.read_lines(finished / "02-video" / "metrics.jsonl")[0]
    assert {"rewards/accuracy/mean", "rewards/format/mean", "reward", "entropy"} <= set(logged)


def test_every_recorded_completion_says_why_it_has_its_rewards(finished: Path) -> None:
    for name in STAGES[1:]:
        rows = [row for step in rollouts.read(finished / name / "rollouts") for row in step]
        for row in rows:
            said = json.loads(row["extra/accuracy/reason"])
            assert (
                said.partition(":")[0]
                == grade_completion(row["completion"], **{key: row[key] for key in ("target", "kind", "options")}).reason
            )
            assert (json.loads(row["extra/format/reason"]) == "well formed") == (row["reward/format"] == 1)


def test_events_hold_the_metrics(finished: Path) -> None:
    """The TensorBoard files carry the same numbers as metrics.jsonl."""
    (path,) = (finished / "02-video" / "events").iterdir()
    raw, found, start = path.read_bytes(), {}, 0
    while start < len(raw):
        length = int.from_bytes(raw[start : start + 8], "little")
        event = Event.FromString(raw[start + 12 : start + 12 + length])
        for value in event.summary.value:
            found[value.tag, event.step] = value.simple_value
        start += 12 + length + 4
    for row in files.read_lines(finished / "02-video" / "metrics.jsonl"):
        if "reward" in row:
            assert found["video/reward", row["step"]] == pytest.approx(row["reward"])


def test_the_same_command_again_does_nothing_twice(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file() and path.name != "summary.json"}
    done = omnistage("run", "recipe.yaml", cwd=finished.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_checkpoint_evaluates_anywhere(finished: Path, tmp_path: Path) -> None:
    """A stage's model, moved to another place, gives the answers that the run recorded."""
    moved = tmp_path / "elsewhere"
    (finished / "02-video" / "model").rename(moved)
    try:
        data = finished / "data" / "held_out_audio_video.json"
        arguments = ["--data", str(data), "--modality", "audio_video", "--out", "out", "--max-new-tokens", "12", "--json"]
        done = omnistage("evaluate", moved, *arguments, cwd=tmp_path)
    finally:
        moved.rename(finished / "02-video" / "model")
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["runs"]["greedy"]["figures"]["modality audio_video"]["n"] == 12
    recorded = {(row["id"], row["run"]): row["raw"] for row in files.read_lines(finished / "02-video" / "evaluation" / "predictions.jsonl")}
    again = files.read_lines(tmp_path / "out" / "predictions.jsonl")
    assert len(again) == 12
    assert all(recorded[row["id"], "greedy"] == row["raw"] for row in again)


def test_an_evaluation_prints_what_it_found(finished: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(finished / "data" / "held_out_video.json"), "--modality", "video", "--limit", "4", "--controls", "blank"]
    done = omnistage("evaluate", finished / "02-video" / "model", *arguments, "--out", "out", "--max-new-tokens", "4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    scores = files.read_json(tmp_path / "out" / "scores.json")
    figures = scores["runs"]["greedy"]["figures"]
    assert list(figures)[:2] == ["all items", "modality video"]
    assert all(name in done.stdout for name in [*figures, "blank: all items", "majority class"])
    assert scores["runs"]["blank"]["counts"]["items"] == 4


def kill_when(process: subprocess.Popen[bytes], ready: Path, steps: int) -> None:
    """SIGKILL the process as soon as `ready` (a metrics.jsonl) holds `steps` lines."""
    limit = time.monotonic() + 120
    while not (ready.exists() and len(ready.read_text().splitlines()) >= steps):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_in_every_stage_it_ends_with_the_same_weights(finished: Path, tmp_path: Path) -> None:
    """SIGKILL in each of the four stages, the same command each time: bit for bit the uninterrupted run's models.

    That run kept features on disk and this one does not.
    """
    write(tmp_path / "recipe.yaml", recipe())
    for stage, steps in zip(STAGES, (3, 4, 5, 3), strict=True):
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(command("run", "recipe.yaml"), cwd=tmp_path, stdout=log, stderr=log)
            kill_when(process, tmp_path / "run" / stage / "metrics.jsonl", steps)
        assert not files.is_whole(tmp_path / "run" / stage / "model")
        assert files.newest_checkpoint(tmp_path / "run" / stage / "checkpoints") is not None
    done = omnistage("run", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for stage in STAGES:
        ours = load_file(tmp_path / "run" / stage / "model" / "model.safetensors")
        theirs = load_file(finished / stage / "model" / "model.safetensors")
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert value.numpy().tobytes() == theirs[name].numpy().tobytes(), f"{stage}: {name}"
        steps_logged = [row["step"] for row in files.read_lines(tmp_path / "run" / stage / "metrics.jsonl") if "loss" in row]
        assert steps_logged == list(range(1, 7))


def test_only_says_which_stages_are_left_behind(finished: Path) -> None:
    """A stage trained again to other weights: the stage after it stays, and the output, the table and the summary say so."""
    folder = finished.parent / "left_behind"
    shutil.copytree(finished, folder / "run")
    write(folder / "recipe.yaml", recipe())
    manifest = folder / "run" / "03-audio" / "model" / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    done = omnistage("run", "recipe.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "stage 'audio_video' stands on an earlier model" in done.stdout
    assert "(from an earlier model)" in done.stdout
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert [stage["stale"] for stage in summary["stages"]] == [False, False, False, True]


def test_only_and_from(finished: Path) -> None:
    """`--only` does one stage again from the model of the stage before it; the same seed gives the same weights.

    The process is another one, but no frozen tower runs in it: all features are on disk.
    """
    before = (finished / "03-audio" / "model" / "model.safetensors").read_bytes()
    assert sum(row["features/encoded"] for row in steps_of(finished / "03-audio")) > 0
    done = omnistage("run", "recipe.yaml", "--only", "audio", cwd=finished.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (finished / "03-audio" / "model" / "model.safetensors").read_bytes() == before
    again = steps_of(finished / "03-audio")
    assert {(row["features/encoded"], row["features/hit_rate"]) for row in again} == {(0, 1)}
    assert again[0]["features/hits_disk"] > 0


def steps_of(stage: Path) -> list[dict[str, float]]:
    return [row for row in files.read_lines(stage / "metrics.jsonl") if "loss" in row]


def test_from_goes_on_after_a_kill(finished: Path) -> None:
    """`--from` trains its stages again once; the same command after a kill does not throw away what that has done."""
    folder = finished.parent / "killed_from"
    shutil.copytree(finished, folder / "run")
    write(folder / "recipe.yaml", recipe())
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command("run", "recipe.yaml", "--from", "audio_video"), cwd=folder, stdout=log, stderr=log)
        stage = folder / "run" / "04-audio_video"
        while (stage / "model").exists():
            assert process.poll() is None
            time.sleep(0.01)
        kill_when(process, stage / "metrics.jsonl", 5)
    kept = (stage / "checkpoints" / "checkpoint-4" / "manifest.json").stat().st_mtime_ns
    done = omnistage("run", "recipe.yaml", "--from", "audio_video", cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (stage / "checkpoints" / "checkpoint-4" / "manifest.json").stat().st_mtime_ns == kept
    assert (stage / "model" / "model.safetensors").read_bytes() == (finished / stage.name / "model" / "model.safetensors").read_bytes()
    assert not (folder / "run" / "again.json").exists()


def test_a_changed_file_does_not_go_on_unnoticed(finished: Path) -> None:
    folder = finished.parent / "changed"
    shutil.copytree(finished, folder / "run")
    write(folder / "recipe.yaml", recipe())
    with (folder / REWARD_FILE).open("a") as file:
        file.write("# another reward\n")
    done = omnistage("run", "recipe.yaml", cwd=folder)
    assert done.returncode == 2
    assert f"omnistage: {REWARD_FILE} has changed since run_dir 'run' was begun" in done.stderr


def test_adapters_a_reference_and_a_users_reward(tmp_path: Path) -> None:
    """LoRA against the stage's start, and a reward from a file beside the recipe: the stage leaves a plain folder that evaluates."""
    (tmp_path / "mine.py").write_text(
        "def short(completions, **columns):\n    return [float(len(c[0]['content']) < 40) for c in completions]\n"
    )
    stage = grpo("video", lora={"rank": 4}, beta=0.1, data=sources("train", "video"), steps=2, save_every=1)
    stage["rewards"] = [{"name": "mine.py:short"}, {"name": "reasoning", "weight": 0.1}]
    data = recipe(stages=[stage], evaluation=None)
    write(tmp_path / "recipe.yaml", data)
    done = omnistage("run", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    model = tmp_path / "run" / "01-video" / "model"
    assert not list(model.glob("adapter*"))
    rows = files.read_lines(tmp_path / "run" / "01-video" / "metrics.jsonl")
    assert rows[1]["kl"] >= 0
    assert "rewards/short/mean" in rows[0]
