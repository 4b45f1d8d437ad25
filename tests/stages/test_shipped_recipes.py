"""Shipped recipes on one process and on eight: TRL takes what they set, and that is what was published."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from omnistage.stages import grpo, head, sft
from omnistage.stages.recipe import loading as recipes
from repository import ROOT


@pytest.mark.parametrize("processes", [1, 8])
@pytest.mark.parametrize("name", sorted(recipes.shipped()))
def test_trl_takes_the_settings_of_every_shipped_recipe(name: str, processes: int) -> None:
    """Built as they are before a run begins. How a head's recipe goes to so many GPUs is said in its first lines."""
    said = (ROOT / "stages" / "recipe" / "shipped" / f"{name}.yaml").read_text(encoding="utf-8")
    told = re.search(rf"^# {'One GPU' if processes == 1 else 'Eight GPUs'}: +omnistage run {name}(.*)$", said, re.MULTILINE)
    assert told or name not in ("gen3dhf_mos", "chatpose")
    engine = "single" if processes == 1 else "ddp"
    recipe = recipes.load(name, told[1].split(" --set ")[1:] if told else [f"launch={{engine: {engine}, processes: {processes}}}"])
    assert recipe.launch.processes == processes
    for stage in recipe.stages:
        out = Path("out")
        if isinstance(stage, recipes.HeadStage):
            made: Any = head.config(stage, recipe, out, 3200, recipe.seed)
        elif isinstance(stage, recipes.SftStage):
            made = sft.config(stage, recipe, out, 3200, recipe.seed)
        else:
            assert isinstance(stage, recipes.GrpoStage)
            made = grpo.config(stage, recipe, out, 3200, recipe.seed)
        assert made.learning_rate == stage.learning_rate
        if not isinstance(stage, recipes.GrpoStage):
            assert made.per_device_train_batch_size * made.gradient_accumulation_steps * recipe.launch.processes == stage.batch_size


def test_published_settings_of_lmme3dhf() -> None:
    """What the released scripts set; batch 1, one pass over the 3200 records of both dimensions."""
    recipe = recipes.load("gen3dhf_mos")
    assert recipe.model.lora is not None
    assert (recipe.model.lora.rank, recipe.model.lora.alpha, recipe.model.lora.dropout) == (8, 32, 0.05)
    linear = "qkvo"
    names = [*(f"self_attn.{letter}_proj" for letter in linear), "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    assert all(re.fullmatch(str(recipe.model.lora.targets), f"model.language_model.layers.0.{name}") for name in names)
    assert not re.fullmatch(str(recipe.model.lora.targets), "model.visual.blocks.0.attn.q_proj")
    assert (recipe.model.freeze, recipe.model.system_prompt, recipe.prompt) == (
        ["vision", "audio"],
        "You are a helpful assistant.",
        "plain",
    )
    levels, scores = recipe.stages
    assert isinstance(levels, recipes.SftStage)
    assert isinstance(scores, recipes.HeadStage)
    for stage, decay in ((levels, 0.01), (scores, 0.1)):
        assert (stage.learning_rate, stage.batch_size, stage.epochs) == (1e-4, 1, 1)
        made = (sft if stage is levels else head).config(stage, recipe, Path("out"), 3200, recipe.seed)
        assert (made.weight_decay, made.adam_beta2, made.lr_scheduler_type) == (decay, 0.95, "cosine")
        assert (made.max_steps, made.get_warmup_steps(made.max_steps)) == (3200, 160)
    assert scores.head.body.sizes == [1024, 256, 64, 16]
    assert scores.head.token is None
    assert [(term.name, term.weight) for term in scores.head.losses] == [("l1", 1.0)]


def test_published_settings_of_chatpose() -> None:
    """16 x accumulation 2 on eight GPUs, 30 epochs of 80,000 samples, 1:1:2; the head is as wide as the model, 24 x 6 numbers out."""
    recipe = recipes.load("chatpose")
    [stage] = recipe.stages
    assert isinstance(stage, recipes.HeadStage)
    lora = recipe.lora_of(stage)
    assert lora is not None
    assert (lora.rank, lora.alpha, lora.dropout, recipe.freeze_of(stage)) == (128, 256, 0.05, ["vision", "audio"])
    assert [source.weight for source in stage.data] == [1, 1, 2]
    made = head.config(stage, recipe, Path("out"), 80_000, recipe.seed)
    assert (made.per_device_train_batch_size, made.gradient_accumulation_steps, made.max_steps) == (16, 2, 30 * 80_000 // 256)
    assert [(term.name, term.weight) for term in stage.head.losses] == [("text", 1.0), ("body", 0.1), ("root", 0.1)]
    assert (stage.head.token, stage.head.codec.kind, stage.head.body.activation) == ("<POSE>", "rot6d", "relu")


def test_humanomni_v2s_judgements_reach_their_own_tokens() -> None:
    """In the released code their advantage is made of the other rewards, so that they change the logs alone."""
    _, reinforced, last = recipes.load("humanomni_v2_style").stages
    assert isinstance(reinforced, recipes.GrpoStage)
    judged = {use.label: use for use in reinforced.rewards if use.name == "judge"}
    assert {label: use.segment for label, use in judged.items()} == {"context": "context", "logic": "think"}
    assert "{reference_context}" in judged["context"].config["prompt"]
    assert list(judged["logic"].config["criteria"]) == ["clues", "reflection", "logic", "analysis", "consistency"]
    assert (reinforced.beta, reinforced.scale_rewards, reinforced.temperature, reinforced.max_completion_length) == (
        0.04,
        "none",
        0.9,
        1024,
    )
    assert isinstance(last, recipes.GrpoStage)
    assert (last.iterations, [use.name for use in last.rewards]) == (2, ["format", "accuracy", "overlap"])


def test_video_r1s_bonus_is_for_frames_in_their_order() -> None:
    (stage,) = recipes.load("video_r1_style").stages
    assert isinstance(stage, recipes.GrpoStage)
    weights = {use.name: use.weight for use in stage.rewards}
    assert (weights["temporal"], weights["length"], stage.beta, stage.num_generations, stage.max_completion_length) == (
        0.3,
        0.2,
        0.04,
        8,
        768,
    )
    made = grpo.config(stage, recipes.load("video_r1_style"), Path("out"), 3200, 42)
    assert (made.lr_scheduler_type, made.weight_decay, made.max_grad_norm) == ("cosine", 0.01, 5)
