"""Calls a reward function and lets nothing but one finite number or None a completion come out of it.

A reward that fails stops the run and says which reward and which record: made into a zero, the failure would change what is learned, and
nobody would see it. With `on_error: mask` the completions that it fails on are not scored, and counted.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from typing import Any, Literal, TypeVar

from omnistage.data.errors import InputError, OmnistageError, RewardError
from omnistage.rewards.base import About

OnError = Literal["stop", "mask"]
Values = list[float | None]
T = TypeVar("T")

_MOST_NAMED = 5
# Rewards are summed in 32 bits.
_LARGEST = 3.4e38


def _ignored(name: str, value: Any) -> None:
    """What a call logs that is made to find out which record fails."""


UNLOGGED = {"log_metric": _ignored, "log_extra": _ignored}


@dataclass(frozen=True, slots=True)
class Call:
    """How one reward is called: for which rows (`only`: a column's name and the values that it may have), what a failure does,
    and after how many seconds a call has failed."""

    name: str
    about: About = field(default_factory=About)
    only: Mapping[str, frozenset[str]] = field(default_factory=dict)
    on_error: OnError = "stop"
    timeout_s: float | None = None


class RewardTimeoutError(RewardError, TimeoutError):
    """A reward took longer than its recipe allows."""


def checked(function: Callable[..., Any], call: Call) -> Callable[..., Any]:
    """`function` as a TRL reward that raises `RewardError` naming the reward and the record; a coroutine function when `function` is async.

    The function gets the columns that it has parameters for, or all of them when it takes `**columns`. `InputError` passes unchanged.
    """
    wanted = _wanted(function)

    async def awaited(completions: Any, **columns: Any) -> Values:
        return await _scored(function, wanted, call, completions, columns)

    def called(completions: Any, **columns: Any) -> Values:
        return _at_once(_scored(function, wanted, call, completions, columns))

    # In Python 3.11 only a real function can be a coroutine function, and that is how callers tell what to await.
    return awaited if _is_async(function) else called


async def _scored(
    function: Callable[..., Any], wanted: frozenset[str] | None, call: Call, completions: Sequence[Any], columns: dict[str, Any]
) -> Values:
    is_async = _is_async(function)
    noted: dict[str, list[Any]] = {}

    async def on(rows: Sequence[int], given: dict[str, Any]) -> Values:
        noted.clear()
        some = _of_rows({"completions": completions} | given, rows, len(completions))
        if given.get("log_extra") not in (None, _ignored):
            some["log_extra"] = partial(_note, noted, len(rows))
        kept = {name: column for name, column in some.items() if wanted is None or name in wanted}
        values = function(**kept) if is_async or call.timeout_s is None else _within(call.timeout_s, function, kept, call.name)
        if inspect.isawaitable(values):
            if not is_async:
                raise RewardError(f"reward {call.name!r} is not async and returns something to wait for; write it as `async def`")
            values = await (values if call.timeout_s is None else _in_time(call.timeout_s, values, call.name))
        return _values(values, len(rows), call, some)

    chosen = _chosen(call.only, columns, len(completions))
    failed: list[int] = []
    values: Values = []
    while chosen:
        try:
            values = await on(chosen, columns)
            break
        # An OmnistageError that is no RewardError, an unreadable target say, is not the function's failure.
        except (Exception, SystemExit) as error:
            if isinstance(error, OmnistageError) and not isinstance(error, RewardError):
                raise
            if isinstance(error, RewardError) and call.on_error == "stop":
                raise
            # Asked one by one, what hangs would hang as often as there are rows.
            late = isinstance(error, RewardTimeoutError)
            failing = chosen if late else await _fails_on(on, chosen, columns | UNLOGGED)
            if call.on_error == "stop":
                raise _failure(call.name, columns, failing, error) from error
            failed += failing
            chosen = [row for row in chosen if row not in set(failing)]
    for column, of_rows in noted.items():
        # TRL wants a value a completion of the whole batch: None for those that the reward was not called for.
        by_row = dict(zip(chosen, of_rows, strict=True))
        columns["log_extra"](f"{call.name}/{column}", [by_row.get(row) for row in range(len(completions))])
    if call.on_error == "mask" and "log_metric" in columns:
        columns["log_metric"](f"rewards/{call.name}/failed", len(failed) / max(1, len(completions)))
    spread: Values = [None] * len(completions)
    for row, value in zip(chosen, values, strict=True):
        spread[row] = value
    return spread


def _within(seconds: float, function: Callable[..., T], columns: Mapping[str, Any], name: str) -> T:
    """What the function returns for the columns, if it does in time. One that does not is left behind in its thread, which nothing can end;
    what it logs there would be another step's, and is dropped."""
    ended: Future[T] = Future()
    late = threading.Event()

    def in_time(log: Callable[..., None]) -> Callable[..., None]:
        return lambda *values: None if late.is_set() else log(*values)

    guarded = {column: in_time(value) if column in UNLOGGED else value for column, value in columns.items()}

    def run() -> None:
        try:
            ended.set_result(function(**guarded))
        # To the one who waits.
        except BaseException as error:  # noqa: BLE001
            ended.set_exception(error)

    threading.Thread(target=run, name=f"reward {name}", daemon=True).start()
    # A TimeoutError of the function itself is no lateness.
    if not wait([ended], timeout=seconds).done:
        late.set()
        raise _too_long(name, seconds)
    return ended.result()


async def _in_time(seconds: float, values: Awaitable[T], name: str) -> T:
    """The same of a coroutine, which is cancelled."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await values
    except TimeoutError:
        if not limit.expired():
            raise
        raise _too_long(name, seconds) from None


def _too_long(name: str, seconds: float) -> RewardTimeoutError:
    return RewardTimeoutError(f"reward {name!r} took longer than its timeout_s of {seconds:g} s")


async def _fails_on(
    on: Callable[[Sequence[int], dict[str, Any]], Coroutine[Any, Any, Values]], rows: Sequence[int], columns: dict[str, Any]
) -> list[int]:
    """The rows that a reward fails on alone; all of them where it fails on none alone. Behind one that it hangs on, none is asked."""
    failed: list[int] = []
    for at, row in enumerate(rows):
        try:
            await on([row], columns)
        except RewardTimeoutError:
            return [*failed, *rows[at:]]
        except (Exception, SystemExit) as error:
            if isinstance(error, InputError):
                raise
            failed.append(row)
    return failed or list(rows)


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RewardError("a reward that is not async waits for something; write it as `async def`")


def _chosen(only: Mapping[str, frozenset[str]], columns: Mapping[str, Any], count: int) -> list[int]:
    missing = [name for name in only if name not in columns]
    if missing:
        raise RewardError(f"a reward is for some values of {missing[0]!r} only, and the rows have no such column")
    return [row for row in range(count) if all(str(columns[name][row]) in allowed for name, allowed in only.items())]


def _of_rows(columns: Mapping[str, Any], rows: Sequence[int], count: int) -> dict[str, Any]:
    """The columns of some rows; what is not one value a row (TRL's state, its loggers) stays."""
    if len(rows) == count:
        return dict(columns)
    some: dict[str, Any] = {}
    for name, column in columns.items():
        is_column = isinstance(column, Sequence) and not isinstance(column, str) and len(column) == count
        some[name] = [column[row] for row in rows] if is_column else column
    return some


def _note(noted: dict[str, list[Any]], count: int, column: str, values: Sequence[Any]) -> None:
    """Keeps what a reward says of its rows until it has succeeded: TRL adds what it is told twice."""
    if len(values) != count:
        raise RewardError(f"log_extra({column!r}, ...) was given {len(values)} values for {count} completions")
    noted[column] = list(values)


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(function.__call__)


def _wanted(function: Callable[..., Any]) -> frozenset[str] | None:
    """The names of a function's parameters; None for all columns."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return frozenset(parameters)


def _values(values: Any, count: int, call: Call, columns: dict[str, Any]) -> Values:
    name, low, high = call.name, call.about.low, call.about.high
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise RewardError(f"reward {name!r} returned {type(values).__name__}; must return a list of numbers or None, one a completion")
    if len(values) != count:
        raise RewardError(f"reward {name!r} returned {len(values)} values for {count} completions")
    for row, value in enumerate(values):
        if value is None:
            continue
        if not (isinstance(value, Real) and math.isfinite(value) and abs(float(value)) <= _LARGEST):
            raise RewardError(f"reward {name!r}{_row(columns, row)} returned {value!r}; must be a finite number, or None for not scored")
        if not low <= float(value) <= high:
            raise RewardError(f"reward {name!r}{_row(columns, row)} returned {value!r}; its range is {low:g} to {high:g}")
    return [None if value is None else float(value) for value in values]


def _row(columns: dict[str, Any], row: int) -> str:
    ids = columns.get("record_id")
    return f", record {ids[row]!r}," if isinstance(ids, Sequence) and row < len(ids) else f", row {row},"


def _failure(name: str, columns: dict[str, Any], rows: Sequence[int], error: BaseException) -> RewardError:
    ids = columns.get("record_id")
    named = list(dict.fromkeys(ids[row] for row in rows)) if ids else []
    more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    where = f" on records {', '.join(map(repr, named[:_MOST_NAMED]))}{more}" if named else ""
    return RewardError(f"reward {name!r} failed{where}: {type(error).__name__}: {error}")
