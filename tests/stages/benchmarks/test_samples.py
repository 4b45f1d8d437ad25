"""pass@k and maj@n of samples whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmark_figures import scored
from omnistage.data.records import AnswerKind, Modality, Record
from omnistage.stages.benchmarks.base import Benchmark, Scored
from omnistage.stages.benchmarks.own import CHOICE, OPEN
from omnistage.stages.benchmarks.samples import derived, pass_at

ONE = Record("1", Modality.TEXT, "t", AnswerKind.SINGLE_CHOICE, "q", "B", options=("red", "blue", "green"))
TWO = replace(ONE, id="2", target="A")


def sampled(benchmark: Benchmark, records: list[Record], *answers: list[str | None]) -> dict[str, list[Scored]]:
    """A run for each list of answers."""
    out = {"greedy": scored(benchmark, records, answers[0])}
    for number, of_sample in enumerate(answers):
        run = f"sample-{number}"
        out[run] = [one._replace(score=replace(one.score, run=run)) for one in scored(benchmark, records, of_sample)]
    return out


def values(found: dict[str, list[Scored]]) -> dict[str, list[float | None]]:
    return {run: [one.score.value for one in of_run] for run, of_run in found.items()}


@pytest.mark.parametrize(
    ("right", "n", "k", "chance"),
    [(0, 4, 2, 0.0), (1, 4, 1, 0.25), (1, 4, 2, 0.5), (2, 4, 2, 5 / 6), (3, 4, 2, 1.0), (4, 4, 4, 1.0)],
)
def test_the_chance_that_some_of_k_are_right(right: int, n: int, k: int, chance: float) -> None:
    """Of the 6 pairs of 4 samples, 3 hold the one right one; all but one hold one of two."""
    assert pass_at(right, n, k) == pytest.approx(chance)


def test_passes_and_majorities_of_three_samples() -> None:
    """Item 1 (B): A, B, B, so 2 of 3 right and B wins. Item 2 (A): nothing, C, A: 1 of 3 right, and C, drawn first, wins a tie."""
    found = derived(sampled(CHOICE, [ONE, TWO], ["A", None], ["B", "C"], ["B", "A"]))
    assert values(found) == {
        "pass@1": [pytest.approx(2 / 3), pytest.approx(1 / 3)],
        "pass@2": [1.0, pytest.approx(2 / 3)],
        "pass@3": [1.0, 1.0],
        "maj@3": [1.0, 0.0],
    }
    assert [one.score.answer for one in found["maj@3"]] == ["B", "C"]
    assert [one.score.run for one in found["maj@3"]] == ["maj@3", "maj@3"]


def test_nobody_wins_where_nothing_can_be_read() -> None:
    [one] = derived(sampled(CHOICE, [ONE], ["well"], [None]))["maj@2"]
    assert (one.score.value, one.score.valid) == (0.0, False)


def test_a_half_is_no_pass() -> None:
    """An incomplete selection is worth something, and is not wholly right."""
    runs = sampled(CHOICE, [ONE], ["B"], ["B"])
    half = {run: [one._replace(score=replace(one.score, value=0.5)) for one in of_run] for run, of_run in runs.items()}
    assert values(derived(half))["pass@2"] == [0.0]


def test_one_sample_is_not_several() -> None:
    assert derived(sampled(CHOICE, [ONE], ["B"])) == {}


@pytest.mark.parametrize("mark", [1.0, 0.5, 0.75, None])
def test_marks_do_not_pass_whatever_they_are(mark: float | None) -> None:
    record = replace(ONE, kind=AnswerKind.OPEN, options=(), target="a ball")
    runs = sampled(OPEN, [record], ["a ball"], ["a cat"])
    marked = {run: [one._replace(score=replace(one.score, value=mark)) for one in of_run] for run, of_run in runs.items()}
    assert derived(marked) == {}
