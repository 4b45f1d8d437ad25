"""Calls a reward function and lets nothing but one finite number or None a completion come out of it.

A reward that fails stops the run and says so: made into a zero, the failure would change what is learned, and nobody would see it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from omnistage.data.errors import OmnistageError, RewardError

_MOST_NAMED = 5


def checked(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """`function` as a TRL reward that raises `RewardError` naming the reward and the record; a coroutine function when `function` is async.

    The function gets the columns that it has parameters for, or all of them when it takes `**columns`. `InputError` passes unchanged.
    """
    wanted = _wanted(function)

    async def awaited(completions: Any, **columns: Any) -> list[float | None]:
        try:
            values = await function(completions=completions, **_kept(columns, wanted))
        except OmnistageError:
            raise
        except Exception as error:
            raise _failure(name, columns, error) from error
        return _values(values, len(completions), name, columns)

    def called(completions: Any, **columns: Any) -> list[float | None]:
        try:
            values = function(completions=completions, **_kept(columns, wanted))
        except OmnistageError:
            raise
        except Exception as error:
            raise _failure(name, columns, error) from error
        return _values(values, len(completions), name, columns)

    # In Python 3.11 only a real function can be a coroutine function, and that is how callers tell what to await.
    return awaited if _is_async(function) else called


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(function.__call__)


def _wanted(function: Callable[..., Any]) -> frozenset[str] | None:
    """The names of a function's parameters; None for all columns."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return frozenset(parameters)


def _kept(columns: dict[str, Any], wanted: frozenset[str] | None) -> dict[str, Any]:
    return columns if wanted is None else {name: column for name, column in columns.items() if name in wanted}


def _values(values: Any, count: int, name: str, columns: dict[str, Any]) -> list[float | None]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise RewardError(f"reward {name!r} returned {type(values).__name__}; must return a list of numbers or None, one a completion")
    if len(values) != count:
        raise RewardError(f"reward {name!r} returned {len(values)} values for {count} completions")
    for row, value in enumerate(values):
        if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
            raise RewardError(f"reward {name!r}{_row(columns, row)} returned {value!r}; must be a finite number, or None for not scored")
    return [None if value is None else float(value) for value in values]


def _row(columns: dict[str, Any], row: int) -> str:
    ids = columns.get("record_id")
    return f", record {ids[row]!r}," if isinstance(ids, Sequence) and row < len(ids) else f", row {row},"


def _failure(name: str, columns: dict[str, Any], error: Exception) -> RewardError:
    ids = list(dict.fromkeys(columns.get("record_id") or ()))
    more = f" and {len(ids) - _MOST_NAMED} more" if len(ids) > _MOST_NAMED else ""
    where = f" on records {', '.join(map(repr, ids[:_MOST_NAMED]))}{more}" if ids else ""
    return RewardError(f"reward {name!r} failed{where}: {type(error).__name__}: {error}")
