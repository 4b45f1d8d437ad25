"""Inst-It Bench's four figures from answers written by hand and marks given by a server, beside what its own scorer makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark_figures import predictions, scored, values
from golden_benchmarks import write
from mark_server import MarkServer, by_question, chat
from omnistage.data import formats
from omnistage.data.records import Record
from omnistage.stages.benchmarks.base import Scored
from omnistage.stages.benchmarks.instit import BENCHMARK, RUBRIC, SPLITS, remarks
from omnistage.stages.benchmarks.judging import mark
from omnistage.stages.benchmarks.upstream import instit as upstream

# Two for each split; the right choices are C and D.
ANSWERS: dict[str, list[str | None]] = {
    "image_multi_choice": ["Answer: (c)", "Based on the image, the answer is D"],
    "image_open_ended": ["[1] lifts [2].", "[2] lifts [1]."],
    "video_multi_choice": ["It is not clear from these frames which of the choices is meant", "D. [1] lifts [2]."],
    "video_open_ended": ["[1] sits.", ""],
}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    folder = tmp_path_factory.mktemp("golden")
    files = write(folder)
    return [record for split in ANSWERS for record in formats.read("instit_bench", files[f"instit_{split}"], media_root=folder)]


@pytest.fixture
def items(records: list[Record], tmp_path: Path) -> list[Scored]:
    """Scored with marks 0.9 and 0.2 (image), none that can be read (video), and no answer to judge (video)."""
    marks = {"What does [1] do at <2>?": [0.9], "What does [2] do at <2>?": [0.2]}

    def reply(prompt: str) -> str:
        return "no idea" if "sits" in prompt else by_question(marks)(prompt)

    answers = [answer for split in ANSWERS.values() for answer in split]
    items = scored(BENCHMARK, records, answers)
    waiting = [at for at, item in enumerate(items) if item.score.value is None]
    assert [items[at].record.id for at in waiting] == ["image_open_ended-001-00", "image_open_ended-001-01", "video_open_ended-001-00"]
    with MarkServer(reply) as server:
        shown, given = [records[at] for at in waiting], predictions([records[at] for at in waiting], [answers[at] for at in waiting])
        for at, judged in zip(waiting, mark(shown, given, RUBRIC, chat(server, tmp_path / "ledger.sqlite")), strict=True):
            items[at] = items[at]._replace(score=judged)
    return items


def test_the_four_figures(items: list[Scored]) -> None:
    """Image, open: (0.9 + 0.2) / 2 = 55. Image, choice: both right, 100. Video, open: one was not marked, which is not 0 and leaves the
    mean, and one was not answered, which is: 0. Video, choice: one unreadable, one right, 50."""
    assert values(BENCHMARK, items, percent=True) == {
        "image, open-ended": pytest.approx(55.0),
        "image, multiple choice": 100.0,
        "video, open-ended": 0.0,
        "video, multiple choice": 50.0,
    }


def test_the_published_scorer(items: list[Scored]) -> None:
    """'(c)' holds no capital and leaves the count, 'Based' is read as B: 0 of 1. The unreadable answer leaves the count, too: 1 of 1, 100
    where ours says 50."""
    report = upstream.report(items)
    assert report["splits"] == {
        "image_multi_choice": {"total": 2, "valid": 1, "score": 0.0},
        "image_open_ended": {"total": 2, "valid": 2, "score": pytest.approx(55.0)},
        "video_multi_choice": {"total": 2, "valid": 1, "score": 100.0},
        "video_open_ended": {"total": 2, "valid": 1, "score": 0.0},
    }


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Based on the video, the answer is D", "B"),
        ("Best answer: D", "B"),
        ("I cannot tell, but Clearly option D", "C"),
        ("Answer: (c)", ""),
        ("Answer: C", "C"),
        ("The best answer is: D", "D"),
        ("The best option is D", "D"),
        ("none of them can be told from what is seen in this clip", ""),
        ("", ""),
    ],
)
def test_the_letter_that_the_published_parser_reads(text: str, letter: str) -> None:
    assert upstream.parse(text) == letter


@pytest.mark.parametrize("text", ["Based on the video, the answer is D", "Best answer: D", "I cannot tell, but Clearly option D"])
def test_ours_reads_no_letter_out_of_a_word(records: list[Record], text: str) -> None:
    """The right choice is D."""
    (item,) = scored(BENCHMARK, [records[1]], [text])
    assert (item.score.answer, item.score.value) == ("D", 1.0)


def test_splits_that_are_missing_are_said_and_have_no_figure(records: list[Record]) -> None:
    assert [figure.name for figure in BENCHMARK.figures(records)] == list(SPLITS.values())
    assert remarks(records) == []
    assert [figure.name for figure in BENCHMARK.figures(records[:4])] == ["image, open-ended", "image, multiple choice"]
    assert remarks(records[:4]) == ["splits without an item here: video_open_ended, video_multi_choice"]


def test_marks_go_from_0_to_1_in_tenths() -> None:
    assert RUBRIC.marks == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
