"""Control measurements: the same questions about media that cannot answer them.

A policy that looks and listens must fall to what a constant answer scores. `swapped` gives each question the clip of another record of the
same task; it stays in the distribution that the policy was trained on. `blank` gives it black pictures and silence, which may not. Of two
senses one alone can be swapped (`swapped_sound`, `swapped_picture`) or taken away (`muted`, `blank_picture`). `shuffled` shows the frames
of each clip in another order: it costs nothing where the order tells nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np

from omnistage.data.errors import InputError
from omnistage.data.records import MediaRef, Modality, Record
from omnistage.stages.recipe.choices import CONTROLS, Control

Sense = Literal["picture", "sound"]
BLANKED: dict[str, frozenset[Sense]] = {
    "blank": frozenset({"picture", "sound"}),
    "blank_picture": frozenset({"picture"}),
    "muted": frozenset({"sound"}),
}


def donors(records: Sequence[Record], seed: int, *, by: Literal["path", "sound"] = "path") -> list[Record]:
    """For each record one of the same task, modality and kinds of media whose clips (or, `by` sound, whose sounds) are others.

    The order is random and does not look at answers, so a donor has the same answer as often as chance says.

    Raises:
        InputError: more than half of such a group of records show the same clip.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, record in enumerate(records):
        shape = tuple((ref.kind, ref.sound is not None) for ref in record.media)
        groups.setdefault((record.task, record.modality, shape), []).append(index)
    out = list(records)
    generator = np.random.default_rng(seed)
    for indices in groups.values():
        clips: dict[tuple[str | None, ...], list[int]] = {}
        for index in generator.permutation(indices).tolist():
            clips.setdefault(tuple(getattr(ref, by) for ref in records[index].media), []).append(index)
        # Records of one clip stand together; as many places further on stands another clip, unless one holds more than half.
        order = [index for same in clips.values() for index in same]
        step = max(len(same) for same in clips.values())
        if 2 * step > len(order):
            record = records[order[0]]
            raise InputError(
                f"task {record.task!r}, modality '{record.modality}': {step} of its {len(order)} held-out records have the same clip; "
                "swapping media needs another clip for each"
            )
        for index, donor in zip(order, order[step:] + order[:step], strict=True):
            out[index] = records[donor]
    return out


def _swapped_sound(own: MediaRef, other: MediaRef) -> MediaRef:
    return replace(own, sound=other.sound)


def _swapped_picture(own: MediaRef, other: MediaRef) -> MediaRef:
    return replace(other, sound=own.sound)


def applies(control: Control, modality: Modality) -> bool:
    """Whether a control says anything about a modality: text has no media, an image no order, and one sense can be swapped, or taken away
    with the other left, only where there are two."""
    if control in ("blank", "swapped"):
        return modality is not Modality.TEXT
    if control == "shuffled":
        return modality in (Modality.VIDEO, Modality.AUDIO_VIDEO)
    return modality is Modality.AUDIO_VIDEO


def is_asked(run: str, record: Record) -> bool:
    """Whether a run of an evaluation asks about a record: a control leaves out those that it says nothing about."""
    return run not in CONTROLS or applies(cast(Control, run), record.modality)


def apply(control: Control, records: Sequence[Record], seed: int) -> list[Record]:
    """The records with other media.

    Raises:
        InputError: a task has too few clips to swap.
    """
    if control in BLANKED:
        return [_each(record, blank=BLANKED[control]) for record in records]
    if control == "shuffled":
        # Each clip has an order of its own, the same in every run with this seed.
        orders = np.random.default_rng(seed).integers(2**31, size=len(records)).tolist()
        return [_each(record, shuffle=order) for record, order in zip(records, orders, strict=True)]
    others = donors(records, seed, by="sound" if control == "swapped_sound" else "path")
    if control == "swapped":
        return [record.with_media(other.media) for record, other in zip(records, others, strict=True)]
    swap = _swapped_sound if control == "swapped_sound" else _swapped_picture
    return [
        record.with_media(tuple(swap(own, donor) for own, donor in zip(record.media, other.media, strict=True)))
        for record, other in zip(records, others, strict=True)
    ]


def _each(record: Record, **changes: Any) -> Record:
    return record.with_media(tuple(replace(ref, **changes) for ref in record.media))
