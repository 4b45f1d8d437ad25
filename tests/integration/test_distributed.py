"""Two processes over gloo do what one process does: replaced groups, heads, and the command itself (`test_engines` has the rest)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from omnistage.stages import files
from small_run import grpo, omnistage, recipe, sources, write
from world import World

HELPERS = Path(__file__).parents[1] / "helpers"


def scripted(world: World, out: Path, processes: int, name: str) -> dict[str, dict[str, Any]]:
    script = [str(HELPERS / name), str(world.data), str(world.checkpoint), str(out)]
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    path = os.pathsep.join(filter(None, [str(HELPERS), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *launcher, *script], capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    assert found.pop("processes") == processes
    return dict(found)


def test_two_processes_replace_the_groups_that_one_does(world: World, tmp_path: Path) -> None:
    """One flat group on each process, then two on the first and none on the second: the same prompts and the same weights as alone."""
    one = scripted(world, tmp_path / "one", 1, "refill_ddp.py")["even"]
    both = scripted(world, tmp_path / "two", 2, "refill_ddp.py")
    two = both["even"]
    assert one["asked"] == [[4, 2, 4, 2]]
    assert two["asked"] == [[2, 1, 2, 2]] * 2, "both draw as often, and as much"
    for number in ("1", "2"):
        trained = [[name for name, dropped in found["recorded"][number] if not dropped] for found in (one, two)]
        assert trained[0] == trained[1]
    assert [sum(dropped for _, dropped in two["recorded"][number]) for number in ("1", "2")] == [2, 4], "what was not needed, too"
    assert two["groups/no_spread"] == two["groups/refilled"] == [0.5, 0.5]
    for key in ("reward", "grad_norm", "loss"):
        assert two[key] == pytest.approx(one[key], rel=1e-4, abs=1e-6), key
    mine, theirs = (torch.load(tmp_path / f"{name}-even.pt", weights_only=True) for name in ("one", "two"))
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) <= 1e-4
    # One process's place takes the second prompt that is drawn for it; the other one draws twice for nothing.
    found = both["uneven"]
    first, second = found["drawn"]
    a, b, c, d = found["order"][:4]
    assert found["asked"] == [[1, 1, 1]] * 2
    assert found["recorded"]["1"] == [[c, False], [second, False], [a, True], [first, True], [b, True], [d, True]]


def test_two_processes_train_a_head_as_one_does(world: World, tmp_path: Path) -> None:
    """They ask the head for different numbers of values; each value of the step weighs the same, and the log tells of all."""
    one, two = (scripted(world, tmp_path / name, count, "head_ddp.py") for name, count in (("one", 1), ("two", 2)))
    for key, logged in one.items():
        assert two[key] == pytest.approx(logged, rel=2e-3), key
    mine, theirs = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) <= 1e-4


def test_the_command_starts_two_processes(tmp_path: Path) -> None:
    """`launch: {engine: ddp, processes: 2}`: one command, each modality trained, one set of results."""
    stages = [grpo(m, data=sources("train", m), steps=1, save_every=None) for m in ("video", "audio", "audio_video")]
    data = recipe(stages=stages, launch={"engine": "ddp", "processes": 2, "threads": 1, "restart": False})
    write(tmp_path / "recipe.yaml", data)
    done = omnistage("run", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [stage["name"] for stage in summary["stages"]] == ["video", "audio", "audio_video"]
    assert summary["stages"][2]["modalities"]["video"]["n"] == 12
    # Two of a step's four prompts are encoded by each process, and both are counted.
    for stage, encoded in (("01-video", 4), ("02-audio", 4), ("03-audio_video", 8)):
        assert files.read_lines(tmp_path / "run" / stage / "metrics.jsonl")[0]["features/encoded"] == encoded
