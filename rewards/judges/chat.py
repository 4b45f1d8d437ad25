"""Asks a chat model at an OpenAI-compatible URL, every call through a ledger: what is answered there is not asked again.

Tried again: 408, 429, 5xx, time-outs, lost connections, and bodies that are cut or no completion. The pause is drawn evenly from 0 to
0.5 s, to 1 s, 2 s and so on up to 30 s ("full jitter", Brooker 2015), after the wait that the server names in `Retry-After`. Any
other status fails at once. A failure is a `Reply` without text, never an exception.

Each request carries the call's key as `Idempotency-Key`. A call that was under way when its process was killed is sent again under the
same key, so a server that honours the header charges it once. A server that ignores it may charge those calls twice: at most
`concurrency` for each kill.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from omnistage.data.errors import InputError
from omnistage.rewards.judges.ledger import BILLION, Answered, Call, Ended, Failed, Go, Ledger, Limits, State, Taken, Wait

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

Messages = Sequence[Mapping[str, str]]
P = ParamSpec("P")
T = TypeVar("T")

_LEASE_MARGIN_S = 5.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_LONGEST_RETRY_AFTER_S = 120.0
_POLL_S = (0.05, 1.0)
# What a server's chat template may add to a prompt, in tokens.
_TEMPLATE_TOKENS = 256
# Far beyond any use. Within them the cost of a call, and the sum of all that can be under way at once, is an integer that SQLite holds.
_MOST = {
    "max_tokens": 1_000_000,
    "attempts": 1_000,
    "concurrency": 1_000,
    "per_minute": 1_000_000,
    "temperature": 100,
    "timeout_s": 86_400,
    "most_calls": BILLION,
    "most_cost": BILLION,
    "price_in": 1_000_000,
    "price_out": 1_000_000,
}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_VARIABLE = 64
_LONGEST_LABEL = 63
# Its own generator: the global one belongs to the training run, whose draws must not depend on the network.
_RANDOM = random.Random()


@dataclass(frozen=True, slots=True)
class Service:
    """A model at a URL and how it is asked.

    `url` ends before `/chat/completions`. `timeout_s` is for a whole request, `attempts` counts the requests for one call, `concurrency`
    those under way at once in one process. Prices are per million tokens. `key_env` names the environment variable with the key.

    Raises:
        InputError: a value out of its range, a URL that is none or that carries a user name or a query, a `key_env` that names no
            variable or one without a key, or `most_cost` without prices.
    """

    url: str
    model: str
    key_env: str | None = None
    temperature: float = 0.0
    max_tokens: int = 512
    timeout_s: float = 60.0
    attempts: int = 5
    concurrency: int = 8
    per_minute: int | None = None
    most_calls: int | None = None
    most_cost: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    key: str | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        _check_url(self.url)
        if not self.model:
            raise InputError("model is empty; must be a name that the server knows")
        if not _is_text(self.model):
            raise InputError(f"model is {self.model!r}; must have no half of a surrogate pair")
        for name, most in _MOST.items():
            # The number is not repeated: Python writes none of more than 4,300 digits.
            if (getattr(self, name) or 0) > most:
                raise InputError(f"{name} is too large; must be at most {most}")
        for name in ("max_tokens", "attempts", "concurrency", "per_minute"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise InputError(f"{name} is {count}; must be at least 1")
        for name in ("temperature", "most_calls", "most_cost", "price_in", "price_out"):
            number = getattr(self, name)
            if number is not None and not number >= 0:
                raise InputError(f"{name} is {number}; must not be negative")
        if not self.timeout_s > 0:
            raise InputError(f"timeout_s is {self.timeout_s}; must be more than 0")
        if self.most_cost is not None and (self.price_in is None or self.price_out is None):
            raise InputError(f"most_cost is {self.most_cost} and there are no prices; give price_in and price_out per million tokens")
        object.__setattr__(self, "key", None if self.key_env is None else _key(self.key_env))

    @property
    def limits(self) -> Limits:
        """As the ledger counts them."""
        return Limits(self.per_minute, self.most_calls, None if self.most_cost is None else round(self.most_cost * BILLION))

    def cost(self, tokens_in: int, tokens_out: int) -> int:
        """In billionths, rounded up; 0 without prices."""
        # A price for a million tokens is a thousandth of that for a billion.
        return math.ceil(((self.price_in or 0.0) * tokens_in + (self.price_out or 0.0) * tokens_out) * (BILLION // 1_000_000))

    def most(self, messages: Messages) -> int:
        """The most that a request can cost, in billionths: a token is at least one byte of text."""
        text = sum(len(message["content"].encode("utf-8", "surrogatepass")) for message in messages)
        return self.cost(text + _TEMPLATE_TOKENS, self.max_tokens)


@dataclass(frozen=True, slots=True)
class Reply:
    """`text`, or None and the `reason` why there is none. `cached`: without a request by this call; `seconds`: of the request if not."""

    text: str | None
    reason: str | None = None
    cached: bool = False
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One call, who wants it and since when."""

    call: Call
    messages: Messages
    readable: Callable[[str], bool]
    owner: str = field(default_factory=lambda: uuid.uuid4().hex)
    since: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class _Heard:
    """What came of one request; `again`: another may do better, after `pause_s` if the server named a time."""

    ended: Ended
    again: bool = False
    pause_s: float = 0.0


class Chat:
    """A service behind a ledger. Needs no event loop of its own: each `ask` opens and closes its connections."""

    def __init__(self, service: Service, ledger: Ledger) -> None:
        self.service = service
        self.ledger = ledger

    async def ask(self, prompts: Sequence[Messages], readable: Callable[[str], bool]) -> list[Reply]:
        """One reply a prompt; equal prompts make one call. A reply that is not `readable` fails and may be asked for again.

        Raises:
            InputError: the ledger cannot be read or written.
        """
        import httpx2

        service = self.service
        sampling = {"temperature": service.temperature, "max_tokens": service.max_tokens}
        calls = [Call.of(service.url, service.model, messages, sampling) for messages in prompts]
        wanted = {call.key: _Wanted(call, messages, readable) for call, messages in zip(calls, prompts, strict=True)}
        hits = await asyncio.to_thread(self.ledger.hits, wanted)
        replies = {key: Reply(text, cached=True) for key, text in hits.items()}
        if missing := [want for key, want in wanted.items() if key not in replies]:
            slots, most = asyncio.Semaphore(service.concurrency), httpx2.Limits(max_connections=service.concurrency)
            headers = {"Content-Type": "application/json"}
            if service.key is not None:
                headers["Authorization"] = f"Bearer {service.key}"
            try:
                async with httpx2.AsyncClient(headers=headers, timeout=None, limits=most) as client, asyncio.TaskGroup() as group:
                    tasks = {want.call.key: group.create_task(self._one(client, slots, want)) for want in missing}
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from errors
            replies |= {key: task.result() for key, task in tasks.items()}
        return [replies[call.key] for call in calls]

    async def _one(self, client: AsyncClient, slots: asyncio.Semaphore, wanted: _Wanted) -> Reply:
        poll_s, longest_s = _POLL_S
        while True:
            async with slots:
                try:
                    reply = await self._asked(client, wanted)
                except BaseException:
                    # What went wrong first is what is raised.
                    with suppress(InputError):
                        self.ledger.release(wanted.call, wanted.owner)
                    raise
            if reply is not None:
                return reply
            await asyncio.sleep(poll_s)
            poll_s = min(1.5 * poll_s, longest_s)

    async def _asked(self, client: AsyncClient, wanted: _Wanted) -> Reply | None:
        """The reply, after as many requests as it takes; None while somebody else is asking."""
        most, lease_s, tries = self.service.most(wanted.messages), self.service.timeout_s + _LEASE_MARGIN_S, 0
        while True:
            step = await _in_thread(
                self.ledger.begin,
                wanted.call,
                owner=wanted.owner,
                since=wanted.since,
                lease_s=lease_s,
                most=most,
                limits=self.service.limits,
            )
            match step:
                case Answered(text):
                    return Reply(text, cached=True)
                case Failed(reason):
                    return Reply(None, reason)
                case Taken():
                    return None
                case Wait(seconds):
                    await asyncio.sleep(seconds)
                case Go():
                    tries += 1
                    reply, pause_s = await self._sent(client, wanted, step, tries)
                    if reply is not None:
                        return reply
                    await asyncio.sleep(pause_s)

    async def _sent(self, client: AsyncClient, wanted: _Wanted, go: Go, tries: int) -> tuple[Reply | None, float]:
        """Send one request and write what came of it: the reply, or None and the seconds after which to try again."""
        started = time.monotonic()
        heard = await self._heard(client, wanted.messages, go.idempotency_key)
        seconds, ended = time.monotonic() - started, heard.ended
        if ended.reply is not None and wanted.readable(ended.reply):
            text = await self._end(go, wanted, ended, "answered")
            return Reply(text, seconds=seconds), 0.0
        if heard.again and tries < self.service.attempts:
            pause_s = heard.pause_s + _RANDOM.uniform(0.0, min(_FIRST_PAUSE_S * 2 ** min(tries - 1, 10), _LONGEST_PAUSE_S))
            await self._end(go, wanted, ended, "asked", pause_s + _LEASE_MARGIN_S)
            return None, pause_s
        ended = ended if ended.reply is None else replace(ended, outcome="unreadable")
        await self._end(go, wanted, ended, "failed")
        return Reply(None, ended.outcome, seconds=seconds), 0.0

    async def _end(self, go: Go, wanted: _Wanted, ended: Ended, state: State, lease_s: float = 0.0) -> str | None:
        return await _in_thread(self.ledger.end, go.attempt, wanted.owner, ended, state=state, lease_s=lease_s)

    async def _heard(self, client: AsyncClient, messages: Messages, idempotency_key: str) -> _Heard:
        """Send one request. The words for what went wrong are ours: those of a server or a library may repeat the key."""
        import httpx2

        service = self.service
        asked = {
            "model": service.model,
            "messages": [dict(message) for message in messages],
            "temperature": service.temperature,
            "max_tokens": service.max_tokens,
        }
        url, headers = f"{service.url.rstrip('/')}/chat/completions", {"Idempotency-Key": idempotency_key}
        try:
            async with asyncio.timeout(service.timeout_s):
                response = await client.post(url, content=json.dumps(asked), headers=headers)
            return self._read(response)
        except TimeoutError:
            return _Heard(Ended("time-out"), again=True)
        except httpx2.ConnectError:
            return _Heard(Ended("no connection", cost=0, free=True), again=True)
        except httpx2.RequestError:
            return _Heard(Ended("connection lost"), again=True)
        # Whatever a library raises, the run goes on.
        except Exception as error:  # noqa: BLE001
            return _Heard(Ended(f"request failed: {type(error).__name__}"))

    def _read(self, response: Response) -> _Heard:
        status = response.status_code
        if status != 200:
            refused = status < 500
            ended = Ended(f"status {status}", cost=0 if refused else None, free=refused)
            return _Heard(ended, status in (408, 429) or status >= 500, _retry_after(response.headers.get("Retry-After")))
        try:
            body = response.json()
            content = body["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return _Heard(Ended("no completion in the body"), again=True)
        text = content if isinstance(content, str) and _is_text(content) else ""
        if self.service.key is not None:
            text = text.replace(self.service.key, "[key]")
        tokens = _tokens(body.get("usage"))
        if tokens is None:
            return _Heard(Ended("answered", text))
        return _Heard(Ended("answered", text, tokens[0], tokens[1], self.service.cost(*tokens)))


async def _in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What it returns in a thread. Who is cancelled waits for its end: a lease must not be written after it was released."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise


def _is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _tokens(usage: Any) -> tuple[int, int] | None:
    """Tokens of the prompt and of the completion, where a server reports both."""
    if not isinstance(usage, dict):
        return None
    tokens_in, tokens_out = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not (isinstance(tokens_in, int) and isinstance(tokens_out, int)):
        return None
    return (tokens_in, tokens_out) if 0 <= tokens_in < BILLION and 0 <= tokens_out < BILLION else None


def _check_url(url: str) -> None:
    # What stands before '@' or after '?' or '#' is not repeated: it may be a secret.
    if not _is_address(url):
        said = f"is {url!r}" if set("@?#").isdisjoint(url) else "cannot be read"
        raise InputError(f"url {said}; must be the address of a server, such as 'http://localhost:8000/v1'")
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InputError("url carries a user name, a query or a fragment; must be an address alone, and the key comes from key_env")


def _is_address(url: str) -> bool:
    import httpx2

    try:
        parts, host = urlsplit(url), httpx2.URL(url).raw_host.decode("ascii")
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except (ValueError, httpx2.InvalidURL):
        return False
    return good and "%20" not in host and all(0 < len(label) <= _LONGEST_LABEL for label in host.removesuffix(".").split("."))


def _key(variable: str) -> str:
    # Who gives the key itself must not find it in a log.
    if not _VARIABLE.fullmatch(variable):
        raise InputError("key_env is not the name of an environment variable; must be a name such as 'JUDGE_KEY', never the key itself")
    named = f"environment variable {variable!r}" if len(variable) <= _LONGEST_VARIABLE else "environment variable"
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError(f"the {named} that key_env names is not set; set it to the key of the judge")
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"the {named} that key_env names holds characters that no key has")
    return key


def _retry_after(value: str | None) -> float:
    """Seconds to wait as the header says them, or as the time that it names, within bounds; 0 where it says nothing that can be read."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            then = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return 0.0
        seconds = (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S) if math.isfinite(seconds) else 0.0
