"""docs/rewards.md does what it says: its files are written, its commands are run, and its tables name what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from omnistage.rewards import registry
from omnistage.rewards.base import ROW_COLUMNS
from pages import blocks, commands
from repository import ROOT

PAGE = (ROOT / "docs" / "rewards.md").read_text(encoding="utf-8")
TUTORIAL = PAGE.partition("## Writing one")[0]


def plain(line: str) -> str:
    """A line of output without what differs from machine to machine."""
    return re.sub(r"\d+ µs", "N µs", line.rstrip())


@pytest.mark.timeout(600)
def test_every_command_of_the_tutorial(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = 0
    for language, name, body in blocks(TUTORIAL):
        if name is not None:
            (tmp_path / name).write_text(body, encoding="utf-8")
            continue
        assert language == "console"
        for command, shown in commands(body):
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=os.environ | {"PATH": path, "HF_HUB_OFFLINE": "1"},
                capture_output=True,
                text=True,
                check=False,
            )
            assert "exit code $?" in command or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            output = [plain(line) for line in done.stdout.splitlines()]
            for line in shown:
                assert plain(line) in output, f"{command}\n{done.stdout}\n{done.stderr}"
            ran += 1
    assert ran == 6


def table(heading: str) -> dict[str, str]:
    """First and second cell of the first table behind a heading."""
    rows = PAGE.partition(f"\n{heading}\n")[2].partition("\n|---")[2].splitlines()[1:]
    cells = [re.split(r"(?<!\\)\|", row)[1:3] for row in rows[: next((at for at, row in enumerate(rows) if not row.startswith("|")), None)]]
    return {first.strip(" `"): second.strip().replace("\\|", "|") for first, second in cells}


def test_the_table_of_columns() -> None:
    assert table("## Writing one") == dict(ROW_COLUMNS)


def test_the_table_of_built_in_rewards() -> None:
    assert set(table("## Built in")) == set(registry.BUILT_IN)
