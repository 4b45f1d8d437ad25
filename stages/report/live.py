"""A run under way as its page fetches it: made anew in the background when files have changed and somebody asks, and no more often than a
stated share of the time, so that who looks takes little from who trains."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib
import json
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnistage.data.errors import InputError, OmnistageError
from omnistage.data.media import MediaLimits
from omnistage.data.records import MediaRef
from omnistage.stages.report import collect, media, page, rollouts
from omnistage.stages.report.places import Places
from omnistage.stages.report.view import MOST_CLIPS, Clips, NoRoom, View, limits_of, view

# As large as a page on disk may be; nearly all of it is texts, for clips are fetched one by one.
ROOM = 16_000_000
# Of the time, about a tenth at most is spent on looking; between two looks there is a pause of so many seconds at least, and at most.
SHARE, PAUSE_S, MOST_PAUSE_S = 0.1, 1.0, 60.0
# Bytes of small files to play that are kept, the latest ones.
KEPT_CLIPS = 128_000_000
MOST_NAMES = 20 * MOST_CLIPS
# It would load the libraries of models, build them, and decode a sample of every stage's clips.
NO_PLAN = "no plan beside it: making one takes more of this machine than looking may; omnistage report has it"


@dataclass(frozen=True)
class Answer:
    """What is there to fetch, as it is and gzipped, and a tag that changes with it."""

    body: bytes
    zipped: bytes
    tag: str


@dataclass(frozen=True)
class Shown:
    """A clip: what is said of it, and the small file to play."""

    told: dict[str, Any]
    content: bytes | None
    kind: str


class Live:
    """The state of one run for a server of it. `close` ends its thread."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._secret = secrets.token_bytes(16)
        self._kept = rollouts.Kept()
        self._refs: OrderedDict[str, MediaRef] = OrderedDict()
        self._limits = MediaLimits()
        self._clips: OrderedDict[str, Shown] = OrderedDict()
        # Decoding takes one core at most.
        self._decoding = threading.Lock()
        self._asked, self._closed, self._there = threading.Event(), threading.Event(), threading.Event()
        self._answer: Answer | None = None
        self._thread = threading.Thread(target=self._renew_when_asked, name="renew", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread that looks."""
        self._closed.set()
        self._asked.set()

    def answer(self, wait_s: float = 120) -> Answer | None:
        """What was made last; has it made anew if files have changed. None where nothing could be made."""
        self._asked.set()
        self._there.wait(wait_s)
        return self._answer if self._thread.is_alive() else None

    def clip(self, name: str) -> Shown | None:
        """A clip of those that the page was told of, by its name there."""
        ref = self._refs.get(name)
        if ref is None:
            return None
        with self._decoding:
            found = self._clips.get(name)
            if found is None:
                found = self._clips[name] = _shown(name, media.packed(ref, self._limits))
            self._clips.move_to_end(name)
            while len(self._clips) > 1 and sum(len(one.content or b"") for one in self._clips.values()) > KEPT_CLIPS:
                self._clips.popitem(last=False)
        return found

    def name(self, ref: MediaRef, *, shown: bool = True) -> str:
        """A clip's name: the same as long as this runs, and nothing that a path could be read from. By it one that is `shown` is found."""
        told = hashlib.blake2b(repr(ref).encode("utf-8", "surrogatepass"), key=self._secret, digest_size=12).hexdigest()
        if not shown:
            self._refs.pop(told, None)
            return told
        self._refs[told] = ref
        self._refs.move_to_end(told)
        while len(self._refs) > MOST_NAMES:
            self._refs.popitem(last=False)
        return told

    def _renew_when_asked(self) -> None:
        seen: Any = None
        while True:
            self._asked.wait()
            if self._closed.is_set():
                return
            self._asked.clear()
            began = time.monotonic()
            try:
                marks = marks_of(self.run)
                if marks != seen:
                    began = self._renew(began)
                    seen = marks
            except Exception as error:  # noqa: BLE001
                # Files may be anything while somebody writes or moves them; the next look may find them whole.
                said = " ".join(f"{type(error).__name__}: {error}".split())[:500]
                self._answer = answer_of({"waiting": f"{self.run} cannot be shown now ({said})"})
                self._there.set()
                seen = None
            self._closed.wait(min(MOST_PAUSE_S, max(PAUSE_S, (time.monotonic() - began) * (1 / SHARE - 1))))

    def _renew(self, began: float) -> float:
        """Make anew what is there to fetch; returns since when it counts for how often there is a look."""
        # torch, which a summary needs, takes seconds to load: the page is there before it.
        for with_summary in (False, True):
            content = self._content(with_summary=with_summary)
            self._answer = answer_of(content)
            self._there.set()
            if not _is_partial(content):
                break
            # Once, so it does not count.
            importlib.import_module("omnistage.stages.measure.summary")
            began = time.monotonic()
        return began

    def _content(self, *, with_summary: bool) -> dict[str, Any]:
        """What the page fetches: the view's data, its parts by their ids, and signatures of those; or what it waits for."""
        try:
            found = collect.collect(self.run, with_summary=with_summary)
            found["notes"].append({"section": "throughput", "line": NO_PLAN})
            made = view(self.run, room=ROOM, found=found, kept=self._kept, clips_of=lambda places, _: Served(places, self))
        except NoRoom as error:
            return {"waiting": f"{error}; omnistage report {self.run} --max-mb N writes one of N MB"}
        except (OmnistageError, OSError) as error:
            return {"waiting": waits_for(self.run) or " ".join(str(error).split())[:500]}
        self._limits = limits_of(found["run"]["recipe"])
        return {"data": made.head() | {"made": page.about() | {"live": True}}, "parts": made.parts, "signs": _signs(made)}


class Served(Clips):
    """Clips that are named, and decoded when they are asked for."""

    def __init__(self, places: Places, live: Live) -> None:
        super().__init__(places, None)
        self._live = live
        self._entries: dict[str, dict[str, Any]] = {}

    def key(self, ref: MediaRef) -> int | str:
        """A name that stays the same as others come."""
        there, wrong = self._places.of(ref)
        entry: dict[str, Any] = {"name": Path(ref.path).name, "kind": ref.kind}
        name = self._live.name(there, shown=wrong is None)
        entry |= {"later": name} if wrong is None else {"error": wrong}
        self._entries[name] = entry
        return name

    def pack(self, limits: MediaLimits, room: int) -> dict[str, int]:
        """How many there are; none is decoded now."""
        missing = sum("error" in entry for entry in self._entries.values())
        return {"of": len(self._entries), "played": len(self._entries) - missing, "still": 0, "linked": 0, "missing": missing}

    def parts(self) -> dict[str, Any]:
        """The named clips by the ids of their elements."""
        return {f"clip-{name}": entry for name, entry in self._entries.items()}


def waits_for(run: Path) -> str | None:
    """What a folder lacks of being a run; None where it is one."""
    if not run.is_dir():
        return f"{run} is not there yet; it is made when omnistage run has read its recipe and its files"
    if not (run / "run.json").is_file():
        return f"{run} holds no run.json yet; it is written when omnistage run has read its recipe and its files"
    return None


def marks_of(run: Path) -> list[Any]:
    """Changes when a file changes that a view is made of, or when the run ends."""
    watched = ("*", "*/*.json*", "*/rollouts", "*/evaluation/*.json*", "*/head/*.json*", "*/model/manifest.json")
    out: list[Any] = []
    for path in sorted({path for pattern in watched for path in run.glob(pattern)}):
        try:
            found = path.stat()
        except OSError:
            continue
        out.append((str(path), found.st_mtime_ns, found.st_size, found.st_ino))
    return [collect.state_of(run, done=False), out]


def answer_of(content: dict[str, Any]) -> Answer:
    """As it goes over the wire. The tag leaves out when it was made: that alone is no news."""
    body = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()
    made = content.get("data", {}).get("made", {})
    lasting = body.replace(json.dumps(made.get("at", "")).encode(), b"")
    return Answer(body, gzip.compress(body, 1, mtime=0), f'"{hashlib.sha256(lasting).hexdigest()[:32]}"')


def _is_partial(content: dict[str, Any]) -> bool:
    return any(note["line"] == collect.LATER for note in content.get("data", {}).get("notes", []))


def _signs(made: View) -> dict[str, str]:
    """What changes with the rollouts, and with the answers, that a page holds."""
    out = {}
    for name, begins in (("rollouts", "group-"), ("answers", "item-")):
        parts = {key: part for key, part in made.parts.items() if key.startswith(begins)}
        out[name] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    return out


def _shown(name: str, packed: dict[str, Any]) -> Shown:
    """A packed clip with its file beside it, under the same name."""
    told = dict(packed)
    content, kind = None, ""
    for key in ("video", "sound"):
        if key in told:
            kind = told[key].partition(";")[0].removeprefix("data:")
            content = base64.b64decode(told[key].partition(",")[2])
            told[key] = f"clips/{name}.mp4"
    return Shown(told, content, kind)


def check(run: Path) -> None:
    """Raises `InputError` where the folder can be no run, however long one waits."""
    if run.exists() and not run.is_dir():
        raise InputError(f"{run}: is a file; allowed: the folder of a run (run_dir)")
