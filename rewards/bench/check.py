"""Proves a reward on data, without a model: gold answers earn the most, faulty completions earn less, and nothing takes long."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

from omnistage.data import prompts
from omnistage.data.errors import RewardError
from omnistage.data.records import Record
from omnistage.rewards.base import ASPECTS, Aspect, about, columns_of
from omnistage.rewards.bench.calling import Value, shown, values_of
from omnistage.rewards.bench.probes import BARE_GOLD, GOLD, SIZES, WRONG, Probe, long_probes, probes_of
from omnistage.rewards.registry import Reward

# A reward looks at an aspect when the probe that tells of it lowers its value on at least this share of the records.
_LOOKS_AT = 0.5
_TOLERANCE = 1e-6
_LIMIT_S = 10.0
_SLOW_S = 1.0
_LONG_RECORDS = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a reward does wrong: on `failed` of `tried` records, first on `record` with `completion`, which earned `value`."""

    probe: str
    problem: str
    failed: int
    tried: int
    record: str
    completion: str
    value: Value | str


@dataclass
class Report:
    """What was found of one reward on a data set; nothing is wrong when `findings` is empty."""

    name: str
    looks_at: list[Aspect]
    declared: bool
    best: float
    low: float
    high: float
    scored: int
    records: int
    completions: int
    seconds_each: float
    findings: list[Finding] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def table(self) -> str:
        """For people: what the reward looks at, and a line a finding."""
        how = "it says" if self.declared else "found by probing"
        looks = ", ".join(self.looks_at) or "nothing that is probed: faulty completions earn what right ones do"
        lines = [
            f"{self.name}: looks at {looks} ({how}); values {self.low:g} to {self.high:g}, best {self.best:g}; scored the gold of "
            f"{self.scored} of {self.records} records; {self.seconds_each * 1e6:.0f} µs a completion of {self.completions}"
        ]
        for found in self.findings:
            value = found.value if isinstance(found.value, str) else "not scored" if found.value is None else f"{found.value:g}"
            lines.append(f"  FAILS {found.probe}: {found.problem} ({found.failed} of {found.tried} records)")
            lines.append(f"        {found.record}: {found.completion!r} -> {value}")
        if not self.findings:
            unseen = not self.looks_at and not self.declared
            lines.append(
                "  nothing to mend in what was probed; say what it must see: omnistage.rewards.base.reward(looks_at=[...])"
                if unseen
                else "  nothing to mend"
            )
        return "\n".join(lines)


def check(reward: Reward, records: Sequence[Record]) -> Report:
    """Call a reward on the probes of all records (`probes`), and on long texts for the first of them.

    Async rewards are called too, whatever their calls cost. Raises `InputError` for a record whose target cannot be read for its kind.
    """
    probes = {record.id: list(probes_of(record)) for record in records}
    calls = _Calls(reward, probes)
    by_probe: dict[str, list[tuple[Record, Probe]]] = defaultdict(list)
    for record in records:
        for probe in probes[record.id]:
            by_probe[probe.name].append((record, probe))
    values = {name: calls.values(rows) for name, rows in by_probe.items()}
    known = [value for column in values.values() for value in column if isinstance(value, float)]
    said = about(reward)
    best = said.high if math.isfinite(said.high) else max(known, default=0.0)
    looks_at = [a for a in ASPECTS if a in said.looks_at] if said.looks_at is not None else _looks_at(by_probe, values)
    report = Report(
        name=reward.__name__,
        looks_at=looks_at,
        declared=said.looks_at is not None,
        best=best,
        low=min(known, default=0.0),
        high=max(known, default=0.0),
        scored=sum(isinstance(value, float) for value in values.get(GOLD, [])),
        records=len(records),
        completions=calls.completions,
        seconds_each=calls.seconds / max(1, calls.completions),
    )
    report.findings += _verdicts(by_probe, values, best, frozenset(looks_at))
    report.findings += _changing(calls, by_probe, values)
    report.findings += _long(calls, records[:_LONG_RECORDS], best, bool(looks_at) and set(looks_at) != {"evidence"})
    return report


class _Late(BaseException):
    """A call took too long. No `Exception`: what calls the reward would take it for a failure of the reward's and call it again."""


class _Calls:
    """Calls one reward and times it; what it raises takes the place of its values."""

    def __init__(self, reward: Reward, probes: Mapping[str, Sequence[Probe]]) -> None:
        self.reward = reward
        self.wrong = {name: [p.text for p in of_record if p.name == WRONG] for name, of_record in probes.items()}
        self.completions = 0
        self.seconds = 0.0

    def values(self, rows: Sequence[tuple[Record, Probe]]) -> list[Value | str]:
        """The value of each row; where the whole batch fails, each row is called alone, and an error stands as its text."""
        try:
            return [*self._called(rows)]
        except _Late as late:
            return [str(late)] * len(rows)
        except RewardError as error:
            failure = str(error)
        if len(rows) == 1:
            return [failure]
        alone = [value for row in rows for value in self.values([row])]
        # What works on each completion alone may still not work on a batch, which is how training calls it.
        return alone if any(isinstance(value, str) for value in alone) else [failure] * len(rows)

    def _called(self, rows: Sequence[tuple[Record, Probe]]) -> list[Value]:
        texts = [probe.text for _, probe in rows]
        columns: dict[str, list[Any]] = {name: [] for name in columns_of(rows[0][0])}
        for record, _ in rows:
            for name, value in columns_of(record).items():
                columns[name].append(value)
        # Tokens of about four characters.
        columns["completion_ids"] = [list(range(-(-len(text) // 4))) for text in texts]
        columns["shuffled"] = [self.wrong.get(record.id, []) for record, _ in rows]
        start = time.perf_counter()
        with _limited(_LIMIT_S * (1 + len(rows) / 100)):
            values = values_of(self.reward, texts, [prompts.render(record) for record, _ in rows], columns)
        self.seconds += time.perf_counter() - start
        self.completions += len(rows)
        return values


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Ends what takes longer by `_Late`; only the main thread can be told, elsewhere there is no limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(number: int, frame: FrameType | None) -> None:
        raise _Late(f"took over {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _looks_at(by_probe: Mapping[str, list[tuple[Record, Probe]]], values: Mapping[str, list[Value | str]]) -> list[Aspect]:
    """The aspects whose telling probe lowers the value of gold, on enough of the records that have one."""
    gold, bare = (
        {record.id: value for (record, _), value in zip(by_probe.get(name, []), values.get(name, []), strict=True)}
        for name in (GOLD, BARE_GOLD)
    )
    lowered: dict[Aspect, list[bool]] = defaultdict(list)
    for name, rows in by_probe.items():
        for (record, probe), value in zip(rows, values[name], strict=True):
            best = bare.get(record.id, gold[record.id]) if probe.tells == "answer" else gold[record.id]
            if probe.tells and isinstance(best, float):
                unscored = value is None and probe.tells == "answer"
                lowered[probe.tells].append(unscored or (isinstance(value, float) and value < best - _TOLERANCE))
    return [aspect for aspect in ASPECTS if lowered[aspect] and sum(lowered[aspect]) >= _LOOKS_AT * len(lowered[aspect])]


def _verdicts(
    by_probe: Mapping[str, list[tuple[Record, Probe]]], values: Mapping[str, list[Value | str]], best: float, looks_at: frozenset[Aspect]
) -> Iterator[Finding]:
    if all(value is None for value in values.get(GOLD, [])):
        first, probe = by_probe[GOLD][0]
        count = len(by_probe[GOLD])
        yield Finding(GOLD, "no gold answer is scored: there is nothing to check", count, count, first.id, shown(probe.text), None)
        return
    if all(isinstance(value, str) for column in values.values() for value in column):
        (first, probe), count = by_probe[GOLD][0], len(by_probe[GOLD])
        yield Finding("every probe", "it fails", count, count, first.id, shown(probe.text), values[GOLD][0])
        return
    known = {value for column in values.values() for value in column if isinstance(value, float)}
    if len(known) == 1:
        (first, probe), count = by_probe[GOLD][0], len(by_probe[GOLD])
        yield Finding(
            "every probe", "it gives one value to all: it teaches nothing", count, count, first.id, shown(probe.text), known.pop()
        )
    gold = {record.id: value for (record, _), value in zip(by_probe[GOLD], values[GOLD], strict=True)}
    wrong = {record.id: value for (record, _), value in zip(by_probe[WRONG], values[WRONG], strict=True)}
    for name, rows in by_probe.items():
        failing: dict[str, list[tuple[Record, Probe, Value | str]]] = defaultdict(list)
        for (record, probe), value in zip(rows, values[name], strict=True):
            problem = _problem(probe, value, best, looks_at, gold[record.id], wrong[record.id])
            if problem:
                failing[problem].append((record, probe, value))
        for problem, found in failing.items():
            record, probe, value = found[0]
            yield Finding(name, problem, len(found), len(rows), record.id, shown(probe.text), value)


def _problem(
    probe: Probe, value: Value | str, best: float, looks_at: frozenset[Aspect], gold: Value | str, wrong: Value | str
) -> str | None:
    """What is wrong with a probe's value, beside those of gold and of a wrong answer; None for nothing."""
    if isinstance(value, str):
        return "it fails"
    if value is None:
        # What is not scored teaches nothing, so that no wrong answer would ever cost anything.
        escapes = "answer" in probe.faults & looks_at and isinstance(gold, float)
        return "a wrong answer is not scored, where gold is" if escapes else None
    if not probe.faults and looks_at:
        return "a right completion earns less than the best value" if value < best - _TOLERANCE else None
    if not probe.faults & looks_at:
        return None
    if value >= best - _TOLERANCE:
        return "a faulty completion earns the best value"
    if probe.unanswered and "answer" in looks_at and isinstance(wrong, float) and value > wrong + _TOLERANCE:
        return "no answer earns more than a wrong one"
    return None


def _changing(
    calls: _Calls, by_probe: Mapping[str, list[tuple[Record, Probe]]], values: Mapping[str, list[Value | str]]
) -> Iterator[Finding]:
    """Values that are others when the same rows are asked for again, the other way round."""
    changed = []
    for name, rows in by_probe.items():
        again = calls.values(rows[::-1])[::-1]
        pairs = zip(rows, values[name], again, strict=True)
        changed += [(row, first, second) for row, first, second in pairs if not _same(first, second)]
    if changed:
        (record, probe), first, second = changed[0]
        tried = sum(map(len, by_probe.values()))
        said = f"{first} and then {second}"
        yield Finding(
            probe.name, "the same completion earns another value when asked again", len(changed), tried, record.id, shown(probe.text), said
        )


def _same(first: Value | str, second: Value | str) -> bool:
    if isinstance(first, float) and isinstance(second, float):
        return abs(first - second) <= _TOLERANCE
    return isinstance(first, str) == isinstance(second, str) and (first is None) == (second is None)


def _long(calls: _Calls, records: Sequence[Record], best: float, looks: bool) -> Iterator[Finding]:
    """Long texts, ten times longer each time as long as it is quick, so that a pattern that takes for ever is found on a short one."""
    for record in records:
        slow: set[str] = set()
        for size in SIZES:
            for probe in long_probes(size):
                kind = probe.name.partition(" of ")[2]
                if kind in slow:
                    continue
                start = time.perf_counter()
                (value,) = calls.values([(record, probe)])
                took = time.perf_counter() - start
                beginning = f"{probe.text[:20]}…"
                if isinstance(value, str):
                    slow.add(kind)
                    yield Finding(probe.name, "it fails", 1, 1, record.id, beginning, value)
                elif took > _SLOW_S:
                    slow.add(kind)
                    yield Finding(probe.name, f"it takes {took:.1f} s", 1, 1, record.id, beginning, value)
                elif looks and value is not None and value >= best - _TOLERANCE:
                    yield Finding(probe.name, "a faulty completion earns the best value", 1, 1, record.id, beginning, value)
