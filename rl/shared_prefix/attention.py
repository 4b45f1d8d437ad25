"""Attention over a packed row: the prompt sees itself, each completion sees the prompt and itself, all causally.

Registered with transformers beside the implementation that a model already has, for packed rows and for steps of `decode`: every other
call (a tower, a plain forward) goes to that implementation unchanged. The layout travels as a keyword argument of the forward, which also
survives gradient checkpointing.

| mode | how | copies of the prompt's keys and values |
|---|---|---|
| `dense` | one call with a mask over all pairs; the oracle | none |
| `cat` | prompt; each completion over the prompt's keys and its own (PrefixGrouper, arXiv 2506.05433) | G |
| `cascade` | prompt; all completions over the prompt; each over itself; merged (Hydragen, arXiv 2402.05099) | none |
| `flex` | flex_attention with a block mask; no backward on a CPU | none |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from omnistage.rl.shared_prefix.cascade import cascade
from omnistage.rl.shared_prefix.decode import PrefixCache
from omnistage.rl.shared_prefix.layout import Layout

Mode = Literal["dense", "cat", "cascade", "flex"]
PREFIX = "shared_prefix_over_"


def install(model: PreTrainedModel) -> None:
    """Let the text model of `model` take packed rows; what it does with other calls stays as it was."""
    under = str(model.config.get_text_config()._attn_implementation)
    if under.startswith(PREFIX):
        return
    name = PREFIX + under
    AttentionInterface.register(name, _over(AttentionInterface()[under]))
    AttentionMaskInterface.register(name, AttentionMaskInterface()[under])
    model.set_attn_implementation({"text_config": name})


def _over(ordinary: Callable[..., Any]) -> Callable[..., Any]:
    def attend(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *arguments: Any,
        packed_layout: Layout | None = None,
        packed_mode: Mode = "cat",
        prefix_cache: PrefixCache | None = None,
        **settings: Any,
    ) -> tuple[Tensor, Tensor | None]:
        scale = settings.get("scaling") or query.shape[-1] ** -0.5
        if prefix_cache is not None:
            return prefix_cache.attend(module.layer_idx, query, key, value, scale), None
        if packed_layout is None:
            result: tuple[Tensor, Tensor | None] = ordinary(module, query, key, value, attention_mask, *arguments, **settings)
            return result
        out = attention(query, key, value, packed_layout, packed_mode, scale)
        return out.transpose(1, 2).contiguous(), None

    return attend


def attention(query: Tensor, key: Tensor, value: Tensor, layout: Layout, mode: Mode, scale: float) -> Tensor:
    """Attention of a packed row: query [1, H, L, D], key and value [1, Hkv, L, D] with H a multiple of Hkv; returns [1, H, L, D]."""
    attend = {"dense": _dense, "cat": _cat, "cascade": _cascade, "flex": _flex}[mode]
    parts = []
    for index, group in enumerate(layout.groups):
        place = slice(group.start, group.end)
        parts.append(attend(query[:, :, place], key[:, :, place], value[:, :, place], layout, index, scale))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _dense(query: Tensor, key: Tensor, value: Tensor, layout: Layout, index: int, scale: float) -> Tensor:
    members = layout.members(index)
    order = torch.arange(len(members), device=members.device)
    seen = (members[None] == -1) | (members[:, None] == members[None])
    mask = seen & (order[None] <= order[:, None])
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=_grouped(query, key))


def _cat(query: Tensor, key: Tensor, value: Tensor, layout: Layout, index: int, scale: float) -> Tensor:
    group = layout.groups[index]
    prefix, count, width = group.prefix, len(group.lengths), group.width
    grouped = _grouped(query, key)
    first = F.scaled_dot_product_attention(
        query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], is_causal=True, scale=scale, enable_gqa=grouped
    )
    keys, values = (
        torch.cat([x[:, :, :prefix].expand(count, -1, -1, -1), layout.pad(x[:, :, prefix:], index)], dim=2) for x in (key, value)
    )
    own = F.scaled_dot_product_attention(
        layout.pad(query[:, :, prefix:], index),
        keys,
        values,
        attn_mask=causal_lower_right(width, prefix + width),
        scale=scale,
        enable_gqa=grouped,
    )
    return torch.cat([first, layout.unpad(own, index)], dim=2)


def _cascade(query: Tensor, key: Tensor, value: Tensor, layout: Layout, index: int, scale: float) -> Tensor:
    # Under autocast the angles leave query and key wider than the values; PyTorch's own attention casts them back, kernels do not.
    return cascade(query.to(value.dtype), key.to(value.dtype), value, layout, index, scale)


def _flex(query: Tensor, key: Tensor, value: Tensor, layout: Layout, index: int, scale: float) -> Tensor:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    members = layout.members(index)

    def seen(batch: Tensor, head: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return (q >= kv) & ((members[kv] == -1) | (members[q] == members[kv]))

    size = len(members)
    mask = create_block_mask(seen, 1, None, size, size, device=query.device)
    attend = torch.compile(flex_attention, dynamic=True) if query.is_cuda else flex_attention
    out: Tensor = attend(query, key, value, block_mask=mask, scale=scale, enable_gqa=_grouped(query, key))
    return out


def _grouped(query: Tensor, key: Tensor) -> bool:
    return query.shape[1] != key.shape[1]
