"""Readers, as users write them, that give the rendered clips numbers to learn: a score and a pose each, by the row's place in the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from omnistage.data import formats
from omnistage.data.records import AnswerKind, Modality, Record
from omnistage.data.rotations import axis_angle_to_matrices

SCORES = {
    "name": "mos",
    "codec": {"kind": "affine", "low": 0.0, "high": 100.0},
    "body": {"sizes": [16]},
    "losses": [{"name": "l1"}],
}
POSES = {
    "name": "pose",
    "anchor": {"at": "token", "token": "<POSE>"},
    "codec": {"kind": "rot6d"},
    "body": {"sizes": [32]},
    "losses": [{"name": "text"}, {"name": "body", "weight": 0.1}, {"name": "root", "weight": 0.1}],
}


def _rows(path: Path, media_root: Path, modality: Modality | None) -> Iterator[Record]:
    return formats.read("humansense", path, media_root=media_root, modality=modality)


def scored(record: Record, value: float) -> Record:
    return replace(record, kind=AnswerKind.SCALAR, target=f"{value:g}", values=(value,), options=(), response=None)


def posed(record: Record, *seeds: int) -> Record:
    turns = [axis_angle_to_matrices(0.5 * np.random.default_rng(seed).normal(size=(24, 3))) for seed in seeds]
    values = tuple(float(number) for turn in turns for number in turn.ravel())
    return replace(record, kind=AnswerKind.POSE, target="a pose", values=values, options=(), response=None)


def scores(path: Path, *, media_root: Path, modality: Modality | None = None, **options: Any) -> Iterator[Record]:
    for index, record in enumerate(_rows(path, media_root, modality)):
        yield scored(record, 10.0 * (index % 9))


def poses(path: Path, *, media_root: Path, modality: Modality | None = None, **options: Any) -> Iterator[Record]:
    for index, record in enumerate(_rows(path, media_root, modality)):
        yield posed(record, index)
