"""The check of annotation files and of all their clips, from the files to a report."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from omnistage.data import quarantine
from omnistage.data.checks import findings, rows, workers
from omnistage.data.checks.findings import Finding
from omnistage.data.checks.index import Index, default_path
from omnistage.data.checks.probe import Facts, Job, Sense, probe, stamp
from omnistage.data.checks.rows import Rows
from omnistage.data.errors import InputError
from omnistage.data.media import MediaLimits
from omnistage.data.media_cache import MediaCache
from omnistage.data.records import Modality

LIMIT_S = 10.0
# A control character in a name or a message would break the table, and half a character (a lone surrogate) cannot be printed.
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass
class Report:
    """What was checked and found. `probed` clips were opened now, `remembered` ones are as the index knows them."""

    files: list[Rows]
    against: list[Rows]
    known: dict[str, Facts]
    probed: int
    remembered: int
    findings: list[Finding] = field(default_factory=list)
    tokens: dict[str, Any] | None = None

    @property
    def faults(self) -> list[Finding]:
        """What must be mended."""
        return [finding for finding in self.findings if finding.is_fault]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "files": [_summary(file) for file in self.files],
            "against": [_summary(file) for file in self.against],
            "clips": len(self.known),
            "probed": self.probed,
            "remembered": self.remembered,
            "faults": len(self.faults),
            "notes": len(self.findings) - len(self.faults),
            "findings": [finding.to_json() for finding in self.findings],
            "tokens": self.tokens,
        }

    def write_quarantine(self, path: str | Path) -> int:
        """Write the rows with a fault, each with all its reasons; returns how many there are. Raises `InputError`."""
        reasons: dict[tuple[str | None, str, str], list[Finding]] = {}
        for finding in self.faults:
            for file, record in finding.rows:
                reasons.setdefault((record.id, record.source, file), []).append(finding)
            for file, place in finding.refused:
                reasons.setdefault((None, str(place), file), []).append(finding)
        entries = [
            quarantine.Entry(*key, codes=tuple(f.code for f in found), reason=" | ".join(f"{f.code}: {f.message}" for f in found))
            for key, found in reasons.items()
        ]
        quarantine.write(path, [quarantine.Checked(file.path, file.sha256, file.whole) for file in self.files], entries)
        return len(entries)

    def table(self, most: int = 20) -> str:
        """For people: files, then each kind of finding with its first `most` cases."""
        lines = [_head(file) for file in self.files] + [f"against {_head(file)}" for file in self.against]
        lines.append(f"{len(self.known)} clips ({self.probed} probed now, {self.remembered} as they were found before)")
        for severity, meanings in (("FAULT", findings.FAULTS), ("note", findings.NOTES)):
            for code, meaning in meanings.items():
                cases = [finding for finding in self.findings if finding.code == code]
                if cases:
                    touched = {(file, record.source, record.id) for case in cases for file, record in case.rows}
                    touched |= {(file, str(place), "") for case in cases for file, place in case.refused}
                    lines += ["", f"{severity}  {code}  {len(cases)} found, {len(touched)} rows: {meaning}"]
                    lines += [f"  {_line(case)}" for case in cases[:most]]
                    lines += [f"  and {len(cases) - most} more (--json names all)"] if len(cases) > most else []
        if self.tokens is not None:
            lines += ["", *_token_lines(self.tokens)]
        clean = "nothing must be mended" if not self.faults else f"{len(self.faults)} things must be mended"
        return "\n".join(_CONTROL.sub("?", line) if line else line for line in [*lines, "", clean])


def check(
    files: Sequence[str],
    *,
    format: str,
    media_root: str | None = None,
    modality: Modality | None = None,
    limits: MediaLimits | None = None,
    against: Sequence[str] = (),
    against_format: str | None = None,
    against_media_root: str | None = None,
    count: int | None = None,
    index: Path | None = None,
    fresh: bool = False,
    cache: tuple[str, int] | None = None,
    limit_s: float = LIMIT_S,
) -> Report:
    """Read all rows, probe every distinct clip in `count` processes (one per processor), and say what is wrong.

    `files` are taken as one set, as one stage of a run draws from them; format and media root of `against` are theirs where not given.
    Each clip has `limit_s` seconds. What is found of a clip is kept in `index` (a file in the user's cache folder) as soon as it is known;
    `fresh` asks for every clip anew. `cache` (a folder and its bytes) keeps what was decoded for the run that follows.

    Raises:
        InputError: a file, the format, the media root, the index or the cache cannot be used, or a file is given twice.
    """
    _check_once(files)
    ours = [rows.read(format, path, media_root=media_root, modality=modality) for path in files]
    other = against_format or format, against_media_root or media_root
    theirs = [rows.read(other[0], path, media_root=other[1], modality=modality) for path in against]
    if cache is not None:
        MediaCache(*cache)
    jobs = _jobs([*ours, *theirs], limits or MediaLimits(), bool(theirs), cache)
    kept = Index(index or default_path())
    try:
        known, probed = _probed(jobs, kept, fresh, count or _processors(), limit_s)
    finally:
        kept.close()
    report = Report(ours, theirs, known, probed, len(known) - probed)
    report.findings = findings.of(ours, known) + (findings.shared(ours, theirs, known) if theirs else [])
    for file in theirs:
        report.findings += [_of_the_others(finding) for finding in findings.refusals(file)]
    return report


def _check_once(files: Sequence[str]) -> None:
    """Raises `InputError` for a file that is given twice: all of its rows would stand there twice."""
    seen: dict[str, str] = {}
    for path in files:
        place = os.path.realpath(path)
        if place in seen:
            raise InputError(f"{path}: it is the same file as {seen[place]}; give it once")
        seen[place] = path


def _of_the_others(refusal: Finding) -> Finding:
    """A row of `against` that gave no record: where its clip is at fault, it cannot be compared, as one that cannot be decoded."""
    at_fault = refusal.code not in ("unreadable_row", "bad_answer")
    return replace(refusal, code="not_compared" if at_fault else "unreadable_row", refused=())


def _processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _jobs(files: Sequence[Rows], limits: MediaLimits, prints: bool, cache: tuple[str, int] | None) -> list[Job]:
    senses: dict[str, set[Sense]] = {}
    for file in files:
        for record in file.records:
            for sense, path in findings.uses(record):
                senses.setdefault(path, set()).add(sense)
    return [Job(path, tuple(sorted(used)), limits, prints, cache) for path, used in senses.items()]


def _probed(jobs: Sequence[Job], kept: Index, fresh: bool, count: int, limit_s: float) -> tuple[dict[str, Facts], int]:
    """What is known of each path, and how many clips were opened for it."""
    known: dict[str, Facts] = {}
    stamps: dict[str, tuple[int, ...]] = {}
    todo: list[Job] = []
    for job in jobs:
        now = stamp(job.path)
        if now is None:
            known[job.path] = Facts(failure=("missing", f"{job.path!r} does not exist"))
            continue
        stamps[job.path] = now
        found = None if fresh else kept.get(job, now)
        if found is None:
            todo.append(job)
        else:
            known[job.path] = found
    with tqdm(total=len(todo), desc="clips", unit="clip", disable=None, leave=False) as bar:
        for job, outcome in workers.run(probe, todo, workers=count, limit_s=limit_s):
            if isinstance(outcome, workers.Failed):
                outcome = Facts(failure=(outcome.code, f"{job.path!r}: its decoder {outcome.reason}"))
            # What was not whole while it was read is not remembered under the name of what it is now.
            if stamp(job.path) == stamps[job.path]:
                kept.put(job, stamps[job.path], outcome)
            known[job.path] = outcome
            bar.update()
    return known, len(todo)


def _summary(file: Rows) -> dict[str, Any]:
    return {"path": file.path, "records": len(file.records), "unreadable_rows": len(file.refused), "whole": file.whole}


def _head(file: Rows) -> str:
    counts = Counter(str(record.modality) for record in file.records)
    told = ", ".join(f"{modality} {count}" for modality, count in counts.items())
    return f"{file.path}: {len(file.records)} records ({told or 'none'})" + ("" if file.whole else ", NOT READ TO ITS END")


def _line(case: Finding) -> str:
    sources = [record.source for _, record in case.rows]
    if not sources or case.message.startswith(sources[0]):
        return case.message
    more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
    return f"{sources[0]}{more}: {case.message}"


def _token_lines(tokens: dict[str, Any]) -> list[str]:
    lines = [f"tokens a record, as {tokens['checkpoint']} counts them"]
    lines.append(f"  {'modality':12} {'records':>8} {'mean':>8} {'most':>8}  mean of each")
    for modality, row in tokens["by_modality"].items():
        parts = ", ".join(f"{name} {mean:.0f}" for name, mean in row["parts"].items())
        lines.append(f"  {modality:12} {row['records']:8d} {row['mean']:8.0f} {row['most']:8d}  {parts}")
    return lines
