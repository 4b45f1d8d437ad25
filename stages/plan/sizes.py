"""How large a model is and how much of it a stage trains: its modules on the meta device, without weights."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration

from omnistage.data import synth
from omnistage.data.errors import InputError
from omnistage.rl import policy, published, tiny
from omnistage.rl.heads.carried import Head
from omnistage.rl.policy import PARTS, Part
from omnistage.stages import training
from omnistage.stages.recipe.schema import HeadStage, Recipe, Training

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Source:
    """Where a configuration comes from, in words; `folder` holds the checkpoint's processor, None where it is not here."""

    told: str
    folder: str | None


@dataclass(frozen=True)
class Parameters:
    """Parameters of a policy by part. `base` holds all weights, `trained` those of them that a stage changes; `adapters` and `head`
    are the stage's own; `adapted` names the language model's linear layers with an adapter. `embeddings` are the input embeddings and
    the head of the vocabulary."""

    base: dict[Part, int]
    trained: dict[Part, int]
    adapters: int
    head: int
    adapted: tuple[str, ...]
    embeddings: int

    @property
    def total(self) -> int:
        """All parameters of the policy as it is trained."""
        return sum(self.base.values()) + self.adapters + self.head

    @property
    def learned(self) -> int:
        """Those that have a gradient."""
        return sum(self.trained.values()) + self.adapters + self.head


def config_of(recipe: Recipe, *, ask_hub: bool = True) -> tuple[Qwen2_5OmniThinkerConfig, Source]:
    """The configuration of the recipe's model; of a published checkpoint that cannot be had, the one that is known.

    Without `ask_hub` only what lies in a folder or in the hub's cache is had.

    Raises:
        InputError: the path is no checkpoint, or a name on the hub that cannot be had and is not known.
    """
    model = recipe.model
    if model.tiny is not None:
        size = tiny.TinySize(**model.tiny.model_dump())
        config = tiny.build_config(tiny.build_processor(synth.corpus(), size), size)
        return config, Source("the tiny model of the recipe", None)
    assert model.path is not None
    if not ask_hub and not Path(model.path).exists():
        return _cached(model.path)
    if Path(model.path).exists() or model.path not in published.PUBLISHED:
        policy.check_folder(model.path)
        return Qwen2_5OmniThinkerConfig.from_pretrained(model.path), Source(f"{model.path}, its own configuration", model.path)
    try:
        policy.check_folder(model.path)
    except InputError:
        return published.config_of(model.path), Source(f"{model.path}: cannot be had here, the published sizes are taken", None)
    return Qwen2_5OmniThinkerConfig.from_pretrained(model.path), Source(f"{model.path}, its configuration on the hub", model.path)


def _cached(name: str) -> tuple[Qwen2_5OmniThinkerConfig, Source]:
    """What is here of a name on the hub. Raises `InputError` where that is nothing and the name is not known."""
    found = try_to_load_from_cache(name, "config.json") if name.count("/") == 1 else None
    if isinstance(found, str):
        folder = str(Path(found).parent)
        policy.check_folder(folder)
        names = ("tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
        there = [(Path(folder) / file).is_file() for file in names]
        told = f"{name}, its configuration in the hub's cache"
        return Qwen2_5OmniThinkerConfig.from_pretrained(folder), Source(told, folder if there[0] and any(there[1:]) else None)
    if name not in published.PUBLISHED:
        raise InputError(f"model.path: {name!r} is no folder here and not in the hub's cache, which is not asked for it")
    return published.config_of(name), Source(f"{name}: not here, the published sizes are taken", None)


def thinker_of(config: Qwen2_5OmniThinkerConfig) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """The modules of a thinker without weights."""
    with torch.device("meta"):
        return Qwen2_5OmniThinkerForConditionalGeneration(config)


def parameters_of(config: Qwen2_5OmniThinkerConfig, stage: Training, recipe: Recipe) -> Parameters:
    """What a stage holds and trains.

    Raises:
        InputError: the adapters' targets match no module.
    """
    thinker = thinker_of(config)
    base = {part: _count(thinker, part) for part in PARTS}
    policy.freeze(thinker, recipe.freeze_of(stage))
    trained = {part: _count(thinker, part, trained=True) for part in PARTS}
    embeddings = thinker.get_input_embeddings().weight.numel() + thinker.lm_head.weight.numel()
    head = 0
    if isinstance(stage, HeadStage):
        with torch.device("meta"):
            head = sum(p.numel() for p in Head(stage.head, config.text_config.hidden_size).parameters())
    adapter = training.adapter(stage, recipe)
    if adapter is None:
        return Parameters(base, trained, 0, head, (), embeddings)
    try:
        with warnings.catch_warnings():
            # peft tells that it found no head to leave out.
            warnings.simplefilter("ignore")
            adapted: Any = peft.get_peft_model(thinker, adapter)
    except ValueError as error:
        raise InputError(f"stages.{stage.name}.lora.targets: {str(error).partition('. ')[0]}") from error
    own = {name: p.numel() for name, p in adapted.named_parameters() if p.requires_grad}
    names = tuple(name for name in LINEAR if any("language_model" in key and f".{name}." in key for key in own))
    return Parameters(base, dict.fromkeys(PARTS, 0), sum(own.values()), head, names, embeddings)


def _count(model: nn.Module, part: Part, *, trained: bool = False) -> int:
    return sum(p.numel() for _, p in policy.parameters_of(model, part) if p.requires_grad or not trained)
