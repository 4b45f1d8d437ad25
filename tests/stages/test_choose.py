"""Which checkpoint a stage's model becomes, from measured folders on disk; and data that must not choose."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from answered import answered, questions
from omnistage.data.errors import InputError, RecipeError
from omnistage.stages import checks, choose, files, retention, training
from omnistage.stages.measure import summary
from omnistage.stages.recipe import loading as recipes
from world import World

SFT: dict[str, Any] = {"name": "first", "kind": "sft", "data": [{"path": "a.json"}], "learning_rate": 1e-3, "steps": 6, "save_every": 2}
CHOICE = {"data": [{"path": "v.json"}]}


def built(stage: dict[str, Any], **given: Any) -> recipes.Recipe:
    return recipes.build(recipes.Recipe, {"run_dir": "run", "model": {"tiny": {}}, "stages": [stage]} | given, "recipe")


def test_the_earliest_of_the_best_is_chosen() -> None:
    values = {2: 0.5, 4: 0.75, 6: 0.75, 8: None}
    entries = [{"step": step, "value": value} for step, value in values.items()]
    assert choose.best(entries, higher_is_better=True) == 4
    assert choose.best(entries, higher_is_better=False) == 2
    # Nothing can be said of any: the last weights, as without a choice.
    assert choose.best([{"step": 2, "value": None}, {"step": 4, "value": None}], higher_is_better=True) == 4


@pytest.fixture
def trained(world: World, tmp_path: Path) -> tuple[recipes.Recipe, Path]:
    """A stage whose checkpoints of every other step were measured: 2, 4, 4 and 3 of 6 right; and one of step 5, where the run was asked to
    stop, all right. Its recipe, and its folder."""
    recipe = built(SFT | {"steps": 8, "choose": CHOICE}, run_dir=str(tmp_path))
    out = recipe.stage_dir("first")
    for step, right in ((2, 2), (4, 4), (5, 6), (6, 4), (8, 3)):
        folder = out / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        shutil.copyfile(world.checkpoint / "config.json", folder / "config.json")
        save_file({"weight": torch.full((2,), float(step))}, folder / "model.safetensors")
        (folder / "optimizer.pt").write_text("not a model's")
        files.seal(folder)
        measured = answered(tmp_path / str(step), questions(6), ["A"] * right + ["B"] * (6 - right))
        shutil.copytree(measured, out / "choice" / f"step-{step}")
    files.write_json(out / training.TRAINED, {"steps": 8})
    return recipe, out


def test_the_best_checkpoint_becomes_the_model(world: World, trained: tuple[recipes.Recipe, Path]) -> None:
    """Of 2/6, 4/6, 4/6 and 3/6 the second; where a run was stopped chooses nothing, and a checkpoint without a manifest is none."""
    recipe, out = trained
    [stage] = recipe.stages
    assert isinstance(stage, recipes.SftStage)
    assert stage.choose is not None
    (out / "checkpoints" / "checkpoint-9").mkdir()
    # What a kill left of an earlier attempt.
    (out / "model").mkdir()
    (out / "model" / "stale.safetensors").write_text("")

    def load(_checkpoint: str) -> Any:
        raise AssertionError("all of it is measured")

    choose.run(stage, recipe, stage.choose, out, world.encoder(world.model()), questions(6), load, "start")
    kept = choose.kept(out)
    assert kept is not None
    assert (kept["chosen"], [(entry["step"], entry["value"]) for entry in kept["steps"]]) == (
        4,
        [(2, pytest.approx(2 / 6)), (4, pytest.approx(4 / 6)), (6, pytest.approx(4 / 6)), (8, 0.5)],
    )
    assert files.is_whole(out / "model")
    assert load_file(out / "model" / "model.safetensors")["weight"].tolist() == [4, 4]
    names = {path.name for path in (out / "model").iterdir()}
    assert {"config.json", "omnistage.json", "manifest.json", "processor_config.json", "tokenizer.json"} <= names
    assert not names & {"optimizer.pt", "stale.safetensors"}
    choose.tidy(out)
    assert [step for step, _ in retention.whole(out)] == [6, 8]
    assert summary.judged(summary.build(recipe, Path(recipe.run_dir))) == [
        "first: step 4 was chosen by all items, of 2 (33.3 %), 4 (66.7 %), 6 (66.7 %), 8 (50.0 %)"
    ]


def test_the_last_weights_are_a_candidate_whatever_their_step(trained: tuple[recipes.Recipe, Path]) -> None:
    """Eight steps with a checkpoint every three: 6 and the last one."""
    recipe, out = trained
    [stage] = recipe.stages
    assert isinstance(stage, recipes.SftStage)
    every_third = stage.model_copy(update={"save_every": 3})
    assert [step for step, _ in choose.candidates(every_third, out)] == [6, 8]


def test_all_checkpoints_are_kept_for_a_choice() -> None:
    def kept(stage: dict[str, Any]) -> Any:
        recipe = built(stage)
        [made] = recipe.stages
        assert isinstance(made, recipes.SftStage)
        return retention.most(made)

    assert kept(SFT) == 3
    assert kept(SFT | {"choose": CHOICE}) is None
    assert kept(SFT | {"choose": CHOICE, "keep": {"newest": 1, "best": 3, "by": "loss", "lowest": True}}) == 5


def test_what_chooses_is_apart_from_what_trains_and_from_what_measures() -> None:
    """Clips are told by their paths."""
    train, held_out, own = (questions(2, clip=name) for name in ("train", "held_out", "own"))

    def said(validation: str) -> str:
        records = questions(2, clip=validation)
        with pytest.raises(InputError) as caught:
            checks.check_apart(checks.Rows({"first": (train, [])}, {}, {"": held_out}, {"first": records}))
        return str(caught.value)

    checks.check_apart(checks.Rows({"first": (train, [])}, {}, {"": held_out}, {"first": own, "second": own}))
    told = "what a checkpoint is chosen by must be apart from both"
    assert said("train") == f"video0: train_video0.mp4 is also a training clip (video0); {told}"
    assert said("held_out") == f"video0: held_out_video0.mp4 is also a held-out clip (video0); {told}"


def test_what_judges_is_checked_before_anything_is_trained(world: World) -> None:
    """Figures and clips of real files: what a run reads first."""

    def source(split: str) -> list[dict[str, Any]]:
        return [{"path": str(world.data / f"{split}_video.json"), "media_root": str(world.data), "modality": "video"}]

    def said(choose_by: dict[str, Any], gate: dict[str, Any]) -> str:
        stage = SFT | {"data": source("cold_start"), "choose": {"data": source("train")} | choose_by, "gate": gate}
        with pytest.raises(InputError) as caught:
            checks.read(built(stage, evaluation={"data": source("held_out")}))
        return str(caught.value)

    assert said({"figure": "average"}, {}).startswith("stages.first.choose: unknown figure of benchmark 'choice' 'average'")
    assert said({}, {"figure": "modality audio"}).startswith("stages.first.gate: unknown figure of benchmark 'choice' 'modality audio'")
    assert "is also a held-out clip" in said({"data": source("held_out")}, {})
    assert "is also a training clip" in said({"data": source("cold_start")}, {})


def test_a_choice_needs_checkpoints_that_can_be_measured() -> None:
    def fault(stage: dict[str, Any], **given: Any) -> str:
        with pytest.raises(RecipeError) as caught:
            built(stage | {"choose": CHOICE}, **given)
        return str(caught.value).removeprefix("recipe: stages[0] (first): ")

    assert fault(SFT | {"save_every": None}) == "choose is given and save_every is null; give save_every: one of its checkpoints is chosen"
    assert fault(SFT | {"save_every": 6}) == (
        "choose is given, save_every is 6 and steps is 6; save_every must be smaller, else there is nothing but the last weights"
    )
    head = {"name": "mos", "codec": {"kind": "affine", "low": 0.0, "high": 1.0}, "losses": [{"name": "l1"}]}
    told = "choose is given and kind is 'head'; what a head says is not among the run's figures; allowed: sft, grpo"
    assert fault(SFT | {"kind": "head", "head": head}) == told
    assert fault(SFT, launch={"engine": "zero3", "processes": 2}) == (
        "choose is given and launch.engine is 'zero3'; its checkpoints are spread over the ranks and load as no model; "
        "allowed: single, ddp, fsdp2, zero2"
    )
