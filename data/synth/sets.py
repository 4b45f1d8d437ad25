"""Writes the sets: clips side by side in a few processes, then the lists, then the record of what was asked for."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from omnistage.data.errors import InputError, unknown_name
from omnistage.data.records import Modality
from omnistage.data.synth.encode import write_clip
from omnistage.data.synth.plan import MODALITIES, Item, items
from omnistage.data.synth.tasks import TASKS

# Far from any seed that is tried while a setting is looked for, so that figures come from clips that nothing was tuned on.
HELD_OUT_SEED = 715_827_883
# Grows when the same arguments would give other clips or rows, so that a folder is never half of one and half of the other.
VERSION = 1
DONE, STARTED = "render.json", "render.started.json"
# Fewer clips than this are made sooner than a second process starts.
WORTH_A_POOL = 500


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
    finished = _claim(out, arguments)
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
    _make_clips(missing, out, workers, progress)
    for name, made in sets.items():
        if not (finished and paths[name].is_file()):
            _write_whole(paths[name], [item.row for item in made])
    if not finished:
        _write_whole(out / DONE, arguments)
        (out / STARTED).unlink()
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
        # A larger seed would take two words of a random stream's key, which would then no longer tell all streams apart.
        if not 0 <= number < 2**32:
            raise InputError(f"render: {name} must lie in 0..{2**32 - 1}, got {number}")
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


def _claim(out: Path, arguments: dict[str, Any]) -> bool:
    """Whether `out` was finished with these arguments; an empty folder is marked as begun with them. `InputError` for any other folder."""
    for name in (DONE, STARTED):
        path = out / name
        if path.is_file():
            _check_same(path, arguments)
            return name == DONE
    clips = out / "clips"
    if clips.is_dir() and any(clips.iterdir()):
        raise InputError(f"{str(clips)!r} holds clips, but {str(out / DONE)!r} is not there to say which; give an empty folder")
    clips.mkdir(parents=True, exist_ok=True)
    _write_whole(out / STARTED, arguments)
    return False


def _check_same(path: Path, arguments: dict[str, Any]) -> None:
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{str(path)!r} is no JSON ({error}); give an empty folder") from None
    if before == arguments:
        return
    asked = {name: value for name, value in arguments.items() if not isinstance(before, dict) or before.get(name) != value}
    there = {name: before.get(name) for name in asked} if isinstance(before, dict) else before
    raise InputError(f"{str(path)!r} was rendered with {there}, but {asked} is asked for; give another folder or remove this one")


def _make_clips(missing: Sequence[Item], out: Path, workers: int, progress: bool) -> None:
    (out / "clips").mkdir(exist_ok=True)
    # Bars are for people: `None` leaves them out where the output is no terminal.
    with tqdm(total=len(missing), desc="clips", unit="clip", disable=None if progress else True) as bar:
        made = 0
        for _ in _in_pool(missing, out, workers):
            made += 1
            bar.update()
        for item in missing[made:]:
            _make_clip(item, out)
            bar.update()


def _in_pool(missing: Sequence[Item], out: Path, workers: int) -> Iterator[None]:
    """One `None` for each clip made, in order; ends early, or at once, where processes cannot be started."""
    if workers < 2 or len(missing) < WORTH_A_POOL or multiprocessing.current_process().daemon:
        return
    # Forking is not safe beside the threads that torch or a decoder may have started.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            yield from pool.map(_make_clip, missing, [out] * len(missing), chunksize=16)
    except BrokenProcessPool:
        # A script without a main guard, or one read from stdin, cannot be imported by its children.
        return


def _make_clip(item: Item, out: Path) -> None:
    frames, sound = TASKS[item.task].render(item.case, np.random.default_rng(item.stream))
    write_clip(out / item.clip, frames, sound)


def _write_whole(path: Path, value: Any) -> None:
    """Writes JSON so that a reader finds either nothing, or the old file, or the whole new one."""
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
