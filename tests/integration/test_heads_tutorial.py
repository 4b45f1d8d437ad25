"""docs/heads.md does what it says: its files are written, its commands are run, and its table names what there is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from omnistage.rl.heads.spec import LOSSES, HeadSpec, LossName
from omnistage.stages import files
from pages import blocks, commands
from repository import ROOT

PAGE = (ROOT / "docs" / "heads.md").read_text(encoding="utf-8")


@pytest.mark.timeout(600)
def test_every_command_of_the_tutorial(tmp_path: Path) -> None:
    """The emotion head learns what the sounds feel like, and what it learned does not come from silence."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    printed = []
    for language, name, body in blocks(PAGE.partition("## What a head may be")[0]):
        if name is not None:
            (tmp_path / name).write_text(body, encoding="utf-8")
            continue
        assert language == "console"
        for command, _ in commands(body):
            environment = os.environ | {"PATH": path}
            done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr[-3000:]}"
            printed.append(done.stdout)
    assert len(printed) == 2
    found = files.read_json(tmp_path / "runs/emotion/01-emotion/head/scores.json")
    for number in ("valence", "arousal"):
        assert found["tasks"]["sound"][number]["plcc"]["value"] > 0.8
        assert abs(found["controls"]["blank"]["sound"][number]["plcc"]["value"]) < 0.5
    assert "valence" in printed[1]
    assert "arousal" in printed[1]


def test_the_table_names_all_there_is() -> None:
    table = PAGE.partition("## What a head may be")[2].partition("\nThe hidden size")[0]
    for name in [*get_args(LossName), *LOSSES, *(field for field in HeadSpec.model_fields if field != "name")]:
        assert f"`{name}`" in table, name
