"""Log-probs of packed rows: `model(packed=..., packed_mode=...)`, beside the forward that a model already has."""

from __future__ import annotations

import functools
import types
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial
from transformers import PreTrainedModel
from trl.kernels.chunked_logprob import ChunkedLogProbFunction
from trl.trainer.utils import FusedCausalLMOutput, maybe_gather_lm_head_ctx

from omnistage.rl.shared_prefix import attention
from omnistage.rl.shared_prefix.attention import Mode
from omnistage.rl.shared_prefix.layout import Packed

# Columns of the head that are multiplied at a time.
_TILE = 32768


def install(model: PreTrainedModel, *, temperature: float, head_in_float32: bool = False) -> None:
    """Give a thinker `forward(packed=Packed, packed_mode=Mode, entropy=bool, **media)`, which returns `log_probs` (and `entropy`) [B, C].

    Other calls stay as they were. The call enters through the model's own forward, so wrappers (PEFT, DDP, DeepSpeed, FSDP) and their
    hooks take part. Only positions that predict a completion token are projected to the vocabulary, in tiles, by TRL's kernel.
    """
    attention.install(model)
    original = model.forward

    @functools.wraps(type(model).forward)
    def forward(self: PreTrainedModel, *arguments: Any, packed: Packed | None = None, packed_mode: Mode = "cat", **settings: Any) -> Any:
        if packed is None:
            return original(*arguments, **settings)
        entropy = settings.pop("entropy", False)
        # PEFT names the arguments that it was not given, too.
        media = {name: value for name, value in settings.items() if value is not None}
        hidden = self.base_model(
            input_ids=packed.ids,
            position_ids=packed.positions,
            use_cache=False,
            packed_layout=packed.layout,
            packed_mode=packed_mode,
            **media,
        ).last_hidden_state
        place, labels = packed.scored, packed.labels[0]
        if len(place):
            log_probs, entropies = _project(self, hidden[0, place], labels[place], temperature, head_in_float32, entropy)
            return FusedCausalLMOutput(
                log_probs=packed.unpack(log_probs), entropy=packed.unpack(entropies) if entropies is not None else None
            )
        # Nothing is asked. Ranks wait for each other's gradients, so the zeros keep their graph.
        unasked, _ = _project(self, hidden[0, :1], packed.ids[0, :1], temperature, head_in_float32, False)
        zeros = unasked.sum() * 0 + torch.zeros(packed.shape, device=unasked.device)
        return FusedCausalLMOutput(log_probs=zeros, entropy=zeros.detach() if entropy else None)

    model.forward = types.MethodType(forward, model)


def _project(
    model: PreTrainedModel, hidden: Tensor, labels: Tensor, temperature: float, in_float32: bool, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    """Log-probs [N] of the labels [N], and entropies, of hidden states [N, D]."""
    head = model.get_output_embeddings()
    hidden = hidden.to(head.weight.device)
    weight = head.weight
    if isinstance(weight, DTensor):
        # A unit of FSDP2 that is not called has no one to gather its weights and to average its gradients. Left to itself, each rank would
        # keep the gradient of its own rows alone.
        weight = weight.full_tensor(grad_placements=[Partial("avg")] * weight.device_mesh.ndim)
    outputs = ("log_probs", "entropy") if entropy else ("log_probs",)
    autocast = torch.autocast(hidden.device.type, enabled=False) if in_float32 else nullcontext()
    with autocast, maybe_gather_lm_head_ctx(weight):
        made = ChunkedLogProbFunction.apply(
            hidden.float() if in_float32 else hidden, weight, None, labels, temperature, _TILE, None, 1.0, outputs
        )
    return made[0], made[1]
