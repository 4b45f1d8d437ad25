"""`omnistage rewards check | replay`: what they print, what they call a reward with, and one line for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from omnistage.data.records import AnswerKind, Modality, Record
from omnistage.launch.cli import main
from omnistage.rewards import rollouts
from omnistage.rewards.base import columns_of

OWN = """
def length(completions, *, factor: int = 1, **columns):
    return [float(factor * len(c[0]["content"])) for c in completions]


def careless(completions, target, **columns):
    return [float(t in c[0]["content"]) for c, t in zip(completions, target)]
"""
USES = [{"name": "own.py:length", "config": {"factor": 2}, "only": {"task": "a"}, "label": "mine"}, {"name": "accuracy"}]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    rows = []
    for group, task in enumerate("ab"):
        record = Record(f"r{group}", Modality.VIDEO, task, AnswerKind.SINGLE_CHOICE, "What?", "B", options=("x", "y"))
        for text in ("B", "BB", "BBB"):
            row = columns_of(record) | {"group": group, "prompt": "What?", "messages": "[]", "completion": text}
            row |= {"completion_ids": [1], "advantage": 0.0, "reward/accuracy": 0.0}
            rows.append(row | {"reward/mine": 2.0 * len(text) if task == "a" else None})
    folder = tmp_path / "runs" / "mine"
    rollouts.write(folder / "01-video" / "rollouts", 1, rows)
    (folder / "run.json").write_text(json.dumps({"recipe": {"stages": [{"name": "video", "rewards": USES}]}}))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"messages": [{"role": "user", "content": "How many?"}], "solution": "4"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return tmp_path / "rows.jsonl"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, Any]:
    code = main(["rewards", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["mine", "own.py:length"])
def test_a_reward_of_the_run_is_called_as_the_run_called_it(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = printed(capsys, "replay", run, "--reward", name)
    assert code == 0
    assert (report["comparison"]["equal"], report["comparison"]["both_scored"], report["comparison"]["only_first"]) == (3, 3, 0)
    _, report = printed(capsys, "replay", run / "01-video" / "rollouts", "--reward", name, "--set", f"{name}.factor=3")
    assert report["spreads"][0]["high"] == 9
    assert report["comparison"]["equal"] == 0


def test_a_reward_that_the_run_does_not_have_is_called_for_all_rows(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, report = printed(capsys, "replay", run, "--reward", "own.py:careless", "--against", "mine")
    assert [spread["scored"] for spread in report["spreads"]] == [6, 3]


def test_a_careless_reward_ends_with_1(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, (report,) = printed(capsys, "check", "own.py:careless", "--data", data, "--format", "conversations")
    assert code == 1
    assert report["looks_at"] == ["answer"]
    assert {"wrong answer, right thinking", "gold without tags"} <= {finding["probe"] for finding in report["findings"]}


def test_a_careful_one_ends_with_0(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["rewards", "check", "accuracy", "format", "--data", str(data), "--format", "conversations"])
    assert (code, capsys.readouterr().out.count("nothing to mend")) == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["check", "acuracy"], "unknown reward 'acuracy'; did you mean 'accuracy'?"),
        (["check", "accuracy", "--set", "accuracy.partial=maybe"], "setting 'partial' is 'maybe': input should be a valid boolean"),
        (["check", "accuracy", "--set", "accuracy.partial=2020-01-01"], "setting 'partial' must be of numbers, texts, true, false"),
        (["check", "accuracy", "--set", "accuracy.partial=&a [*a]"], "setting 'partial' must be of numbers, texts, true, false"),
        (["check", "accuracy", "--set", "format.x=1"], "--set 'format.x=1': must be SPEC.KEY=VALUE with one of the rewards: accuracy"),
        (["check", "accuracy", "--set", "accuracy.partial=[1"], "--set 'accuracy.partial=[1': the value is no YAML"),
        (["check", "absent.py:f"], "file 'absent.py' does not exist or is no file"),
        (["replay", "nowhere", "--reward", "accuracy"], "nowhere: no such folder"),
        (["replay", "runs/mine", "--reward", "accuracy", "--stage", "audio"], "no stage 'audio' with rollouts; there are: video"),
    ],
)
def test_bad_input_is_one_line(run: Path, data: Path, arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--data", str(data), "--format", "conversations"] if arguments[0] == "check" else []
    assert main(["rewards", *arguments, *more]) == 2
    said = capsys.readouterr().err.strip()
    assert problem in said
    assert "\n" not in said
