"""What DeepSpeed is told for an engine. Imports no torch."""

from __future__ import annotations

from typing import Any

from omnistage.stages.recipe.choices import DEEPSPEED, Engine


def deepspeed_settings(engine: Engine, *, gpu: bool) -> dict[str, Any] | None:
    """DeepSpeed's settings for the engine, None where DeepSpeed is not used; `auto` is filled in by transformers from the stage."""
    if engine not in DEEPSPEED:
        return None
    sharding: dict[str, Any] = {"stage": 2, "overlap_comm": gpu}
    if engine != "zero2":
        # Gathers whole tensors (in whatever type they have) for the model folder that the stage leaves.
        sharding |= {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}
    if engine == "zero3_offload":
        kept = {"device": "cpu", "pin_memory": gpu}
        sharding |= {"offload_optimizer": kept, "offload_param": kept}
    return {
        "zero_optimization": sharding,
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }
