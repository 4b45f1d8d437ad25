"""What probes found, kept between runs: a file that has not changed is not probed again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import sqlite3
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from omnistage.data import media
from omnistage.data.checks.probe import VERSION, Facts, Job
from omnistage.data.errors import InputError
from omnistage.data.media_cache import MediaCache

# Names, and whether they are the key.
_COLUMNS = [("key", 1), ("path", 0), ("facts", 0)]


def default_path() -> Path:
    """In the user's cache folder (`XDG_CACHE_HOME`)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "omnistage" / "probes.sqlite"


class Index:
    """A SQLite file; every result is on its own and there as soon as it is put, so that a killed run loses none.

    Raises:
        InputError: the file cannot be written or is something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Each statement commits by itself.
            self._base = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._base.execute("PRAGMA synchronous = NORMAL")
            self._base.execute("CREATE TABLE IF NOT EXISTS probes (key TEXT PRIMARY KEY, path TEXT NOT NULL, facts TEXT NOT NULL)")
            columns = [(name, is_key) for _, name, _, _, _, is_key in self._base.execute("PRAGMA table_info(probes)")]
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"index {str(path)!r} cannot be used: {error}") from error
        if columns != _COLUMNS:
            self._base.close()
            raise InputError(f"index {str(path)!r} cannot be used: it is a database of something else; allowed: a file of its own")

    def get(self, job: Job, stamp: tuple[int, ...]) -> Facts | None:
        """What is known of the file as it is now, under these limits and these versions of the decoders.

        Nothing, where the job has a cache that lacks the clip. Raises `InputError` where the index cannot be read.
        """
        try:
            found = self._base.execute("SELECT facts FROM probes WHERE key = ?", (_key(job, stamp),)).fetchone()
        except sqlite3.Error as error:
            raise InputError(f"index {str(self.path)!r} cannot be read: {error}") from error
        facts = Facts.from_json(json.loads(found[0])) if found else None
        return facts if facts is not None and _is_cached(job, facts) else None

    def put(self, job: Job, stamp: tuple[int, ...], facts: Facts) -> None:
        """Keep what was found, but no failure: a decoder that hung on a busy machine may not hang the next time.

        Raises `InputError` where it cannot be written.
        """
        if facts.failure is not None:
            return
        # Names on disk need not be text.
        path = job.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        row = (_key(job, stamp), path, json.dumps(facts.to_json()))
        try:
            self._base.execute("INSERT OR REPLACE INTO probes VALUES (?, ?, ?)", row)
        except sqlite3.Error as error:
            raise InputError(f"index {str(self.path)!r} cannot be written: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._base.close()


def _is_cached(job: Job, facts: Facts) -> bool:
    """Whether the job's cache, if it has one, holds all of the clip that can be decoded."""
    if job.cache is None or facts.sha256 is None:
        return True
    cache = MediaCache(*job.cache)
    return all(cache.holds(facts.sha256, job.ref(sense), job.limits) for sense in job.senses if sense not in facts.faults)


def _key(job: Job, stamp: tuple[int, ...]) -> str:
    values: list[Any] = [VERSION, media.VERSION, _decoders(), job.path, stamp, job.senses, asdict(job.limits), job.prints]
    return hashlib.sha256(json.dumps(values).encode("utf-8", "surrogateescape")).hexdigest()


@cache
def _decoders() -> list[str]:
    return [importlib.metadata.version(name) for name in ("av", "decord") if importlib.util.find_spec(name) is not None]
