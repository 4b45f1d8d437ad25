"""Recorded rollouts: every completion of a stage with what the rewards were called with and what they gave, so that a reward can be
called again on them. One Parquet file a step; a file is whole or not there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omnistage.data.errors import InputError
from omnistage.data.evidence import SENSES
from omnistage.rewards.base import NEEDS, ROW_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

REWARD, ADVANTAGE, EXTRA = "reward/", "advantage/", "extra/"
# True of a completion that was drawn and not trained on, in steps that may replace groups.
DROPPED = "dropped"
# The file that the sound of each clip in `media` is read from, None where a video is not heard; older recordings do not say.
SOUND = "sound"
_LISTS = ("options", "media", "shuffled")
_PLAIN = ("prompt", "messages", "completion")


def _schema(names: Sequence[str]) -> pa.Schema:
    """The columns of a step, given the names of those that not every step has."""
    import pyarrow as pa

    texts = pa.list_(pa.string())
    types: dict[str, pa.DataType] = {"step": pa.int64(), "group": pa.int64(), "advantage": pa.float64()}
    types |= {name: texts if name in _LISTS else pa.string() for name in (*ROW_COLUMNS, *_PLAIN)}
    types |= {name: texts if name in _LISTS else pa.string() for name in names if name in NEEDS}
    types |= {
        "values": pa.list_(pa.float64()),
        "completion_ids": pa.list_(pa.int32()),
        "evidence": pa.struct([(sense, texts) for sense in SENSES]),
    }
    types |= {name: pa.string() if name.startswith(EXTRA) else pa.float64() for name in names if name not in (*NEEDS, DROPPED, SOUND)}
    types |= {name: pa.bool_() for name in names if name == DROPPED} | {name: texts for name in names if name == SOUND}
    return pa.schema(list(types.items()))


def write(folder: Path, step: int, rows: Sequence[dict[str, Any]]) -> None:
    """Write the completions of a step to `folder/step-NNNNNN.parquet`.

    Each row holds the columns of `base.ROW_COLUMNS`, `group` (its prompt's number in the step), `prompt`, `messages` (the prompt as TRL has
    it, in JSON), `completion`, `completion_ids`, `advantage`, `reward/NAME` for each reward (None: not scored) and, where there are any,
    `sound` (the file of each clip's sound), `shuffled`, `heads` (in JSON), `dropped` (drawn and not trained on, so without an advantage),
    `advantage/SEGMENT` and `extra/COLUMN` (written as JSON).
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = {name for row in rows for name in row if name.startswith((REWARD, ADVANTAGE, EXTRA))}
    names |= {name for row in rows for name in (*NEEDS, DROPPED, SOUND) if row.get(name) is not None}
    as_text = [{name: json.dumps(value, default=str) if name.startswith(EXTRA) else value for name, value in row.items()} for row in rows]
    table = pa.Table.from_pylist([row | {"step": step} for row in as_text], schema=_schema(sorted(names)))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:06d}.parquet"
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)


def read(folder: Path) -> Iterator[list[dict[str, Any]]]:
    """The rows of each step, in order of steps.

    Raises:
        InputError: the folder holds no recorded step, or a file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted(folder.glob("step-*.parquet"))
    if not paths:
        raise InputError(f"{folder}: holds no recorded rollouts (step-*.parquet)")
    for path in paths:
        try:
            rows = pq.read_table(path).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: cannot be read as Parquet ({' '.join(str(error).split())})") from error
        missing = [name for name in (*ROW_COLUMNS, *_PLAIN, "step", "group", "completion_ids") if not rows or name not in rows[0]]
        if missing:
            raise InputError(f"{path}: holds no recorded rollouts ({f'no column {missing[0]!r}' if rows else 'no rows'})")
        yield rows
