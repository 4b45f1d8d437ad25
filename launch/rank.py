"""One process of many that run the same command: `python -m omnistage.launch.torchrun ... -m omnistage.launch.rank COMMAND ...`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta

from omnistage.data.errors import OmnistageError, Preempted
from omnistage.launch import failures
from omnistage.launch.cli import FAILED, INTERRUPTED, failure_of, report
from omnistage.stages import asked


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command of `omnistage` as one rank."""

    def work() -> int:
        import torch
        from accelerate import PartialState

        from omnistage.launch.cli import parsed

        # Left to itself, accelerate takes each CPU process for the only one. While one scores the others wait, a judge's whole day maybe.
        with asked.ending_at_once():
            PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))
        asked.listen()
        arguments = parsed(argv)
        code: int = arguments.command(arguments)
        return code

    return as_rank(work)


def as_rank(work: Callable[[], int]) -> int:
    """The exit code of a rank's work.

    An error raised on purpose is left for the command that started the ranks; started by hand, the rank prints it. Any other shows its
    traceback, unless it only follows from an error that another rank has left: that rank is gone, and its partners lose their connection.
    """
    asked.note()
    rank, left = int(os.environ.get("RANK", "0")), failures.folder()
    try:
        if left is not None:
            # In this order: the command that started the ranks leaves its wish first, and signals whoever stands there then.
            failures.note_process(left, rank)
            asked.state.by = failures.wish(left) or asked.state.by
        asked.stop_if_asked()
        try:
            return work()
        finally:
            asked.over()
    except (OmnistageError, Preempted) as error:
        if left is None:
            return report(error)
        failures.leave(left, rank, failure := failure_of(error))
        return failure.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception:
        if failures.lowest(left) is None:
            raise
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
