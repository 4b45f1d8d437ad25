"""Starts a recipe's processes on this machine through torchrun, and gives back the exit code of the work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from omnistage.data.errors import InputError
from omnistage.launch import failures
from omnistage.launch.cli import FAILED, say

if TYPE_CHECKING:
    from omnistage.stages.recipe.loading import Recipe

TORCHRUN = "omnistage.launch.torchrun"


def start_command(processes: int) -> int:
    """Runs this very command in as many processes, and waits; returns as `start` does."""
    with tempfile.TemporaryDirectory(prefix="omnistage-") as name:
        folder = Path(name)
        ranks = ["--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, "-m", TORCHRUN, *ranks, "-m", "omnistage.launch.rank", *sys.argv[1:]]
        usual = {"OMP_NUM_THREADS": "1"}
        return _told(_wait(command, usual | dict(os.environ) | {failures.VARIABLE: str(folder)}), failures.lowest(folder))


def check_meeting(recipe: Recipe) -> None:
    """Raises `InputError` when a machine of several does not know its number or where to meet the others."""
    from omnistage.stages.recipe import describe

    if recipe.launch.nodes == 1:
        return
    rank = os.environ.get(describe.NODE_RANK, os.environ.get(describe.SLURM_NODE))
    if rank is None or not rank.isdecimal() or int(rank) >= recipe.launch.nodes:
        told = (
            f"{describe.NODE_RANK} (or {describe.SLURM_NODE}) is {rank!r}; must be 0 to {recipe.launch.nodes - 1}, another on each machine"
        )
        raise InputError(f"launch.nodes is {recipe.launch.nodes} and {told}")
    if not os.environ.get(describe.ADDRESS):
        raise InputError(f"launch.nodes is {recipe.launch.nodes} and {describe.ADDRESS} is not set; must be the address of machine 0")


def start(recipe: Recipe, source: Path, first: str | None, only: str | None, until: str | None = None) -> int:
    """Runs `launch.processes` workers and waits; other ones for each stage, so that what a stage held is free before the next begins.

    Returns 0, or the exit code of the lowest rank that failed, whose error it prints. torchrun itself ends with 1 whatever its workers
    ended with, and ranks meet bad input together: each leaves code and message in a file.
    """
    check_meeting(recipe)
    chosen = [*(["--from", first] if first else []), *(["--only", only] if only else [])]
    if only is not None or not recipe.launch.restart:
        return _run(recipe, source, [*chosen, *(["--until", until] if until else [])])
    stages = stages_to_do(recipe, first, until)
    for stage in stages:
        code = _run(recipe, source, [*chosen, "--until", stage, *(["--goes-on"] if stage != stages[-1] else [])])
        if code:
            return code
    return 0


def stages_to_do(recipe: Recipe, first: str | None, until: str | None) -> list[str]:
    """The stages that get processes of their own: those that are not done, and at least the last one, which sees to what is left of
    them."""
    from omnistage.stages import files

    names = [stage.name for stage in recipe.stages]
    names = names[: names.index(until) + 1] if until is not None else names
    if first is not None:
        return names[names.index(first) :] if first in names else names[-1:]
    done = {name for name in names if files.is_whole(recipe.stage_dir(name) / "model")}
    return [name for name in names[:-1] if name not in done] + names[-1:]


def _run(recipe: Recipe, source: Path, arguments: list[str]) -> int:
    from omnistage.stages.recipe.loading import dump, launch_command

    with tempfile.TemporaryDirectory(prefix="omnistage-") as name:
        folder = Path(name)
        resolved = folder / "recipe.json"
        resolved.write_text(json.dumps(dump(recipe), ensure_ascii=False), encoding="utf-8")
        command = launch_command(recipe, resolved, ["--source", str(source), *arguments], torchrun=TORCHRUN)
        code = _wait(command, _environment(recipe) | {failures.VARIABLE: str(folder)})
        return _told(code, failures.lowest(folder))


def _told(code: int, failure: failures.Failure | None) -> int:
    if code == 0:
        return 0
    if failure is None:
        return FAILED
    say(failure.message)
    return failure.code


def _environment(recipe: Recipe) -> dict[str, str]:
    # torchrun takes one thread a process where nothing else is said, and prints a banner about it
    usual = {"OMP_NUM_THREADS": "1"} if recipe.launch.processes > 1 else {}
    threads = recipe.launch.threads
    return {**usual, **os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}


def _wait(command: list[str], environment: dict[str, str]) -> int:
    process = subprocess.Popen(command, env=environment)
    with _signals_go_on(Path(environment[failures.VARIABLE])):
        try:
            return process.wait()
        except KeyboardInterrupt:
            # torchrun ends its workers on SIGTERM; killed outright it would leave them behind
            process.terminate()
            process.wait()
            raise


@contextmanager
def _signals_go_on(folder: Path) -> Iterator[None]:
    """Hands SIGTERM and SIGUSR1 on to the workers, which save and end; before there are any, and the second time, they end all as
    Ctrl-C does. Left to itself SIGTERM would end this process alone, and the workers would go on."""
    heard = False

    def hand_on(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        workers = failures.processes(folder)
        if heard or not workers:
            raise KeyboardInterrupt
        heard = True
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGUSR1)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
