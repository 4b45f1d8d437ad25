"""Starts a recipe's processes on this machine through torchrun, and gives back the exit code of the work."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from omnistage.launch.cli import FAILED

if TYPE_CHECKING:
    from omnistage.stages.recipe import Recipe


def start(recipe: Recipe, source: Path, first: str | None, only: str | None) -> int:
    """Runs `launch.processes` workers and waits. Returns 0, or the largest exit code that a worker left.

    torchrun itself ends with 1 whatever its workers ended with, so that each worker leaves its own code in a file of its rank.
    """
    from omnistage.stages.recipe import dump, launch_command

    with tempfile.TemporaryDirectory(prefix="omnistage-") as folder:
        resolved = Path(folder) / "recipe.json"
        resolved.write_text(json.dumps(dump(recipe), ensure_ascii=False), encoding="utf-8")
        stages = [*(["--from", first] if first else []), *(["--only", only] if only else [])]
        command = launch_command(recipe, resolved, ["--source", str(source), *stages])
        code = _wait(subprocess.Popen(command, env=_environment(recipe)))
        left = [int(path.read_text()) for path in Path(folder).glob("exit_code_*")]
    return max(left, default=FAILED) if code else 0


def _environment(recipe: Recipe) -> dict[str, str]:
    threads = recipe.launch.threads
    return {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}


def _wait(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait()
    except KeyboardInterrupt:
        # torchrun ends its workers on SIGTERM; killed outright it would leave them behind
        process.terminate()
        process.wait()
        raise
