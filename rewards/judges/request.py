"""One request to a chat model, and what came of it: what may be sent again, and after how long.

Worth another request: 408, 429, 5xx, time-outs, lost connections, and bodies that are cut or no completion. The pause is drawn evenly from
0 to 0.5 s, to 1 s, 2 s and so on up to 30 s ("full jitter", Brooker 2015), after the wait that the server names in `Retry-After`. Any
other status is final.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from omnistage.rewards.judges.ledger import BILLION
from omnistage.rewards.judges.service import Service, is_text

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_LONGEST_RETRY_AFTER_S = 120.0
_LONGEST_TOLD = 200
# Its own generator: the global one belongs to the training run, whose draws must not depend on the network.
_RANDOM = random.Random()


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of one request.

    `text` is the reply, None where there is none, and `outcome` says in a few words of our own how it ended. `free`: nothing was charged.
    `again`: another request may do better, after `pause_s` if the server named a time. `finish` is why the reply ended ('stop', 'length'),
    and `told` what the server says of its error, in one line; either only where it says so.
    """

    outcome: str
    text: str | None = None
    tokens: tuple[int, int] | None = None
    finish: str | None = None
    told: str | None = None
    free: bool = False
    again: bool = False
    pause_s: float = 0.0


def client_of(service: Service) -> AsyncClient:
    """A client with the service's key and as many connections as may be under way; to be closed by who opens it."""
    import httpx2

    headers = {"Content-Type": "application/json"}
    if service.key is not None:
        headers["Authorization"] = f"Bearer {service.key}"
    return httpx2.AsyncClient(headers=headers, timeout=None, limits=httpx2.Limits(max_connections=service.concurrency))


async def send(
    client: AsyncClient, service: Service, messages: Sequence[Mapping[str, Any]], sampling: Mapping[str, Any], idempotency_key: str
) -> Heard:
    """Send one request. The words for what went wrong are ours: those of a library may repeat the key."""
    import httpx2

    asked = {"model": service.model, "messages": [dict(message) for message in messages], **sampling}
    url, headers = f"{service.url.rstrip('/')}/chat/completions", {"Idempotency-Key": idempotency_key}
    try:
        async with asyncio.timeout(service.timeout_s):
            response = await client.post(url, content=json.dumps(asked), headers=headers)
        return _read(response, service)
    except TimeoutError:
        return Heard("time-out", again=True)
    except httpx2.ConnectError:
        return Heard("no connection", free=True, again=True)
    except httpx2.RequestError:
        return Heard("connection lost", again=True)
    # Whatever a library raises, the run goes on.
    except Exception as error:  # noqa: BLE001
        return Heard(f"request failed: {type(error).__name__}")


def pause_s(heard: Heard, tries: int) -> float:
    """Seconds until the next request, after so many: what the server named, and a drawn time on top."""
    return heard.pause_s + _RANDOM.uniform(0.0, min(_FIRST_PAUSE_S * 2 ** min(tries - 1, 10), _LONGEST_PAUSE_S))


def _read(response: Response, service: Service) -> Heard:
    status = response.status_code
    if status != 200:
        again = status in (408, 429) or status >= 500
        pause = _retry_after(response.headers.get("Retry-After"))
        return Heard(f"status {status}", told=_told(response, service), free=status < 500, again=again, pause_s=pause)
    try:
        body = response.json()
        choice = body["choices"][0]
        content, finish = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Heard("no completion in the body", again=True)
    text = content if isinstance(content, str) and is_text(content) else ""
    return Heard("answered", _keyless(text, service), _tokens(body.get("usage")), finish if isinstance(finish, str) else None)


def _told(response: Response, service: Service) -> str | None:
    """The server's own words for an error: `error.message`, or `message`, where its body has one."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return None
    error = body.get("error", body) if isinstance(body, dict) else None
    words = error.get("message") if isinstance(error, dict) else error
    if not isinstance(words, str) or not is_text(words):
        return None
    return " ".join(_keyless(words, service).split())[:_LONGEST_TOLD] or None


def _keyless(text: str, service: Service) -> str:
    return text if service.key is None else text.replace(service.key, "[key]")


def _tokens(usage: Any) -> tuple[int, int] | None:
    """Tokens of the prompt and of the completion, where a server reports both."""
    if not isinstance(usage, dict):
        return None
    tokens_in, tokens_out = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not (isinstance(tokens_in, int) and isinstance(tokens_out, int)):
        return None
    return (tokens_in, tokens_out) if 0 <= tokens_in < BILLION and 0 <= tokens_out < BILLION else None


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
