"""Samples completions of several prompts together, over one copy of each prompt's keys and values.

transformers prepares the rules (its `generate` hands over to the loop here): every logits processor and stop rule is its own, and with the
same generator the same tokens are drawn. What differs is the memory that a step reads: a group of G completions reads its prompt's
keys once, not G times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, Qwen2_5OmniThinkerForConditionalGeneration

from omnistage.rl.encoding import Encoded, Towers, left_padded


class PrefixCache:
    """Keys and values of N prompts, once each, and of their N * G growing completions; a layer's attention reads and fills it.

    `prompts` holds a cache of one row for each prompt. Shorter prompts are padded on the right and masked.
    """

    def __init__(self, prompts: Sequence[DynamicCache], num_generations: int, steps: int) -> None:
        lengths = [int(cache.get_seq_length()) for cache in prompts]
        longest = max(lengths)
        self.num_generations = num_generations
        self.steps = steps
        self.step = 0
        self.prompt: list[tuple[Tensor, Tensor]] = []
        self.own: list[tuple[Tensor, Tensor]] = []
        for layers in zip(*(cache.layers for cache in prompts), strict=True):
            padded = [
                torch.cat([torch.nn.functional.pad(x, (0, 0, 0, longest - x.shape[2])) for x in parts])
                for parts in ([layer.keys for layer in layers], [layer.values for layer in layers])
            ]
            self.prompt.append((padded[0], padded[1]))
            count, heads, _, size = padded[0].shape
            own = padded[0].new_zeros(2, count * num_generations, heads, steps, size)
            self.own.append((own[0], own[1]))
        device = self.prompt[0][0].device
        hidden = torch.arange(longest, device=device)[None] >= torch.tensor(lengths, device=device)[:, None]
        self.hidden = hidden[:, None, None] if len(set(lengths)) > 1 else None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """One step of all rows: query [N * G, H, 1, D], key and value [N * G, Hkv, 1, D] of the new tokens; returns [N * G, H, 1, D]."""
        rows, heads, _, size = query.shape
        key_heads, groups = key.shape[1], rows // self.num_generations
        repeats = heads // key_heads
        own_key, own_value = self.own[layer]
        own_key[:, :, self.step], own_value[:, :, self.step] = key[:, :, 0], value[:, :, 0]
        own_key, own_value = own_key[:, :, : self.step + 1], own_value[:, :, : self.step + 1]
        prompt_key, prompt_value = self.prompt[layer]
        query = query * scale
        # The query heads of a group that share a key head stand side by side: one product against one copy of the prompt's keys.
        together = query.view(groups, self.num_generations, key_heads, repeats, size).transpose(1, 2)
        together = together.reshape(groups, key_heads, self.num_generations * repeats, size)
        over_prompt = (together @ prompt_key.transpose(2, 3)).float()
        if self.hidden is not None:
            over_prompt = over_prompt.masked_fill(self.hidden, -torch.inf)
        over_own = (query.view(rows, key_heads, repeats, size) @ own_key.transpose(2, 3)).float()
        prompt_lse = self._by_row(over_prompt.logsumexp(-1, keepdim=True), repeats)
        lse = torch.logaddexp(prompt_lse, over_own.logsumexp(-1, keepdim=True))
        of_own = (over_own - lse).exp().to(value.dtype) @ own_value
        of_prompt = (over_prompt - self._by_group(lse, groups, repeats)).exp().to(value.dtype) @ prompt_value
        return (self._by_row(of_prompt, repeats) + of_own).reshape(rows, heads, 1, size)

    def _by_row(self, x: Tensor, repeats: int) -> Tensor:
        """[N, Hkv, G * repeats, D] -> [N * G, Hkv, repeats, D]."""
        groups, key_heads, _, size = x.shape
        apart = x.view(groups, key_heads, self.num_generations, repeats, size).transpose(1, 2)
        return apart.reshape(groups * self.num_generations, key_heads, repeats, size)

    def _by_group(self, x: Tensor, groups: int, repeats: int) -> Tensor:
        """[N * G, Hkv, repeats, D] -> [N, Hkv, G * repeats, D]."""
        _, key_heads, _, size = x.shape
        together = x.view(groups, self.num_generations, key_heads, repeats, size).transpose(1, 2)
        return together.reshape(groups, key_heads, self.num_generations * repeats, size)


@torch.no_grad()
def generate(
    thinker: Qwen2_5OmniThinkerForConditionalGeneration,
    towers: Towers,
    rows: Sequence[Encoded],
    *,
    num_generations: int,
    pad_id: int,
    generation_config: GenerationConfig,
) -> Tensor:
    """Sample `num_generations` completions of each of N prompts; returns token ids [N * num_generations, C], group after group.

    The thinker's attention must take packed rows (`attention.install`). Each prompt is computed alone, so what is drawn for it does
    not depend on the prompts beside it but through the random numbers.
    """
    device = thinker.device
    ids, mask, _ = (tensor.to(device).repeat_interleave(num_generations, -2) for tensor in left_padded(rows, pad_id))

    def decode(
        model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: GenerationConfig, **kept: Any
    ) -> Tensor:
        steps = generation_config.max_length - input_ids.shape[1]
        caches, last = zip(*(_prefill(thinker, towers, row, device) for row in rows), strict=True)
        cache = PrefixCache(caches, num_generations, steps)
        del caches
        hidden = torch.cat(last).repeat_interleave(num_generations, 0)
        after = torch.tensor([len(row.ids) + row.delta for row in rows], device=device).repeat_interleave(num_generations)[None, :, None]
        written = torch.nn.functional.pad(input_ids, (0, steps), value=pad_id)
        running = torch.ones(len(input_ids), dtype=torch.bool, device=device)
        for step in range(steps):
            end = input_ids.shape[1] + step
            scores = logits_processor(written[:, :end], thinker.lm_head(hidden).float())
            drawn = torch.multinomial(scores.softmax(-1), 1).squeeze(1) if generation_config.do_sample else scores.argmax(-1)
            written[:, end] = torch.where(running, drawn, pad_id)
            running &= ~stopping_criteria(written[:, : end + 1], scores)
            if not running.any() or step + 1 == steps:
                return written[:, : end + 1]
            cache.step = step
            hidden = thinker.model.language_model(
                inputs_embeds=thinker.get_input_embeddings()(written[:, end : end + 1]),
                position_ids=(after + step).expand(3, -1, -1),
                use_cache=False,
                prefix_cache=cache,
            ).last_hidden_state[:, 0]
        return written

    out: Tensor = thinker.generate(input_ids=ids, attention_mask=mask, generation_config=generation_config, custom_generate=decode)
    return out[:, ids.shape[1] :]


def _prefill(
    thinker: Qwen2_5OmniThinkerForConditionalGeneration, towers: Towers, row: Encoded, device: torch.device
) -> tuple[DynamicCache, Tensor]:
    """The cache of one prompt and its last hidden state [1, hidden]; no logits are made."""
    made = thinker.model(
        input_ids=torch.tensor([row.ids], device=device),
        position_ids=row.positions[:, None].to(device),
        use_cache=True,
        **towers.media([row], device),
    )
    return made.past_key_values, made.last_hidden_state[:, -1]
