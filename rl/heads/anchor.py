"""Where a head reads: the (row, column) of each state, found from token ids and the mask, never from a bare index."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omnistage.rl.heads.spec import AtToken, HeadSpec


def places(spec: HeadSpec, ids: Tensor, mask: Tensor, prompt_lengths: Sequence[int], token_id: int | None) -> Tensor:
    """Rows and columns [N, 2] of the states that the head reads in `ids` [B, T], by row, then by column.

    `mask` [B, T] is 1 where a token is; rows may be padded on either side. `prompt_lengths` count the tokens of each row's prompt, media
    included, and `token_id` is that of the anchor's token. A prompt's end stands once in every row, a token as often as it was
    answered; one in the question is none.
    """
    first = mask.long().argmax(1)
    ends = first + torch.tensor(list(prompt_lengths), device=ids.device) - 1
    if not isinstance(spec.anchor, AtToken):
        return torch.stack([torch.arange(len(ids), device=ids.device), ends], 1)
    answered = torch.arange(ids.shape[1], device=ids.device)[None] > ends[:, None]
    found = ((ids == token_id) & mask.bool() & answered).nonzero()
    if spec.anchor.state == "predicting":
        found = found - found.new_tensor([0, 1])
    return found


def states(hidden: Tensor, found: Tensor) -> Tensor:
    """The states [N, H] at `places` [N, 2] of hidden states [B, T, H]."""
    return hidden[found[:, 0], found[:, 1]]
