"""Evenly spread ones of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def spread_order(values: Sequence[T]) -> list[T]:
    """The last, the first, then the middles of what lies between, and so on: any number of the first ones covers the whole."""
    if len(values) < 2:
        return list(values)
    bits = max(1, (len(values) - 1).bit_length())
    places = [len(values) - 1, 0]
    # Halves, quarters, eighths of the way.
    for level in range(1, bits + 1):
        places += [odd * (len(values) - 1) >> level for odd in range(1, 1 << level, 2)]
    return [values[at] for at in dict.fromkeys([*places, *range(len(values))])]


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly spread, the first and the last among them; of one place the last."""
    if count <= most:
        return list(range(count))
    if most < 2:
        return [count - 1][:most]
    return sorted({round(at * (count - 1) / (most - 1)) for at in range(most)})
