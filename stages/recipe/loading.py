"""Recipes read, overridden and validated before anything heavy is imported.

`load` gives the validated `Recipe`; everything that is wrong with a file becomes one `RecipeError` line that says where and what is
allowed, several faults joined by ` | `. The sections of `schema` can be imported from here. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from omnistage.data.errors import RecipeError, unknown_name
from omnistage.stages.recipe.describe import describe, launch_command
from omnistage.stages.recipe.model import Lora, Model, Tiny
from omnistage.stages.recipe.reward_use import RewardUse
from omnistage.stages.recipe.schema import (
    EvaluateStage,
    Evaluation,
    GrpoStage,
    HeadStage,
    Measurement,
    Recipe,
    SftStage,
    Stage,
    Training,
)
from omnistage.stages.recipe.source import Source
from omnistage.stages.recipe.surroundings import Launch, Media, Synth
from omnistage.stages.recipe.yaml_file import apply_override, fill_run_dir, read_yaml

__all__ = [
    "EvaluateStage",
    "Evaluation",
    "GrpoStage",
    "HeadStage",
    "Launch",
    "Lora",
    "Measurement",
    "Media",
    "Model",
    "Recipe",
    "RewardUse",
    "SftStage",
    "Source",
    "Stage",
    "Synth",
    "Tiny",
    "Training",
    "build",
    "describe",
    "dump",
    "find",
    "json_schema",
    "launch_command",
    "load",
    "shipped",
]

SectionT = TypeVar("SectionT", bound=BaseModel)

MOST_FAULTS = 8
_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The validated recipe of a file, or of a shipped recipe's bare name where no such file exists.

    `overrides` are `a.b=value` strings with YAML values; lists are addressed by index or by an entry's name (`stages.video.steps=5`).
    Raises `RecipeError` with one line.
    """
    raw = read_yaml(find(path))
    for override in overrides:
        apply_override(raw, override)
    if isinstance(raw.get("run_dir"), str):
        raw = fill_run_dir(raw, raw["run_dir"])
    return build(Recipe, raw, str(path))


def build(section: type[SectionT], raw: Mapping[str, Any], where: str) -> SectionT:
    """A validated section from plain data. Raises `RecipeError` whose one line opens with `where`."""
    try:
        return section.model_validate(raw)
    except ValidationError as error:
        faults = [_fault(detail, raw) for detail in error.errors(include_url=False)]
        rest = f" | and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
        raise RecipeError(f"{where}: {' | '.join(faults[:MOST_FAULTS])}{rest}") from error


def dump(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as plain JSON data; `build(Recipe, dump(recipe), where)` gives it back."""
    return recipe.model_dump(mode="json")


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors."""
    return Recipe.model_json_schema()


def shipped() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "shipped").glob("*.yaml"))}


def find(path: str | Path) -> Path:
    """The file of a recipe: `path` itself, or the shipped recipe of that name. Raises `RecipeError` where there is neither."""
    file = Path(path)
    if file.is_file():
        return file
    known = shipped()
    if str(path) in known:
        return known[str(path)]
    if file.exists():
        raise RecipeError(f"{file}: is no file; give the recipe's YAML file")
    raise RecipeError(f"{file}: no such file, and {unknown_name('shipped recipe', str(path), known)}")


def _fault(detail: ErrorDetails, raw: Any) -> str:
    """One fault as `stages[1] (video).num_generations: is 1; must be at least 2`."""
    place = _place(detail["loc"], raw)
    missing = detail["type"] == "missing"
    if detail["type"].startswith("union_tag"):
        place = f"{place}.kind"
        missing = detail["type"] == "union_tag_not_found"
    text = "is missing" if missing else _wrong_value(detail)
    return f"{place}: {text}" if place else text


def _place(location: tuple[int | str, ...], raw: Any) -> str:
    """Where a fault is, in the file's terms: pydantic's location less the names of union branches."""
    text = ""
    spot, branched = raw, None
    for part in location:
        # A stage of kind `head` has a field of that name, too: a section's branch is named once.
        if isinstance(spot, Mapping) and part in (spot.get("kind"), spot.get("at")) and spot is not branched:
            branched = spot
            continue
        if isinstance(part, int) and isinstance(spot, Sequence):
            spot = spot[part]
            named = isinstance(spot, Mapping) and isinstance(spot.get("name"), str)
            text += f"[{part}]" + (f" ({spot['name']})" if named else "")
        elif isinstance(spot, Mapping):
            spot = spot.get(part)
            text += f".{part}" if text else str(part)
    return text


def _wrong_value(detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    given = f"is {_short(detail['input'])}"
    if kind == "value_error":
        return str(context["error"])
    if kind in _WANTED:
        return f"{given}; must be {_WANTED[kind]}"
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{given}; must be {words} {context[key]:g}"
    if kind in ("literal_error", "enum", "union_tag_invalid"):
        known = [name.strip(" '") for name in context.get("expected", context.get("expected_tags", "")).replace(" or ", ",").split(",")]
        value = context["tag"] if kind == "union_tag_invalid" else detail["input"]
        return unknown_name("value", str(value), known)
    if kind == "too_short":
        return f"has {context['actual_length']} entries; must have at least {context['min_length']}"
    if kind == "string_too_short":
        return "is empty"
    if kind == "string_pattern_mismatch":
        return f"{given}; must match {context['pattern']}"
    return f"{given}; {detail['msg']}"


def _short(value: Any) -> str:
    if value is None:
        return "null"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
