"""Asks a chat model at an OpenAI-compatible URL, every call through a ledger: what is answered there is not asked again.

What is tried again, and when, is said in `request`; anything else fails at once. A failure is a `Reply` without text, never an exception.

Each request carries the call's key as `Idempotency-Key`. A call that was under way when its process was killed is sent again under the
same key, so a server that honours the header charges it once. A server that ignores it may charge those calls twice: at most
`concurrency` for each kill.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from omnistage.data.errors import InputError
from omnistage.rewards.judges import request
from omnistage.rewards.judges.ledger import Answered, Call, Ended, Failed, Go, Ledger, State, Taken, Wait
from omnistage.rewards.judges.request import Heard
from omnistage.rewards.judges.service import Service as Service

if TYPE_CHECKING:
    from httpx2 import AsyncClient

Messages = Sequence[Mapping[str, str]]
P = ParamSpec("P")
T = TypeVar("T")

_LEASE_MARGIN_S = 5.0
_POLL_S = (0.05, 1.0)


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
        service = self.service
        calls = [Call.of(service.url, service.model, messages, service.sampling) for messages in prompts]
        wanted = {call.key: _Wanted(call, messages, readable) for call, messages in zip(calls, prompts, strict=True)}
        hits = await asyncio.to_thread(self.ledger.hits, wanted)
        replies = {key: Reply(text, cached=True) for key, text in hits.items()}
        if missing := [want for key, want in wanted.items() if key not in replies]:
            slots = asyncio.Semaphore(service.concurrency)
            try:
                async with request.client_of(service) as client, asyncio.TaskGroup() as group:
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
        heard = await request.send(client, self.service, wanted.messages, self.service.sampling, go.idempotency_key)
        seconds, ended = time.monotonic() - started, self._ended(heard)
        if heard.text is not None and wanted.readable(heard.text):
            text = await self._end(go, wanted, ended, "answered")
            return Reply(text, seconds=seconds), 0.0
        if heard.again and tries < self.service.attempts:
            pause_s = request.pause_s(heard, tries)
            await self._end(go, wanted, ended, "asked", pause_s + _LEASE_MARGIN_S)
            return None, pause_s
        ended = ended if heard.text is None else replace(ended, outcome="unreadable")
        await self._end(go, wanted, ended, "failed")
        return Reply(None, ended.outcome, seconds=seconds), 0.0

    def _ended(self, heard: Heard) -> Ended:
        """As the ledger writes it."""
        if heard.tokens is None:
            return Ended(heard.outcome, heard.text, cost=0 if heard.free else None, free=heard.free)
        return Ended(heard.outcome, heard.text, *heard.tokens, self.service.cost(*heard.tokens))

    async def _end(self, go: Go, wanted: _Wanted, ended: Ended, state: State, lease_s: float = 0.0) -> str | None:
        return await _in_thread(self.ledger.end, go.attempt, wanted.owner, ended, state=state, lease_s=lease_s)


async def _in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What it returns in a thread. Who is cancelled waits for its end: a lease must not be written after it was released."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise
