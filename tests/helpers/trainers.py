"""A trainer of the tiny model that is ready in a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig
from trl import GRPOConfig

from omnistage.data.records import Record
from omnistage.rl import policy
from omnistage.rl.grpo_trainer import OmniGRPOTrainer
from omnistage.rl.rewarded import Recorder
from omnistage.rl.sampler import Pool
from omnistage.rl.vllm_rollout.generation import Settings
from world import World

G = 2


def odd_tokens(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """A reward that any policy can earn: the share of odd token ids."""
    return [sum(token % 2 for token in ids) / len(ids) for ids in completion_ids]


def trainer_for(
    world: World,
    records: list[Record],
    tmp_path: Path,
    rewards: Sequence[Callable[..., Any]] = (odd_tokens,),
    *,
    kind: type[OmniGRPOTrainer] = OmniGRPOTrainer,
    frozen: tuple[policy.Part, ...] = (),
    recorder: Recorder | None = None,
    shared_prefix: Any = "auto",
    adapter: LoraConfig | None = None,
    vllm_settings: Settings | None = None,
    **settings: Any,
) -> Any:
    """One process on the CPU, two groups of two a step, one step; `settings` are those of TRL's config."""
    model = world.model()
    policy.freeze(model, frozen)
    generations = settings.get("num_generations", G)
    defaults: dict[str, Any] = {
        "per_device_train_batch_size": generations * 2,
        "num_generations": generations,
        "max_completion_length": 6,
        "max_steps": 1,
        "bf16": False,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "learning_rate": 1e-3,
        "reward_weights": [1.0] * len(rewards),
    }
    return kind(
        model,
        list(rewards),
        args=GRPOConfig(str(tmp_path / "out"), **(defaults | settings)),
        records=records,
        pools=[Pool(tuple(range(len(records))), 1.0)],
        encoder=world.encoder(model),
        recorder=recorder,
        shared_prefix=shared_prefix,
        peft_config=adapter,
        vllm_settings=vllm_settings,
    )
