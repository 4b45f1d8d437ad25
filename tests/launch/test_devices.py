"""How many devices the one process of a command sees, and that this is settled before torch is there to count them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Each command comes as far as the module that would load torch; in its place stands one that says what it finds.
SCRIPT = """
import os, sys
from types import ModuleType
from omnistage.launch import cli

def found(*arguments, **named):
    print(os.environ.get("CUDA_VISIBLE_DEVICES"), "torch" in sys.modules)
    raise SystemExit

class Stand(ModuleType):
    __getattr__ = lambda self, name: found

for name in ("omnistage.stages.pipeline", "omnistage.stages.preemption", "omnistage.stages.measure.evaluate", "omnistage.launch.processes"):
    sys.modules[name] = Stand(name)
cli.main(sys.argv[1:])
"""
RECIPE = """run_dir: run
model: {tiny: {}}
stages: [{name: start, kind: sft, learning_rate: 1e-3, steps: 2, data: [{path: a.json}]}]
"""


def seen(folder: Path, visible: str | None, *arguments: str) -> str:
    """The variable as a command leaves it, and whether torch was loaded by then."""
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "a.json").write_text("[]")
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("visible", "left"),
    [(None, "0"), ("3", "3"), ("2,0,1", "2"), ("GPU-8932f937, GPU-1d2e", "GPU-8932f937"), ("", ""), ("-1", "-1")],
)
def test_one_process_sees_one_device(tmp_path: Path, visible: str | None, left: str) -> None:
    """The first of those that the user names; none where the user names none."""
    assert seen(tmp_path, visible, "run", "recipe.yaml") == f"{left} False".strip()


@pytest.mark.parametrize("arguments", [["demo"], ["evaluate", "model", "--data", "a.json", "--out", "out"]])
def test_demo_and_evaluate_too(tmp_path: Path, arguments: list[str]) -> None:
    assert seen(tmp_path, "1,2", *arguments) == "1 False"


@pytest.mark.parametrize(("visible", "left"), [(None, "None"), ("2,0", "2,0")])
def test_several_processes_see_all(tmp_path: Path, visible: str | None, left: str) -> None:
    launch = ["--set", "launch={engine: ddp, processes: 2}"]
    assert seen(tmp_path, visible, "run", "recipe.yaml", *launch) == f"{left} False"
