"""Files of a run that hold what nobody expects: a page says so in a line, and one that is served goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from omnistage.stages import files
from omnistage.stages.report import collect, live
from omnistage.stages.report.live import Live
from omnistage.stages.report.progress import progress
from omnistage.stages.report.terminal import line
from report_run import completion, recorded


def summed(run: Path) -> None:
    files.write_json(run / "01-video" / "evaluation" / "scores.json", {})
    files.write_json(run / "summary.json", {"stages": [1]})


def large(run: Path) -> None:
    """Integers beyond what a float holds, wherever a number is expected."""
    files.write_lines(run / "01-video" / "metrics.jsonl", [{"step": 1, "reward": 10**400, "loss": 0.5}, {"step": 10**400, "loss": 0.1}])
    files.write_json(run / "01-video" / "seconds.json", {"train_s": 10**400})
    figures = {"accuracy": {"value": 10**400, "low": None, "high": None, "n": 10**400, "unit": "share"}}
    scores = {"headline": "accuracy", "runs": {"greedy": {"figures": figures}}}
    files.write_json(run / "01-video" / "evaluation" / "scores.json", scores)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "seconds": (
        lambda run: files.write_json(run / "01-video" / "seconds.json", [1]),
        "01-video/seconds.json is left out: it holds no JSON",
    ),
    "gate": (lambda run: files.write_json(run / "01-video" / "gate.json", "x"), "01-video/gate.json is left out: it holds no JSON"),
    "summary": (summed, "the summary could not be made: "),
    "nested": (lambda run: (run / "01-video" / "gate.json").write_text("[" * 100_000), "01-video/gate.json is left out: "),
    "large": (lambda run: large(run), ""),
    "lock": (lambda run: (run / ".lock").mkdir(), ""),
    "weight": (lambda run: recorded(run, {}, rewards=[{"name": "right", "weight": "much"}, 3]), "a weight that is a number"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_a_note(name: str, tmp_path: Path) -> None:
    """In what is told of the run, and in what is served of it."""
    run = recorded(tmp_path / "run", {1: [completion("a", 0, "x", 1.0)]})
    make, said = ODD[name]
    make(run)
    told = "\n".join(note["line"] for note in collect.collect(run)["notes"])
    assert said in told
    assert isinstance(line(progress(run)), str)
    served = Live(run)
    try:
        answer = served.answer()
        assert answer is not None
        data = json.loads(answer.body)["data"]
        assert data["shown"]["groups"] == 1
        assert data["plan"] is None
        assert [note["line"] for note in data["notes"] if note["section"] == "throughput"] == [live.NO_PLAN]
    finally:
        served.close()


def test_a_run_too_large_for_the_page_says_what_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is no option of the watch."""
    run = recorded(tmp_path / "run", {1: [completion("a", 0, "x", 1.0)]})
    monkeypatch.setattr(live, "ROOM", 1000)
    served = Live(run)
    try:
        answer = served.answer()
        assert answer is not None
        waiting = json.loads(answer.body)["waiting"]
        assert re.match(r"what the run logged and measured takes 0\.00\d+ MB more than the page has room for; ", waiting)
        assert waiting.endswith(f"; omnistage report {run} --max-mb N writes one of N MB")
    finally:
        served.close()


def test_a_look_that_fails_is_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is removed while it is listed, then as it was."""
    run = recorded(tmp_path / "run", {1: [completion("a", 0, "x", 1.0)]})
    marks = live.marks_of
    monkeypatch.setattr(live, "PAUSE_S", 0.05)

    def vanishing(folder: Path) -> object:
        raise FileNotFoundError(2, "No such file or directory", "02-audio")

    monkeypatch.setattr(live, "marks_of", vanishing)
    served = Live(run)
    try:
        answer = served.answer()
        assert answer is not None
        assert "cannot be shown now (FileNotFoundError: " in json.loads(answer.body)["waiting"]
        monkeypatch.setattr(live, "marks_of", marks)
        found = None
        for _ in range(600):
            answer = served.answer()
            assert answer is not None
            if "data" in (found := json.loads(answer.body)):
                break
            served._closed.wait(0.05)
        assert found is not None
        assert found["data"]["shown"]["groups"] == 1
    finally:
        served.close()
