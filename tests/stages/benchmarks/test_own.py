"""The two benchmarks for questions of your own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmark_figures import scored, values
from omnistage.data.records import AnswerKind, Modality, Record
from omnistage.stages.benchmarks.own import CHOICE, OPEN

ONE = Record("1", Modality.VIDEO, "colour", AnswerKind.SINGLE_CHOICE, "q", "A", options=("red", "blue"))
RECORDS = [
    ONE,
    replace(ONE, id="2"),
    replace(ONE, id="3", target="B"),
    replace(ONE, id="4", modality=Modality.AUDIO, task="count", kind=AnswerKind.NUMBER, target="3", options=()),
    replace(ONE, id="5", modality=Modality.AUDIO, task="count", kind=AnswerKind.YES_NO, target="yes", options=()),
]


def test_accuracy_overall_by_modality_and_by_task() -> None:
    """Right: 1, 3 and 5 of five. Video and colour: 2 of 3. Audio and count: 1 of 2."""
    assert values(CHOICE, scored(CHOICE, RECORDS, ["A", "B", "it is B", "4", "Yes"])) == {
        "all items": 0.6,
        "modality video": pytest.approx(2 / 3),
        "modality audio": 0.5,
        "task colour": pytest.approx(2 / 3),
        "task count": 0.5,
    }


def test_an_incomplete_selection_is_wrong_as_in_training() -> None:
    record = replace(ONE, kind=AnswerKind.MULTI_SELECT, target="A,B")
    assert [item.score.value for item in scored(CHOICE, [record] * 2, ["A", "A, B"])] == [0.0, 1.0]


def test_open_answers_wait_for_a_judge_and_choices_need_none() -> None:
    record = replace(ONE, kind=AnswerKind.OPEN, options=(), target="3")
    (item,) = scored(OPEN, [record], ["three"])
    assert (item.score.value, item.score.valid, item.score.answer) == (None, True, "three")
    assert OPEN.rubric is not None
    assert OPEN.rubric.marks == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert CHOICE.rubric is None
    assert OPEN.kinds is not None
    assert set(OPEN.kinds) == {AnswerKind.OPEN}
    assert CHOICE.kinds is not None
    assert AnswerKind.OPEN not in CHOICE.kinds
