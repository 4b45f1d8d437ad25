"""One copy of the prompt under DDP, FSDP2 and ZeRO: two processes give what one gives, log-probs and gradients."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sharded_forward
from sharded_forward import CASES, Found
from world import World

LAUNCHES = (("ddp", "fsdp2", "fsdp2_head"), ("zero2", "zero3"))


@pytest.fixture(scope="module")
def expected(world: World) -> Found:
    return sharded_forward.one_process(world)


@pytest.fixture(scope="module", params=LAUNCHES, ids="-".join)
def together(request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """What two processes found, by engine."""
    out = tmp_path_factory.mktemp("sharded")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(sharded_forward.PROCESSES)]
    script = [sharded_forward.__file__, str(world.data), str(world.checkpoint), str(out), *request.param]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(sharded_forward.__file__).parent), os.environ.get("PYTHONPATH", "")])
    }
    done = subprocess.run([sys.executable, *launcher, *script], capture_output=True, text=True, timeout=280, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return {engine: torch.load(out / f"{engine}.pt", weights_only=True) for engine in request.param}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_what_one_gives(together: dict[str, Found], expected: Found, case: str) -> None:
    """Log-probs to 1e-5 and gradients to 1e-4 relative; one process may have nothing to score."""
    for engine, found in together.items():
        theirs, ours = expected[case], found[case]
        assert not torch.equal(*theirs["log_probs"]), "each process has prompts of its own"
        assert (ours["log_probs"] - theirs["log_probs"]).abs().max() <= 1e-5, engine
        # ZeRO has zeros where nothing asks for a gradient.
        assert theirs["gradients"].keys() <= ours["gradients"].keys()
        for name, grad in ours["gradients"].items():
            wanted = theirs["gradients"].get(name, torch.zeros_like(grad))
            assert (grad - wanted).norm() <= 1e-4 * wanted.norm() + 1e-7, (engine, name)
