"""Exact attention of completions over a prompt and over themselves, in three dense calls and without a copy of the prompt's keys.

    prompt over prompt, causal;   all completions over the prompt, unmasked, in one call;   each completion over itself, causal

The last two are merged by their log-sum-exps. The backward calls the same kernels' backward with the merged output and log-sum-exp,
which gives the exact partial gradients (as in ring attention, arXiv 2310.01889).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from omnistage.rl.shared_prefix.layout import Layout

Kept = tuple[Any, ...] | None


def cascade(query: Tensor, key: Tensor, value: Tensor, layout: Layout, index: int, scale: float) -> Tensor:
    """Attention of group `index` of a packed row: query [1, H, L, D], key and value [1, Hkv, L, D]; returns [1, H, L, D]."""
    out: Tensor = _Cascade.apply(query, key, value, layout, index, scale)
    return out


class _Cascade(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, index: int, scale: float) -> Tensor:
        prefix, repeats = layout.groups[index].prefix, query.shape[1] // key.shape[1]
        prompt_key, prompt_value = key[:, :, :prefix], value[:, :, :prefix]
        first, first_lse, kept_first = _forward(
            query[:, :, :prefix], _repeated(prompt_key, repeats), _repeated(prompt_value, repeats), True, scale
        )
        own_query = query[:, :, prefix:]
        over_prompt, prompt_lse, kept_prompt = _forward(_folded(own_query, repeats), prompt_key, prompt_value, False, scale)
        over_prompt, prompt_lse = over_prompt.reshape(own_query.shape), prompt_lse.reshape(own_query.shape[:3])
        padded = [layout.pad(x[:, :, prefix:], index) for x in (query, key, value)]
        over_own, own_lse, kept_own = _forward(padded[0], _repeated(padded[1], repeats), _repeated(padded[2], repeats), True, scale)
        over_own, own_lse = layout.unpad(over_own, index), layout.unpad(own_lse.unsqueeze(-1), index).squeeze(-1)
        lse = torch.logaddexp(prompt_lse, own_lse)
        own = _weighted(over_prompt, prompt_lse - lse) + _weighted(over_own, own_lse - lse)
        out = torch.cat([first, own], dim=2)
        ctx.save_for_backward(query, key, value, out, first_lse, lse)
        ctx.layout, ctx.index, ctx.scale = layout, index, scale
        ctx.kept = kept_first, kept_prompt, kept_own
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, first_lse, lse = ctx.saved_tensors
        layout, index, scale = ctx.layout, ctx.index, ctx.scale
        kept_first, kept_prompt, kept_own = ctx.kept
        prefix, repeats = layout.groups[index].prefix, query.shape[1] // key.shape[1]
        prompt_key, prompt_value = key[:, :, :prefix], value[:, :, :prefix]
        grad = grad.contiguous()
        of_first = _backward(
            grad[:, :, :prefix],
            query[:, :, :prefix],
            _repeated(prompt_key, repeats),
            _repeated(prompt_value, repeats),
            out[:, :, :prefix],
            first_lse,
            True,
            scale,
            kept_first,
        )
        own_query, own_grad, own_out = query[:, :, prefix:], grad[:, :, prefix:], out[:, :, prefix:]
        folded = [_folded(x, repeats) for x in (own_grad, own_query, own_out)]
        of_prompt = _backward(
            folded[0],
            folded[1],
            prompt_key,
            prompt_value,
            folded[2],
            _as_kernel(lse.reshape(folded[0].shape[:3])),
            False,
            scale,
            kept_prompt,
        )
        # Padded rows have no gradient, no output and no log-sum-exp, and so add nothing.
        pad = [layout.pad(x, index) for x in (own_grad, own_query, own_out, lse.unsqueeze(-1))]
        own_key, own_value = (_repeated(layout.pad(x[:, :, prefix:], index), repeats) for x in (key, value))
        of_own = _backward(pad[0], pad[1], own_key, own_value, pad[2], _as_kernel(pad[3].squeeze(-1)), True, scale, kept_own)
        of_query = torch.cat([of_first[0], of_prompt[0].reshape(own_query.shape) + layout.unpad(of_own[0], index)], dim=2)
        of_key, of_value = (
            torch.cat([_summed(of_first[at], repeats) + of_prompt[at], layout.unpad(_summed(of_own[at], repeats), index)], dim=2)
            for at in (1, 2)
        )
        return of_query, of_key, of_value, None, None, None


def _forward(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor, Kept]:
    """Flash attention with its log-sum-exp [B, H, L], and what its backward wants besides."""
    if query.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal, scale=scale)
        return out, lse, None
    out, lse, start_q, start_k, most_q, most_k, seed, offset, _ = torch.ops.aten._scaled_dot_product_flash_attention(
        query, key, value, 0.0, causal, False, scale=scale
    )
    return out, lse, (start_q, start_k, most_q, most_k, seed, offset)


def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, causal: bool, scale: float, kept: Kept
) -> tuple[Tensor, Tensor, Tensor]:
    if query.device.type == "cpu":
        made: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, query, key, value, out, lse, 0.0, causal, scale=scale
        )
        return made
    assert kept is not None
    start_q, start_k, most_q, most_k, seed, offset = kept
    made = torch.ops.aten._scaled_dot_product_flash_attention_backward(
        grad, query, key, value, out, lse, start_q, start_k, most_q, most_k, 0.0, causal, seed, offset, scale=scale
    )
    return made


def _as_kernel(lse: Tensor) -> Tensor:
    """The CPU kernel keeps log-sum-exps [B, H, L] in the memory order [B, L, H], and its backward wants them so."""
    return lse.transpose(1, 2).contiguous().transpose(1, 2) if lse.device.type == "cpu" else lse.contiguous()


def _weighted(out: Tensor, log_weight: Tensor) -> Tensor:
    return out * log_weight.exp().unsqueeze(-1).to(out.dtype)


def _repeated(x: Tensor, repeats: int) -> Tensor:
    """[B, Hkv, L, D] -> [B, Hkv * repeats, L, D], as grouped-query attention pairs heads."""
    return x if repeats == 1 else x.repeat_interleave(repeats, dim=1)


def _folded(x: Tensor, repeats: int) -> Tensor:
    """[1, Hkv * repeats, N, D] -> [1, Hkv, repeats * N, D]: the heads of one key head stand side by side and share its keys."""
    _, heads, tokens, size = x.shape
    return x.reshape(1, heads // repeats, repeats * tokens, size)


def _summed(grad: Tensor, repeats: int) -> Tensor:
    """The gradient of `_repeated`."""
    if repeats == 1:
        return grad
    batch, heads, tokens, size = grad.shape
    return grad.view(batch, heads // repeats, repeats, tokens, size).sum(2)
