"""Rewards by name: built in, from a package, from the user's file, or from an installed plug-in.

A reward is a plain TRL reward function, `f(completions, **columns) -> list[float | None]`, or a class whose instances are called so.
What `load` returns is one too, with its results checked: TRL would take a NaN for "not scored" and train on.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, cast

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from omnistage.data.errors import InputError, unknown_name
from omnistage.data.user_code import function_of_file, function_of_module
from omnistage.rewards.base import COLUMNS, Segment, about, marked
from omnistage.rewards.calls import Call, OnError, checked
from omnistage.rewards.families import accuracy, format, head, length, overlap, pose, reasoning, repetition, scalar, temporal
from omnistage.rewards.judges import judge

BUILT_IN: Mapping[str, Callable[..., Any]] = {
    "accuracy": accuracy.accuracy,
    "format": format.format,
    "reasoning": reasoning.reasoning,
    "consistency": reasoning.consistency,
    "evidence": reasoning.evidence,
    "quality": judge.Quality,
    "judge": judge.Judge,
    "length": length.length,
    "overlong": length.overlong,
    "repetition": repetition.repetition,
    "overlap": overlap.overlap,
    "scalar": scalar.scalar,
    "pose": pose.pose,
    "temporal": temporal.temporal,
    "head": head.head,
}
ENTRY_POINTS = "omnistage.rewards"


@dataclass(frozen=True)
class RewardSpec:
    """One reward as a recipe names it.

    `weight` is its factor in the sum, `config` its own settings, `only` names columns and the values that a row must have to be scored,
    `label` the name that it is logged under, `segment` the part of the completion whose tokens it concerns, `timeout_s` how long a
    call may take.
    """

    name: str
    weight: float = 1.0
    config: Mapping[str, Any] = field(default_factory=dict)
    only: Mapping[str, frozenset[str]] = field(default_factory=dict)
    on_error: OnError = "stop"
    label: str | None = None
    segment: Segment | None = None
    timeout_s: float | None = None


class Reward(Protocol):
    """A TRL reward function that knows its full name and its weight (and what `about` tells). TRL logs it under `__name__`."""

    name: str
    weight: float
    __name__: str

    def __call__(self, completions: Any, **columns: Any) -> Any:
        """One value a completion, None for not scored; a coroutine of these for an async reward."""


def known() -> list[str]:
    """The names that can be used as they are: built in and from installed plug-ins."""
    return sorted({*BUILT_IN, *_plugins()})


def listing() -> list[tuple[str, str]]:
    """Each known name with the first line of its description, or where the plug-in lives (plug-ins are not imported for this)."""
    plugins = {name: plugin.value for name, plugin in _plugins().items()}
    summaries = {name: (inspect.getdoc(function) or "").partition("\n")[0] for name, function in BUILT_IN.items()}
    return sorted({**plugins, **summaries}.items())


def load(spec: RewardSpec) -> Reward:
    """The reward that a spec names, ready for TRL; async when the function is.

    A name is a known one (`known()`, built-in ones first), `package.module:function`, or `path/file.py:function` with the path absolute or
    under the working directory. Raises `InputError` for a name that leads nowhere, for code that cannot be imported, and for a
    setting that the reward does not have. The reward itself raises `RewardError` when its function fails or does not give one finite number
    or None for each completion.
    """
    if not math.isfinite(spec.weight):
        raise InputError(f"reward {spec.name!r}: weight is {spec.weight}; must be a finite number")
    found = _find(spec.name)
    if not callable(found):
        raise InputError(f"reward {spec.name!r} is {type(found).__name__!r}, not a function or a class")
    said = about(found)
    said = replace(said, segment=spec.segment or said.segment)
    spec = replace(spec, config={**said.config, **spec.config})
    function = _configured(spec, found)
    if not _takes_completions(spec, function):
        raise InputError(f"reward {spec.name!r} takes no completions; write it as f(completions, **columns) -> list[float | None]")
    label = spec.label or said.name or spec.name.rpartition(":")[2]
    reward = cast(Reward, marked(checked(function, Call(label, said, spec.only, spec.on_error, spec.timeout_s)), said))
    reward.name, reward.weight, reward.__name__ = spec.name, spec.weight, label
    return reward


def check_settings(spec: RewardSpec) -> None:
    """See that a built-in reward takes its settings, without building it. Raises `InputError` for one that it does not take."""
    found = BUILT_IN[spec.name]
    config = {**about(found).config, **spec.config}
    _settings(replace(spec, config=config), found, frozenset() if inspect.isclass(found) else COLUMNS)


def _takes_completions(spec: RewardSpec, function: Callable[..., Any]) -> bool:
    return any(p.name in ("completions", "completion_ids") or p.kind is p.VAR_KEYWORD for p in _parameters(spec, function))


def _find(name: str) -> Any:
    place, colon, attribute = name.rpartition(":")
    if colon:
        return function_of_file(place, attribute, "reward") if place.endswith(".py") else function_of_module(place, attribute, "reward")
    if name in BUILT_IN:
        return BUILT_IN[name]
    plugins = _plugins()
    if name not in plugins:
        ways = "; your own: 'package.module:function' or 'path/file.py:function'"
        raise InputError(unknown_name("reward", name, known()) + ways)
    return function_of_module(plugins[name].module, plugins[name].attr, "reward")


def _plugins() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _configured(spec: RewardSpec, found: Callable[..., Any]) -> Callable[..., Any]:
    """The callable with its settings bound.

    A class is built with them, a function gets them as keyword arguments, and a function that takes no column at all makes the reward
    of them (TRL's `get_...` do).
    """
    makes = inspect.isclass(found) or not _takes_columns(spec, found)
    settings = _settings(spec, found, frozenset() if makes else COLUMNS)
    if not makes:
        return partial(found, **settings) if settings else found
    try:
        made = found(**settings)
    except InputError as error:
        raise InputError(f"reward {spec.name!r}: {error}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"reward {spec.name!r} cannot be built: {type(error).__name__}: {error}") from error
    if callable(made):
        return cast(Callable[..., Any], made)
    if inspect.isclass(found):
        raise InputError(f"reward {spec.name!r}: objects of the class cannot be called; it needs a __call__(completions, **columns)")
    raise InputError(f"reward {spec.name!r} takes no completions; write it as f(completions, **columns) -> list[float | None]")


def _takes_columns(spec: RewardSpec, function: Callable[..., Any]) -> bool:
    return any(p.name in COLUMNS or p.kind is p.VAR_KEYWORD for p in _parameters(spec, function))


def _settings(spec: RewardSpec, found: Callable[..., Any], columns: frozenset[str]) -> dict[str, Any]:
    """The settings as their parameters want them.

    A setting must be a parameter of its own name: `**columns` takes every column and would hide a misspelt setting.
    """
    named = [p for p in _parameters(spec, found) if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    settings = {p.name: p for p in named if p.name not in columns}
    typed: dict[str, Any] = {}
    for key, value in spec.config.items():
        if key not in settings:
            allowed = unknown_name("setting", key, settings) if settings else f"unknown setting {key!r}; it has no settings"
            raise InputError(f"reward {spec.name!r}: {allowed}")
        typed[key] = _typed(spec.name, key, value, settings[key].annotation)
    missing = [name for name, p in settings.items() if p.default is p.empty and name not in spec.config]
    if missing:
        also = f", and it is none of the columns: {', '.join(sorted(columns))}" if columns else ""
        raise InputError(f"reward {spec.name!r}: setting {missing[0]!r} has no default and is not given{also}")
    return typed


def _typed(name: str, key: str, value: Any, annotation: Any) -> Any:
    """A setting as the type that its parameter is annotated with, where that can be told."""
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return value
    try:
        return TypeAdapter(annotation).validate_json(json.dumps(value), strict=True)
    except PydanticUserError:
        return value
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, ValidationError):
            wrong = error.errors()[0]["msg"]
            raise InputError(f"reward {name!r}: setting {key!r} is {value!r}: {wrong[0].lower()}{wrong[1:]}") from error
        raise InputError(f"reward {name!r}: setting {key!r} must be of numbers, texts, true, false, null, lists and objects") from error


def _parameters(spec: RewardSpec, function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function, eval_str=True).parameters.values())
    except NameError:
        # Annotations that only a type checker can follow.
        return list(inspect.signature(function).parameters.values())
    except ValueError as error:
        raise InputError(f"reward {spec.name!r} does not say which arguments it takes; write it as a Python function") from error
