"""What a step's rewards were: mean, spread and the share that was not scored, of each reward, by modality and by task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

SPLITS = ("modality", "task")


def metrics(names: Sequence[str], values: Tensor, columns: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Metrics by name, of rewards `values` [N, F] (NaN: not scored); `columns` hold the modality and the task of the N rows.

    `rewards/NAME/not_scored` is a share of the batch; `rewards/NAME/modality/video/mean`, `.../std` (of those scored; the spread of one
    value is 0) and `.../not_scored` are the same for the rows of one modality, and likewise of one task. A mean of nothing is left out.
    """
    found: dict[str, float] = {}
    for at, name in enumerate(names):
        column = values[:, at]
        found[f"rewards/{name}/not_scored"] = float(column.isnan().float().mean())
        for where, rows in _parts(columns):
            scored = column[rows][~column[rows].isnan()]
            place = f"rewards/{name}/{where}"
            found[f"{place}/not_scored"] = 1 - len(scored) / len(rows)
            if len(scored):
                found[f"{place}/mean"] = float(scored.mean())
                found[f"{place}/std"] = float(torch.std(scored, correction=1)) if len(scored) > 1 else 0.0
    return found


def _parts(columns: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, list[int]]]:
    for split in SPLITS:
        for value in sorted(set(columns[split])):
            yield f"{split}/{value}", [row for row, of_row in enumerate(columns[split]) if of_row == value]
