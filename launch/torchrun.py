"""torchrun for our workers: `python -m omnistage.launch.torchrun ARGUMENTS`, with the arguments of `python -m torch.distributed.run`.

A worker that fails on purpose leaves one line for the user (see `failures`). torchrun would put warnings, a banner and a traceback around
it, and here it says nothing. A worker that crashes shows its own traceback, and torchrun's warnings stay: of a worker that was killed
they are all that is known.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from omnistage.data.errors import Preempted
from omnistage.launch import failures
from omnistage.launch.cli import FAILED, failure_of
from omnistage.launch.failures import Failure
from omnistage.stages import asked

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the workers and waits; 0 when all of them ended with 0."""
    # A queue may send it to every process of a job; by default it would end this one, and leave the workers behind.
    signal.signal(signal.SIGUSR1, lambda number, frame: None)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    elastic = logging.getLogger("torch.distributed.elastic")
    if elastic.parent is not None:
        elastic.addHandler(_UnlessAWorkerHasSpoken(elastic.parent))
        elastic.propagate = False
    if failures.wish(failures.folder()) is not None:
        return Preempted.exit_code
    try:
        run(parse_args(sys.argv[1:] if argv is None else list(argv)))
    except ChildFailedError as error:
        _say_who_died(error)
        return FAILED
    except SignalException as stopped:
        return 128 + stopped.sigval
    return 0


def _say_who_died(error: ChildFailedError) -> None:
    """Leaves a death for the user where no worker has left words of its own: one that is killed says nothing, one that crashes shows its
    traceback."""
    place = failures.folder()
    rank, first = error.get_first_failure()
    if place is None or failures.lowest(place) is not None or first.exitcode >= 0:
        return
    by, wish = signal.Signals(-first.exitcode), failures.wish(place)
    if wish is not None and by in asked.SIGNALS:
        # It had not come as far as to hear for itself.
        failures.leave(place, rank, failure_of(asked.stopped(wish)))
        return
    told = f"process {rank} was killed by {by.name}; the others were ended, and the same command goes on"
    failures.leave(place, rank, Failure(FAILED, told))


class _UnlessAWorkerHasSpoken(logging.Handler):
    """Hands torchrun's log on to where it would have gone, until a worker has left a failure."""

    def __init__(self, onward: logging.Logger) -> None:
        super().__init__()
        self._onward = onward

    def emit(self, record: logging.LogRecord) -> None:
        if failures.lowest(failures.folder()) is None:
            self._onward.handle(record)


if __name__ == "__main__":
    sys.exit(main())
