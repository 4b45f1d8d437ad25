"""What a benchmark's figures are made of: which items, how their values become one number, and which way is better.

A figure is told apart from the answers: the same one is computed of each run, of its valid answers alone, of every bootstrap draw of clips,
and of the difference between two runs (`stages.measure.bootstrap`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Numbers `made` and numbers that are `right`, [N] each -> one figure.
Metric = Callable[[Floats, Floats], float]


class Columns(NamedTuple):
    """The scores of one run, item by item, in the items' order.

    `value` [N] (nan: nothing could be said), `valid` [N], `clip` [N] (the number of the item's clip: items of one clip are drawn together),
    and `numbers`, further columns [N] by name, as `made` and `right`.
    """

    value: Floats
    valid: NDArray[np.bool_]
    clip: NDArray[np.int64]
    numbers: dict[str, Floats]


@dataclass(frozen=True)
class Figure:
    """One figure of a benchmark.

    `groups` hold the places of the items it is about. Of several groups it is the mean of their means, each with the same weight (an
    average over tasks); of one it is the mean over its items, of what stands in `column`. With `metric`, it is that metric of the two
    `columns` over the items of its one group.
    """

    name: str
    groups: tuple[tuple[int, ...], ...]
    metric: Metric | None = None
    columns: tuple[str, str] = ("made", "right")
    column: str = "value"
    higher_is_better: bool = True
    unit: str = "share"

    @property
    def scale(self) -> float:
        """What a figure is multiplied by for print: shares are shown in percent."""
        return 100.0 if self.unit == "share" else 1.0

    @property
    def items(self) -> list[int]:
        """The places of all its items, in order."""
        return sorted({place for group in self.groups for place in group})


def by(names: Sequence[Any]) -> dict[Any, tuple[int, ...]]:
    """The places of each name, in the order of their first one."""
    out: dict[Any, list[int]] = {}
    for place, name in enumerate(names):
        out.setdefault(name, []).append(place)
    return {name: tuple(places) for name, places in out.items()}
