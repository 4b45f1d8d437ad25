"""Every command of docs/clusters.md, dry-run; scripts that a shell and shellcheck take; machines that do not know each other."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from omnistage.data.errors import InputError
from omnistage.launch import cli, processes
from omnistage.stages.recipe import loading as recipes
from repository import ROOT

SCRIPTS = ROOT / "launch" / "scripts"
COMMANDS = [line.partition("#")[0].strip() for line in (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8").splitlines()]
RUNS = [line for line in COMMANDS if re.match(r"(\w+=\S+ )*omnistage run", line)]
CALLS = [line for line in COMMANDS if re.match(r"(\w+=\S+ )*launch/scripts/\w+\.sh", line)]


def split(line: str) -> tuple[dict[str, str], list[str]]:
    """A command line's variables and its words."""
    words = shlex.split(line)
    count = next(at for at, word in enumerate(words) if not re.match(r"\w+=", word))
    return dict(word.split("=", 1) for word in words[:count]), words[count:]


@pytest.mark.parametrize("line", RUNS)
def test_a_run_of_the_docs_is_planned(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    variables, words = split(line)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cli.main([*words[1:], *([] if "--dry-run" in words else ["--dry-run"])]) == 0
    out = capsys.readouterr().out
    assert ("03 audio_video" if "humansense" in words[2] else "  [grpo, ") in out
    if variables:
        told = f"--nnodes 2 --node_rank {variables['NODE_RANK']} --master_addr 10.0.0.1 --master_port 29500 --nproc_per_node 4"
        assert told in out


@pytest.mark.parametrize("line", CALLS)
def test_a_script_of_the_docs_starts_what_it_says(line: str) -> None:
    variables, words = split(line)
    command = f"{sys.executable} -m omnistage.launch"
    done = subprocess.run(
        [*words, "--dry-run"], cwd=ROOT, env=os.environ | variables | {"OMNISTAGE": command}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "launch    engine zero3, processes 8" in done.stdout


def test_the_docs_name_every_script() -> None:
    assert len(RUNS) == 10
    assert len(CALLS) == 2
    text = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    for name in ("stage1_video", "stage2_audio", "stage3_audio_video", "run_all", "slurm"):
        assert name in text


@pytest.mark.parametrize("path", sorted(SCRIPTS.iterdir()), ids=lambda path: path.name)
def test_a_shell_takes_the_script(path: Path) -> None:
    assert subprocess.run(["bash", "-n", path], capture_output=True, text=True, timeout=60).stderr == ""
    if path.name != "command.sh":
        assert os.access(path, os.X_OK)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    found = subprocess.run(["shellcheck", "-x", path], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout


def test_evaluate_and_head_say_what_is_missing() -> None:
    for name, said in (("evaluate.sh", "DATA: annotation files, separated by spaces"), ("stage.sh", "which stage?")):
        done = subprocess.run([SCRIPTS / name], capture_output=True, text=True, timeout=60)
        assert done.returncode != 0
        assert said in done.stderr


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "launch.nodes is 2 and NODE_RANK (or SLURM_NODEID) is None; must be 0 to 1, another on each machine"),
        ({"NODE_RANK": "2"}, "launch.nodes is 2 and NODE_RANK (or SLURM_NODEID) is '2'; must be 0 to 1, another on each machine"),
        ({"SLURM_NODEID": "1"}, "launch.nodes is 2 and MASTER_ADDR is not set; must be the address of machine 0"),
    ],
)
def test_a_machine_that_does_not_know_the_others_is_refused(variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NODE_RANK", "SLURM_NODEID", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    recipe = recipes.load("humansense_7b", ["launch.nodes=2", "launch.processes=4"])
    with pytest.raises(InputError, match=re.escape(said)):
        processes.start(recipe, Path("recipe.yaml"), None, None)


def test_each_stage_that_is_not_done_has_processes_of_its_own(tmp_path: Path) -> None:
    from omnistage.stages import files

    recipe = recipes.load("humansense_7b", [f"run_dir={tmp_path}"])
    assert processes.stages_to_do(recipe, None, None) == ["video", "audio", "audio_video"]
    assert processes.stages_to_do(recipe, None, "audio") == ["video", "audio"]
    assert processes.stages_to_do(recipe, "audio", None) == ["audio", "audio_video"]
    for name in ("01-video", "02-audio"):
        (tmp_path / name / "model").mkdir(parents=True)
        files.seal(tmp_path / name / "model")
    assert processes.stages_to_do(recipe, None, None) == ["audio_video"]
    # What is left to do of a stage that is done, its evaluation say, is seen to by the last one.
    assert processes.stages_to_do(recipe, None, "audio") == ["audio"]
