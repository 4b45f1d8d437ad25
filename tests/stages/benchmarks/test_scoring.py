"""Scores of hand-written folders: what was never asked does not count, what was changed is refused, and every line is looked at."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from omnistage.data.errors import InputError
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record
from omnistage.stages import files
from omnistage.stages.benchmarks import compare, items, judging, own, scoring, setup
from omnistage.stages.benchmarks.items import Prediction
from omnistage.stages.measure import summary

QUESTION = Record("", Modality.AUDIO_VIDEO, "t", AnswerKind.YES_NO, "is it?", "yes", (MediaRef("video", "a.mp4", "a.mp4"),))


def record(at: int, clip: str | None = None, **changes: Any) -> Record:
    clip = clip or f"{at}.mp4"
    return replace(QUESTION, id=f"q{at}", media=(MediaRef("video", clip, clip),), **changes)


def write(folder: Path, records: list[Record], answers: dict[str, dict[str, str]], benchmark: str = "choice", **more: Any) -> Path:
    """A folder as another program would write it: answers by run and id."""
    files.write_json(folder / "setup.json", {"benchmark": benchmark} | more)
    files.write_lines(folder / "items.jsonl", [items.item_row(one, benchmark) for one in records])
    rows = [asdict(Prediction(name, run, raw, "ok")) for run, of_run in answers.items() for name, raw in of_run.items()]
    files.write_lines(folder / "predictions.jsonl", rows)
    return folder


def test_a_folder_without_greedy_answers_is_scored(tmp_path: Path) -> None:
    """Two samples of one item, one right: pass@1 is 1/2, pass@2 is 1."""
    write(tmp_path, [record(0)], {"sample-0": {"q0": "yes"}, "sample-1": {"q0": "no"}})
    found = scoring.score(tmp_path)
    assert {run: of["figures"]["all items"]["value"] for run, of in found["runs"].items()} == {
        "sample-0": 1.0, "sample-1": 0.0, "pass@1": 0.5, "pass@2": 1.0, "maj@2": 1.0,
    }  # fmt: skip
    assert found["probes"] == {}


def test_the_headline_is_that_of_the_greedy_run_whatever_stands_first(tmp_path: Path) -> None:
    """The probe asks one of two tasks: the average of the greedy run is over both."""
    seen = replace(record(1, task="Lie_Detection"), modality=Modality.VIDEO)
    write(
        tmp_path, [record(0, task="Rapport_Recognition"), seen], {"muted": {"q0": "no"}, "greedy": {"q0": "yes", "q1": "no"}}, "humansense"
    )
    found = scoring.score(tmp_path)
    assert found["headline"] == "average"
    assert (found["runs"]["greedy"]["figures"]["average"]["value"], found["runs"]["muted"]["figures"]["average"]["value"]) == (0.5, 0.0)
    assert found["probes"]["muted"]["average"]["value"] == -1.0
    assert "the average is over 2 of the paper's 13 tasks" in found["notes"]


def test_what_a_probe_did_not_ask_is_in_no_comparison(tmp_path: Path) -> None:
    """Ten clips that can be muted and ten images that cannot: 10 of 10 against 5 of 10, and not 10 and 5 of 20."""
    images = [replace(record(at), modality=Modality.IMAGE, media=(MediaRef("image", f"{at}.png"),)) for at in range(10, 20)]
    records = [*(record(at) for at in range(10)), *images]
    for name, right in (("a", 10), ("b", 5)):
        answers = {f"q{at}": "yes" if at < right else "no" for at in range(10)}
        write(tmp_path / name, records, {"greedy": {one.id: "yes" for one in records}, "muted": answers})
        scoring.score(tmp_path / name)
    found = compare.compare(tmp_path / "a", tmp_path / "b", own.figures, run="muted")
    [whole] = [row for row in found["figures"] if row["name"] == "all items"]
    assert (found["items"], whole["before"], whole["after"], whole["value"], whole["items"]) == (10, 1.0, 0.5, -0.5, 10)
    assert "modality image" not in [row["name"] for row in found["figures"]]


def test_marks_are_kept_for_the_very_same_question_and_reference(tmp_path: Path) -> None:
    asked = replace(record(0), kind=AnswerKind.OPEN, target="a dog")
    write(tmp_path, [asked], {"greedy": {"q0": "a dog barks"}}, "open")
    sha = judging.asked_sha(asked, "a dog barks", own.RUBRIC)
    judge = {"model": "m", "rubric": "open_0_1", "prompt_sha": judging.prompt_sha(own.RUBRIC), "asked": sha, "marks": [0.75]}
    mark = {"id": "q0", "run": "greedy", "scorer": "judge", "value": 0.75, "valid": True, "answer": "a dog barks", "reason": "judged"}
    files.write_lines(tmp_path / "scores.jsonl", [mark | {"judge": judge}])
    assert scoring.score(tmp_path)["runs"]["greedy"]["figures"]["all items"]["value"] == 0.75
    files.write_lines(tmp_path / "items.jsonl", [items.item_row(replace(asked, target="a cat"), "open")])
    assert scoring.score(tmp_path)["runs"]["greedy"]["counts"]["not_judged"] == 1


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("predictions.jsonl", {"head": "mos"}, "head is 'mos'; must be an object"),
        ("predictions.jsonl", {"head": {"name": "mos", "values": [5]}}, "values holds 5; must hold an object"),
        ("predictions.jsonl", {"head": {"name": "mos", "values": [{"values": {"a": "abc"}}]}}, "head.values: a is 'abc'; must be a number"),
        ("predictions.jsonl", {"status": "fine"}, "status is 'fine'; allowed: ok, empty, truncated, error"),
        ("predictions.jsonl", {"raw": "\ud83d"}, "surrogates not allowed"),
        ("predictions.jsonl", {"raw": 5}, "raw is 5; must be text"),
        ("items.jsonl", {"target": None}, "target is None; must be text"),
        ("items.jsonl", {"id": ["q0"]}, "id is ['q0']; must be text"),
        ("items.jsonl", {"extra": None}, "extra is None; must be an object"),
        ("items.jsonl", {"values": ["1"]}, "values holds '1'; must hold a number"),
        ("items.jsonl", {"history": [["q"]]}, "history holds something else than pairs of texts"),
        ("items.jsonl", {"media": [{"kind": "video", "path": 3, "blank": []}]}, "path is 3; must be text"),
        ("items.jsonl", {"kind": "riddle"}, "'riddle' is not a valid AnswerKind"),
    ],
)
def test_a_line_of_something_else_is_named(tmp_path: Path, file: str, change: dict[str, Any], said: str) -> None:
    write(tmp_path, [record(0)], {"greedy": {"q0": "yes"}})
    [row] = files.read_lines(tmp_path / file)
    (tmp_path / file).write_text(json.dumps(row | change) + "\n")
    with pytest.raises(InputError) as error:
        scoring.score(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / file}: line 1: ")
    assert said in str(error.value)


def test_items_that_have_changed_are_not_scored(tmp_path: Path) -> None:
    write(tmp_path, [record(0)], {"greedy": {"q0": "yes"}})
    files.write_json(
        tmp_path / "setup.json", {"benchmark": "choice", "items": {"count": 1, "sha256": files.digest(tmp_path / "items.jsonl")}}
    )
    scoring.score(tmp_path)
    files.write_lines(tmp_path / "items.jsonl", [items.item_row(record(0, target="no"), "choice")])
    with pytest.raises(InputError, match="has changed since it was asked"):
        scoring.score(tmp_path)


def test_answers_of_nobody_known_are_not_adopted(tmp_path: Path) -> None:
    write(tmp_path, [record(0)], {"greedy": {"q0": "yes"}})
    (tmp_path / "setup.json").unlink()
    with pytest.raises(InputError, match=r"holds items\.jsonl, predictions\.jsonl and no setup\.json: nobody knows whose they are"):
        setup.begin(tmp_path, {"benchmark": "choice"})


def test_what_cannot_be_scored_so_is_said_before(tmp_path: Path) -> None:
    for given, said in (
        ({"upstream": True}, "benchmark 'choice' has no published scorer"),
        ({"embedding": "e.py:f"}, "--embedding is for benchmark 'pose'"),
        ({"judge": True}, "benchmark 'choice' has no open answers"),
    ):
        with pytest.raises(InputError, match=said):
            scoring.check(own.CHOICE, **{"judge": False, "upstream": False, "embedding": None} | given)


def test_the_summary_of_a_run_draws_over_clips_and_leaves_out_what_is_no_share(tmp_path: Path) -> None:
    """Sixty items about six clips, three of them all right: as wide as the figures of the same folder. An unjudged item has no accuracy."""
    records = [record(at, clip=f"{at // 10}.mp4") for at in range(60)]
    answers = {f"q{at}": "yes" if at < 30 else "no" for at in range(60)}
    found = scoring.score(write(tmp_path / "evaluation", records, {"greedy": answers}))
    figure = found["runs"]["greedy"]["figures"]["modality audio_video"]
    entry = summary.measured_of(tmp_path).modalities("greedy")["audio_video"]
    assert (entry["accuracy"], entry["n"], entry["majority"]) == (0.5, 60, 1.0)
    assert (entry["low"], entry["high"]) == (figure["low"], figure["high"])
    assert entry["high"] - entry["low"] > 0.4
    unjudged = [replace(one, kind=AnswerKind.OPEN) for one in records]
    scoring.score(write(tmp_path / "open" / "evaluation", unjudged, {"greedy": answers}, "open"))
    assert summary.measured_of(tmp_path / "open").modalities("greedy") == {}
