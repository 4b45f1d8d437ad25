"""Which tokens a reward concerns: advantages of rewards for one segment, the thinking or the answer, reach that segment's tokens alone.

TRL makes one advantage of all rewards and gives it to every token of a completion. A reward for a segment is kept out of that sum; its
own group-relative advantage is added on the tokens of its segment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from trl.trainer.utils import nanstd

from omnistage.rewards.base import Segment
from omnistage.rewards.extract import segment_of

# TRL's own guard against a group without spread.
EPS = 1e-4
# Below this share of their size, rewards that differ are equal ones that were summed in float32.
ROUNDING = 1e-6


def advantages(values: Tensor, weights: Tensor, num_generations: int, *, scale: str, aggregation: str) -> Tensor:
    """Group-relative advantages [N] of rewards `values` [N, F] (NaN: not scored), N rows group after group, by TRL's rules.

    `sum_then_normalize`: the weighted sum minus its group's mean, over the standard deviation that `scale` names ("group", "batch" or
    "none"); what one reward did not score is judged by the others (`filled`). `normalize_then_sum`: each reward over its group's deviation,
    then the weighted sum over that of the batch (GDPO, arXiv 2601.05242). A row that no reward scored gets 0.
    """
    unscored = values.isnan().all(dim=1)
    if aggregation == "normalize_then_sum":
        groups = values.view(-1, num_generations, values.shape[1])
        centred = groups - groups.nanmean(dim=1, keepdim=True)
        scaled = (centred / (nanstd(groups, dim=1, keepdim=True) + EPS)).view_as(values)
        sums = _weighted(scaled, weights, unscored)
        result = (sums - sums.nanmean()) / (nanstd(sums) + EPS)
    else:
        sums = _weighted(filled(values, num_generations), weights, unscored)
        groups = sums.view(-1, num_generations)
        result = (groups - groups.nanmean(dim=1, keepdim=True)).flatten()
        if scale == "group":
            result = result / (nanstd(groups, dim=1).repeat_interleave(num_generations) + EPS)
        elif scale == "batch":
            result = result / (nanstd(sums) + EPS)
    finite: Tensor = result.nan_to_num(nan=0.0)
    return finite


def filled(values: Tensor, num_generations: int) -> Tensor:
    """Rewards [N, F] to be summed: where a row has a score of some reward and none of another (NaN), the mean of that other in its group.

    A sum would take NaN for zero, so that a judge's time-out ranked as its worst judgement. The group's mean says nothing for or
    against a completion. Rows without any score stay NaN; a reward without any score in a group is the same for all of it.
    """
    groups = values.view(-1, num_generations, values.shape[1])
    means = groups.nanmean(dim=1, keepdim=True).expand_as(groups).reshape_as(values)
    unscored = values.isnan().all(dim=1, keepdim=True)
    return torch.where(values.isnan() & ~unscored, means, values)


def has_spread(values: Tensor, weights: Tensor, num_generations: int, *, aggregation: str) -> Tensor:
    """Which groups [N / G] of rewards `values` [N, F] (NaN: not scored) have completions that `advantages` tells apart.

    By `sum_then_normalize` those whose sums differ, by `normalize_then_sum` those in which any reward differs. A completion that no
    reward scored is not compared.
    """
    size = (values * weights).abs()
    if aggregation == "normalize_then_sum":
        compared = values * weights
    else:
        compared = _weighted(filled(values, num_generations), weights, values.isnan().all(dim=1)).unsqueeze(1)
        size = size.nansum(dim=1, keepdim=True)
    compared, size = (each.view(-1, num_generations, each.shape[1]) for each in (compared, size))
    highest = compared.nan_to_num(nan=-torch.inf).amax(dim=1)
    lowest = compared.nan_to_num(nan=torch.inf).amin(dim=1)
    return (highest - lowest > ROUNDING * size.nan_to_num().amax(dim=1)).any(dim=1)


def _weighted(values: Tensor, weights: Tensor, unscored: Tensor) -> Tensor:
    sums: Tensor = (values * weights).nansum(dim=1)
    return sums.masked_fill(unscored, torch.nan)


def segment_mask(decode: Callable[[Sequence[int]], str], ids: Sequence[int], segment: Segment) -> list[bool]:
    """Which tokens of a completion write its thinking or its answer, tags included; none where it has none.

    `decode` makes text of token ids. A token that writes the end of one segment and the start of another belongs to both.
    """
    found = segment_of(decode(ids), segment)
    if found is None:
        return [False] * len(ids)
    first = _first(decode, ids, lambda written: written > found[0]) - 1
    end = _first(decode, ids, lambda written: written >= found[1])
    return [first <= place < end for place in range(len(ids))]


def _first(decode: Callable[[Sequence[int]], str], ids: Sequence[int], holds: Callable[[int], bool]) -> int:
    """The least number of tokens whose text is long enough, found by halving; the whole number where none is."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        # A character that a cut splits is shown as U+FFFD until it is whole.
        if holds(len(decode(ids[:middle]).rstrip("\ufffd"))):
            high = middle
        else:
            low = middle + 1
    return low
