"""Which checkpoints stay on disk: the newest, and those whose figure in the stage's log was best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState

from omnistage.stages import files, retention
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


def test_without_a_figure_the_newest_stay() -> None:
    """None is logged yet, or never; and one that is no number is not the best."""
    assert retention.to_go(STEPS, Keep(newest=1, best=1), [], 2) == [2, 4, 6, 8]
    assert retention.to_go(STEPS, Keep(best=1, by="rewad"), ROWS, 2) == [2, 4, 6]
    rows = [row | ({"reward": float("nan")} if row["step"] in (1, 2) else {}) for row in ROWS]
    assert retention.to_go(STEPS, Keep(newest=1, best=1), rows, 2) == [2, 6, 8]


def saved(out: Path, steps: list[int], at: int, stage: Any) -> list[str]:
    """The checkpoints that stay of those at `steps` when the one at step `at` is sealed."""
    for step in steps:
        folder = out / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "weights").write_text(str(step))
        files.seal(folder)
    (out / "checkpoints" / "checkpoint-3").mkdir()
    (out / "checkpoints" / "checkpoint-3" / "weights").write_text("half")
    (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "\0\0\0\n")
    callback = retention.Retention(out, stage)
    state = TrainerState(global_step=at)
    callback.on_save(None, state, TrainerControl())
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def test_a_save_leaves_the_last_one_and_what_was_not_come_to_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Step 30 is left of before a stop and may be damaged: 25, which was saved now, is the newest. What is half written goes."""
    stage: Any = recipes.load("humansense_7b", ["stages.video.keep={newest: 1, best: 1, by: rewad}"]).stages[0]
    assert saved(tmp_path, [20, 25, 30], 25, stage) == ["checkpoint-25", "checkpoint-30"]
    assert "keep.by: unknown logged figure 'rewad'; did you mean 'reward'? known: reward; the newest stay" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "most"), [([], 3), (["stages.video.keep={newest: 1, best: 4}"], 6), (["stages.video.keep={newest: 3}"], 4)]
)
def test_how_many_are_on_disk_at_once(override: list[str], most: int) -> None:
    stage: Any = recipes.load("humansense_7b", override).stages[0]
    assert retention.most(stage) == most
