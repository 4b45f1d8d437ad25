"""Starts a recipe's processes on this machine through torchrun, and gives back the exit code of the work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from omnistage.data.errors import InputError, Preempted
from omnistage.launch import failures
from omnistage.launch.cli import FAILED, failure_of, say
from omnistage.stages import asked, lock

if TYPE_CHECKING:
    from omnistage.stages.recipe.loading import Recipe

TORCHRUN = "omnistage.launch.torchrun"
# How often is looked whether torchrun has ended, and how long it may take to start workers once the run was asked to stop.
LOOK_S, BEGIN_S = 1.0, 10.0


def start_command(processes: int) -> int:
    """Runs this very command in as many processes, and waits; returns as `start` does."""
    with tempfile.TemporaryDirectory(prefix="omnistage-") as name:
        folder = Path(name)
        ranks = ["--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, "-m", TORCHRUN, *ranks, "-m", "omnistage.launch.rank", *sys.argv[1:]]
        usual = {"OMP_NUM_THREADS": "1"}
        stop = _Stop()
        with stop.heard():
            code = stop.wait(command, usual | dict(os.environ) | {failures.VARIABLE: str(folder)})
        return stop.told(code, failures.lowest(folder))


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
    from omnistage.stages.recipe import describe

    check_meeting(recipe)
    chosen = [*(["--from", first] if first else []), *(["--only", only] if only else [])]
    if only is not None or not recipe.launch.restart:
        rounds = [[*chosen, *(["--until", until] if until else [])]]
    else:
        stages = stages_to_do(recipe, first, until)
        rounds = [[*chosen, "--until", stage, *(["--goes-on"] if stage != stages[-1] else [])] for stage in stages]
    stop, folder = _Stop(), Path(recipe.run_dir)
    # Of several machines the first one's worker writes the run directory.
    with stop.heard(), lock.by_command(folder) if describe.node(recipe.launch) == 0 else nullcontext():
        for arguments in rounds:
            if stop.by is not None:
                raise asked.stopped(stop.by)
            if code := _run(recipe, source, arguments, stop):
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


def _run(recipe: Recipe, source: Path, arguments: list[str], stop: _Stop) -> int:
    from omnistage.stages.recipe.loading import dump, launch_command

    with tempfile.TemporaryDirectory(prefix="omnistage-") as name:
        folder = Path(name)
        resolved = folder / "recipe.json"
        resolved.write_text(json.dumps(dump(recipe), ensure_ascii=False), encoding="utf-8")
        command = launch_command(recipe, resolved, ["--source", str(source), *arguments], torchrun=TORCHRUN)
        code = stop.wait(command, _environment(recipe) | {failures.VARIABLE: str(folder)})
        return stop.told(code, failures.lowest(folder))


def _environment(recipe: Recipe) -> dict[str, str]:
    # torchrun takes one thread a process where nothing else is said, and prints a banner about it
    usual = {"OMP_NUM_THREADS": "1"} if recipe.launch.processes > 1 else {}
    threads = recipe.launch.threads
    return {**usual, **os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}


class _Stop:
    """Hands SIGTERM and SIGUSR1 on to the workers, which save and end; those that are not there yet find the wish when they come. The
    second time all are ended, as by Ctrl-C. Left to itself SIGTERM would end this process alone, and the workers would go on."""

    def __init__(self) -> None:
        self.by: signal.Signals | None = None
        self.at = 0.0
        self.folder: Path | None = None

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Heeds the signals within it."""
        before = {number: signal.signal(number, self._hear) for number in asked.SIGNALS}
        if asked.state.by is not None:
            self._hear(asked.state.by, None)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.by is not None:
            raise KeyboardInterrupt
        self.by, self.at = signal.Signals(number), time.monotonic()
        self._hand_on()

    def _hand_on(self) -> None:
        if self.by is None or self.folder is None:
            return
        failures.wish_to_stop(self.folder, self.by)
        for worker in failures.processes(self.folder):
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGUSR1)

    def wait(self, command: list[str], environment: dict[str, str]) -> int:
        """Runs the command that starts workers; returns its exit code."""
        self.folder = Path(environment[failures.VARIABLE])
        # What was heard since the processes before these.
        self._hand_on()
        process = subprocess.Popen(command, env=environment)
        given_up = False
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(LOOK_S)
                late = self.by is not None and time.monotonic() - self.at > BEGIN_S
                if late and not given_up and not failures.processes(self.folder):
                    # Not even begun: maybe it waits for other machines, which have ended.
                    process.terminate()
                    given_up = True
        except KeyboardInterrupt:
            # torchrun ends its workers on SIGTERM; killed outright it would leave them behind
            process.terminate()
            process.wait()
            raise
        finally:
            self.folder = None

    def told(self, code: int, failure: failures.Failure | None) -> int:
        """The exit code of the work; prints what a worker has left."""
        if self.by is not None and (code in _ENDED_BY_IT if failure is None else failure.code == Preempted.exit_code):
            failure = failure_of(asked.stopped(self.by))
        if code and failure is not None:
            say(failure.message)
            return failure.code
        return FAILED if code else 0


# torchrun saw the wish, or was ended by a signal: by default, or by its own handler.
_ENDED_BY_IT = {Preempted.exit_code, *(-number for number in asked.SIGNALS), 128 + signal.SIGTERM}
