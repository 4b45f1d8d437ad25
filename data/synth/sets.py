"""Writes the sets: clips, then the lists, then the record of what was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omnistage.data.errors import InputError, unknown_name
from omnistage.data.records import Modality
from omnistage.data.synth.encode import write_clip
from omnistage.data.synth.job import Job, whole_number
from omnistage.data.synth.plan import MODALITIES, Item, items
from omnistage.data.synth.tasks import TASKS

# Far from any seed that is tried while a setting is looked for, so that figures come from clips that nothing was tuned on.
HELD_OUT_SEED = 715_827_883
# Grows when the same arguments would give other clips or rows, so that a folder is never half of one and half of the other.
VERSION = 1


def render(
    out: str | Path,
    *,
    seed: int,
    cold_start: int,
    train: int,
    held_out: int,
    wrong: Mapping[str, float] | None = None,
    held_out_seed: int = HELD_OUT_SEED,
    workers: int = 2,
    progress: bool = False,
    modalities: Iterable[str] = tuple(MODALITIES),
) -> dict[str, Path]:
    """The lists by name (`"train_video"`), rendered under `out` where they are not there yet.

    `cold_start`, `train` and `held_out` count the clips of each modality; the tasks take turns. `wrong` maps a modality to the share
    (0..1) of its cold-start demonstrations that are wrong on purpose: what they say of the clip is right, but their answer is that of
    the task's next class. Such rows have `wrong_on_purpose: true`; the row's own `answer` is always the right one. Seeds are whole
    numbers below 2**32. The same arguments give the same lists and clips, whatever `workers` is; an interrupted call goes on where it
    stopped. Raises `InputError` for an argument out of range and for a folder that was rendered with other arguments.
    """
    asked = {_modality(name) for name in modalities}
    chosen = [modality for modality in MODALITIES if modality in asked]
    counts = {"cold_start": cold_start, "train": train, "held_out": held_out}
    if workers < 1:
        raise InputError(f"render: workers must be at least 1, got {workers}")
    arguments = _arguments(chosen, counts, seed, held_out_seed, dict(wrong or {}))
    out = Path(out)
    job = Job(out, "render", arguments, ["clips"])
    (out / "clips").mkdir(exist_ok=True)
    sets = {
        f"{split}_{modality}": items(
            split,
            modality,
            seed=held_out_seed if split == "held_out" else seed,
            count=count,
            wrong=arguments["wrong"].get(modality.value, 0.0),
        )
        for split, count in counts.items()
        for modality in chosen
    }
    paths = {name: out / f"{name}.json" for name in sets}
    missing = [item for made in sets.values() for item in made if not (out / item.clip).is_file()]
    job.make(missing, _make_clip, what="clip", workers=workers, progress=progress)
    for name, made in sets.items():
        job.keep(paths[name], [item.row for item in made])
    job.done()
    return paths


def _modality(name: str) -> Modality:
    known = {modality.value: modality for modality in MODALITIES}
    if str(name) not in known:
        raise InputError(unknown_name("modality", str(name), known))
    return known[str(name)]


def _arguments(
    modalities: Sequence[Modality], counts: Mapping[str, int], seed: int, held_out_seed: int, wrong: Mapping[str, float]
) -> dict[str, Any]:
    """What decides the content of the folder, as it is written into `render.json`."""
    for name, number in {**counts, "seed": seed, "held_out_seed": held_out_seed}.items():
        whole_number(name, number)
    shares = {_modality(name).value: float(share) for name, share in wrong.items()}
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise InputError(f"render: wrong[{name!r}] must lie in 0..1, got {share}")
    return {
        "version": VERSION,
        "modalities": [modality.value for modality in modalities],
        **counts,
        "seed": seed,
        "held_out_seed": held_out_seed,
        "wrong": dict(sorted(shares.items())),
    }


def _make_clip(item: Item, out: Path) -> None:
    frames, sound = TASKS[item.task].render(item.case, np.random.default_rng(item.stream))
    write_clip(out / item.clip, frames, sound)
