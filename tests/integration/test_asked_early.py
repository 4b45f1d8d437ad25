"""A run that is asked to stop while its processes start says so by 75, too: a queue starts the same command again on nothing else.

One that is asked when its work is over has nothing left to stop.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnistage.stages import files
from small_run import command, grpo, omnistage, recipe, sources, write

TWO = {"engine": "ddp", "processes": 2, "threads": 1}


def start(folder: Path, launch: dict[str, Any]) -> subprocess.Popen[str]:
    """A run of two stages, whose processes find each other in the folder `left`."""
    first = {"name": "start", "kind": "sft", "data": sources("cold_start", "video"), "batch_size": 8, "learning_rate": 3e-3, "steps": 1}
    video = grpo("video", data=sources("train", "video"), steps=1, save_every=None)
    write(folder / "recipe.yaml", recipe(evaluation=None, stages=[first, video], launch=launch))
    (folder / "left").mkdir()
    environment = os.environ | {"TMPDIR": str(folder / "left")}
    return subprocess.Popen(command("run", "recipe.yaml"), cwd=folder, stderr=subprocess.PIPE, text=True, env=environment)


def stopped(process: subprocess.Popen[str], when: Callable[[], object], by: signal.Signals) -> tuple[int, str]:
    """The run's exit code and last line, signalled as soon as it is so."""
    limit = time.monotonic() + 200
    while not when():
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < limit
        time.sleep(0.002)
    process.send_signal(by)
    _, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    return process.returncode, err.splitlines()[-1]


def children(process: subprocess.Popen[str]) -> list[str]:
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


def said(by: str) -> str:
    return f"omnistage: stopped by {by}; what is done is saved, and the same command goes on"


def test_before_there_are_workers(tmp_path: Path) -> None:
    process = start(tmp_path, TWO)
    assert stopped(process, lambda: children(process), signal.SIGTERM) == (75, said("SIGTERM"))
    assert not (tmp_path / "run").exists()


def test_while_the_workers_load_their_libraries(tmp_path: Path) -> None:
    process = start(tmp_path, TWO)
    both = stopped(process, lambda: len(list(tmp_path.glob("left/omnistage-*/process_*"))) == 2, signal.SIGUSR1)
    assert both == (75, said("SIGUSR1"))


def test_while_the_next_stages_workers_load_theirs_and_the_run_goes_on(tmp_path: Path) -> None:
    """The second stage's processes, one of which has begun; what the first stage left is not lost."""
    process = start(tmp_path, TWO)
    first = tmp_path / "run" / "01-start" / "model"

    def next_ones() -> bool:
        # A stage's workers leave their numbers once; those of the first are gone with its folder.
        begun = [path for path in tmp_path.glob("left/omnistage-*/process_*") if path.stat().st_mtime_ns > sealed()]
        return bool(begun)

    def sealed() -> int:
        return (first / files.MANIFEST).stat().st_mtime_ns if files.is_whole(first) else time.time_ns()

    assert stopped(process, next_ones, signal.SIGUSR1) == (75, said("SIGUSR1"))
    done = omnistage("run", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "stage 01-start is done" in done.stdout


@pytest.mark.parametrize("by", [signal.SIGUSR1, signal.SIGTERM])
def test_one_process_while_it_loads_its_libraries(tmp_path: Path, by: signal.Signals) -> None:
    process = start(tmp_path, {"threads": 1})
    assert stopped(process, lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text(), by) == (75, said(by.name))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("raises", ["", "raise InputError('no such thing')"])
@pytest.mark.parametrize("by", ["SIGTERM", "SIGUSR1"])
@pytest.mark.parametrize("runs", ["as_rank(lambda: work(None))", "cli.main([])"])
def test_behind_the_work_nothing_is_said(raises: str, by: str, runs: str) -> None:
    """torchrun sends SIGTERM to a rank whose partner has failed, which by then may be taking its interpreter down."""
    program = f"""
import atexit, os, signal, sys
from argparse import Namespace
from omnistage.data.errors import InputError
from omnistage.launch import cli
from omnistage.launch.rank import as_rank
from omnistage.stages import asked

def work(arguments):
    asked.listen()
    {raises or "return 0"}

cli.parsed = lambda argv: Namespace(command=work)
atexit.register(lambda: (os.kill(os.getpid(), signal.{by}), print("heard")))
sys.exit({runs})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    expected = (2, "heard\n", "omnistage: no such thing\n") if raises else (0, "heard\n", "")
    assert (done.returncode, done.stdout, done.stderr) == expected
