"""Heads of the tiny model, trained in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from trl import SFTConfig

from head_data import posed, scored
from omnistage.data.records import Record
from omnistage.rl.head_trainer import HeadTrainer, learn_token
from omnistage.rl.heads import carried
from omnistage.rl.heads.predict import Reader
from omnistage.rl.heads.spec import HeadSpec
from omnistage.rl.sampler import Pool
from world import World


def spec_of(given: dict[str, Any], **changes: Any) -> HeadSpec:
    return HeadSpec.model_validate(given | changes)


def scores_of(world: World) -> list[Record]:
    return [scored(record, 10.0 * at) for at, record in enumerate(world.records("video"))]


def poses_of(world: World) -> list[Record]:
    return [posed(record, at) for at, record in enumerate(world.records("video"))]


def trained(world: World, records: list[Record], spec: HeadSpec, out: Path, *, lora: bool = False, **settings: Any) -> HeadTrainer:
    """A trainer of two steps, trained; `settings` are TRL's, and the trainer's own."""
    model = world.model()
    encoder = world.encoder(model)
    adapter = None
    if spec.token is not None:
        row = learn_token(model, encoder.processor, spec.token)
        tokens = {"embed_tokens": [row], "lm_head": [row]}
    if lora:
        targets = r".*language_model.*\.(q_proj|v_proj)"
        adapter = LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM", trainable_token_indices=tokens if spec.token else None)
    own = {name: settings.pop(name) for name in ("head_learning_rate", "answers") if name in settings}
    resume = settings.pop("resume", None)
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "max_steps": 2,
        "learning_rate": 1e-2,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "bf16": False,
        "logging_steps": 1,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "seed": 3,
    }
    torch.manual_seed(3)
    trainer = HeadTrainer(
        model,
        spec,
        args=SFTConfig(str(out), **(defaults | settings)),
        records=records,
        pools=[Pool(tuple(range(len(records))), 1.0)],
        encoder=encoder,
        peft_config=adapter,
        **own,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def read(model: Any, encoder: Any, name: str, records: list[Record], **settings: Any) -> list[Any]:
    return [p.values for p in Reader(model, encoder, carried.heads_of(model)[name])(records, **settings)]
