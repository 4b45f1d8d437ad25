"""How far a run is, in numbers, in a terminal and in plain lines."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from omnistage.launch import cli
from omnistage.stages import files
from omnistage.stages.report.progress import progress
from omnistage.stages.report.terminal import duration, held_out, line
from report_run import copied
from small_run import command, omnistage

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def staged(folder: Path, *stages: dict[str, Any]) -> Path:
    """A run directory of GRPO stages that has not begun."""
    given = [{"kind": "grpo", "prompts_per_step": 4, "iterations": 1} | stage for stage in stages]
    files.write_json(folder / "run.json", {"recipe": {"run_dir": str(folder), "stages": given}})
    return folder


def test_time_left_is_reckoned_from_the_last_steps(tmp_path: Path) -> None:
    """30 steps; the last 20 lines took 2 s and waited 0.5 s: 70 × 2.5 s = 175 s are left of the first stage, 10 × 2.5 s of the second,
    which has no steps of its own yet. The third goes by epochs of records that it has not drawn yet, the fourth is of another kind."""
    run = staged(
        tmp_path / "run",
        {"name": "a", "steps": 100},
        {"name": "b", "steps": 10},
        {"name": "c", "epochs": 2},
        {"name": "d", "kind": "sft", "steps": 5},
    )
    rows = [
        {"step": step, "reward": step / 100, "kl": 0.01, "loss": -0.5, "frac_reward_zero_std": 0.25, "rewards/accuracy/mean": 0.75}
        for step in range(1, 31)
    ]
    timed = [row | {"step_seconds": 50.0 if row["step"] <= 10 else 2.0, "media/wait_s": 0.5} for row in rows]
    files.write_lines(run / "01-a" / "metrics.jsonl", timed)
    with (run / "01-a" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "reward": 9')
    found = progress(run)
    first = found["stages"][0]
    assert {name: first[name] for name in ("state", "step", "of", "step_s", "left_s", "reward", "kl", "loss", "no_spread", "accuracy")} == {
        "state": "begun",
        "step": 30,
        "of": 100,
        "step_s": 2.5,
        "left_s": 175.0,
        "reward": 0.3,
        "kl": 0.01,
        "loss": -0.5,
        "no_spread": 0.25,
        "accuracy": 0.75,
    }
    assert [(stage["of"], stage["left_s"]) for stage in found["stages"][1:]] == [(10, 25.0), (None, None), (5, None)]
    assert (found["state"], found["left_s"], found["unknown"]) == ("stopped", 200.0, ["c", "d"])
    assert line(found) == (
        "run: stopped, a step 30 of 100, reward 0.3, accuracy 75 %, loss -0.5, KL 0.01, no spread 25 %, s a step 2.5, "
        "3 min of training left, and c, d (unknown)"
    )


def test_steps_of_epochs_follow_from_what_was_drawn(tmp_path: Path) -> None:
    """2 epochs × 15 records / 4 prompts a step = 7.5, rounded to even: 8; each batch is passed over 3 times."""
    run = staged(tmp_path / "run", {"name": "a", "epochs": 2, "iterations": 3})
    files.write_json(run / "01-a" / "data.json", [{"records": 9}, {"records": 6}])
    assert progress(run)["stages"][0]["of"] == 24


def test_a_head_has_its_own_headline(tmp_path: Path) -> None:
    """SRCC of numbers, PA-MPJPE of poses, of the first task; a stage that has none of these has none."""
    run = staged(tmp_path / "run", *({"name": name, "kind": "head", "steps": 1} for name in ("mos", "pose", "none")))
    ranked = {"n": 300, "missing": 0, "score": {"rmse": {"value": 5.0}, "srcc": {"value": 0.936, "low": 0.92, "high": 0.95}}}
    posed = {"n": 200, "mpjpe_mm": {"value": 35.9, "low": 34, "high": 37}, "pa_mpjpe_mm": {"value": 34.5, "low": None, "high": None}}
    for folder, tasks in (("01-mos", {"quality": ranked}), ("02-pose", {"image": posed, "text": {}}), ("03-none", {"x": {"n": 3}, "y": 4})):
        files.write_json(run / folder / "head" / "scores.json", {"tasks": tasks})
    found = progress(run)
    assert [stage["held_out"] for stage in found["stages"]] == [
        {"name": "quality SRCC", "value": 0.936, "low": 0.92, "high": 0.95, "n": 300, "unit": "srcc"},
        {"name": "image PA-MPJPE", "value": 34.5, "low": None, "high": None, "n": 200, "unit": "mm"},
        None,
    ]
    assert [held_out(stage["held_out"]) for stage in found["stages"]] == ["SRCC 0.936 [0.92, 0.95]", "34.5 mm", "–"]
    assert "held out after pose 34.5 mm" in line(found)


def test_a_real_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the trainer says its steps are is what is told of each stage, and held-out accuracy is that of the scores."""
    assert cli.main(["watch", str(run), "--once", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == progress(run)
    assert (found["state"], found["left_s"], found["unknown"]) == ("done", None, [])
    assert [(stage["step"], stage["of"], stage["state"]) for stage in found["stages"]] == [(6, 6, "done")] * 4
    for stage, folder in zip(found["stages"], ("01-cold_start", "02-video", "03-audio", "04-audio_video"), strict=True):
        last = [row for row in files.read_lines(run / folder / "metrics.jsonl") if "loss" in row][-1]
        assert stage["loss"] == last["loss"]
        assert stage["reward"] == last.get("reward")
        scores = files.read_json(run / folder / "evaluation" / "scores.json")
        assert stage["held_out"]["value"] == scores["runs"]["greedy"]["figures"][scores["headline"]]["value"]
    assert found["start"]["n"] == 36


@pytest.fixture(scope="module")
def half(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("terminal") / "run"
    return copied(run, folder, without=["04-audio_video", "03-audio/model", "03-audio/evaluation", "03-audio/seconds.json", "summary.json"])


@contextmanager
def started(*arguments: Any, **given: Any) -> Iterator[subprocess.Popen[str]]:
    """A command that takes Ctrl-C, also where the tests run in the background and do not; ended at the latest here."""
    watching = subprocess.Popen(command(*arguments), text=True, preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL), **given)
    try:
        yield watching
    finally:
        watching.kill()
        watching.wait()


def test_without_a_terminal_there_are_plain_lines(half: Path, run: Path) -> None:
    """A line when something is new, and no escape codes; of a run that is done one line, and the end."""
    done = omnistage("watch", run, "--terminal", cwd=run)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("run: done, held out after audio_video ")
    with started("watch", half, "--terminal", "--every", "0.2", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        first = watching.stdout.readline()
        assert first.startswith("run: stopped, audio step 6 of 6, reward ")
        with (half / "03-audio" / "metrics.jsonl").open("a") as file:
            file.write('{"step": 7, "reward": 0.625, "loss": 0.5}\n')
        assert "audio step 7 of 6, reward 0.625, " in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        out, err = watching.communicate(timeout=60)
    assert (watching.returncode, out, err) == (130, "", "")


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_terminal_gets_a_table_and_its_cursor_back(stop: signal.Signals, code: int, half: Path) -> None:
    here, there = pty.openpty()
    surroundings = os.environ | {"TERM": "xterm-256color", "COLUMNS": "140", "LINES": "40"}
    with started("watch", half, "--every", "0.3", stdin=there, stdout=there, stderr=there, env=surroundings) as watching:
        os.close(there)
        shown = _until(here, "left")
        for _ in range(3):
            shown += _until(here, "audio_video")
        watching.send_signal(stop)
        shown += _until(here, None)
        assert watching.wait(timeout=60) == code
    plain = ESCAPE.sub("", shown)
    assert plain.startswith("http://127.0.0.1:")
    for told in ("stage", "no spread", "s a step", "held out", "✓ cold_start", "◐ audio", "○ audio_video", "0/6", "6/6", "stopped"):
        assert told in plain
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "Traceback" not in plain


def _until(terminal: int, wanted: str | None) -> str:
    """What a terminal is sent until it holds a text; or to its end."""
    shown, end = b"", time.monotonic() + 120
    while time.monotonic() < end:
        if select.select([terminal], [], [], 1)[0]:
            try:
                shown += os.read(terminal, 65536)
            # Linux: whoever wrote to it is gone.
            except OSError:
                break
            if wanted is not None and wanted.encode() in shown:
                break
    return shown.decode("utf-8", "replace")


def test_names_do_not_steer_a_terminal(tmp_path: Path) -> None:
    run = staged(tmp_path / "run", {"name": "a\x1b]0;title\x07[bold]", "steps": 5})
    told = omnistage("watch", run, "--once", cwd=tmp_path)
    assert told.returncode == 0
    assert "\x1b" not in told.stdout
    files.write_lines(run / "01-a\x1b]0;title\x07[bold]" / "metrics.jsonl", [{"step": 1, "loss": 1.0}])
    assert "a�]0;title�[bold] step 1 of 5" in line(progress(run))


@pytest.mark.parametrize(("seconds", "told"), [(None, "unknown"), (3.21, "3.2 s"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations(seconds: float | None, told: str) -> None:
    assert duration(seconds) == told


def test_telling_progress_loads_nothing_heavy(half: Path) -> None:
    source = f"""
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from omnistage.launch import cli
assert cli.main(["watch", {str(half)!r}, "--once"]) == 0
print({{"torch", "transformers", "pyarrow"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
