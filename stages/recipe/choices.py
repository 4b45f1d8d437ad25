"""The closed sets of names that recipes and the command line share. Light: `omnistage --help` imports this file."""

from __future__ import annotations

from typing import Literal, get_args

Prompt = Literal["think_answer", "context_think_answer", "direct", "short", "plain"]
Control = Literal["blank", "blank_picture", "muted", "swapped", "swapped_sound", "swapped_picture", "shuffled"]
CONTROLS: frozenset[str] = frozenset(get_args(Control))
Attention = Literal["auto", "sdpa", "eager", "flash_attention_2"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Part = Literal["vision", "audio", "language"]
Engine = Literal["single", "ddp", "fsdp2", "zero2", "zero3", "zero3_offload"]
DEEPSPEED: frozenset[str] = frozenset({"zero2", "zero3", "zero3_offload"})
# Engines under which no process holds a whole tensor.
SHARDED: frozenset[str] = frozenset({"fsdp2", "zero3", "zero3_offload"})
Reference = Literal["none", "stage_start", "base"]
Loss = Literal["grpo", "dapo", "dr_grpo", "bnpo"]
ScaleRewards = Literal["group", "batch", "none"]
Aggregation = Literal["sum_then_normalize", "normalize_then_sum"]
SharedPrefix = Literal["auto", "off", "dense", "cat", "cascade", "flex"]
