"""`omnistage report`: a run as one page to look at."""

from __future__ import annotations

import argparse
from pathlib import Path

from omnistage.launch.arguments import positive

MOST_MB = 20.0


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    report = commands.add_parser(
        "report",
        help="a run as one HTML page: figures, curves, rollouts with their clips",
        description="Writes one self-contained HTML page of a run, done or under way: what each stage gained, curves, probes, heads, and a "
        "player of rollouts with their clips. It opens from disk, and fetches nothing.",
    )
    report.add_argument("run", metavar="RUN", help="folder of the run (run_dir)")
    report.add_argument("--out", metavar="FILE", help="the page (RUN/report.html)")
    report.add_argument("--max-mb", type=positive, default=MOST_MB, metavar="N", help="largest page: clips, then samples are left out (20)")
    report.set_defaults(command=_report)


def _report(arguments: argparse.Namespace) -> int:
    write(Path(arguments.run), Path(arguments.out) if arguments.out is not None else None, arguments.max_mb)
    return 0


def write(run: Path, out: Path | None = None, max_mb: float = MOST_MB) -> None:
    """Write a run's page, `RUN/report.html` where nothing else is said, and print where it is."""
    from omnistage.stages.report import page

    place = run / "report.html" if out is None else out
    made = page.write(run, place, max_mb=max_mb)
    print(f"{place}: {made['bytes'] / 1e6:.1f} MB; {made['told']}")
