"""In which ways all items are asked, and which of them together; the same plan for any number of processes, and after every
interruption."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from omnistage.data.records import Modality, Record
from omnistage.stages.benchmarks.items import GREEDY, SAMPLE
from omnistage.stages.measure import controls
from omnistage.stages.recipe.choices import Control


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask: greedily, with `samples` answers of each item at temperature 1, or greedily about other media (`control`)."""

    samples: int = 0
    control: Control | None = None

    @property
    def name(self) -> str:
        """As it is shown beside a progress bar."""
        return self.control or ("samples" if self.samples else GREEDY)

    @property
    def runs(self) -> list[str]:
        """The runs that its answers belong to, one an answer."""
        return [f"{SAMPLE}{number}" for number in range(self.samples)] or [self.name]


@dataclass(frozen=True, slots=True)
class Batch:
    """Items that are asked together, in one way. `key` tells it apart from all others of a plan; `seed` is for its sampling."""

    way: Way
    records: tuple[Record, ...]
    key: str
    seed: int


def ways(samples: int, asked: Sequence[Control]) -> list[Way]:
    """Greedy first, then samples, then the controls."""
    return [Way(), *([Way(samples=samples)] if samples else []), *(Way(control=control) for control in asked)]


def batches(records: Sequence[Record], in_ways: Sequence[Way], size: int, seed: int) -> list[Batch]:
    """Everything that is to be asked, in order: at most `size` items at a time, all of one modality.

    Raises:
        InputError: a control cannot be made from these records.
    """
    out: list[Batch] = []
    for way in in_ways:
        shown = list(records)
        if way.control is not None:
            shown = controls.apply(way.control, [r for r in records if controls.applies(way.control, r.modality)], seed)
        for number, indices in enumerate(together(shown, size)):
            key = f"{way.name}/{number}"
            digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
            out.append(Batch(way, tuple(shown[index] for index in indices), key, int.from_bytes(digest[:8], "big")))
    return out


def together(records: Sequence[Record], size: int) -> Iterator[list[int]]:
    """Indices of records that are shown together: at most `size`, of one modality."""
    by_modality: dict[Modality, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        by_modality[record.modality].append(index)
    for indices in by_modality.values():
        for start in range(0, len(indices), size):
            yield indices[start : start + size]
