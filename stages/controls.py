"""Control measurements: the same questions about media that cannot answer them.

A policy that looks and listens must fall to what a constant answer scores. `swapped` gives each question the clip of another record of the
same task; it stays in the distribution that the policy was trained on. `blank` gives it black pictures and silence, which may not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from omnistage.data.errors import InputError
from omnistage.data.records import MediaRef, Modality, Record
from omnistage.stages.choices import Control

BLANKED: frozenset[Literal["picture", "sound"]] = frozenset({"picture", "sound"})


def donors(records: Sequence[Record], seed: int) -> list[Record]:
    """For each record another one of its task, in a random order that moves every record.

    The order does not look at answers, so a donor has the same answer as often as chance says.

    Raises:
        InputError: a task has a single record.
    """
    by_task: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        by_task.setdefault(record.task, []).append(index)
    out = list(records)
    generator = np.random.default_rng(seed)
    for task, indices in by_task.items():
        if len(indices) < 2:
            raise InputError(f"task {task!r} has one held-out record; swapping media needs at least two")
        order = generator.permutation(indices).tolist()
        for index, donor in zip(order, order[1:] + order[:1], strict=True):
            out[index] = records[donor]
    return out


def _swapped_sound(own: MediaRef, other: MediaRef) -> MediaRef:
    return replace(own, sound=other.sound)


def _swapped_picture(own: MediaRef, other: MediaRef) -> MediaRef:
    return replace(other, sound=own.sound)


def applies(control: Control, modality: Modality) -> bool:
    """Whether a control says anything about a modality; one sense can be swapped only where there are two."""
    return modality is Modality.AUDIO_VIDEO or control in ("blank", "swapped")


def apply(control: Control, records: Sequence[Record], seed: int) -> list[Record]:
    """The records with other media.

    Raises:
        InputError: a task has too few records to swap.
    """
    if control == "blank":
        return [r.with_media(tuple(replace(ref, blank=BLANKED) for ref in r.media)) for r in records]
    others = donors(records, seed)
    if control == "swapped":
        return [record.with_media(other.media) for record, other in zip(records, others, strict=True)]
    swap = _swapped_sound if control == "swapped_sound" else _swapped_picture
    return [
        record.with_media(tuple(swap(own, donor) for own, donor in zip(record.media, other.media, strict=True)))
        for record, other in zip(records, others, strict=True)
    ]
