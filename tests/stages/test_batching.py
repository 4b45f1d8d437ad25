"""How a step is cut into forward passes: what is derived is legal, fits the budget, and is what the dry run says."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from omnistage.data.records import Modality
from omnistage.stages import grpo
from omnistage.stages.recipe import loading as recipes
from omnistage.stages.recipe.batching import batching, group_tokens, prompt_tokens
from omnistage.stages.recipe.schema import GrpoStage, Recipe
from omnistage.stages.recipe.surroundings import Media

RECIPE = """
run_dir: runs/test
model: {tiny: {}}
media: {max_frames: 16, max_pixels: 78400, max_sound_s: 10.0}
stages:
  - name: video
    kind: grpo
    modality: video
    learning_rate: 1e-6
    steps: 2
    data: [{path: b.json, modality: video}]
    rewards: [{name: accuracy}]
"""


MODALITIES = ("text", "video", "audio", "audio_video", "image")


def load(tmp_path: Path, *overrides: str) -> tuple[Recipe, GrpoStage]:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    recipe = recipes.load(path, overrides)
    stage = recipe.stages[0]
    assert isinstance(stage, GrpoStage)
    return recipe, stage


def test_tokens_are_those_of_the_limits(tmp_path: Path) -> None:
    """8 pairs of frames of 78400 / 784 = 100 tokens, 10 s of 25, and 512 of text; a group of 8 has 8 x 256 tokens of completions."""
    recipe, stage = load(tmp_path)
    assert [prompt_tokens(recipe.media, modality) for modality in map(Modality, MODALITIES)] == [
        512,
        512 + 800,
        512 + 250,
        512 + 800 + 250,
        512 + 100,
    ]
    assert group_tokens(recipe, stage) == 1312 + 8 * 256
    for plain in ("stages.video.shared_prefix=off", "model.attention=eager"):
        assert group_tokens(*load(tmp_path, plain)) == 8 * (1312 + 256), "each completion has its own copy of the prompt"
    longest = load(tmp_path, "stages.video.data=[{path: b.json, modality: video}, {path: c.json, modality: audio_video}]")
    assert group_tokens(*longest) == 1562 + 8 * 256
    assert prompt_tokens(Media(max_frames=5), Modality.VIDEO) == 512 + 3 * 768, "the processor's own limit, frames in pairs"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        # A group has 1312 + 8 * 256 = 3360 tokens.
        ([], "64 (derived: 8 groups of 8; 1 pass a step)"),
        (["stages.video.tokens_per_forward=26879"], "32 (derived: 4 groups of 8; 2 passes a step)"),
        (["stages.video.tokens_per_forward=26880"], "64 (derived: 8 groups of 8; 1 pass a step)"),
        (["stages.video.tokens_per_forward=6720"], "16 (derived: 2 groups of 8; 4 passes a step)"),
        (["stages.video.tokens_per_forward=100"], "8 (derived: 1 group of 8; 8 passes a step)"),
        (["stages.video.prompts_per_step=7", "stages.video.tokens_per_forward=20000"], "8 (derived: 1 group of 8; 7 passes a step)"),
        (["launch={engine: ddp, processes: 4}"], "16 (derived: 2 groups of 8; 1 pass a step)"),
        (["stages.video.per_device_batch=16"], "16 (2 groups of 8; 4 passes a step)"),
        (["stages.video.per_device_batch=2"], "2 (1/4 of a group of 8; 32 passes a step)"),
    ],
)
def test_the_dry_run_says_what_trl_gets(tmp_path: Path, overrides: list[str], said: str) -> None:
    recipe, stage = load(tmp_path, *overrides)
    assert f"   batch        per_device_batch: {said}\n" in recipes.describe(recipe)
    args = grpo.config(stage, recipe, tmp_path / "out", 1, 0)
    batch = batching(recipe, stage)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (batch.per_device, batch.passes)
    assert int(said.split()[0]) == batch.per_device


def test_what_is_derived_is_the_best_that_is_legal(tmp_path: Path) -> None:
    """Against all legal values, for many shapes: whole groups, the whole step, the budget, and nothing larger that keeps to them."""
    for prompts, group, budget in product((1, 6, 8, 12, 30), (2, 6, 8), (500, 5000, 9000, 40000)):
        changes = [f"prompts_per_step={prompts}", f"num_generations={group}", f"tokens_per_forward={budget}"]
        recipe, stage = load(tmp_path, *(f"stages.video.{change}" for change in changes))
        tokens = group_tokens(recipe, stage)
        fitting = [n for n in range(1, prompts + 1) if prompts % n == 0 and (n * tokens <= budget or n == 1)]
        batch = batching(recipe, stage)
        assert batch.per_device == max(fitting) * group
        assert batch.per_device * batch.passes == prompts * group
