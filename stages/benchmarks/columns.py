"""From lines of `scores.jsonl` to columns, in the items' order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from omnistage.data.errors import InputError
from omnistage.data.records import Record
from omnistage.stages.benchmarks.base import clip_of
from omnistage.stages.benchmarks.figures import Columns, Figure, Floats
from omnistage.stages.benchmarks.items import ITEMS, SCORES, Score, read_scores


def columns_of(records: Sequence[Record], scores: Mapping[str, Score], *, missing: float = 0.0) -> Columns:
    """The scores of one run, by id, as columns [N] in the order of `records`.

    A record without a score was not answered: it is not valid, its value is `missing` (0: wrong, for figures where higher is better; nan
    for errors, which have no worst value), and its further numbers are nan, as are those that a score does not have. A value of None
    (nothing could be said) is nan.
    """
    found = [scores.get(record.id) for record in records]
    value = np.array([missing if score is None else np.nan if score.value is None else score.value for score in found], dtype=np.float64)
    valid = np.array([score is not None and score.valid for score in found], dtype=np.bool_)
    numbered: dict[str, int] = {}
    clip = np.array([numbered.setdefault(clip_of(record), len(numbered)) for record in records], dtype=np.int64)
    names = dict.fromkeys(name for score in found if score is not None for name in score.numbers)
    numbers: dict[str, Floats] = {
        name: np.array([np.nan if score is None else score.numbers.get(name, np.nan) for score in found], dtype=np.float64)
        for name in names
    }
    return Columns(value, valid, clip, numbers)


def columns_for(figure: Figure, records: Sequence[Record], scores: Mapping[str, Score]) -> Columns:
    """The columns [N] that a figure reads. A record without a score counts as 0 in a mean of which higher is better, whatever its column;
    in means of errors and in metrics it is left out."""
    missing = 0.0 if figure.higher_is_better else np.nan
    columns = columns_of(records, scores, missing=missing)
    nothing = np.full(len(records), np.nan)
    numbers = {name: columns.numbers.get(name, nothing) for name in (*figure.columns, figure.column, *columns.numbers)}
    if figure.metric is None:
        numbers[figure.column] = np.where([record.id in scores for record in records], numbers[figure.column], missing)
    return columns._replace(numbers=numbers)


def scores_by_run(folder: Path, records: Sequence[Record], *, half_pairs: bool = False) -> dict[str, dict[str, Score]]:
    """The scores of an evaluation, by run and id, in the order of the file's first line of each run; of two lines about one item and run,
    the later one counts.

    Raises:
        InputError: the file is missing, a line holds no score, or one is about an id that no item has.
    """
    ids = {record.id for record in records}
    out: dict[str, dict[str, Score]] = {}
    for score in read_scores(folder, half_pairs=half_pairs):
        if score.id not in ids:
            raise InputError(f"{folder / SCORES}: id {score.id!r} is that of no line of {folder / ITEMS}")
        out.setdefault(score.run, {})[score.id] = score
    return out
