"""How often a model answers each record: what `omnistage data passrate` writes and a recipe's `pass_rate` honours.

The first line is a header with the settings that the answers were drawn with, and every further line is one record:

    {"omnistage": "pass_rates", "version": 1, "settings": {"checkpoint": "runs/mine/01-start/model", "samples": 8, "...": "..."}}
    {"id": "a-17", "file": "train.json", "source": "train.json: record 17", "digest": "5f...", "passed": 2, "samples": 8, "pass_rate": 0.25}

`digest` is that of what the record asks, of the names of its clips and of its answer: a record that has changed since is not taken for
the one that was measured. The file only grows, so that a measurement that was killed goes on where it stood.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omnistage.data.errors import InputError
from omnistage.data.records import Record

VERSION = 1
KIND = "pass_rates"


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of `samples` answers to a record were right; `file` is its annotation file as it was named, `source` its place there."""

    id: str
    file: str
    source: str
    digest: str
    passed: int
    samples: int

    @property
    def share(self) -> float:
        """Right answers of all, 0 to 1."""
        return self.passed / self.samples


@dataclass(frozen=True)
class PassRates:
    """What a file of pass rates holds: `settings` of the measurement, and the rates by id and digest of their records."""

    path: str
    settings: dict[str, Any] = field(default_factory=dict)
    rates: dict[tuple[str, str], Rate] = field(default_factory=dict)

    def of(self, records: Iterable[Record]) -> list[float]:
        """The pass rate of each record.

        Raises:
            InputError: the file does not know all of them, or knows another record of the same id.
        """
        ids = {id_ for id_, _ in self.rates}
        found: list[float] = []
        unknown: list[str] = []
        for record in records:
            rate = self.rates.get((record.id, digest_of(record)))
            if rate is not None:
                found.append(rate.share)
                continue
            what = "has changed since it was measured" if record.id in ids else "was not measured"
            unknown.append(f"{record.source} (id {record.id!r}) {what}")
        if unknown:
            others = f", and {len(unknown) - 1} more records were not or have changed" if len(unknown) > 1 else ""
            raise InputError(f"pass rates {self.path!r}: {unknown[0]}{others}; run omnistage data passrate on this file")
        return found


def digest_of(record: Record) -> str:
    """SHA-256 of what a record asks, of the names of its clips, and of its answer; where clips and rows stand does not matter."""
    media = [[ref.kind, Path(ref.path).name, ref.sound and Path(ref.sound).name, ref.fps] for ref in record.media]
    asked = [record.question, list(record.options), [list(turn) for turn in record.history]]
    answer = [str(record.kind), record.target, list(record.values)]
    return hashlib.sha256(json.dumps([str(record.modality), media, asked, answer]).encode()).hexdigest()


def read(path: str | Path) -> PassRates:
    """What `begin` and `append` wrote; a last line without its end was cut by a kill and is left out.

    Raises:
        InputError: the file is missing, of another kind or version, or damaged.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"pass rates {str(path)!r}: cannot be read ({error.strerror})") from error
    # Not splitlines: an id may hold other line separators.
    lines = text.split("\n")[:-1]
    header = _object(path, lines[0] if lines else "", 1)
    if header.get("omnistage") != KIND or header.get("version") != VERSION or not isinstance(header.get("settings"), dict):
        told = f"its first line is no header of version {VERSION}; write it with omnistage data passrate"
        raise InputError(f"pass rates {str(path)!r}: {told}")
    rates: dict[tuple[str, str], Rate] = {}
    for number, line in enumerate(lines[1:], start=2):
        rate = _rate(path, _object(path, line, number), number)
        rates.setdefault((rate.id, rate.digest), rate)
    return PassRates(str(path), header["settings"], rates)


def begin(path: str | Path, settings: Mapping[str, Any]) -> PassRates:
    """Begin a file, or go on with the one that is there; returns what it holds already.

    Raises:
        InputError: it cannot be written, is no file of pass rates, or holds rates that were measured with other settings.
    """
    target = Path(path)
    try:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{os.getpid()}")
            temporary.write_text(_line({"omnistage": KIND, "version": VERSION, "settings": dict(settings)}), encoding="utf-8")
            temporary.replace(target)
            return PassRates(str(path), dict(settings))
        known = read(path)
        for name in dict.fromkeys([*settings, *known.settings]):
            there, here = known.settings.get(name), settings.get(name)
            if there != here:
                told = f"{name} is {json.dumps(there)} there and {json.dumps(here)} here"
                raise InputError(f"pass rates {str(path)!r}: it holds rates of other settings: {told}; choose another file")
        with target.open("rb+") as file:
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
    except OSError as error:
        raise InputError(f"pass rates {str(path)!r}: cannot be written ({error.strerror})") from error
    return known


def append(path: str | Path, rates: Iterable[Rate]) -> None:
    """Add rates and flush them to disk."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("".join(_line(asdict(rate) | {"pass_rate": rate.share}) for rate in rates))
        file.flush()
        os.fsync(file.fileno())


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values) + "\n"


def _object(path: str | Path, line: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"pass rates {str(path)!r}: line {number} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"pass rates {str(path)!r}: line {number} is no object")
    return value


def _rate(path: str | Path, values: dict[str, Any], number: int) -> Rate:
    try:
        rate = Rate(**{name: values[name] for name in Rate.__dataclass_fields__})
    except KeyError as error:
        raise InputError(f"pass rates {str(path)!r}: line {number} has no {error}") from error
    texts = all(isinstance(text, str) for text in (rate.id, rate.file, rate.source, rate.digest))
    if not texts or type(rate.passed) is not int or type(rate.samples) is not int or not 0 <= rate.passed <= rate.samples > 0:
        told = "id, file, source and digest must be texts, passed and samples whole numbers, 0 <= passed <= samples, 1 <= samples"
        raise InputError(f"pass rates {str(path)!r}: line {number}: {told}")
    return rate
