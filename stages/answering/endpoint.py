"""Answers of records by a server: a model behind an OpenAI-compatible URL (`vllm serve`, or a hosted one) as a baseline.

What may pass is tried again as a judge's calls are (`rewards.judges.request`), and whatever fails for good is a prediction of status
`error` with its reason, never an exception and never a gap. There is no ledger: an answer's own line in `predictions.jsonl` is its record,
and clips are too large to be kept twice.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from omnistage.data.errors import InputError, MediaError
from omnistage.data.records import Record
from omnistage.rewards.judges import request
from omnistage.rewards.judges.request import Heard
from omnistage.rewards.judges.service import Service
from omnistage.stages.answering import parts
from omnistage.stages.answering.parts import Shown
from omnistage.stages.benchmarks.items import GREEDY, Prediction, Status

if TYPE_CHECKING:
    from httpx2 import AsyncClient

_OWN = frozenset({"model", "messages", "temperature", "max_tokens", "n", "stream"})
# Limits that a judge's ledger keeps over runs and processes, and nothing keeps here.
_LEDGERS = ("per_minute", "most_calls", "most_cost")


@dataclass(frozen=True)
class Asking:
    """How records are asked: what is `shown` of them, under which `run` their answers are kept, and further fields of the request's body
    (`{"seed": 1, "top_p": 0.9}`). Raises `InputError` for a field that a `Service` has."""

    shown: Shown = field(default_factory=Shown)
    run: str = GREEDY
    body: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if taken := sorted(_OWN & self.body.keys()):
            raise InputError(f"body has the fields {', '.join(taken)}; must have none of {', '.join(sorted(_OWN))}")


def answer(records: Iterable[Record], service: Service, asking: Asking | None = None) -> Iterator[list[Prediction]]:
    """One prediction a record, as they come: lists of at most `service.concurrency`, and not in the records' order.

    `truncated`: the server says that the answer's length was reached. Requests stand still while the caller works on a list, though their
    time runs on; those under way are given up when it stops asking for more.

    Raises:
        InputError: `service` has limits that only a ledger keeps, or a record that cannot be shown as it is asked for (`parts.messages`).
    """
    for name in _LEDGERS:
        if getattr(service, name) is not None:
            raise InputError(f"{name} is {getattr(service, name)}; must be left out: answers have no ledger to count in")
    return _answers(iter(records), service, asking or Asking())


def _answers(records: Iterator[Record], service: Service, asking: Asking) -> Iterator[list[Prediction]]:
    under_way: set[asyncio.Task[Prediction]] = set()
    with asyncio.Runner() as runner:
        client = runner.run(_client(service))
        try:
            while True:
                under_way |= runner.run(_started(list(islice(records, service.concurrency - len(under_way))), client, service, asking))
                if not under_way:
                    return
                done, under_way = runner.run(asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED))
                # Of several that failed at once the first is raised; asyncio would print the others unless they are looked at.
                errors = [error for task in done if (error := task.exception()) is not None]
                if errors:
                    raise errors[0]
                yield [task.result() for task in done]
        finally:
            runner.run(_stopped(under_way, client))


async def _client(service: Service) -> AsyncClient:
    return request.client_of(service)


async def _started(records: list[Record], client: AsyncClient, service: Service, asking: Asking) -> set[asyncio.Task[Prediction]]:
    return {asyncio.create_task(_answer(record, client, service, asking)) for record in records}


async def _stopped(tasks: set[asyncio.Task[Prediction]], client: AsyncClient) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.aclose()


async def _answer(record: Record, client: AsyncClient, service: Service, asking: Asking) -> Prediction:
    try:
        messages = await asyncio.to_thread(parts.messages, record, asking.shown)
    except MediaError as error:
        return Prediction(record.id, asking.run, None, "error", error=str(error))
    except InputError as error:
        raise InputError(f"{record.source or record.id}: {error}") from error
    # One for all requests about a record, so that a server which honours it charges once; another run is another sample.
    key, sampling = uuid.uuid4().hex, {**service.sampling, **asking.body}
    for tries in range(1, service.attempts + 1):
        heard = await request.send(client, service, messages, sampling, key)
        if not heard.again or tries == service.attempts:
            break
        await asyncio.sleep(request.pause_s(heard, tries))
    return _prediction(record, heard, asking.run)


def _prediction(record: Record, heard: Heard, run: str) -> Prediction:
    if heard.text is None:
        told = "" if heard.told is None else f": {heard.told}"
        return Prediction(record.id, run, None, "error", error=f"{heard.outcome}{told}")
    status: Status = "truncated" if heard.finish == "length" else "ok" if heard.text.strip() else "empty"
    return Prediction(record.id, run, heard.text, status, None if heard.tokens is None else heard.tokens[1])
