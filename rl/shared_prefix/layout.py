"""Packs groups of completions into one row that holds each prompt once.

A group of G completions c_1 ... c_G of a prompt p_1 ... p_P becomes

    p_1 ... p_(P-1) | p_P c_1 | p_P c_2 | ... | p_P c_G      (each c_i without its last token)

The last prompt token stands before each completion, for it predicts the first token of each: so every position predicts at most one
token, and the row can be scored by labels as any other. The row is shorter than `[prompt | c_1 | ... | c_G]` by one token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from omnistage.rl.encoding import Encoded

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Group:
    """Where one group stands in the row: `prefix` tokens from `start` on are the prompt, then come segments of `lengths` tokens."""

    start: int
    prefix: int
    lengths: tuple[int, ...]

    @property
    def end(self) -> int:
        """The first token behind the group."""
        return self.start + self.prefix + sum(self.lengths)

    @property
    def width(self) -> int:
        """Tokens of the longest segment."""
        return max(self.lengths)

    @property
    def is_uniform(self) -> bool:
        """Whether all segments are equally long."""
        return min(self.lengths) == self.width

    @property
    def size_class(self) -> tuple[int, int]:
        """Powers of two that prompt and segments fit in: what a self-check of one shape says of others like it."""
        return (self.prefix - 1).bit_length(), (self.width - 1).bit_length()


@dataclass(frozen=True)
class Layout:
    """Index bookkeeping of a packed row, on the device of its tensors. Segments of a group are padded to [G, width] and back."""

    groups: tuple[Group, ...]
    device: torch.device
    _flat: dict[int, Tensor] = field(default_factory=dict)

    def pad(self, x: Tensor, index: int) -> Tensor:
        """Segments of group `index`, [1, H, tokens, D], as [G, H, width, D], zeros behind each segment."""
        group, (_, heads, _, size) = self.groups[index], x.shape
        count = len(group.lengths)
        if group.is_uniform:
            return x.reshape(heads, count, group.width, size).transpose(0, 1)
        grid = x.new_zeros(1, heads, count * group.width, size).index_copy(2, self.flat(index), x)
        return grid.view(heads, count, group.width, size).transpose(0, 1)

    def unpad(self, x: Tensor, index: int) -> Tensor:
        """Back from [G, H, width, D] to [1, H, tokens, D]."""
        group, (count, heads, width, size) = self.groups[index], x.shape
        row = x.transpose(0, 1).reshape(1, heads, count * width, size)
        return row if group.is_uniform else row.index_select(2, self.flat(index))

    def flat(self, index: int) -> Tensor:
        """Place of each segment token of a group in its padded grid, row by row."""
        if index not in self._flat:
            group = self.groups[index]
            lengths = torch.tensor(group.lengths)
            inside = torch.arange(group.width)[None] < lengths[:, None]
            self._flat[index] = inside.flatten().nonzero().squeeze(1).to(self.device)
        return self._flat[index]

    def members(self, index: int) -> Tensor:
        """For each token of a group, prompt first, which segment it belongs to; -1 for the prompt."""
        group = self.groups[index]
        segments = torch.repeat_interleave(torch.arange(len(group.lengths)), torch.tensor(group.lengths))
        return torch.cat([torch.full((group.prefix,), -1), segments]).to(self.device)


@dataclass(frozen=True)
class Packed:
    """Groups in one row: `ids` [1, L], `positions` [3, 1, L], `labels` [1, L] (what each position predicts, IGNORED where nothing is
    asked), and `heads`, the prompts in the order of the row, for their media. `places` say where the label of a position stands in the
    [B, C] completions that the row was made of."""

    layout: Layout
    ids: Tensor
    positions: Tensor
    labels: Tensor
    heads: tuple[Encoded, ...]
    shape: tuple[int, int]

    @cached_property
    def scored(self) -> Tensor:
        """Indices [N] of the positions that predict something."""
        return (self.labels[0] != IGNORED).nonzero().squeeze(1)

    places: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    def unpack(self, values: Tensor) -> Tensor:
        """Values [N] of the scored positions as [B, C], zeros where no completion token stands."""
        width = self.shape[1]
        # No view of another tensor: FSDP2 hangs its backward's hooks on what the forward returns, and a view can lose them.
        return values.new_zeros(self.shape).index_put((self.places // width, self.places % width), values)


def pack(rows: Sequence[Encoded], completions: Tensor, mask: Tensor) -> Packed:
    """Pack B rows whose completions are `completions` [B, C] with `mask` [B, C] (1 for tokens, none behind a 0).

    Rows that share their `Encoded`, the same object, form a group, wherever they stand; equal token ids are not enough, as two clips
    with the same question have them. A row without any token keeps one that nothing is asked of.
    """
    by_prompt: dict[int, list[int]] = {}
    for at, row in enumerate(rows):
        by_prompt.setdefault(id(row), []).append(at)
    device, width = completions.device, completions.shape[1]
    lengths = mask.sum(1).tolist()
    groups: list[Group] = []
    ids, positions, labels, places = [], [], [], []
    start = 0
    for members in by_prompt.values():
        head = rows[members[0]]
        prompt = torch.tensor(head.ids, device=device)
        prompt_positions = head.positions.to(device)
        ids.append(prompt[:-1])
        positions.append(prompt_positions[:, :-1])
        labels.append(torch.full((len(prompt) - 1,), IGNORED, device=device))
        after = len(head.ids) + head.delta
        for at in members:
            length = max(1, lengths[at])
            own = completions[at, :length]
            ids.append(torch.cat([prompt[-1:], own[:-1]]))
            steps = torch.arange(after, after + length - 1, device=device).expand(3, -1)
            positions.append(torch.cat([prompt_positions[:, -1:], steps], dim=1))
            labels.append(own.masked_fill(mask[at, :length] == 0, IGNORED))
            places.append(torch.arange(at * width, at * width + lengths[at], device=device))
        group = Group(start, len(head.ids) - 1, tuple(max(1, lengths[at]) for at in members))
        groups.append(group)
        start = group.end
    return Packed(
        layout=Layout(tuple(groups), device),
        ids=torch.cat(ids)[None],
        positions=torch.cat(positions, dim=1)[:, None],
        labels=torch.cat(labels)[None],
        heads=tuple(rows[members[0]] for members in by_prompt.values()),
        shape=(len(rows), width),
        places=torch.cat(places),
    )
