"""The layers of a head."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from omnistage.rl.heads.spec import Activation, Body

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class Network(nn.Module):
    """Linear layers from a hidden state [N, hidden] to the codec's numbers [N, outputs], in float32 whatever the policy computes in.

    The last layer is linear or a sigmoid: a ReLU there, as in LMME3DHF, can die at 0 with no gradient left.
    """

    def __init__(self, body: Body, hidden: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.LayerNorm(hidden)] if body.norm else []
        widths = [hidden, *body.sizes]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), ACTIVATIONS[body.activation]()]
            layers += [nn.Dropout(body.dropout)] if body.dropout else []
        layers.append(nn.Linear(widths[-1], outputs))
        layers += [nn.Sigmoid()] if body.final == "sigmoid" else []
        self.layers = nn.Sequential(*layers)

    @torch.no_grad()
    def begin_at(self, outputs: Tensor) -> None:
        """Put out about `outputs` [outputs] (before a last sigmoid), whatever the state is, until training says otherwise."""
        last = [layer for layer in self.layers if isinstance(layer, nn.Linear)][-1]
        last.bias.copy_(outputs)

    def forward(self, states: Tensor) -> Tensor:
        """Outputs [N, outputs] of states [N, hidden]."""
        with torch.autocast(states.device.type, enabled=False):
            # A sharding engine may keep its parameters in half precision; they are then the only thing that is.
            weight = next(self.layers.parameters())
            made: Tensor = self.layers(states.to(weight.dtype))
            return made.float()
