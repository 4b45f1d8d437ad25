"""Completions of a batch of prompts: each distinct prompt is encoded and prefilled once, then its G completions are decoded together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from omnistage.rl.encoding import Encoded, check_not_blind, left_padded
from omnistage.rl.towers import Towers

# transformers takes what is not set here from the checkpoint's own generation_config.json.
PLAIN: Mapping[str, Any] = {"num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}


@torch.no_grad()
def generate(
    thinker: Qwen2_5OmniThinkerForConditionalGeneration,
    towers: Towers,
    rows: Sequence[Encoded],
    *,
    num_generations: int,
    pad_id: int,
    **settings: Any,
) -> Tensor:
    """Sample `num_generations` completions of each of P prompts; returns token ids [P * num_generations, C], group after group.

    The prompt's last token stays out of the prefill: generation starts from it, so sampling rules and stop rules are transformers' own.
    `settings` go to `generate` as they are; without a whole `generation_config` among them a checkpoint's habits are left out (`PLAIN`).
    """
    if "generation_config" not in settings:
        settings = {**PLAIN, **settings}
    device = thinker.device
    ids, mask, positions = (tensor.to(device) for tensor in left_padded(rows, pad_id))
    check_not_blind(thinker, ids, rows)
    cache = thinker.model(
        input_ids=ids[:, :-1],
        attention_mask=mask[:, :-1],
        position_ids=positions[:, :, :-1],
        use_cache=True,
        **towers.media(rows, device),
    ).past_key_values
    if num_generations > 1:
        cache.batch_repeat_interleave(num_generations)
    deltas = torch.tensor([[row.delta] for row in rows], device=device)
    thinker.model.rope_deltas = deltas.repeat_interleave(num_generations, 0)
    out: Tensor = thinker.generate(
        input_ids=ids.repeat_interleave(num_generations, 0),
        attention_mask=mask.repeat_interleave(num_generations, 0),
        past_key_values=cache,
        **settings,
    )
    return out[:, ids.shape[1] :]


def until_end(completions: Tensor, end_ids: Sequence[int]) -> list[list[int]]:
    """Cut each row of [B, C] behind its first end token."""
    ends = torch.isin(completions, torch.tensor(list(end_ids), device=completions.device))
    last = torch.where(ends.any(1), ends.int().argmax(1), completions.shape[1] - 1)
    return [row[: stop + 1] for row, stop in zip(completions.tolist(), last.tolist(), strict=True)]
