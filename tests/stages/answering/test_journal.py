"""Answers on disk: what a kill has cut is asked again, and the final file does not tell where it was cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from omnistage.data.errors import InputError
from omnistage.data.records import AnswerKind, Modality, Record
from omnistage.stages.answering import plan
from omnistage.stages.answering.journal import Journal
from omnistage.stages.benchmarks.items import PREDICTIONS, Prediction

RECORD = Record("", Modality.TEXT, "t", AnswerKind.YES_NO, "is it?", "yes")
RECORDS = [replace(RECORD, id=name) for name in "abcde"]
IDS = [record.id for record in RECORDS]


def answers(batch: plan.Batch) -> list[Prediction]:
    return [Prediction(record.id, run, f"{record.id} {run}", "ok", 1) for record in batch.records for run in batch.way.runs]


def batches() -> list[plan.Batch]:
    return plan.batches(RECORDS, plan.ways(2, []), 2, seed=0)


def test_a_plan_asks_everything_in_every_way_once() -> None:
    """Five items, two at a time: three batches greedily and three with two samples."""
    made = batches()
    assert [batch.key for batch in made] == ["greedy/0", "greedy/1", "greedy/2", "samples/0", "samples/1", "samples/2"]
    assert [record.id for batch in made[:3] for record in batch.records] == IDS
    assert made[3].way.runs == ["sample-0", "sample-1"]
    assert len({batch.seed for batch in made}) == 6


def test_items_of_two_modalities_are_not_asked_together() -> None:
    mixed = [RECORDS[0], replace(RECORDS[1], modality=Modality.VIDEO), RECORDS[2]]
    assert list(plan.together(mixed, 2)) == [[0, 2], [1]]


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_line_that_was_cut_is_asked_again(tmp_path: Path, cut: int) -> None:
    made = batches()
    with Journal(tmp_path / "whole") as journal:
        for batch in made:
            journal.add(batch, answers(batch))
    journal.finish(made, IDS)
    with Journal(tmp_path / "cut") as journal:
        for batch in made[:3]:
            journal.add(batch, answers(batch))
    [part] = (tmp_path / "cut" / "parts").iterdir()
    part.write_bytes(part.read_bytes()[:-cut])
    with Journal(tmp_path / "cut") as journal:
        assert list(journal.done()) == ["greedy/0", "greedy/1"]
        for batch in made[2:]:
            journal.add(batch, answers(batch))
    journal.finish(made, IDS)
    assert (tmp_path / "cut" / PREDICTIONS).read_bytes() == (tmp_path / "whole" / PREDICTIONS).read_bytes()
    assert not (tmp_path / "cut" / "parts").exists()


def test_processes_in_any_order_leave_the_same_file(tmp_path: Path) -> None:
    made = batches()
    for name, ranks in (("one", [made]), ("two", [made[::-2], made[-2::-2]])):
        for rank, mine in enumerate(ranks):
            with Journal(tmp_path / name, rank) as journal:
                for batch in mine:
                    journal.add(batch, answers(batch))
        Journal(tmp_path / name).finish(made, IDS)
    one = (tmp_path / "one" / PREDICTIONS).read_text()
    assert one == (tmp_path / "two" / PREDICTIONS).read_text()
    assert [line.split('"')[3] for line in one.splitlines()] == IDS * 3


def test_a_batch_that_is_missing_is_no_end(tmp_path: Path) -> None:
    made = batches()
    with Journal(tmp_path) as journal:
        journal.add(made[0], answers(made[0]))
    with pytest.raises(ValueError, match="5 batches are missing, greedy/1 first"):
        journal.finish(made, IDS)


@pytest.mark.parametrize("finished", [False, True])
def test_errors_are_asked_again_where_that_is_wanted(tmp_path: Path, finished: bool) -> None:
    made = batches()[:2]
    failed = Prediction("c", "greedy", None, "error", error="the server said 500")
    with Journal(tmp_path) as journal:
        journal.add(made[0], answers(made[0]))
        journal.add(made[1], [failed, answers(made[1])[1]])
    if finished:
        journal.finish(made, IDS)
    assert journal.forget_errors(made) == 1
    assert list(journal.done()) == ["greedy/0"]
    with Journal(tmp_path) as journal:
        journal.add(made[1], answers(made[1]))
    journal.finish(made, IDS)
    assert "error" not in (tmp_path / PREDICTIONS).read_text()
    assert journal.forget_errors(made) == 0
    assert journal.is_finished


def test_a_part_of_something_else_is_named(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "0.jsonl").write_text('{"batch": 3}\n')
    with pytest.raises(InputError, match=r"0\.jsonl: holds a line that is none of a batch"):
        Journal(tmp_path).done()


def test_what_is_kept_is_written_before_anything_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = batches()[:2]
    failed = Prediction("c", "greedy", None, "error", error="the server said 500")
    with Journal(tmp_path) as journal:
        journal.add(made[0], answers(made[0]))
        journal.add(made[1], [failed, answers(made[1])[1]])

    def full(*given: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("omnistage.stages.files.write_lines", full)
    with pytest.raises(OSError, match="No space left"):
        journal.forget_errors(made)
    assert list(journal.done()) == ["greedy/0", "greedy/1"]
