"""Which checkpoints stay on disk: the newest, and those whose figure in the stage's log was best."""

from __future__ import annotations

from typing import Any

import pytest

from omnistage.stages import retention
from omnistage.stages.recipe import loading as recipes
from omnistage.stages.recipe.keeping import Keep

STEPS = [2, 4, 6, 8, 10]
# Means of the two steps before each checkpoint: 0.2, 0.6, 0.6, 0.1, 0.3.
ROWS = [{"step": step, "reward": value} for step, value in enumerate([0.1, 0.3, 0.9, 0.3, 0.6, 0.6, 0.1, 0.1, 0.2, 0.4], start=1)]


@pytest.mark.parametrize(
    ("keep", "staying"),
    [
        (Keep(), [8, 10]),
        (Keep(newest=1), [10]),
        (Keep(newest=1, best=1), [4, 10]),
        (Keep(newest=1, best=2), [4, 6, 10]),
        (Keep(newest=2, best=1, lowest=True), [8, 10]),
        (Keep(newest=1, best=1, lowest=True), [8, 10]),
        (Keep(newest=9), STEPS),
    ],
)
def test_the_newest_and_the_best_stay(keep: Keep, staying: list[int]) -> None:
    going = retention.to_go(STEPS, keep, ROWS, 2)
    assert [step for step in STEPS if step not in going] == staying
    # As it goes in a run: one after another, what has gone is not there any more.
    there: list[int] = []
    for step in STEPS:
        there.append(step)
        there = [one for one in there if one not in retention.to_go(there, keep, [row for row in ROWS if row["step"] <= step], 2)]
    assert there == staying


def test_a_figure_that_is_not_logged_is_missed() -> None:
    with pytest.raises(KeyError, match="rewad"):
        retention.to_go(STEPS, Keep(best=1, by="rewad"), ROWS, 2)


@pytest.mark.parametrize(
    ("override", "most"), [([], 3), (["stages.video.keep={newest: 1, best: 4}"], 6), (["stages.video.keep={newest: 3}"], 4)]
)
def test_how_many_are_on_disk_at_once(override: list[str], most: int) -> None:
    stage: Any = recipes.load("humansense_7b", override).stages[0]
    assert retention.most(stage) == most
