"""What clusters do to a run: it is asked to stop, its newest checkpoint is damaged, the disk is full, a process dies, a gradient is NaN.

Whatever happens, one line says it, and the same command goes on to the same weights.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from omnistage.stages import files
from small_run import command, grpo, omnistage, recipe, sources, write

STAGE = "02-video"


def short_run(**changes: Any) -> dict[str, Any]:
    """A cold start of two steps, and video for six, nothing measured."""
    start = {"name": "start", "kind": "sft", "data": sources("cold_start", "video"), "batch_size": 8, "learning_rate": 3e-3, "steps": 2}
    video = grpo("video", data=sources("train", "video"))
    return recipe(evaluation=None, stages=[start, video], **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    write(folder / "recipe.yaml", short_run())
    done = omnistage("run", "recipe.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def weights(folder: Path) -> bytes:
    return (folder / "run" / STAGE / "model" / "model.safetensors").read_bytes()


def begun(folder: Path, steps: int, data: dict[str, Any], *arguments: str) -> subprocess.Popen[str]:
    """A run whose video stage has logged so many steps."""
    write(folder / "recipe.yaml", data)
    process = subprocess.Popen(
        command("run", "recipe.yaml", *arguments), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    ready, limit = folder / "run" / STAGE / "metrics.jsonl", time.monotonic() + 200
    while not (ready.exists() and len(ready.read_text().splitlines()) >= steps):
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < limit
        time.sleep(0.01)
    return process


def test_who_is_asked_to_stop_saves_and_says_so(whole: Path, tmp_path: Path) -> None:
    """A queue that warns by one signal and insists by the next one does not cut the save short."""
    process = begun(tmp_path, 3, short_run())
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, err[-2000:]
    assert "omnistage: stopped by SIGUSR1; what is done is saved, and the same command goes on" in err
    newest = files.newest_checkpoint(tmp_path / "run" / STAGE / "checkpoints")
    assert newest is not None
    # The step under way was saved, whatever save_every says.
    assert f"asked to stop: saving step {newest.name.rpartition('-')[2]}" in out
    assert not (tmp_path / "run" / STAGE / "model").exists()
    done = omnistage("run", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert weights(tmp_path) == weights(whole)


def test_two_processes_stop_behind_the_same_step(tmp_path: Path) -> None:
    """SIGTERM to the command alone, as a scheduler sends it: its workers save one checkpoint together."""
    process = begun(tmp_path, 2, short_run(launch={"engine": "ddp", "processes": 2, "threads": 1}))
    process.terminate()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, err[-2000:]
    assert "asked to stop: saving step" in out
    assert "what is done is saved, and the same command goes on" in err
    assert "Traceback" not in err
    assert files.newest_checkpoint(tmp_path / "run" / STAGE / "checkpoints") is not None


def test_a_rank_that_dies_ends_the_others(tmp_path: Path) -> None:
    """SIGKILL to one worker: within a minute the command has ended, with 1."""
    process = begun(tmp_path, 2, short_run(launch={"engine": "ddp", "processes": 2, "threads": 1}))
    found = subprocess.run(["pgrep", "-f", "omnistage.launch.worker .*recipe.json"], capture_output=True, text=True, check=True)
    mine = [int(pid) for pid in found.stdout.split() if _ancestor(int(pid), process.pid) and not _has_children(int(pid))]
    os.kill(max(mine), signal.SIGKILL)
    began = time.monotonic()
    _, err = process.communicate(timeout=120)
    assert time.monotonic() - began < 60
    assert process.returncode == 1, err[-2000:]
    assert err.splitlines()[-1].endswith("was killed by SIGKILL; the others were ended, and the same command goes on")


def _ancestor(pid: int, of: int) -> bool:
    while pid > 1:
        if pid == of:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False


def _has_children(pid: int) -> bool:
    return any(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_a_damaged_checkpoint_is_left_out(whole: Path, tmp_path: Path) -> None:
    """One bit of it has flipped, and a line of the log is zeros; one that is cut is told by its size (`tests/stages/test_files.py`)."""
    process = begun(tmp_path, 5, short_run())
    process.kill()
    process.wait()
    newest = files.newest_checkpoint(tmp_path / "run" / STAGE / "checkpoints")
    assert newest is not None
    assert newest.name == "checkpoint-4"
    path = newest / "optimizer.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with (tmp_path / "run" / STAGE / "metrics.jsonl").open("a") as file:
        file.write("\0\0\0\n")
    done = omnistage("run", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"warning: run/{STAGE}/metrics.jsonl: 1 line could not be read and is gone; the other steps' stay" in done.stdout
    assert "checkpoint-4 is left out: optimizer.pt is not what was written (its SHA-256 differs)" in done.stdout
    assert "checkpoint-2" in done.stdout
    assert weights(tmp_path) == weights(whole)


def test_a_clip_that_vanishes_is_named_and_may_come_back(whole: Path, tmp_path: Path) -> None:
    process = begun(tmp_path, 1, short_run())
    clips = [path for path in (tmp_path / "run" / "data").rglob("train_video*") if path.suffix == ".mp4"]
    assert clips
    for clip in clips:
        clip.rename(clip.with_suffix(".gone"))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err[-2000:]
    assert re.fullmatch(r"omnistage: train_video.json: record \d+: '.*train_video.*\.mp4.*' does not exist", err.splitlines()[-1])
    assert "Traceback" not in err
    for clip in clips:
        clip.with_suffix(".gone").rename(clip)
    done = omnistage("run", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert weights(tmp_path) == weights(whole)


def test_other_versions_than_the_runs_are_said(whole: Path, tmp_path: Path) -> None:
    """The run is whole: it is gone on with, nothing is left to do, and what it was made with is not forgotten."""
    shutil.copytree(whole, tmp_path / "copy")
    path = tmp_path / "copy" / "run" / "run.json"
    run = files.read_json(path)
    now = dict(run["versions"])
    run["versions"]["trl"] = "1.15.0"
    files.write_json(path, run)
    told = f"run was made with other versions (trl 1.15.0 -> {now['trl']}); it goes on, and may not end with the same weights"
    first, second = (omnistage("run", "recipe.yaml", cwd=tmp_path / "copy") for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr[-2000:]
    assert told in first.stdout + first.stderr
    assert "other versions" not in second.stdout + second.stderr
    noted = files.read_json(path)
    assert (noted["versions"]["trl"], noted["went_on_with"]) == ("1.15.0", [now])


def test_a_full_disk_is_one_line_and_loses_nothing(whole: Path, tmp_path: Path) -> None:
    """The run's folder on a file system of its own, filled behind the first checkpoint; with room again it goes on to the same weights."""
    run = tmp_path / "run"
    run.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(run)], capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system")
    try:
        process = begun(tmp_path, 2, short_run())
        while not files.is_whole(run / STAGE / "checkpoints" / "checkpoint-2"):
            assert process.poll() is None
            time.sleep(0.005)
        # Stopped, it writes nothing between the look and the filling.
        process.send_signal(signal.SIGSTOP)
        filler = run / "filler"
        with filler.open("wb") as file:
            file.write(bytes(max(0, shutil.disk_usage(run).free - 200_000)))
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1, err[-2000:]
        # It may have saved once more before it was stopped.
        newest = files.newest_checkpoint(run / STAGE / "checkpoints")
        assert newest is not None
        assert f"the disk is full; the last whole checkpoint is run/02-video/checkpoints/{newest.name}" in err.splitlines()[-1]
        assert "Traceback" not in err
        filler.unlink()
        done = omnistage("run", "recipe.yaml", cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        assert weights(tmp_path) == weights(whole)
    finally:
        subprocess.run(["umount", "-l", str(run)], check=True)


def test_gradients_that_are_not_finite_move_nothing_and_end_the_run(tmp_path: Path) -> None:
    """A learning rate of 1e30 throws the weights away in the first step; every gradient behind it is NaN."""
    data = short_run()
    data["stages"] = [data["stages"][0] | {"learning_rate": 1e30, "steps": 12, "trainer": {"lr_scheduler_type": "constant"}}]
    write(tmp_path / "recipe.yaml", data)
    done = omnistage("run", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 1, done.stderr[-2000:]
    assert "stage 'start': 5 steps in a row, to step" in done.stderr.splitlines()[-1]
    assert "have a gradient that is not finite; run/01-start/nonfinite.jsonl lists them" in done.stderr
    rows = files.read_lines(tmp_path / "run" / "01-start" / "nonfinite.jsonl")
    assert [row["what"] for row in rows] == ["skipped"] * 5
    assert not (tmp_path / "run" / "01-start" / "model").exists()
