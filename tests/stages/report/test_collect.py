"""What a page says is what the run's files say; what a run lacks is said in a line."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from omnistage.launch import cli
from omnistage.stages import files
from omnistage.stages.report import collect, curves, progress
from omnistage.stages.report.reading import Notes
from report_run import CONTROLS, copied, data_in


def test_every_logged_number_is_there(run: Path) -> None:
    found = collect.collect(run)
    assert [(stage["name"], stage["state"], stage["steps"]) for stage in found["stages"]] == [
        (name, "done", 6) for name in ("cold_start", "video", "audio", "audio_video")
    ]
    assert found["run"]["state"] == "done"
    for stage in found["stages"]:
        rows = [row for row in files.read_lines(run / stage["folder"] / "metrics.jsonl") if "loss" in row]
        metrics = stage["metrics"]
        assert metrics["steps"] == [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
        logged = {name for row in rows for name in row} - {"step", "epoch"}
        assert set(metrics["columns"]) == logged
        for name in logged:
            assert metrics["columns"][name] == [row.get(name) for row in rows]
        assert all(value > 0 for name in ("step_seconds", "peak_memory_mb") for value in metrics["columns"][name])
    assert [use["weight"] for use in found["stages"][1]["rewards"]] == [1.0, 0.2, 1.0]
    assert {use["name"] for use in found["stages"][1]["rewards"]} == {"accuracy", "format", "e_share"}


def test_figures_are_those_of_the_summary(run: Path) -> None:
    found, summary = collect.collect(run), files.read_json(run / "summary.json")
    assert found["summary"] == {name: value for name, value in summary.items() if name != "run_dir"}
    assert set(found["figures"]) == {"(start)", "cold_start", "video", "audio", "audio_video"}
    assert found["figures"]["video"]["runs"] == files.read_json(run / "02-video" / "evaluation" / "scores.json")["runs"]
    assert set(found["summary"]["controls"]) == set(CONTROLS)


def test_a_summary_that_is_not_there_is_made_in_memory(run: Path, tmp_path: Path) -> None:
    """The same figures, also where the run lies elsewhere now; nothing is written."""
    moved = copied(run, tmp_path / "elsewhere", without=["summary.json"])
    before = sorted(moved.rglob("*"))
    made = collect.collect(moved)["summary"]
    assert sorted(moved.rglob("*")) == before
    kept = {name: value for name, value in files.read_json(run / "summary.json").items() if name != "run_dir"}
    # Whether a stage stands on an earlier model is told from paths that the copy does not have.
    assert [stage["modalities"]["video"]["accuracy"] for stage in made["stages"]] == [
        s["modalities"]["video"]["accuracy"] for s in kept["stages"]
    ]
    assert made["start"] == kept["start"]


def test_a_summary_older_than_its_scores_is_not_taken(run: Path, tmp_path: Path) -> None:
    moved = copied(run, tmp_path / "old")
    wrong = files.read_json(moved / "summary.json") | {"seed": 77}
    files.write_json(moved / "summary.json", wrong)
    os.utime(moved / "summary.json", (1, 1))
    assert collect.collect(moved)["summary"]["seed"] == 3


@pytest.mark.parametrize("name", [".lock", ".command.lock"])
def test_a_run_under_way_says_what_it_lacks(run: Path, tmp_path: Path, name: str) -> None:
    """Between two stages its command alone holds it."""
    half = copied(run, tmp_path / "half", without=["summary.json", "03-audio", "04-audio_video", "02-video/evaluation", "02-video/model"])
    with (half / "02-video" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "reward": NaN, "loss": 0.5}\nno json\n{"step": 8, "rew')
    with (half / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = collect.collect(half)
    assert found["run"]["state"] == "running"
    assert [stage["state"] for stage in found["stages"]] == ["done", "begun", "waiting", "waiting"]
    columns = found["stages"][1]["metrics"]["columns"]
    assert columns["reward"][-1] is None
    assert columns["loss"][-1] == 0.5
    said = [note["line"] for note in found["notes"]]
    assert "stage audio has not begun" in said
    assert "02-video/metrics.jsonl: 1 lines are no JSON objects and are left out" in said
    json.dumps(found, allow_nan=False)
    assert collect.collect(half)["run"]["state"] == "stopped"


def test_a_copy_without_weights_is_done_and_not_stale(run: Path, tmp_path: Path) -> None:
    """Whether or not its summary came along; the same files in a run under way are a stage that is trained anew."""
    models = [str(path.relative_to(run)) for path in run.glob("*/model")]
    assert len(models) == 5
    light = copied(run, tmp_path / "light", without=[*models, "summary.json", "03-audio/evaluation", "04-audio_video/evaluation"])
    (light / "04-audio_video" / "seconds.json").unlink()
    found = collect.collect(light)
    assert [stage["state"] for stage in found["stages"]] == ["done", "done", "done", "begun"]
    assert [(stage["name"], stage["stale"]) for stage in found["summary"]["stages"]] == [("cold_start", False), ("video", False)]
    kept = files.read_json(run / "summary.json")["stages"]
    assert [stage["modalities"] for stage in found["summary"]["stages"]] == [stage["modalities"] for stage in kept[:2]]
    assert [stage["state"] for stage in progress.progress(light)["stages"]] == ["done", "done", "done", "begun"]
    with (light / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert {stage["state"] for stage in collect.collect(light)["stages"]} == {"begun"}


GUARDED = """
import socket, sys
def refused(*given, **named):
    print("ASKED", given, file=sys.stderr)
    raise OSError("there is no network here")
socket.getaddrinfo = socket.socket.connect = socket.socket.connect_ex = refused
from omnistage.launch import cli
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("name", "planned"), [("Qwen/Qwen2.5-Omni-3B", 4), ("Qwen/Qwen2.5-Omni-7B", 4), ("somebody/thinker", "is no folder here and not in")]
)
def test_a_page_asks_nobody(name: str, planned: int | str, run: Path, tmp_path: Path) -> None:
    """Of a model with a name on the hub, whatever is set: what is cached, or known, is planned; of another the page says why it is not."""
    moved = copied(run, tmp_path / "run", without=["summary.json"])
    held = files.read_json(moved / "run.json")
    held["recipe"]["model"] |= {"path": name, "tiny": None}
    files.write_json(moved / "run.json", held)
    surroundings = {key: value for key, value in os.environ.items() if not key.endswith("_OFFLINE")} | {"HF_HOME": str(tmp_path / "hub")}
    if name.endswith("3B"):
        snapshot = tmp_path / "hub" / "hub" / f"models--{name.replace('/', '--')}"
        (snapshot / "refs").mkdir(parents=True)
        (snapshot / "refs" / "main").write_text("a" * 40)
        shutil.copytree(run / "01-cold_start" / "model", snapshot / "snapshots" / ("a" * 40))
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, "report", str(moved)], cwd=tmp_path, env=surroundings, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "ASKED" not in done.stderr
    data = data_in((moved / "report.html").read_text("utf-8"))
    if isinstance(planned, int):
        assert len(data["plan"]["stages"]) == planned
        # Counted by the cached processor.
        assert ("rows" in data["plan"]["stages"][0]["tokens"]["from"]) == name.endswith("3B")
        assert data["plan"]["model"].startswith(
            f"{name}, its configuration in the hub's cache" if name.endswith("3B") else f"{name}: not here"
        )
    else:
        assert data["plan"] is None
        assert any(planned in note["line"] for note in data["notes"] if note["section"] == "throughput")


def test_damaged_files_are_left_out(run: Path, tmp_path: Path) -> None:
    broken = copied(run, tmp_path / "broken")
    (broken / "02-video" / "evaluation" / "scores.json").write_text("{")
    (broken / "03-audio" / "seconds.json").write_text("")
    found = collect.collect(broken)
    assert "video" not in found["figures"]
    assert any("evaluation/scores.json is left out" in note["line"] for note in found["notes"])


def test_long_curves_are_thinned_evenly(tmp_path: Path) -> None:
    files.write_lines(tmp_path / "metrics.jsonl", [{"step": step, "loss": step / 10} for step in range(1, 1002)])
    found = curves.of_stage(tmp_path / "metrics.jsonl", Notes(), most=100)
    assert found["rows"] == 1001
    assert found["every"] == 11
    assert found["steps"] == [*range(1, 1002, 11), 1001]
    assert found["columns"]["loss"] == [step / 10 for step in found["steps"]]
    shorter = curves.of_stage(tmp_path / "metrics.jsonl", Notes(), most=300)
    assert shorter["steps"][-2:] == [997, 1001]


def test_rarely_logged_numbers_are_kept_where_curves_are_thinned(tmp_path: Path) -> None:
    """Of 3,000 steps 500 are drawn, and with them all 30 of one column; of one that every third step logs, and no drawn one, a quarter."""
    rows = [
        {"step": step, "loss": 1 / step}
        | ({"seldom": step / 7} if step % 100 == 0 else {})
        | ({"third": step / 3} if step % 3 == 2 else {})
        for step in range(1, 3001)
    ]
    files.write_lines(tmp_path / "metrics.jsonl", rows)
    found = curves.of_stage(tmp_path / "metrics.jsonl", Notes(), most=500)
    assert set(range(1, 3001, 6)) < set(found["steps"])
    assert len(found["steps"]) < 1000
    for name, column in found["columns"].items():
        assert column == [rows[step - 1].get(name) for step in found["steps"]]
    kept = {name: sum(value is not None for value in column) for name, column in found["columns"].items()}
    assert kept["seldom"] == 30
    assert kept["third"] >= 125
    assert (found["rows"], found["every"]) == (3000, 6)


def test_a_step_done_again_counts_once(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}, {"step": 2, "loss": 2.5}, {"step": 2, "train_runtime": 9.0, "epoch": 1}]
    files.write_lines(tmp_path / "metrics.jsonl", rows)
    found = curves.of_stage(tmp_path / "metrics.jsonl", Notes())
    assert (found["steps"], found["columns"], found["once"]) == ([1, 2], {"loss": [1.0, 2.5]}, {"train_runtime": 9.0})
    assert math.isclose(found["columns"]["loss"][1], 2.5)


def test_a_folder_is_no_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(run), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"omnistage: --out {tmp_path}: is a folder; allowed: the file to write, as {tmp_path / 'report.html'}"
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda folder: None, "no such folder"),
        (lambda folder: folder.mkdir(), "holds no run.json"),
        (lambda folder: files.write_json(folder / "run.json", {"recipe": {"stages": 3}}), "holds no recipe with stages"),
        (lambda folder: files.write_text(folder / "run.json", "{"), "cannot be read as JSON"),
    ],
)
def test_no_run_is_one_line(prepare, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    prepare(tmp_path / "run")
    assert cli.main(["report", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run" / "report.html").exists()
