"""Writes the sets that heads learn from: clips, pictures and sequences, then the lists, then the record of what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from omnistage.data.errors import InputError
from omnistage.data.formats.chatpose import INDEX
from omnistage.data.synth.heads import opinions, pairs
from omnistage.data.synth.job import Job, whole_number
from omnistage.data.synth.plan import SPLITS
from omnistage.data.synth.sets import HELD_OUT_SEED

# Grows when the same arguments would give other files.
VERSION = 1
# The third entry of each random stream, behind seed and split: those of the modalities are 0 to 2.
KINDS = {"quality": 3, "text": 4, "image": 5}
# How the published files name the sets.
SCORED = {"train": "train_quality.json", "held_out": "eval_quality.json"}
POSESCRIPT = {"train": "train_ids.json", "held_out": "val_ids.json"}

Counts = tuple[int, int]
Key = tuple[int, int, int]


class Piece(Protocol):
    """A file that is made apart from all others."""

    @property
    def file(self) -> str:
        """Its path under the folder of its set."""
        ...

    def write(self, out: Path) -> None:
        """Makes it under that folder, whole or not at all."""
        ...


@dataclass(slots=True)
class _Plan:
    """What is to be made: pieces with their folders, JSON by its path, and the lists (paths again) by their names; all under `out`."""

    pieces: list[tuple[str, Piece]] = field(default_factory=list)
    contents: dict[str, Any] = field(default_factory=dict)
    lists: dict[str, str] = field(default_factory=dict)

    def list_of(self, name: str, path: str, content: Any) -> None:
        self.contents[path], self.lists[name] = content, path


def render_heads(
    out: str | Path,
    *,
    seed: int,
    quality: Counts = (0, 0),
    pose: Counts = (0, 0),
    held_out_seed: int = HELD_OUT_SEED,
    workers: int = 2,
    progress: bool = False,
) -> dict[str, Path]:
    """The lists by name, rendered under `out` where they are not there yet.

    `quality` counts the clips with opinion scores, for training and held out: `"train_quality"` and `"held_out_quality"` hold scores,
    `"train_quality_levels"` and `"held_out_quality_levels"` the same clips with level words, for the reader `gen3dhf` with the media root
    `out/quality`. `pose` counts the poses with a description and, once more, those with a picture: `"train_text_to_pose"` and so on with
    the media root `out/pose/posescript`, `"train_image_to_pose"` and so on with `out/pose/images`, for the reader `chatpose`. Of a pair of
    zeros nothing is written.

    Seeds are whole numbers below 2**32. The same arguments give the same files, whatever `workers` is; an interrupted call goes on where it
    stopped. Raises `InputError` for an argument out of range and for a folder that was rendered with other arguments.
    """
    if workers < 1:
        raise InputError(f"render: workers must be at least 1, got {workers}")
    arguments = _arguments({"quality": quality, "pose": pose}, seed, held_out_seed)
    out = Path(out)
    job = Job(out, "render_heads", arguments, ["quality", "pose"])
    seeds, plan = {"train": seed, "held_out": held_out_seed}, _Plan()
    keys = {kind: {split: (seeds[split], SPLITS[split], number) for split in seeds} for kind, number in KINDS.items()}
    if any(quality):
        _rated(plan, keys["quality"], dict(zip(seeds, quality, strict=True)))
    if any(pose):
        counts = dict(zip(seeds, pose, strict=True))
        _described(plan, keys["text"], counts)
        _pictured(plan, keys["image"], counts)
    for path in [*(f"{folder}/{piece.file}" for folder, piece in plan.pieces), *plan.contents]:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
    missing = [(folder, piece) for folder, piece in plan.pieces if not (out / folder / piece.file).is_file()]
    job.make(missing, _write, what="file", workers=workers, progress=progress)
    for path, content in plan.contents.items():
        job.keep(out / path, content)
    job.done()
    return {name: out / path for name, path in plan.lists.items()}


def _rated(plan: _Plan, keys: Mapping[str, Key], counts: Mapping[str, int]) -> None:
    for split, count in counts.items():
        clips = opinions.rated(keys[split], split, count)
        plan.pieces += [("quality", clip) for clip in clips]
        plan.list_of(f"{split}_quality", f"quality/numerical/{SCORED[split]}", [clip.row(with_score=True) for clip in clips])
        plan.list_of(f"{split}_quality_levels", f"quality/text/{SCORED[split]}", [clip.row(with_score=False) for clip in clips])


def _described(plan: _Plan, keys: Mapping[str, Key], counts: Mapping[str, int]) -> None:
    folder = "pose/posescript"
    sets = {split: pairs.described(keys[split], split, count) for split, count in counts.items()}
    for split, made in sets.items():
        plan.pieces += [(folder, motion) for motion in pairs.motions(split, made)]
        plan.list_of(f"{split}_text_to_pose", f"{folder}/posescript_release/{POSESCRIPT[split]}", [pose.key for pose in made])
    everything = [pose for made in sets.values() for pose in made]
    places = {key: place for split, made in sets.items() for key, place in pairs.index(split, made).items()}
    plan.contents[f"{folder}/posescript_release/{INDEX}"] = places
    for file, caption in pairs.CAPTIONS.items():
        plan.contents[f"{folder}/posescript_release/{file}"] = {pose.key: caption(pose.choice) for pose in everything}


def _pictured(plan: _Plan, keys: Mapping[str, Key], counts: Mapping[str, int]) -> None:
    for split, count in counts.items():
        made = pairs.pictured(keys[split], split, count)
        plan.pieces += [("pose/images", one) for one in made]
        plan.list_of(f"{split}_image_to_pose", f"pose/images/{split}_images.json", [one.row() for one in made])


def _write(placed: tuple[str, Piece], out: Path) -> None:
    folder, piece = placed
    piece.write(out / folder)


def _arguments(counts: Mapping[str, Counts], seed: int, held_out_seed: int) -> dict[str, Any]:
    """What decides the content of the folder, as it is written into `render_heads.json`."""
    for name, number in {"seed": seed, "held_out_seed": held_out_seed}.items():
        whole_number(name, number)
    for name, pair in counts.items():
        for split, number in zip(("train", "held_out"), pair, strict=True):
            whole_number(f"{name} ({split})", number)
    told = {name: dict(zip(("train", "held_out"), pair, strict=True)) for name, pair in counts.items()}
    return {"version": VERSION, **told, "seed": seed, "held_out_seed": held_out_seed}
