"""Samples completions of several prompts together, over one copy of each prompt's keys and values.

transformers prepares the rules (its `generate` hands over to the loop here): every logits processor and stop rule is its own, and with the
same generator the same tokens are drawn. What differs is the memory that a step reads: a group of G completions reads its prompt's
keys once, not G times.

A step has two forms with the same results. On a CPU the completions' keys are cut to what is written, and the two parts of attention are
PyTorch's flash kernel. Elsewhere every tensor keeps its shape and place from step to step and nothing waits for the device, so that a
step can be captured once and replayed (`graphed`); there the parts are plain products, and what is not written yet is masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, Qwen2_5OmniThinkerForConditionalGeneration

from omnistage.rl.encoding import Encoded, check_not_blind, left_padded
from omnistage.rl.shared_prefix.graphed import Graphs
from omnistage.rl.towers import Towers

# Steps between two looks at whether a completion still runs, where looking waits for the device.
LOOK_EVERY = 16


class Drawn(NamedTuple):
    """Completions of N prompts, group after group: token ids [N * G, C], padded behind their ends, and log-probs [N * G, C], zero there."""

    ids: Tensor
    log_probs: Tensor


class PrefixCache:
    """Keys and values of N prompts, once each, and of their N * G growing completions; a layer's attention reads and fills it.

    `prompts` holds a cache of one row for each prompt. Shorter prompts are padded on the right and masked. `static` chooses the form of a
    step: tensors of constant shape, or cut to what is written.
    """

    def __init__(self, prompts: Sequence[DynamicCache], num_generations: int, steps: int, *, static: bool = False) -> None:
        lengths = [int(cache.get_seq_length()) for cache in prompts]
        longest = max(lengths)
        self.num_generations = num_generations
        self.static = static
        self.prompt: list[tuple[Tensor, Tensor]] = []
        self.own: list[tuple[Tensor, Tensor]] = []
        device = prompts[0].layers[0].values.device
        # Under autocast a cache holds wider keys than the products take: cast once here, not in every step.
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else prompts[0].layers[0].values.dtype
        for layers in zip(*(cache.layers for cache in prompts), strict=True):
            padded = [
                torch.cat([torch.nn.functional.pad(x.to(dtype), (0, 0, 0, longest - x.shape[2])) for x in parts])
                for parts in ([layer.keys for layer in layers], [layer.values for layer in layers])
            ]
            self.prompt.append((padded[0], padded[1]))
            count, heads, _, size = padded[0].shape
            own = padded[0].new_zeros(2, count * num_generations, heads, steps, size)
            self.own.append((own[0], own[1]))
        behind = torch.arange(longest, device=device)[None] >= torch.tensor(lengths, device=device)[:, None]
        # What is added to scores: nothing, or minus infinity over padding and over what is not written yet.
        self.padding = torch.zeros(behind.shape, device=device).masked_fill(behind, -torch.inf)[:, None, None] if behind.any() else None
        self.unwritten = torch.full((steps,), -torch.inf, device=device)
        self.at = torch.zeros(1, dtype=torch.long, device=device)
        self.step = 0

    def move(self, step: int) -> None:
        """Say which place of the completions the next call of each layer writes."""
        self.step = step
        self.at.fill_(step)
        self.unwritten[step] = 0.0

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """One step of all rows: query [N * G, H, 1, D], key and value [N * G, Hkv, 1, D] of the new tokens; returns [N * G, 1, H, D]."""
        rows, heads, _, size = query.shape
        key_heads, groups = key.shape[1], rows // self.num_generations
        repeats = heads // key_heads
        own = self.own[layer]
        query = query.reshape(rows, key_heads, repeats, size).to(own[0].dtype)
        for kept, new in zip(own, (key, value), strict=True):
            kept.index_copy_(2, self.at, new.to(kept.dtype))
        # The query heads of a group that share a key head stand side by side: one product against one copy of the prompt's keys.
        together = query.view(groups, self.num_generations, key_heads, repeats, size).transpose(1, 2)
        together = together.reshape(groups, key_heads, self.num_generations * repeats, size)
        if self.static:
            of_prompt = _by_products(together, *self.prompt[layer], self.padding, scale)
            of_own, own_lse = _by_products(query, *own, self.unwritten, scale)
        else:
            of_prompt = _by_kernel(together, *self.prompt[layer], self.padding, scale)
            own_key, own_value = (kept[:, :, : self.step + 1] for kept in own)
            of_own, own_lse = _by_kernel(query, own_key, own_value, None, scale)
        over_prompt, prompt_lse = (self._by_row(part, repeats) for part in of_prompt)
        merged = torch.lerp(of_own.float(), over_prompt.float(), torch.sigmoid(prompt_lse - own_lse))
        return merged.to(value.dtype).reshape(rows, 1, heads, size)

    def _by_row(self, x: Tensor, repeats: int) -> Tensor:
        """[N, Hkv, G * repeats, D] -> [N * G, Hkv, repeats, D]."""
        groups, key_heads, _, size = x.shape
        apart = x.view(groups, key_heads, self.num_generations, repeats, size).transpose(1, 2)
        return apart.reshape(groups * self.num_generations, key_heads, repeats, size)


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Attention [B, H, L, D] and its log-sum-exp [B, H, L, 1] by the flash kernel of a CPU."""
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, False, attn_mask=mask, scale=scale)
    return out, lse.unsqueeze(-1)


def _by_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """The same on any device."""
    scores = ((query * scale) @ key.transpose(2, 3)).float()
    if mask is not None:
        scores = scores + mask
    top = scores.amax(-1, keepdim=True)
    weights = (scores - top).exp()
    total = weights.sum(-1, keepdim=True)
    return (weights.to(value.dtype) @ value) / total, top + total.log()


class _Step:
    """What the language model does in a step: from the tokens just written [N * G] to the next raw scores [N * G, V].

    The layers are called one by one: the masks and the bookkeeping of the model's own forward are for whole sequences, and the angles of
    all places are known beforehand, for behind a prompt the three axes of positions count on together from `after` [N * G].
    """

    def __init__(self, thinker: Qwen2_5OmniThinkerForConditionalGeneration, cache: PrefixCache, after: Tensor) -> None:
        self.body, self.head, self.cache = thinker.model.language_model, thinker.lm_head, cache
        positions = after[:, None] + torch.arange(len(cache.unwritten), device=after.device)
        self.angles = self.body.rotary_emb(self.body.embed_tokens(positions[:1, :1] * 0), positions.expand(3, -1, -1))

    def __call__(self, tokens: Tensor) -> Tensor:
        hidden = self.body.embed_tokens(tokens[:, None])
        angles = tuple(x.index_select(1, self.cache.at) for x in self.angles)
        for layer in self.body.layers:
            hidden = layer(hidden, position_embeddings=angles, use_cache=False, prefix_cache=self.cache)
        scores: Tensor = self.head(self.body.norm(hidden)[:, 0]).float()
        return scores


@torch.no_grad()
def generate(
    thinker: Qwen2_5OmniThinkerForConditionalGeneration,
    towers: Towers,
    rows: Sequence[Encoded],
    *,
    num_generations: int,
    pad_id: int,
    generation_config: GenerationConfig,
    temperature: float = 1.0,
    graphs: Graphs | None = None,
    static: bool | None = None,
) -> Drawn:
    """Sample `num_generations` completions of each of N prompts, with the log-probs of their tokens.

    The log-probs are those of softmax(scores / temperature) of the model's raw scores, before any rule that shapes the draw: what a
    scoring pass gives. The thinker's attention must take packed rows (`attention.install`). Each prompt is computed alone, so what is
    drawn for it does not depend on the prompts beside it but through the random numbers. `static` chooses the form of a step (None: by
    the device); in the static form there may be a few columns of padding behind the last end, and on a GPU `graphs` captures it.

    Raises:
        BlindBatchError: a prompt has media placeholders and no media.
        RuntimeError: a token was drawn from scores that are not finite.
    """
    device = thinker.device
    ids, mask, _ = (tensor.to(device).repeat_interleave(num_generations, -2) for tensor in left_padded(rows, pad_id))
    check_not_blind(thinker, ids[::num_generations], rows)
    static = device.type != "cpu" if static is None else static
    kept: list[Tensor] = []

    def decode(
        model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: GenerationConfig, **others: Any
    ) -> Tensor:
        width = input_ids.shape[1]
        steps = generation_config.max_length - width
        caches, last = zip(*(_prefill(thinker, towers, row, device) for row in rows), strict=True)
        cache = PrefixCache(caches, num_generations, steps, static=static)
        del caches
        after = torch.tensor([len(row.ids) + row.delta for row in rows], device=device).repeat_interleave(num_generations)
        advance: Any = _Step(thinker, cache, after)
        scores = thinker.lm_head(torch.cat(last)).float().repeat_interleave(num_generations, 0)
        written = torch.nn.functional.pad(input_ids, (0, steps), value=pad_id)
        log_probs = torch.zeros(len(input_ids), steps, device=device)
        running = torch.ones(len(input_ids), dtype=torch.bool, device=device)
        for step in range(steps):
            end = width + step
            raw = (scores / temperature).log_softmax(-1)
            for processor in logits_processor:
                scores = processor(written[:, :end], scores)
            drawn = _drawn(scores) if generation_config.do_sample else scores.argmax(-1)
            log_probs[:, step] = raw.gather(1, drawn[:, None])[:, 0].masked_fill(~running, 0.0)
            written[:, end] = torch.where(running, drawn, pad_id)
            running &= ~stopping_criteria(written[:, : end + 1], scores)
            look = not static or (step + 1) % LOOK_EVERY == 0
            if step + 1 == steps or (look and not running.any()):
                break
            cache.move(step)
            if step == 0 and graphs is not None and device.type == "cuda":
                advance = graphs.captured(advance, written[:, end])
            scores = advance(written[:, end])
        kept.append(log_probs[:, : step + 1])
        return written[:, : end + 1]

    out: Tensor = thinker.generate(input_ids=ids, attention_mask=mask, generation_config=generation_config, custom_generate=decode)
    if not kept[0].isfinite().all():
        raise RuntimeError("completions were drawn from scores that are not finite: the policy's weights are broken")
    return Drawn(out[:, ids.shape[1] :], kept[0])


def _drawn(scores: Tensor) -> Tensor:
    """One token [B] from each row of scores [B, V]: what `torch.multinomial` draws, but without its checks, which wait for the device."""
    chances = scores.softmax(-1)
    return (chances / torch.empty_like(chances).exponential_()).argmax(-1)


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
