"""From rows and what is known of their clips to what is wrong with them, each thing named once with all the rows that it touches."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from omnistage.data import prompts
from omnistage.data.checks.fingerprint import Print
from omnistage.data.checks.probe import Facts, Sense
from omnistage.data.checks.rows import Rows
from omnistage.data.formats.conversations import COUNTS
from omnistage.data.formats.parts import is_finite
from omnistage.data.formats.places import Place, in_file
from omnistage.data.records import LEVELS, AnswerKind, MediaRef, Record

# What each name means; a fault must be mended (exit code 1), a note need not.
FAULTS = {
    "unreadable_row": "a row does not hold what its format says",
    "bad_answer": "the answer is none that the question allows",
    "control_token": "a text holds what the model reads as a control token",
    "same_id": "two rows have one id, which no stage takes",
    "missing": "there is no such file",
    "unreadable": "the file cannot be decoded",
    "truncated": "the file is cut short",
    "no_picture": "a picture is asked for, and there is none",
    "no_frames": "the picture has not one frame",
    "no_sound": "sound is asked for, and there is none",
    "silent": "sound is asked for, and there is only silence",
    "too_short": "under 25 ms of sound, which is no audio token",
    "hung": "decoding did not come to an end",
    "crashed": "decoding ended the process",
    "duplicate_row": "the same question about the same media stands before it",
    "contradiction": "the same question about the same media has two answers",
    "shared_media": "a clip is in the files of --against too",
    "refused": "the model's processor refuses the record",
}
NOTES = {
    "over_limits": "longer than the limits: shown at a lower rate, or cut",
    "same_media": "the same bytes under several names",
    "not_compared": "a clip of --against that cannot be read, so that it cannot be compared",
}
# Kinds with one right answer; a text or a rating may well differ.
_ONE_ANSWER = frozenset({AnswerKind.SINGLE_CHOICE, AnswerKind.MULTI_SELECT, AnswerKind.NUMBER, AnswerKind.YES_NO, AnswerKind.LEVEL})


@dataclass(frozen=True)
class Finding:
    """One thing that was found: its name, what it is about, and the rows (annotation file, record) that it touches.

    `refused` are rows that gave no record (annotation file, place).
    """

    code: str
    message: str
    rows: tuple[tuple[str, Record], ...] = ()
    paths: tuple[str, ...] = ()
    refused: tuple[tuple[str, Place], ...] = ()

    @property
    def is_fault(self) -> bool:
        """Whether it must be mended."""
        return self.code in FAULTS

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        records: list[dict[str, Any]] = [{"id": record.id, "source": record.source, "file": file} for file, record in self.rows]
        records += [{"id": None, "source": str(place), "file": file} for file, place in self.refused]
        severity = "fault" if self.is_fault else "note"
        return {"code": self.code, "severity": severity, "message": self.message, "records": records, "paths": list(self.paths)}


def uses(record: Record) -> Iterator[tuple[Sense, str]]:
    """What a record looks at and listens to."""
    for ref in record.media:
        if ref.kind != "audio":
            yield ("picture" if ref.kind == "video" else "still"), ref.path
        sound = _sound_path(ref)
        if sound is not None:
            yield "sound", sound


def of(files: Sequence[Rows], known: Mapping[str, Facts]) -> list[Finding]:
    """What is wrong with the rows and with their clips."""
    found = [finding for rows in files for finding in refusals(rows)]
    for rows in files:
        for record in rows.records:
            if wrong := _wrong_answer(record):
                found.append(Finding("bad_answer", wrong, ((rows.path, record),)))
            if token := prompts.control_token(record):
                found.append(Finding("control_token", f"{record.source}: {token}", ((rows.path, record),)))
    return found + _same_ids(files) + _clips(files, known) + _repeated(files, known) + _same_bytes(files, known)


def refusals(rows: Rows) -> Iterator[Finding]:
    """The rows of one file that gave no record."""
    for row in rows.refused:
        if row.place is None:
            yield Finding(row.code, f"{row.message}; the rows behind it were not read: mend it and check again", paths=(rows.path,))
        else:
            yield Finding(row.code, row.message, paths=(rows.path,), refused=((rows.path, row.place),))


def shared(files: Sequence[Rows], against: Sequence[Rows], known: Mapping[str, Facts]) -> list[Finding]:
    """Clips of `files` whose bytes, decoded picture or decoded sound are in `against` too, one finding a clip."""
    theirs = _users(against)
    by_bytes: dict[str, str] = {}
    by_content: dict[tuple[str, str], list[tuple[str, Print]]] = defaultdict(list)
    found: list[Finding] = []
    for path, (senses, _) in theirs.items():
        facts = known[path]
        for reason in [facts.failure, *(facts.faults.get(sense) for sense in senses)]:
            if reason is not None and reason[0] != "silent":
                found.append(Finding("not_compared", reason[1], paths=(path,)))
                break
        if facts.sha256:
            by_bytes.setdefault(facts.sha256, path)
        for sense, (digest, seconds) in facts.prints.items():
            by_content[sense, digest].append((path, Print(digest, seconds)))
    for path, (_, users) in _users(files).items():
        facts = known[path]
        if facts.sha256 in by_bytes:
            other = by_bytes[facts.sha256]
            told = f"{path!r} is in {_files(theirs[other])}" + (f" as {other!r}" if other != path else "")
            found.append(Finding("shared_media", told, tuple(users), (path, other)))
            continue
        for sense, (digest, seconds) in facts.prints.items():
            match = next((name for name, one in by_content[sense, digest] if one.same(Print(digest, seconds))), None)
            if match is not None:
                told = f"the {'sound' if sense == 'sound' else 'picture'} of {path!r} is in {_files(theirs[match])} as {match!r}"
                found.append(Finding("shared_media", told, tuple(users), (path, match)))
                break
    return found


_Users = dict[str, tuple[set[Sense], list[tuple[str, Record]]]]


def _users(files: Sequence[Rows]) -> _Users:
    """Each path with the senses that use it and the rows that do."""
    out: _Users = {}
    for rows in files:
        for record in rows.records:
            for sense, path in uses(record):
                senses, users = out.setdefault(path, (set(), []))
                senses.add(sense)
                if not users or users[-1][1] is not record:
                    users.append((rows.path, record))
    return out


def _files(user: tuple[set[Sense], list[tuple[str, Record]]]) -> str:
    return ", ".join(sorted({file for file, _ in user[1]}))


def _clips(files: Sequence[Rows], known: Mapping[str, Facts]) -> list[Finding]:
    """A finding for each fault and note of each clip, with the rows that use the sense in question."""
    touched: dict[tuple[str, str, str], list[tuple[str, Record]]] = defaultdict(list)
    for rows in files:
        for record in rows.records:
            reasons: dict[tuple[str, str, str], None] = {}
            for sense, path in uses(record):
                facts = known[path]
                for reason in (facts.failure, facts.faults.get(sense), facts.notes.get(sense)):
                    if reason is not None:
                        reasons[(*reason, path)] = None
            for key in reasons:
                touched[key].append((rows.path, record))
    return [Finding(code, message, tuple(users), (path,)) for (code, message, path), users in touched.items()]


def _same_ids(files: Sequence[Rows]) -> list[Finding]:
    """Each row with the id of a row before it in its file; for rows of two files one finding for all of them."""
    first: dict[str, tuple[str, Record]] = {}
    between: dict[tuple[str, str], list[tuple[Record, Record]]] = defaultdict(list)
    found = []
    for rows in files:
        for record in rows.records:
            file, before = first.setdefault(record.id, (rows.path, record))
            if before is record:
                continue
            if file != rows.path:
                between[rows.path, file].append((record, before))
                continue
            # By id and place the two may not be told apart, and then no quarantine can hold one of them.
            touched = ((rows.path, record),) if record.source != before.source else ()
            told = f"{record.source}: id {record.id!r} is also that of {before.source}"
            found.append(Finding("same_id", told, touched, paths=(rows.path,)))
    for (path, file), pairs in between.items():
        record, before = pairs[0]
        more = f", and so it is with {len(pairs) - 1} more" if len(pairs) > 1 else ""
        told = f"{in_file(path, record.source)}: id {record.id!r} is also that of {in_file(file, before.source)}{more}"
        found.append(Finding("same_id", told, paths=(path, file)))
    return found


def _repeated(files: Sequence[Rows], known: Mapping[str, Facts]) -> list[Finding]:
    """Rows that ask the same about the same content; the first of them may stay, unless the answers differ."""
    same: dict[Any, list[tuple[str, Record]]] = defaultdict(list)
    for rows in files:
        for record in rows.records:
            media = tuple((ref.kind, _content(ref.path, known), _content(ref.sound, known), ref.blank) for ref in record.media)
            asked = (media, prompts.system_of(record), record.history, record.question, record.options, record.kind)
            same[asked].append((rows.path, record))
    found = []
    for users in same.values():
        targets = {record.target for _, record in users}
        if len(targets) > 1 and users[0][1].kind in _ONE_ANSWER:
            answers = ", ".join(sorted(map(repr, targets)))
            told = f"{', '.join(_places(users))}: the same question about the same media has the answers {answers}"
            found.append(Finding("contradiction", told, tuple(users)))
            continue
        first: dict[Any, tuple[str, Record]] = {}
        for user in users:
            kept = first.setdefault((user[1].target, user[1].values, user[1].response), user)
            if kept is not user:
                found.append(Finding("duplicate_row", "{1}: the same as {0}".format(*_places([kept, user])), (user,)))
    return found


def _content(path: str | None, known: Mapping[str, Facts]) -> str | None:
    return None if path is None else known[path].sha256 or path if path in known else path


def _places(users: Sequence[tuple[str, Record]]) -> list[str]:
    """Where the first few rows stand, and how many more there are; with the paths of their files where these are several."""
    several = len({file for file, _ in users}) > 1
    shown = [in_file(file, record.source) if several else record.source for file, record in users[:3]]
    return [*shown[:-1], f"{shown[-1]} and {len(users) - 3} more"] if len(users) > 3 else shown


def _same_bytes(files: Sequence[Rows], known: Mapping[str, Facts]) -> list[Finding]:
    users = _users(files)
    by_bytes: dict[str, list[str]] = defaultdict(list)
    for path in users:
        digest = known[path].sha256
        if digest is not None:
            by_bytes[digest].append(path)
    return [
        Finding("same_media", f"the same bytes: {', '.join(map(repr, paths))}", tuple(r for p in paths for r in users[p][1]), tuple(paths))
        for paths in by_bytes.values()
        if len(paths) > 1
    ]


def _sound_path(ref: MediaRef) -> str | None:
    return ref.path if ref.kind == "audio" else ref.sound


def _wrong_answer(record: Record) -> str | None:
    """What is wrong with a target, by its kind."""
    letters = ascii_uppercase[: len(record.options)]
    given, allowed = [record.target], ""
    match record.kind:
        case AnswerKind.SINGLE_CHOICE | AnswerKind.MULTI_SELECT:
            if record.kind is AnswerKind.MULTI_SELECT:
                given = record.target.split(",")
            right, allowed = all(len(letter) == 1 and letter in letters for letter in given), f"one of {', '.join(letters) or 'no options'}"
        case AnswerKind.YES_NO:
            right, allowed = record.target in ("yes", "no"), "yes or no"
        case AnswerKind.LEVEL:
            right, allowed = record.target in LEVELS, f"one of {', '.join(LEVELS)}"
        case AnswerKind.NUMBER | AnswerKind.SCALAR:
            right, allowed = _is_number(record.target), "a finite number in digits"
        case _:
            right = True
    if not right:
        return f"{record.source}: answer {record.target!r}; allowed: {allowed}"
    count = COUNTS.get(record.kind, len(record.values))
    if len(record.values) != count or not all(map(is_finite, record.values)):
        return f"{record.source}: values are not {count} finite numbers, as an answer of the kind {record.kind} has"
    return None


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
