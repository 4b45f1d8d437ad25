"""A function over many items in processes of their own, where an item may crash its process or never come back."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")

START_S = 120.0


@dataclass(frozen=True)
class Failed:
    """Why an item has no result: `hung` or `crashed`, and a text that follows the item's name."""

    code: str
    reason: str


@dataclass
class _Worker(Generic[T]):
    process: SpawnProcess
    connection: Connection
    item: T | None
    deadline: float
    started: bool = False


def run(function: Callable[[T], R], items: Sequence[T], *, workers: int, limit_s: float) -> Iterator[tuple[T, R | Failed]]:
    """Each item with what `function` (importable by name) makes of it, as they get ready; at most `limit_s` seconds for one item.

    A worker that takes longer is killed and the item has `Failed`, as has the item of a worker that dies; the others go on.

    Raises:
        RuntimeError: a worker cannot be started.
    """
    left = list(reversed(items))
    running: list[_Worker[T]] = []
    try:
        while left or running:
            while len(running) < workers and sum(not worker.started for worker in running) < len(left):
                running.append(_start(function, limit_s))
            nearest = min(worker.deadline for worker in running)
            ready = wait([worker.connection for worker in running], timeout=max(0.0, nearest - time.monotonic()))
            for worker in list(running):
                if worker.connection in ready:
                    outcomes = _received(worker)
                elif time.monotonic() >= worker.deadline:
                    outcomes = [Failed("hung", f"took over {limit_s:g} s and was given up")]
                else:
                    continue
                if not worker.started:
                    raise RuntimeError(f"a worker process did not start: {outcomes}")
                ended = any(isinstance(outcome, Failed) for outcome in outcomes) or not left
                for outcome in outcomes:
                    yield cast(T, worker.item), outcome
                if ended:
                    _end(worker)
                    running.remove(worker)
                else:
                    worker.item, worker.deadline = left.pop(), time.monotonic() + limit_s
                    with suppress(OSError):  # it died while it waited: its closed connection is seen next
                        worker.connection.send(worker.item)
    finally:
        for worker in running:
            _end(worker)


def _start(function: Callable[[T], R], limit_s: float) -> _Worker[T]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, function, limit_s), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours, None, time.monotonic() + START_S)


def _received(worker: _Worker[T]) -> list[Any]:
    """The outcome of the worker's item, or nothing where it only says that it has started."""
    try:
        kind, value = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join(5)
        return [Failed("crashed", f"ended its process ({_ending(worker.process.exitcode)})")]
    if kind == "started":
        worker.started = True
        return []
    return [value if kind == "result" else Failed("crashed", f"raised {value}")]


def _end(worker: _Worker[T]) -> None:
    worker.connection.close()
    worker.process.kill()
    worker.process.join()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {-code}, {signal.Signals(-code).name}"
    return f"exit code {code}"


def _serve(connection: Connection, function: Callable[[T], R], limit_s: float) -> None:
    """The worker: items in, results out, until the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # What a decoder prints about a broken clip is said once, by name, in the result.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    connection.send(("started", None))
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        # Should the parent be gone, nobody would end a decoder that hangs: the system does.
        signal.setitimer(signal.ITIMER_REAL, limit_s + 5)
        try:
            result = function(item)
        except BaseException as error:
            connection.send(("raised", traceback.format_exception_only(error)[-1].strip()))
            raise
        signal.setitimer(signal.ITIMER_REAL, 0)
        connection.send(("result", result))
