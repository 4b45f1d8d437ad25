"""Whether this process was asked to stop, by SIGTERM or SIGUSR1. Imports no torch, so that it hears before the libraries are loaded.

A process goes through four states: `note` (a signal is kept, nothing else happens), `listen` (it ends the process where it stands),
training (`is_training`), which ends behind a step of its own choice, and `over`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from omnistage.data.errors import Preempted

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class _Asked:
    """What was heard, and what this process does about it."""

    def __init__(self) -> None:
        self.by: signal.Signals | None = None
        self.listens = False
        self.is_training = False


state = _Asked()


def note() -> None:
    """From now on keep a signal for `listen` or `stop_if_asked`: raised within an import, it might be taken for an error of the library."""
    _take(_heard)


def listen() -> None:
    """From now on heed the signals, one that was kept at once; does nothing outside the main thread, where Python takes none.

    Raises:
        Preempted: this process was asked to stop before.
    """
    state.listens = True
    _take(_heard)
    stop_if_asked()


def over() -> None:
    """From now on a signal ends nothing: raised while the interpreter ends, it would be a traceback behind the run's last line."""
    state.listens = False


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Within it a signal ends the process: one that waits for others inside a library hears nothing until they are there.

    Raises:
        Preempted: this process was asked to stop before.
    """
    # In this order, so that a signal between the two lines is not kept for later.
    _take(signal.SIG_DFL)
    stop_if_asked()
    try:
        yield
    finally:
        _take(_heard)


def stop_if_asked() -> None:
    """Raises `Preempted` when this process was asked to stop."""
    if state.by is not None:
        raise stopped(state.by)


def stopped(by: signal.Signals) -> Preempted:
    """The end of a run that was asked to stop."""
    return Preempted(f"stopped by {by.name}; what is done is saved, and the same command goes on")


def _take(handler: object) -> None:
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, handler)  # type: ignore[arg-type]


def _heard(number: int, frame: FrameType | None) -> None:
    # The first one is the reason; torchrun ends the others by another as soon as one has gone.
    state.by = state.by or signal.Signals(number)
    if state.listens and not state.is_training:
        stop_if_asked()
