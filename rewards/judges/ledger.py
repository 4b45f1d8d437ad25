"""Every call to a judge under the hash of what was asked, in one SQLite file: a cache across runs, ranks and resumes, and its account.

A call is a row of `calls`, and each request that was sent for it a row of `attempts`; nothing is ever removed. A call is `asked` while an
owner's lease runs, then `answered` (found again for ever) or `failed` (asked again when it is wanted again). An attempt is committed to
the disk before its request is sent, with the most that it can cost; when it ends, what it did cost takes the place of that. So the limits
hold across all processes of one machine that share the file, and whoever is killed leaves behind what may have been spent.

Rate limits are of one model at one URL, spend limits of the whole file. A request that was refused (status below 500, or no connection) is
free; one whose end is not known keeps the most that it can cost.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omnistage.data.errors import InputError

State = Literal["asked", "answered", "failed"]

VERSION = 1
BILLION = 1_000_000_000
"""Costs are counted in whole billionths of the currency of the prices: sums are exact."""

# 'jdgl', so that no other SQLite file is taken for a ledger.
_APPLICATION = 0x6A64676C
_BUSY_S = 60.0
_WINDOW_S = 60.0
_ROOM_POLL_S = 0.05
_SCHEMA = """
CREATE TABLE calls (
    key TEXT PRIMARY KEY, request TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN ('asked', 'answered', 'failed')),
    owner TEXT NOT NULL, lease_until REAL NOT NULL, changed_at REAL NOT NULL, reason TEXT, answer INTEGER REFERENCES attempts (id),
    hits INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL REFERENCES calls (key), service TEXT NOT NULL, started_at REAL NOT NULL, ended_at REAL,
    outcome TEXT, cost INTEGER NOT NULL, free INTEGER NOT NULL DEFAULT 0, tokens_in INTEGER, tokens_out INTEGER, reply TEXT
);
CREATE INDEX attempts_of_call ON attempts (key);
CREATE INDEX attempts_by_time ON attempts (service, started_at);
CREATE INDEX attempts_under_way ON attempts (id) WHERE ended_at IS NULL;
CREATE TABLE spent (calls INTEGER NOT NULL, cost INTEGER NOT NULL);
INSERT INTO spent VALUES (0, 0);
"""


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked. `service` is the model at its URL, `request` the canonical JSON of all that the answer depends on."""

    key: str
    service: str
    request: str

    @classmethod
    def of(cls, url: str, model: str, messages: Iterable[Mapping[str, str]], sampling: Mapping[str, Any]) -> Call:
        """The call under the SHA-256 of its canonical JSON; the URL carries no key."""
        asked = {"url": url, "model": model, "messages": [dict(message) for message in messages], "sampling": dict(sampling)}
        request = json.dumps(asked, sort_keys=True, separators=(",", ":"))
        return cls(hashlib.sha256(request.encode()).hexdigest(), f"{model} {url}", request)


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests a minute to one service; requests that may have been charged, and their cost in billionths, of the whole ledger."""

    per_minute: int | None = None
    most_calls: int | None = None
    most_cost: int | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer is there; nothing is asked."""

    reply: str


@dataclass(frozen=True, slots=True)
class Failed:
    """A limit is reached, or another owner has failed since the call was wanted."""

    reason: str


@dataclass(frozen=True, slots=True)
class Taken:
    """Another owner is asking."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The limits allow no request before `seconds` from now."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Go:
    """Send it, as attempt `attempt`, under `idempotency_key`: the call's key, with a number after each reply that nobody could read."""

    attempt: int
    idempotency_key: str


Step = Answered | Failed | Taken | Wait | Go


@dataclass(frozen=True, slots=True)
class Ended:
    """How one attempt ended, in a few words of our own (`outcome`), and what it cost in billionths (None: as much as it can have)."""

    outcome: str
    reply: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: int | None = None
    free: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """The account of a ledger.

    `answered` and `failed` (by reason) count calls, `requests` and `faults` (by outcome) what was sent for them, `hits` the answers given
    without a request. `cost` is what the services reported, `cost_at_most` has the most for what they did not; spend limits look at that.
    """

    answered: int
    hits: int
    requests: int
    cost: float
    cost_at_most: float
    failed: Mapping[str, int] = field(default_factory=dict)
    faults: Mapping[str, int] = field(default_factory=dict)


class Ledger:
    """The ledger at `path`, made where there is none. Threads may share the object; a process opens its own.

    The file must lie on a disk of the machine: SQLite's locks do not hold over a network. Each method raises `InputError` where the file
    cannot be read or written.

    Raises:
        InputError: the file cannot be opened, is no ledger, or is one of another version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        except (OSError, ValueError, sqlite3.Error) as error:
            raise InputError(f"ledger {str(path)!r} cannot be opened: {error}") from error
        try:
            self._open()
        except BaseException:
            self._base.close()
            raise

    def _open(self) -> None:
        # Read in one transaction: between two reads another process may make the file.
        with self._transaction("BEGIN"):
            made = self._is_ledger()
        if not made:
            self._switch_to_wal()
            with self._writing() as base:
                # Another process may have been first.
                if not self._is_ledger():
                    for statement in _SCHEMA.split(";\n"):
                        base.execute(statement)
                    base.execute(f"PRAGMA application_id = {_APPLICATION}")
                    base.execute(f"PRAGMA user_version = {VERSION}")
        # An answer that is paid for must outlive the machine's power, too.
        self._base.execute("PRAGMA synchronous = FULL")

    def _is_ledger(self) -> bool:
        """Whether the file holds a ledger already; an empty file may become one."""
        try:
            (application,) = self._base.execute("PRAGMA application_id").fetchone()
            (version,) = self._base.execute("PRAGMA user_version").fetchone()
            (tables,) = self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            raise InputError(f"ledger {str(self.path)!r} cannot be read: {error}") from error
        if application == 0 and tables == 0:
            return False
        if application != _APPLICATION:
            raise InputError(f"{str(self.path)!r} is an SQLite file and no judge's ledger; name another file")
        if version != VERSION:
            raise InputError(
                f"ledger {str(self.path)!r} is of version {version}, this omnistage reads version {VERSION}; name another file"
            )
        return True

    def _switch_to_wal(self) -> None:
        """SQLite does not wait for its lock here: another process may be making the same file."""
        deadline = time.monotonic() + _BUSY_S
        while True:
            try:
                self._base.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.Error as error:
                if time.monotonic() > deadline or "locked" not in str(error):
                    raise InputError(f"ledger {str(self.path)!r} cannot be written: {error}") from error
                time.sleep(_ROOM_POLL_S)

    def _writing(self) -> AbstractContextManager[sqlite3.Connection]:
        """A transaction that has the right to write from its start, so that what it reads stays true until it ends."""
        return self._transaction("BEGIN IMMEDIATE")

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._base.execute(begin)
                try:
                    yield self._base
                    self._base.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):
                        self._base.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise InputError(f"ledger {str(self.path)!r} cannot be written: {error}") from error

    def hits(self, keys: Iterable[str]) -> dict[str, str]:
        """The replies that are there, by key, each counted as a hit."""
        with self._writing() as base:
            found = {key: reply for key in keys if (reply := _reply(base, key)) is not None}
            base.executemany("UPDATE calls SET hits = hits + 1 WHERE key = ?", [(key,) for key in found])
        return found

    def begin(self, call: Call, *, owner: str, since: float, lease_s: float, most: int = 0, limits: Limits | None = None) -> Step:
        """What the owner has to do for a call that it wants since the time `since` (`time.time()`).

        On `Go` the attempt is on the disk, with `most` billionths for its cost, and nobody else sends the call within `lease_s`.
        """
        limits = limits or Limits()
        with self._writing() as base:
            now = time.time()
            row = base.execute("SELECT state, owner, lease_until, changed_at, reason FROM calls WHERE key = ?", (call.key,)).fetchone()
            state, holder, lease_until, changed_at, reason = row or (None, None, 0.0, 0.0, None)
            if state == "answered":
                base.execute("UPDATE calls SET hits = hits + 1 WHERE key = ?", (call.key,))
                return Answered(_reply(base, call.key) or "")
            if state == "failed" and changed_at > since:
                return Failed(str(reason))
            if state == "asked" and holder != owner and lease_until > now:
                return Taken()
            hindered = _over_limit(base, limits, most, now) or _over_rate(base, call.service, limits, now)
            if isinstance(hindered, Wait):
                return hindered
            if hindered is not None:
                _put(base, call, "failed", owner, now, now, hindered.reason)
                return hindered
            _put(base, call, "asked", owner, now + lease_s, now, None)
            # What an owner whose lease ended left under way may have been charged: it keeps its cost.
            base.execute("UPDATE attempts SET ended_at = ?, outcome = 'lost' WHERE key = ? AND ended_at IS NULL", (now, call.key))
            (unread,) = base.execute("SELECT count(*) FROM attempts WHERE key = ? AND reply IS NOT NULL", (call.key,)).fetchone()
            started = base.execute(
                "INSERT INTO attempts (key, service, started_at, cost) VALUES (?, ?, ?, ?)", (call.key, call.service, now, most)
            )
            base.execute("UPDATE spent SET calls = calls + 1, cost = cost + ?", (most,))
            assert started.lastrowid is not None
            return Go(started.lastrowid, f"{call.key}-{unread}" if unread else call.key)

    def end(self, attempt: int, owner: str, ended: Ended, *, state: State, lease_s: float = 0.0) -> str | None:
        """Write how an attempt ended and what becomes of its call; `asked`: the owner will try again within `lease_s`.

        An answer counts whoever brings it, as long as there is none; otherwise the call changes only while the owner still has it.
        Returns the reply that now stands.
        """
        with self._writing() as base:
            now = time.time()
            key, cost, free = base.execute("SELECT key, cost, free FROM attempts WHERE id = ?", (attempt,)).fetchone()
            new_cost = cost if ended.cost is None else ended.cost
            base.execute(
                "UPDATE attempts SET ended_at = ?, outcome = ?, cost = ?, free = ?, tokens_in = ?, tokens_out = ?, reply = ? WHERE id = ?",
                (now, ended.outcome, new_cost, ended.free, ended.tokens_in, ended.tokens_out, ended.reply, attempt),
            )
            base.execute("UPDATE spent SET calls = calls + ?, cost = cost + ?", (free - ended.free, new_cost - cost))
            answer, reason = (attempt, None) if state == "answered" else (None, ended.outcome)
            base.execute(
                "UPDATE calls SET state = ?, lease_until = ?, changed_at = ?, reason = ?, answer = ? "
                "WHERE key = ? AND state != 'answered' AND (owner = ? OR ? = 'answered')",
                (state, now + lease_s, now, reason, answer, key, owner, state),
            )
            return _reply(base, key)

    def release(self, call: Call, owner: str) -> None:
        """End the owner's lease: whoever wants the call next need not wait. What it has under way may have been charged and stays so."""
        with self._writing() as base:
            base.execute("UPDATE calls SET lease_until = ? WHERE key = ? AND owner = ? AND state = 'asked'", (time.time(), call.key, owner))

    def counts(self) -> Counts:
        """The account of all that was ever asked through this file."""
        with self._writing() as base:
            answered, hits = base.execute("SELECT count(*) FILTER (WHERE state = 'answered'), total(hits) FROM calls").fetchone()
            requests, cost = base.execute("SELECT count(*), total(cost) FILTER (WHERE tokens_in IS NOT NULL) FROM attempts").fetchone()
            failed = base.execute("SELECT reason, count(*) FROM calls WHERE state = 'failed' GROUP BY reason ORDER BY reason").fetchall()
            faults = base.execute(
                "SELECT coalesce(outcome, 'under way'), count(*) FROM attempts WHERE outcome IS NOT 'answered' GROUP BY 1 ORDER BY 1"
            ).fetchall()
            (at_most,) = base.execute("SELECT cost FROM spent").fetchone()
        return Counts(answered, int(hits), requests, cost / BILLION, at_most / BILLION, dict(failed), dict(faults))

    def cost_at_most(self) -> float:
        """What was spent so far, with the most for each request whose cost is not known."""
        with self._writing() as base:
            (cost,) = base.execute("SELECT cost FROM spent").fetchone()
        return float(cost) / BILLION

    def close(self) -> None:
        """Close the file."""
        self._base.close()


def _reply(base: sqlite3.Connection, key: str) -> str | None:
    row = base.execute(
        "SELECT attempts.reply FROM calls JOIN attempts ON attempts.id = calls.answer WHERE calls.key = ?", (key,)
    ).fetchone()
    return None if row is None else str(row[0])


def _put(base: sqlite3.Connection, call: Call, state: State, owner: str, lease_until: float, now: float, reason: str | None) -> None:
    base.execute(
        "INSERT INTO calls (key, request, state, owner, lease_until, changed_at, reason) VALUES (?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (key) DO UPDATE SET state = excluded.state, owner = excluded.owner, lease_until = excluded.lease_until, "
        "changed_at = excluded.changed_at, reason = excluded.reason",
        (call.key, call.request, state, owner, lease_until, now, reason),
    )


def _over_limit(base: sqlite3.Connection, limits: Limits, most: int, now: float) -> Failed | Wait | None:
    """Whether one more request could pass a spend limit: for good, or only if those under way cost as much as they can."""
    if limits.most_calls is None and limits.most_cost is None:
        return None
    calls, cost = base.execute("SELECT calls, cost FROM spent").fetchone()
    under_way, reserved = base.execute(
        "SELECT count(*), coalesce(sum(attempts.cost), 0) FROM attempts JOIN calls ON calls.key = attempts.key "
        "WHERE attempts.ended_at IS NULL AND calls.lease_until > ?",
        (now,),
    ).fetchone()
    wait = False
    for name, limit, spent, may_come_back, wanted in (
        ("most_calls", limits.most_calls, calls, under_way, 1),
        ("most_cost", limits.most_cost, cost, reserved, most),
    ):
        if limit is not None and spent + wanted > limit:
            if spent - may_come_back + wanted > limit:
                return Failed(f"{name} is reached")
            wait = True
    return Wait(_ROOM_POLL_S) if wait else None


def _over_rate(base: sqlite3.Connection, service: str, limits: Limits, now: float) -> Wait | None:
    if limits.per_minute is None:
        return None
    last = base.execute(
        "SELECT started_at FROM attempts WHERE service = ? AND started_at > ? ORDER BY started_at DESC LIMIT 1 OFFSET ?",
        (service, now - _WINDOW_S, limits.per_minute - 1),
    ).fetchone()
    return None if last is None else Wait(last[0] + _WINDOW_S - now)
