"""What stands on an earlier model is told, also behind a stage that nobody measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omnistage.data.records import AnswerKind, Modality, Record
from omnistage.stages import files, run_directory
from omnistage.stages.benchmarks import items
from omnistage.stages.measure import summary
from omnistage.stages.recipe import loading as recipes

SHARED: dict[str, Any] = {"data": [{"path": "a.json"}], "learning_rate": 1e-3, "steps": 1}
HEAD = {"name": "mos", "codec": {"kind": "affine", "low": 0.0, "high": 1.0}, "losses": [{"name": "l1"}]}


@pytest.fixture
def recipe(tmp_path: Path) -> recipes.Recipe:
    stages = [
        {"name": "first", "kind": "sft", **SHARED},
        {"name": "mos", "kind": "head", "head": HEAD, "evaluate": False, **SHARED},
        {"name": "last", "kind": "sft", **SHARED},
    ]
    evaluation = {"data": [{"path": "b.json"}], "before": False}
    given = {"run_dir": str(tmp_path), "model": {"tiny": {}}, "evaluation": evaluation, "stages": stages}
    made = recipes.build(recipes.Recipe, given, "recipe")
    previous = tmp_path / "00-start" / "model"
    for stage in made.stages:
        done(made.stage_dir(stage.name), previous, measured=stage.name != "mos")
        previous = made.stage_dir(stage.name) / "model"
    entry = {metric: {"value": 0.5, "low": 0.4, "high": 0.6} for metric in ("srcc", "plcc")}
    tasks = {"quality": {"n": 3, "missing": 0, "score": entry}}
    files.write_json(made.stage_dir("mos") / "head" / "scores.json", {"head": "mos", "tasks": tasks, "controls": {}})
    return made


def done(folder: Path, start: Path, *, measured: bool) -> None:
    """A stage as it lies on disk, with one right answer."""
    run_directory.note_start(folder, str(start))
    train(folder, "weights")
    if measured:
        evaluation = folder / "evaluation"
        record = Record("a", Modality.VIDEO, "t", AnswerKind.YES_NO, "is it?", "yes")
        files.write_lines(evaluation / items.ITEMS, [items.item_row(record, "choice")])
        score = {"id": "a", "run": "greedy", "scorer": "grade", "value": 1.0, "valid": True, "answer": "yes", "reason": "right"}
        files.write_lines(evaluation / items.SCORES, [score])
        files.write_json(evaluation / "scores.json", {})


def train(folder: Path, weights: str) -> None:
    (folder / "model").mkdir(parents=True, exist_ok=True)
    (folder / "model" / "weights").write_text(f"{folder.name} {weights}")
    files.seal(folder / "model")


def test_a_stage_stands_on_the_one_before_it_measured_or_not(recipe: recipes.Recipe) -> None:
    found = summary.build(recipe, Path(recipe.run_dir))
    assert [(stage["name"], stage["stale"]) for stage in found["stages"]] == [("first", False), ("last", False)]
    # The head stage, from which it started, was not measured: nobody knows what it gained.
    assert found["stages"][1]["modalities"]["video"]["gain"] is None
    assert not found["heads"]["mos"]["stale"]
    assert "earlier model" not in summary.table(found)


def test_figures_of_a_head_say_when_its_start_was_trained_again(recipe: recipes.Recipe) -> None:
    train(recipe.stage_dir("first"), "other weights")
    found = summary.build(recipe, Path(recipe.run_dir))
    assert [stage["stale"] for stage in found["stages"]] == [False, False]
    assert found["heads"]["mos"]["stale"]
    assert "head mos after mos, from an earlier model" in summary.table(found)
