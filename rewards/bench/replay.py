"""Calls rewards on the completions that a run recorded, and compares two of them: would the policy have been taught something else?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from omnistage.data.errors import InputError
from omnistage.rewards import rollouts
from omnistage.rewards.base import NEEDED_COLUMNS, ROW_COLUMNS, about
from omnistage.rewards.bench.calling import Value, shown, values_of
from omnistage.rewards.registry import Reward

_TOLERANCE = 1e-6
_BINS = 10
_BAR = 40


@dataclass(frozen=True, slots=True)
class Spread:
    """How the values of one reward are spread: over completions, and over the groups of one prompt that advantages are made in."""

    name: str
    completions: int
    scored: int
    groups: int
    groups_without_spread: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    edges: list[float]
    counts: list[int]

    def lines(self) -> list[str]:
        """For people: the numbers, and a bar a bin."""
        if not self.scored:
            return [f"{self.name}: none of {self.completions} completions is scored"]
        head = (
            f"{self.name}: mean {self.mean:.3f}, spread {self.std:.3f}, {self.low:g} to {self.high:g}; {self.completions - self.scored} of "
            f"{self.completions} completions not scored; {self.groups_without_spread} of {self.groups} groups without spread"
        )
        most = max(self.counts)
        bars = [
            f"  {low:8.3f} to {high:<8.3f} {'#' * -(-count * _BAR // most)} {count}"
            for low, high, count in zip(self.edges[:-1], self.edges[1:], self.counts, strict=True)
            if count
        ]
        return [head, *bars]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two rewards on the same completions. A group's ranking changes when two of its completions stand in another order (ties count);
    it is reversed when two that differ stand the other way round."""

    both_scored: int
    only_first: int
    only_second: int
    equal: int
    rank_correlation: float | None
    groups: int
    rankings_changed: int
    rankings_reversed: int


@dataclass
class Report:
    """What `replay` found. `differing` holds the completions whose two values differ most, `recorded` what the run recorded where there
    is nothing to compare with."""

    spreads: list[Spread]
    comparison: Comparison | None
    differing: list[dict[str, Any]] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def table(self) -> str:
        """For people."""
        lines = [line for spread in self.spreads for line in spread.lines()]
        if self.recorded:
            lines.append(f"the run recorded no reward of this name to compare with; it recorded: {', '.join(self.recorded)}")
        if self.comparison is not None:
            c, (first, second) = self.comparison, (spread.name for spread in self.spreads)
            lines.append(f"{first} against {second}:")
            correlation = "" if c.rank_correlation is None else f", rank correlation {c.rank_correlation:.3f}"
            lines.append(f"  equal on {c.equal} of {c.both_scored} completions that both score{correlation}")
            lines.append(f"  scored by the first alone {c.only_first}, by the second alone {c.only_second}")
            lines.append(f"  rankings changed in {c.rankings_changed} of {c.groups} groups, reversed in {c.rankings_reversed}")
            for row in self.differing:
                where = f"{row['stage']} step {row['step']}, {row['record_id']} (target {row['target']!r})"
                lines.append(f"  {where}: {row['first']:g} and {row['second']:g}")
                lines.append(f"    {shown(row['completion'])!r}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Rated:
    """One group: its rows, and the values of one or two rewards."""

    stage: str
    rows: list[dict[str, Any]]
    values: list[list[Value]]


def replay(run: str | Path, reward: Reward, against: Reward | None = None, *, stage: str | None = None, most: int = 10) -> Report:
    """Call `reward` on all completions that `run` recorded, and compare it with `against`, or with what was recorded under its name.

    `run` is the folder of a run, of a stage, or of rollouts. Async rewards are called, whatever their calls cost.

    Raises:
        InputError: there are no rollouts, or a reward needs a column that the run did not record.
        RewardError: a reward fails.
    """
    rewards = [reward] if against is None else [reward, against]
    recorded = f"{rollouts.REWARD}{reward.__name__}"
    groups: list[_Rated] = []
    for name, folder in _folders(Path(run), stage):
        for rows in rollouts.read(folder):
            values = [_called(one, rows) for one in rewards]
            if against is None and recorded in rows[0]:
                values.append([row[recorded] for row in rows])
            groups += _groups(name, rows, values)
    names = [one.__name__ for one in rewards]
    if against is not None and names[0] == names[1]:
        names = [one.name for one in rewards]
    if against is None and len(groups[0].values) == 2:
        names.append(f"{names[0]} as recorded")
    if len({len(group.values) for group in groups}) > 1:
        raise InputError(f"{run}: only some stages recorded {reward.__name__!r}; choose one with --stage, or name a reward with --against")
    spreads = [_spread(name, [group.values[at] for group in groups]) for at, name in enumerate(names)]
    if len(names) == 1:
        names_recorded = [name.removeprefix(rollouts.REWARD) for name in groups[0].rows[0] if name.startswith(rollouts.REWARD)]
        return Report(spreads, None, recorded=names_recorded)
    return Report(spreads, _comparison(groups), _differing(groups, most))


def _folders(run: Path, stage: str | None) -> Iterator[tuple[str, Path]]:
    """Folders of rollouts with the names of their stages."""
    run = run.resolve()
    if not run.is_dir():
        raise InputError(f"{run}: no such folder")
    if any(run.glob("step-*.parquet")):
        found = [(run.parent.name, run)]
    else:
        found = [(folder.parent.name, folder) for folder in sorted({*run.glob("rollouts"), *run.glob("*/rollouts")})]
    named = [(name.lstrip("0123456789").removeprefix("-"), folder) for name, folder in found]
    if not named:
        raise InputError(f"{run}: holds no recorded rollouts (a stage with keep_rollouts writes them)")
    chosen = [(name, folder) for name, folder in named if stage is None or name == stage]
    if not chosen:
        raise InputError(f"{run}: no stage {stage!r} with rollouts; there are: {', '.join(name for name, _ in named)}")
    yield from chosen


def _called(reward: Reward, rows: Sequence[Mapping[str, Any]]) -> list[Value]:
    """The values of one step's completions, called as in training."""
    for need in about(reward).needs:
        if need not in rows[0]:
            raise InputError(f"reward {reward.name!r} needs the column {need!r} ({NEEDED_COLUMNS[need]}), which this run did not record")
    columns = {name: [row[name] for row in rows] for name in (*ROW_COLUMNS, "completion_ids", *about(reward).needs)}
    if "heads" in columns:
        columns["heads"] = [json.loads(text) for text in columns["heads"]]
    messages = [json.loads(row["messages"]) for row in rows]
    return values_of(reward, [row["completion"] for row in rows], messages, columns, step=rows[0]["step"] - 1)


def _groups(stage: str, rows: list[dict[str, Any]], values: list[list[Value]]) -> Iterator[_Rated]:
    for group in sorted({row["group"] for row in rows}):
        places = [at for at, row in enumerate(rows) if row["group"] == group]
        yield _Rated(stage, [rows[at] for at in places], [[column[at] for at in places] for column in values])


def _spread(name: str, groups: Sequence[Sequence[Value]]) -> Spread:
    flat = [value for group in groups for value in group]
    scored = np.array([value for value in flat if value is not None], dtype=float)
    flat_groups = sum(len({value for value in group if value is not None}) < 2 for group in groups)
    if not len(scored):
        return Spread(name, len(flat), 0, len(groups), flat_groups, None, None, None, None, [], [])
    counts, edges = np.histogram(scored, bins=_BINS)
    low, high = float(scored.min()), float(scored.max())
    return Spread(
        name,
        len(flat),
        len(scored),
        len(groups),
        flat_groups,
        float(scored.mean()),
        float(scored.std()),
        low,
        high,
        edges.tolist(),
        counts.tolist(),
    )


def _comparison(groups: Sequence[_Rated]) -> Comparison:
    from scipy.stats import spearmanr

    pairs = [pair for group in groups for pair in zip(*group.values, strict=True)]
    both = np.array([pair for pair in pairs if None not in pair], dtype=float).reshape(-1, 2)
    varied = len(both) > 1 and all(np.ptp(both[:, at]) > 0 for at in (0, 1))
    changes = [_change(*group.values) for group in groups]
    return Comparison(
        both_scored=len(both),
        only_first=sum(first is not None and second is None for first, second in pairs),
        only_second=sum(first is None and second is not None for first, second in pairs),
        equal=int((np.abs(both[:, 0] - both[:, 1]) <= _TOLERANCE).sum()),
        rank_correlation=float(spearmanr(both[:, 0], both[:, 1]).statistic) if varied else None,
        groups=len(groups),
        rankings_changed=sum(changed for changed, _ in changes),
        rankings_reversed=sum(turned for _, turned in changes),
    )


def _change(first: Sequence[Value], second: Sequence[Value]) -> tuple[bool, bool]:
    """Whether any two completions that both rewards score stand in another order, and whether any two stand the other way round."""
    scored = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    orders = [(_order(a - c), _order(b - d)) for (a, b), (c, d) in combinations(scored, 2)]
    return any(one != other for one, other in orders), any(one * other < 0 for one, other in orders)


def _order(difference: float) -> int:
    return 0 if abs(difference) <= _TOLERANCE else 1 if difference > 0 else -1


def _differing(groups: Sequence[_Rated], most: int) -> list[dict[str, Any]]:
    rows = [
        {name: row[name] for name in ("step", "record_id", "target", "completion")} | {"stage": group.stage, "first": a, "second": b}
        for group in groups
        for row, a, b in zip(group.rows, *group.values, strict=True)
        if a is not None and b is not None and abs(a - b) > _TOLERANCE
    ]
    return sorted(rows, key=lambda row: -abs(row["first"] - row["second"]))[:most]
