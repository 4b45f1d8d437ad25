"""Every engine trains as one process does: two processes over gloo, one start of them for all cases of an engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import engines
from world import World

Found = tuple[dict[str, Any], Path]
LIMIT_S = 200


@pytest.fixture(scope="module")
def alone(world: World, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What one process gives."""
    out = tmp_path_factory.mktemp("alone")
    return engines.run(world, "single", out, list(engines.CASES)), out


@pytest.mark.parametrize("engine", ["ddp", "fsdp2", "zero2", "zero3"])
def test_two_processes_train_as_one(engine: str, alone: Found, world: World, tmp_path: Path) -> None:
    """The same rewards, the same losses and gradient norms to 1e-4, and the same weights to 1e-4 after two steps: of each modality, whole
    and by adapters, with a reference, and where one process's clips are heard and the other's are not.
    In bfloat16 with activation checkpointing rewards are the same and losses and gradient norms to 1e-2;
    Adam's first steps say too little of weights that were rounded so."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(engines.PROCESSES)]
    script = [engines.__file__, str(world.data), str(world.checkpoint), str(tmp_path), engine]
    path = os.pathsep.join(filter(None, [str(Path(engines.__file__).parent), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *launcher, *script], capture_output=True, text=True, timeout=LIMIT_S, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads((tmp_path / "found.json").read_text())
    assert two.pop("processes") == engines.PROCESSES
    one, weights = alone
    assert two.keys() == one.keys() == engines.CASES.keys()
    for case, logged in one.items():
        assert logged["reward_std"][0] > 0
        assert logged["grad_norm"][0] > 0
        # Four prompts a step, each read by the one process that needs it.
        assert two[case]["media/decoded"] == logged["media/decoded"] == [4, 4]
        assert (logged["decoded_by"], two[case]["decoded_by"]) == ([8], [4, 4])
        rounded = engines.CASES[case].as_on_gpu
        for key in ("reward", "grad_norm", "loss"):
            assert two[case][key] == pytest.approx(logged[key], rel=1e-2 if rounded and key != "reward" else 1e-4, abs=1e-6), (case, key)
        if rounded:
            continue
        mine, theirs = (torch.load(folder / f"{case}.pt", weights_only=True) for folder in (weights, tmp_path))
        assert mine.keys() == theirs.keys()
        assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) <= 1e-4, case
