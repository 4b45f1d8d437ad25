"""HIS-Bench's figures from marks given by a server, beside what its own scorer makes of the same marks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmark_figures import predictions, scored, values
from golden_benchmarks import write
from mark_server import MarkServer, by_question, chat
from omnistage.data import formats
from omnistage.data.records import Record
from omnistage.stages.benchmarks.base import Scored
from omnistage.stages.benchmarks.hisbench import BENCHMARK, RUBRIC, remarks
from omnistage.stages.benchmarks.judging import mark
from omnistage.stages.benchmarks.upstream import hisbench as upstream

MARKS = {"What does she do?": [2, 1], "And he?": [0.5, 0], "Where is she?": [2, 2], "What is next?": [1, "Rating: 1"]}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    folder = tmp_path_factory.mktemp("golden")
    return list(formats.read("hisbench", write(folder)["hisbench"], media_root=folder))


def judged(records: list[Record], folder: Path) -> list[Scored]:
    given = predictions(records, ["sits", "runs", "on a sofa", "stands"])
    with MarkServer(by_question(MARKS)) as server:
        scores = mark(records, given, RUBRIC, chat(server, folder / "ledger.sqlite"), 2)
    return [Scored(*item) for item in zip(records, given, scores, strict=True)]


def test_a_sub_task_is_a_mean_and_the_headline_the_mean_of_sub_tasks(records: list[Record], tmp_path: Path) -> None:
    """Activity: marks 2, 1 (0.75 of 2) and 0.5, 0 (0.125): 43.75. Dialogue: 2, 2 (1) and 1 with one that could not be read (0.5): 75.
    Average: 59.375."""
    assert [(record.task, len(record.history)) for record in records] == [
        ("activity", 0),
        ("activity", 0),
        ("dialogue", 0),
        ("dialogue", 1),
    ]
    found = values(BENCHMARK, judged(records, tmp_path), percent=True)
    assert found == {"average": 59.375, "activity": 43.75, "dialogue": 75.0}


def test_the_published_scorer_sums_the_last_repeats_last_turns(records: list[Record], tmp_path: Path) -> None:
    """Two repeats. Activity: the last repeat's 1 + 0 = 1 of 4. Dialogue: the second turn alone, whose last judgement failed: 0 of 2.
    Average 0.5: a sum, which for 50 records a task would be out of 100."""
    report = upstream.report(judged(records, tmp_path))
    assert report["tasks"] == {
        "activity": {"score": 1.0, "full_marks": 4.0, "records": 2},
        "dialogue": {"score": 0.0, "full_marks": 2.0, "records": 1},
    }
    assert (report["average"], report["n_r"]) == (0.5, 2)


def test_fifty_wholly_right_records_are_100_by_both_rules(records: list[Record]) -> None:
    """And twenty-five are still 100 by ours, and 50 by theirs."""
    (item,) = scored(BENCHMARK, records[:1], ["sits"])
    right = item._replace(score=replace(item.score, value=1.0, judge={"marks": [2.0, 2.0, 2.0]}))
    for count, theirs in ((50, 100.0), (25, 50.0)):
        items = [right._replace(record=replace(item.record, source=f"activity.json: record {at}")) for at in range(count)]
        assert values(BENCHMARK, items, percent=True)["average"] == 100.0
        assert upstream.report(items)["average"] == theirs


def test_no_answer_is_nought_by_both_rules(records: list[Record]) -> None:
    items = scored(BENCHMARK, records, ["", None, " ", "..."])
    assert values(BENCHMARK, items, percent=True) == {"average": 0.0, "activity": 0.0, "dialogue": 0.0}
    assert upstream.report(items)["average"] == 0.0


def test_without_a_judge_the_published_scorer_says_nothing(records: list[Record]) -> None:
    """It did not fail, so it is not 0."""
    report = upstream.report(scored(BENCHMARK, records, ["sits", "walks", None, "on the sofa"]))
    assert (report["average"], report["n_r"]) == (None, 0)
    assert [task["score"] for task in report["tasks"].values()] == [None, None]


def test_fewer_sub_tasks_than_the_papers_are_said(records: list[Record]) -> None:
    assert remarks(records) == ["2 sub-tasks here, 16 in the paper: the averages are not comparable"]
