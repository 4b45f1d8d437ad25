"""`omnistage watch`: a run under way, as a page on this machine's loopback and in the terminal."""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omnistage.data.errors import InputError
from omnistage.launch.arguments import positive, whole_or_zero

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED, TERMINATED = 130, 143
# Seconds between two looks: of what is drawn anew in its place, and of plain lines.
DRAWN_S, LINES_S = 2.0, 30.0


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    watch = commands.add_parser(
        "watch",
        help="a run under way: its page, refreshing by itself, and its progress in the terminal",
        description="Serves the page of omnistage report for a run under way, on this machine's loopback alone and behind a secret "
        "address, and shows the run's progress here. It reads and never writes. Ends with Ctrl-C.",
    )
    watch.add_argument("run", metavar="RUN", help="folder of the run (run_dir); one that is not there yet is waited for")
    watch.add_argument("--port", type=whole_or_zero, default=0, metavar="N", help="port of 127.0.0.1 (0: one that is free)")
    watch.add_argument("--every", type=positive, metavar="S", help=f"seconds between two looks ({DRAWN_S:g}; of plain lines {LINES_S:g})")
    shown = watch.add_mutually_exclusive_group()
    shown.add_argument("--terminal", action="store_true", help="the terminal alone: nothing is served, and it ends when the run is done")
    shown.add_argument("--page", action="store_true", help="the page alone: its address is all that is printed")
    shown.add_argument("--once", action="store_true", help="print how far the run is, and end")
    watch.add_argument("--json", action="store_true", help="with --once: as JSON")
    watch.set_defaults(command=_watch)


def _watch(arguments: argparse.Namespace) -> int:
    from omnistage.stages.report import live

    run = Path(arguments.run)
    if arguments.json and not arguments.once:
        raise InputError("--json goes with --once")
    live.check(run)
    if arguments.once:
        return _once(run, as_json=arguments.json)
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        if arguments.terminal:
            _show(run, arguments.every, until_done=True)
        else:
            _serve(run, arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _terminated(number: int, frame: Any) -> NoReturn:
    """Ends as Ctrl-C does, so that the terminal gets its cursor back."""
    raise SystemExit(TERMINATED)


def _once(run: Path, *, as_json: bool) -> int:
    from omnistage.stages.report.progress import progress

    state = progress(run)
    if as_json:
        print(json.dumps(state, indent=2, ensure_ascii=False))
        return 0
    from rich.console import Console

    from omnistage.stages.report import terminal

    console = Console()
    if console.is_terminal:
        console.print(terminal.view(state, console.width))
    else:
        print(terminal.line(state))
    return 0


def _serve(run: Path, arguments: argparse.Namespace) -> None:
    from omnistage.stages.report.server import Server

    server = Server(run, arguments.port)
    print(server.url, flush=True)
    server.start()
    try:
        if arguments.page:
            while True:
                time.sleep(3600)
        _show(run, arguments.every, until_done=False)
    finally:
        server.close()


def _show(run: Path, every: float | None, *, until_done: bool) -> None:
    from rich.console import Console

    console = Console()
    if console.is_terminal and not console.is_dumb_terminal:
        _draw(run, console, every or DRAWN_S, until_done=until_done)
    else:
        _lines(run, every or LINES_S, until_done=until_done)


def _draw(run: Path, console: Console, every: float, *, until_done: bool) -> None:
    """A table that is drawn anew in its place."""
    from rich.live import Live
    from rich.text import Text

    from omnistage.stages.report import terminal

    with Live(Text(""), console=console, auto_refresh=False, transient=False) as drawn:
        while True:
            state, why = _state(run)
            note = "Ctrl-C ends the watch, not the run"
            drawn.update(Text(terminal.visible(why)) if state is None else terminal.view(state, console.width, note), refresh=True)
            if until_done and state is not None and state["state"] == "done":
                return
            time.sleep(every)


def _lines(run: Path, every: float, *, until_done: bool) -> None:
    """A line whenever something is new, at most every so many seconds."""
    from omnistage.stages.report import terminal

    said = None
    while True:
        state, why = _state(run)
        told = terminal.visible(why) if state is None else terminal.line(state)
        if told != said:
            print(told, flush=True)
            said = told
        if until_done and state is not None and state["state"] == "done":
            return
        time.sleep(every)


def _state(run: Path) -> tuple[dict[str, Any] | None, str]:
    """How far the run is, or why that cannot be told now."""
    from omnistage.stages.report import live
    from omnistage.stages.report.progress import progress

    waits = live.waits_for(run)
    if waits is not None:
        return None, f"waiting: {waits}"
    try:
        return progress(run), ""
    except (InputError, OSError) as error:
        return None, " ".join(str(error).split())
