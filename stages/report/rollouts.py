"""Which rollouts a page shows: of any number, a stated few, the same ones each time, with every stage, step and filter among them.

Groups (a prompt with its completions) are put in order, and a page takes as many of the first ones as there is room for:

1. of each stage, task and modality: two, two whose completions are all worth the same ("no spread"), and two that are worth less than the
   last time the same prompt was drawn in the stage ("reward fell");
2. one of each step, the steps in an order in which any beginning of it is evenly spread over the stage;
3. the rest.

Where several would do, the one with the smallest digest of stage, step and record is taken.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from omnistage.rewards.base import REASON
from omnistage.rewards.rollouts import DROPPED, EXTRA, REWARD, SOUND
from omnistage.stages.report.order import spread_order
from omnistage.stages.report.reading import Notes, number
from omnistage.stages.report.texts import parts_of, short

# Of each stage, task, modality and filter.
OF_EACH = 2
# Two means of rewards that differ by less are one: sums of floats.
SAME = 1e-9
_LIGHT = ("step", "group", "record_id", "task", "modality", DROPPED)
_HEAVY = ("completion_ids", "messages", "values", "solution")


@dataclass(frozen=True, slots=True)
class Worth:
    """A prompt of a step as its file alone tells it: `mean` is what its completions are worth by their weights; None: not scored."""

    step: int
    number: int
    record_id: str
    task: str
    modality: str
    size: int
    mean: float | None
    no_spread: bool


@dataclass(frozen=True, slots=True)
class Group(Worth):
    """The same in its run: where it is recorded, and what the prompt's completions were worth when it was last drawn in the stage."""

    stage: str
    path: Path
    before: float | None
    fell: bool

    @property
    def digest(self) -> bytes:
        """An order that has nothing to do with what a group is worth."""
        return hashlib.sha256(f"{self.stage}/{self.step}/{self.record_id}/{self.number}".encode("utf-8", "surrogatepass")).digest()


class Kept:
    """What was read of recorded steps, for who looks at a run again and again: a file is read anew only when it is another one."""

    def __init__(self) -> None:
        self._worths: dict[Path, tuple[Any, list[Worth]]] = {}
        self._samples: dict[Group, tuple[Any, dict[str, Any]]] = {}

    def worths(self, path: Path, weights: Mapping[str, float]) -> list[Worth]:
        """What the groups of a file are worth."""
        mark = _mark(path)
        held = self._worths.get(path)
        if held is None or held[0] != mark:
            held = self._worths[path] = (mark, _worths(path, weights))
        return held[1]

    def samples(self, groups: Sequence[Group]) -> dict[Group, dict[str, Any]]:
        """Those of the groups whose samples are known."""
        return {group: held[1] for group in groups if (held := self._samples.get(group)) and held[0] == _mark(group.path)}

    def keep(self, samples: Mapping[Group, dict[str, Any]]) -> None:
        """Hold these samples, and no others."""
        self._samples = {group: (_mark(group.path), sample) for group, sample in samples.items()}


def _mark(path: Path) -> Any:
    """Changes with the file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def groups_of(run: Path, stages: Sequence[Mapping[str, Any]], notes: Notes, kept: Kept | None = None) -> list[Group]:
    """Every group that a run recorded, in order of stages and steps."""
    read = _worths if kept is None else kept.worths
    out: list[Group] = []
    for stage in stages:
        weights = {use["name"]: float(use["weight"]) for use in stage["rewards"]}
        last: dict[str, float] = {}
        paths = sorted((run / stage["folder"] / "rollouts").glob("step-*.parquet"))
        if not paths and stage["kind"] == "grpo" and stage["state"] != "waiting":
            notes.say("rollouts", f"stage {stage['name']} has recorded no rollouts (keep_rollouts, or no step is done)")
        for path in paths:
            try:
                out += _of_step(stage["name"], path, read(path, weights), last)
            except _errors() as error:
                _leave_out(notes, path, error)
    return out


def _leave_out(notes: Notes, path: Path, error: Exception) -> None:
    folder = path.parent.parent.name
    notes.say("rollouts", f"{folder}/rollouts/{path.name} is left out: {' '.join(str(error).split())[:200]}", kind=f"step of {folder}")


def _errors() -> tuple[type[Exception], ...]:
    import pyarrow as pa

    return (OSError, pa.ArrowException, KeyError, TypeError, ValueError)


def _rows(path: Path, leave_out: Iterable[str] = (), only: Iterable[str] | None = None) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    names = [name for name in file.schema_arrow.names if name not in leave_out]
    if only is not None:
        names = [name for name in names if name in only or name.startswith(REWARD)]
    rows: list[dict[str, Any]] = file.read(columns=names).to_pylist()
    return rows


def total(row: Mapping[str, Any], weights: Mapping[str, float]) -> float | None:
    """The sum of a completion's rewards by their weights, over those that scored it; None where none did."""
    scored = {name[len(REWARD) :]: value for name, value in row.items() if name.startswith(REWARD) and number(value) is not None}
    return sum(weights.get(name, 1.0) * value for name, value in scored.items()) if scored else None


def _worths(path: Path, weights: Mapping[str, float]) -> list[Worth]:
    by_group: dict[int, list[dict[str, Any]]] = {}
    for row in _rows(path, only=_LIGHT):
        by_group.setdefault(row["group"], []).append(row)
    out = []
    for at, rows in by_group.items():
        worth = [value for row in rows if (value := total(row, weights)) is not None]
        mean = sum(worth) / len(worth) if worth else None
        no_spread = len(worth) > 1 and max(worth) - min(worth) < SAME
        first = rows[0]
        place = (int(first["step"]), int(at), str(first["record_id"]), str(first["task"]), str(first["modality"]))
        out.append(Worth(*place, len(rows), mean, no_spread))
    return out


def _of_step(stage: str, path: Path, found: Iterable[Worth], last: dict[str, float]) -> Iterator[Group]:
    """The groups of one file; `last` holds what each record's completions were worth when it was last drawn, and is brought up to date.

    A record that is drawn twice in one step is worth the mean of both: neither is earlier than the other.
    """
    now: dict[str, list[float]] = {}
    for one in found:
        before = last.get(one.record_id)
        fell = one.mean is not None and before is not None and one.mean < before - SAME
        if one.mean is not None:
            now.setdefault(one.record_id, []).append(one.mean)
        yield Group(**asdict(one), stage=stage, path=path, before=before, fell=fell)
    last |= {name: fmean(means) for name, means in now.items()}


def ranked(groups: Sequence[Group]) -> list[Group]:
    """All groups in the order in which a page takes them."""
    ordered = sorted(groups, key=lambda group: group.digest)
    cells: dict[tuple[str, str, str, str], list[Group]] = {}
    for group in ordered:
        names = ["any", *(["no spread"] if group.no_spread else []), *(["fell"] if group.fell else [])]
        for name in names:
            cells.setdefault((group.stage, group.task, group.modality, name), []).append(group)
    first = [group for round_ in range(OF_EACH) for cell in cells.values() for group in cell[round_ : round_ + 1]]
    by_step: dict[str, dict[int, Group]] = {}
    for group in ordered:
        by_step.setdefault(group.stage, {}).setdefault(group.step, group)
    in_turn = [[of[step] for step in spread_order(sorted(of))] for of in by_step.values()]
    longest = max(map(len, in_turn), default=0)
    second = [groups_[at] for at in range(longest) for groups_ in in_turn if at < len(groups_)]
    return list(dict.fromkeys([*first, *second, *ordered]))


def samples_of(
    groups: Sequence[Group], weights: Mapping[str, Mapping[str, float]], notes: Notes, kept: Kept | None = None
) -> dict[Group, dict[str, Any]]:
    """The groups as a page holds them; each file is read once. A file that is gone by now is left out."""
    out: dict[Group, dict[str, Any]] = {} if kept is None else kept.samples(groups)
    by_path: dict[Path, list[Group]] = {}
    for group in groups:
        if group not in out:
            by_path.setdefault(group.path, []).append(group)
    for path, wanted in by_path.items():
        try:
            rows = _rows(path, leave_out=_HEAVY)
        except _errors() as error:
            _leave_out(notes, path, error)
            continue
        for group in wanted:
            own = [row for row in rows if row["group"] == group.number]
            if own:
                out[group] = _sample(group, own, weights.get(group.stage, {}))
    if kept is not None:
        kept.keep(out)
    return out


def _sample(group: Group, rows: Sequence[Mapping[str, Any]], weights: Mapping[str, float]) -> dict[str, Any]:
    first = rows[0]
    return {
        "stage": group.stage,
        "step": group.step,
        "id": short(group.record_id),
        "task": short(group.task),
        "modality": group.modality,
        "mean": group.mean,
        "before": group.before,
        "no_spread": group.no_spread,
        "fell": group.fell,
        "question": short(first.get("question") or ""),
        "options": [short(option) for option in first.get("options") or []],
        "target": short(first.get("target") or ""),
        "prompt": short(first.get("prompt") or ""),
        "dropped": bool(first.get(DROPPED)),
        "media": [str(path) for path in first.get("media") or []],
        SOUND: first.get(SOUND),
        "completions": [_completion(row, weights) for row in rows],
    }


def _told(text: str) -> str:
    """What a reward noted, which is recorded as JSON: a text as it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, str) else text


def _completion(row: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "parts": parts_of(row.get("completion") or ""),
        "rewards": {name[len(REWARD) :]: number(value) for name, value in row.items() if name.startswith(REWARD)},
        "total": total(row, weights),
        "advantage": number(row.get("advantage")),
    }
    by_segment = {name.partition("/")[2]: number(value) for name, value in row.items() if name.startswith("advantage/")}
    # A reward's reason stands under the reward's name.
    said = {
        name[len(EXTRA) :].removesuffix(f"/{REASON}"): short(_told(value))
        for name, value in row.items()
        if name.startswith(EXTRA) and value not in (None, "null")
    }
    return out | ({"segments": by_segment} if by_segment else {}) | ({"said": said} if said else {})
