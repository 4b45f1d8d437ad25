"""A run with the samples that a page shows: how many there is room for, whose clips it holds, and what it says of what is left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from omnistage.data.errors import InputError
from omnistage.data.media import MediaLimits
from omnistage.data.records import MediaRef, Record
from omnistage.rewards.rollouts import SOUND
from omnistage.stages.report import collect, curves, media, rollouts
from omnistage.stages.report.answers import Asked
from omnistage.stages.report.places import Places
from omnistage.stages.report.reading import Notes

# However much room there is: more is looked at in the files of the run.
MOST_GROUPS, MOST_ITEMS, MOST_CLIPS = 600, 300, 1000
# Of the room for samples, the share that texts may take at most; clips have the rest.
TEXT_SHARE = 0.6
GROUPS_SHARE = 0.65
# Of the room without them, the share that curves may take.
CURVES_SHARE = 0.5
# Of the room for clips, what is kept for frames and waves when no more clips can be played in the page.
STILLS_SHARE = 0.2
AT_ONCE = 16
# What a script element around a sample or a clip takes.
_ELEMENT = 80
# What a clip's name in a sample takes, and what is said of how much is shown.
_NAME, _SHOWN = 32, 1000


class NoRoom(InputError):
    """What is no sample takes `over` bytes more than there is room for."""

    def __init__(self, over: int) -> None:
        super().__init__(f"what the run logged and measured takes {over / 1e6:.2g} MB more than the page has room for")
        self.over = over


@dataclass
class View:
    """What a page shows. `parts` hold what it reads only when it is looked at, by the id of its element: samples, items and clips."""

    data: dict[str, Any]
    groups: list[dict[str, Any]] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)

    def head(self) -> dict[str, Any]:
        """What is read as the page opens."""
        return self.data | {"groups": self.groups, "items": self.items, "shown": self.shown}


def size_of(value: Any) -> int:
    """Bytes of a value in the page."""
    return len(as_json(value)) + _ELEMENT


def as_json(value: Any) -> str:
    """JSON in plain ASCII that stands safely in a script element: `<` could begin its end or a comment, and only ever is in a string."""
    told = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return told.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def view(
    run: Path,
    *,
    room: int,
    page: Path | None = None,
    with_plan: bool = False,
    found: Mapping[str, Any] | None = None,
    kept: rollouts.Kept | None = None,
    clips_of: Callable[[Places, Path | None], Clips] | None = None,
) -> View:
    """A run in at most about `room` bytes; `page` is where it will lie, for addresses of clips that it does not hold.

    Who looks at a run again and again gives what was `found` in it (of `collect`), what was `kept` of its rollouts, and its own `clips_of`.

    Raises:
        InputError: the folder holds no run, or (`NoRoom`) there is no room for what is no sample.
    """
    notes = Notes()
    held = collect.held_by(run)
    made = View(collect.collect(run, with_plan=with_plan) if found is None else dict(found))
    made.data["stages"] = _with_curves(made.data, room, notes)
    left = room - size_of(made.data) - _SHOWN
    if left < 0:
        raise NoRoom(-left)
    folders = {"(start)": run / collect.START} | {stage["name"]: run / stage["folder"] for stage in made.data["stages"]}
    text = int(left * TEXT_SHARE)
    groups, counted = _groups(run, made.data["stages"], int(text * GROUPS_SHARE), notes, kept)
    asked = Asked(run, folders, notes)
    records = asked.ranked()
    samples = []
    spent = 0
    for record in records[:MOST_ITEMS]:
        sample = asked.sample(record)
        spent += size_of(sample)
        if spent > text * (1 - GROUPS_SHARE):
            break
        samples.append((record, sample))
    if not asked.found:
        notes.say("answers", "no evaluation has answers that could be set side by side")
    # What was noted on the way is no sample, and comes out of the same room.
    made.data["notes"] = made.data["notes"] + notes.lines
    pairs, evaluated = asked.counts(), list(asked.found)
    left -= sum(size_of(extra) for extra in (notes.lines, pairs, evaluated))
    if left < 0:
        raise NoRoom(-left)
    clips = (clips_of or Clips)(Places(run, held["recipe"]), page)
    taken, shown_items, left = _taken(groups, samples, clips, left)
    taken.sort(key=lambda group: (group["at"], group["step"], group["id"]))
    for number, group in enumerate(taken):
        made.parts[f"group-{number}"] = group
        made.groups.append(_index_of_group(group, number))
    for number, sample in enumerate(shown_items):
        made.parts[f"item-{number}"] = sample
        made.items.append(_index_of_item(sample, number))
    told = clips.pack(limits_of(held["recipe"]), left)
    made.parts |= clips.parts()
    made.shown = {
        "groups": len(taken),
        "groups_of": counted["groups"],
        "completions_of": counted["completions"],
        "no_spread_of": counted["no_spread"],
        "fell_of": counted["fell"],
        "steps": {"shown": len({(group["stage"], group["step"]) for group in taken}), "of": counted["steps"]},
        "items": len(shown_items),
        "items_of": len(records),
        "pairs": pairs,
        "evaluated": evaluated,
        "clips": told,
        "most": {"groups": MOST_GROUPS, "items": MOST_ITEMS, "clips": MOST_CLIPS, "of_each": rollouts.OF_EACH},
        "room": room,
    }
    return made


def _with_curves(data: Mapping[str, Any], room: int, notes: Notes) -> list[dict[str, Any]]:
    """The stages with curves that leave room for samples."""
    rest = size_of({**data, "stages": [{**stage, "metrics": {}} for stage in data["stages"]]})
    return curves.fit(data["stages"], int(max(0, room - rest) * CURVES_SHARE), size_of, notes)


def _taken(
    groups: Sequence[dict[str, Any]], samples: Sequence[tuple[Record, dict[str, Any]]], clips: Clips, room: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """As many groups and items as there is room for, both from their beginnings, so that whichever clips there is room for, both have some;
    with the names of their clips. And what is left."""
    taken: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for at in range(max(len(groups), len(samples))):
        for out, listed, index in ((taken[0], groups, _index_of_group), (taken[1], samples, _index_of_item)):
            if at >= len(listed):
                continue
            one = listed[at]
            refs, sample = (media.refs_of(one), one) if isinstance(one, dict) else (one[0].media, one[1])
            bare = {name: value for name, value in sample.items() if name not in ("media", SOUND)}
            size = size_of(bare) + len(as_json(index(bare, MOST_GROUPS))) + clips.cost(refs)
            if size > room:
                return *taken, room
            room -= size
            out.append(bare | {"clips": [clips.key(ref) for ref in refs]})
    return *taken, room


def _groups(
    run: Path, stages: Sequence[Mapping[str, Any]], room: int, notes: Notes, kept: rollouts.Kept | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The chosen groups in the order of their choice, and how many of what there are."""
    found = rollouts.groups_of(run, stages, notes, kept)
    counted: dict[str, Any] = {
        "groups": len(found),
        "completions": sum(group.size for group in found),
        "no_spread": sum(group.no_spread for group in found),
        "fell": sum(group.fell for group in found),
        "steps": len({(group.stage, group.step) for group in found}),
    }
    chosen = rollouts.ranked(found)[:MOST_GROUPS]
    weights = {stage["name"]: {use["name"]: float(use["weight"]) for use in stage["rewards"]} for stage in stages}
    sampled = rollouts.samples_of(chosen, weights, notes, kept)
    order = {stage["name"]: at for at, stage in enumerate(stages)}
    out: list[dict[str, Any]] = []
    spent = 0
    for group in chosen:
        if group not in sampled:
            continue
        spent += size_of(sampled[group])
        if spent > room:
            break
        out.append(sampled[group] | {"at": order[group.stage]})
    return out, counted


def _index_of_group(group: Mapping[str, Any], number: int) -> dict[str, Any]:
    names = ("stage", "step", "task", "modality", "mean", "no_spread", "fell")
    return {"n": number} | {name: group[name] for name in names}


def _index_of_item(sample: Mapping[str, Any], number: int) -> dict[str, Any]:
    rights = {name: answer["right"] for name, answer in sample["answers"].items()}
    return {"n": number, "task": sample["task"], "modality": sample["modality"], "right": rights}


def limits_of(recipe: Mapping[str, Any]) -> MediaLimits:
    """How clips were shown to the model; in a page no sound is longer than a page plays."""
    given = recipe.get("media") or {}
    try:
        fps, most = float(given.get("fps", 2.0)), int(given.get("max_frames", 16))
        return MediaLimits(fps=fps, max_frames=most, max_sound_s=media.MOST_S)
    except (TypeError, ValueError, InputError):
        return MediaLimits(max_sound_s=media.MOST_S)


class Clips:
    """The clips of all samples, each once, in the order in which they are wanted."""

    def __init__(self, places: Places, page: Path | None) -> None:
        self._places = places
        self._page = page
        self._wanted: dict[MediaRef, int] = {}
        self._looked: dict[MediaRef, tuple[MediaRef, dict[str, Any]]] = {}
        self.packed: list[dict[str, Any]] = []

    def cost(self, refs: Sequence[MediaRef]) -> int:
        """Bytes that a sample's clips take at least: their names, and what is said of those that no earlier sample has."""
        return sum(_NAME + (0 if ref in self._wanted else size_of(self._entry(ref)[1])) for ref in refs)

    def _entry(self, ref: MediaRef) -> tuple[MediaRef, dict[str, Any]]:
        """The clip as it lies now, and what is said of it whether or not there is room for more."""
        if ref not in self._looked:
            there, wrong = self._places.of(ref)
            entry: dict[str, Any] = {"name": Path(ref.path).name, "kind": ref.kind}
            if wrong is not None:
                entry["error"] = wrong
            elif self._page is not None and (address := media.link(there.path, self._page)) is not None:
                entry["link"] = address
            self._looked[ref] = there, entry
        return self._looked[ref]

    def key(self, ref: MediaRef) -> int | str:
        """The name of a clip."""
        return self._wanted.setdefault(ref, len(self._wanted))

    def parts(self) -> dict[str, Any]:
        """What was packed, by the ids of its elements."""
        return {f"clip-{number}": clip for number, clip in enumerate(self.packed)}

    def pack(self, limits: MediaLimits, room: int) -> dict[str, int]:
        """Fill `packed` within `room` bytes more than they cost: in their order, what plays as long as there is room; says how many."""
        refs: dict[int, MediaRef] = {}
        self.packed = []
        for ref, number in self._wanted.items():
            there, entry = self._entry(ref)
            if "error" not in entry and number < MOST_CLIPS:
                refs[number] = there
            self.packed.append(dict(entry))
        self._fill(refs, limits, room)
        counted = {"of": len(self.packed), "played": 0, "still": 0, "linked": 0, "missing": 0}
        for entry in self.packed:
            told = "missing" if "error" in entry else "played" if {"video", "sound"} & entry.keys() else "still"
            told = "linked" if told == "still" and "link" in entry and entry["kind"] != "image" else told
            counted[told] += 1
            if told != "linked":
                entry.pop("link", None)
        return counted

    def _fill(self, refs: Mapping[int, MediaRef], limits: MediaLimits, room: int) -> None:
        """Add what is shown of the clips within `room` bytes. A clip is decoded only while there is room for what would be made of it."""
        left, playing = room, True
        stills: list[int] = []
        numbers = list(refs)
        with tqdm(desc="clips", total=len(numbers), disable=None, leave=False) as bar:
            for first in range(0, len(numbers), AT_ONCE):
                chunk = numbers[first : first + AT_ONCE]
                for number, clip in zip(chunk, media.pack_all([refs[n] for n in chunk], limits, playing=playing), strict=True):
                    moving: dict[str, Any] = {key: clip.pop(key) for key in ("video", "sound") if key in clip}
                    if size_of(clip) > left:
                        return
                    self.packed[number] |= clip
                    stills.append(size_of(clip))
                    left -= stills[-1]
                    # For the frames and waves of the clips behind.
                    kept = min(room * STILLS_SHARE, (len(refs) - len(stills)) * sum(stills) / len(stills))
                    playing = playing and (not moving or size_of(moving) <= left - kept)
                    if playing and moving:
                        self.packed[number] |= moving
                        left -= size_of(moving)
                bar.update(len(chunk))
