"""The shapes of published checkpoints, for what is planned or measured where the checkpoint itself is not.

From `config.json` of Qwen/Qwen2.5-Omni-7B and Qwen/Qwen2.5-Omni-3B (`thinker_config`) on huggingface.co: what they have otherwise than
transformers' defaults, which are the 7B model's but for a vision tower as wide as its language model.
"""

from __future__ import annotations

from typing import Any

from transformers import Qwen2_5OmniThinkerConfig

PUBLISHED: dict[str, dict[str, dict[str, Any]]] = {
    "Qwen/Qwen2.5-Omni-7B": {"vision_config": {"hidden_size": 1280, "out_hidden_size": 3584}},
    "Qwen/Qwen2.5-Omni-3B": {
        "text_config": {
            "hidden_size": 2048,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "intermediate_size": 11008,
            "vocab_size": 151936,
        },
        "vision_config": {"hidden_size": 1280, "out_hidden_size": 2048},
        "audio_config": {"output_dim": 2048},
    },
}


def config_of(name: str, **ids: Any) -> Qwen2_5OmniThinkerConfig:
    """The thinker's configuration of a published checkpoint, with token ids in place of its own. Raises `KeyError` for another name."""
    return Qwen2_5OmniThinkerConfig(**PUBLISHED[name], **ids)
