"""The recipe's JSON schema as a page for people (docs/recipe.md).

`reference.md` beside this file holds the words and examples; each `<!-- keys: NAME -->` in it becomes the table of that section, so that
keys, allowed values, defaults and meanings come from the models themselves. Sections that it does not name come last. Imports no torch.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from omnistage.rewards import registry
from omnistage.rewards.base import COLUMNS
from omnistage.stages.recipe.schema import Recipe, Training

TEXT = Path(__file__).with_name("reference.md")
MARK = re.compile(r"^<!-- (keys|rewards|judge|rest)(?:: (\w+))? -->$", re.MULTILINE)
PAGE = re.compile(r"\bdocs/(\w+\.md)")
REQUIRED = "**required**"
KEYS = ("key", "value", "default", "meaning")
# `keys: NAME` of what is no section of the schema: the keys that several sections share.
SHARED = {"Training": tuple(Training.model_fields)}
# Meanings of the built-in rewards' settings. A test holds the names to the rewards' own.
REWARDS = {
    "accuracy.partial": "0.5 for a selection that misses letters and has no wrong one",
    "format.context": "a `<context>` must stand before the thinking",
    "reasoning.parts": "`consistency` and `evidence` with their weights",
    "reasoning.most_words": "as for `evidence`",
    "evidence.most_words": "a longer thinking, which could list everything, earns nothing",
    "length.least": "shortest length that earns 1",
    "length.most": "longest length that earns 1",
    "length.soft": "over how many more or fewer it falls to 0",
    "length.unit": "what is counted",
    "length.of": "of what (of the thinking: words alone)",
    "overlong.most": "tokens at which it is -1",
    "overlong.soft": "over how many tokens before that it falls from 0",
    "repetition.n": "words of an n-gram",
    "overlap.measure": "what the answer shares with the target",
    "scalar.scale": "error that the measure goes by, in the unit of the numbers (`relative`: a share of the right one)",
    "scalar.measure": "how the value falls with the error",
    "pose.scale_deg": "mean error, in degrees, at which the value is 1/e",
    "pose.layout": "how six numbers a joint stand; null: answers of 144 numbers score 0",
    "temporal.margin": "by how much clips in order must be answered right more often than shuffled ones",
    "head.scale": "error at which the value is 1/e, in the unit of the numbers (poses: degrees)",
    "head.name": "which head; null: the only one",
}
# Settings of the judge: their meaning. A test holds the names to the judge's own.
JUDGE = {
    "url": "an OpenAI-compatible endpoint, without `/chat/completions`",
    "model": "name that the server knows",
    "criteria": "what is judged, by name; each gets 0 to 5",
    "key_env": "environment variable with the key (or, with `_FILE` behind it, one that names a file)",
    "ledger": "file of all calls; what stands in it is not asked again",
    "temperature": "of the judge's sampling",
    "max_tokens": "longest reply",
    "timeout_s": "seconds of one request",
    "attempts": "requests for one call, with growing pauses",
    "concurrency": "requests under way at once in one process",
    "per_minute": "requests a minute of all that share the ledger",
    "most_calls": "calls in the ledger's whole life; past it completions are not scored",
    "most_cost": "the same in money; needs both prices",
    "price_in": "price of a million tokens that are sent",
    "price_out": "price of a million tokens that come back",
    "prompt": "template of your own",
}

Schema = Mapping[str, Any]


def markdown() -> str:
    """The whole page."""
    schema = Recipe.model_json_schema()
    sections: dict[str, Schema] = {"Recipe": schema, **schema["$defs"]}
    text = TEXT.read_text(encoding="utf-8").replace("](../../docs/", "](")
    text = MARK.sub(lambda mark: _filled(mark, sections, _headings(text)), text)
    return text.rstrip() + "\n"


def _headings(text: str) -> dict[str, str]:
    """The heading over each section's table."""
    found, heading = {}, ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif (mark := MARK.match(line)) and mark[2]:
            found[mark[2]] = heading
    return found


def _filled(mark: re.Match[str], sections: Mapping[str, Schema], headings: Mapping[str, str]) -> str:
    what, name = mark.groups()
    if what == "rewards":
        return _rewards()
    if what == "judge":
        return _judge()
    if what == "rest":
        rest = [name for name, section in sections.items() if "properties" in section and name not in headings]
        return "\n\n".join(f"### {name}\n\n{sections[name].get('description', '')}\n\n{_keys(name, sections, {})}" for name in rest)
    return _keys(name, sections, headings)


def _keys(name: str, sections: Mapping[str, Schema], headings: Mapping[str, str]) -> str:
    """The table of a section's keys; a stage that trains leaves out those of all such stages."""
    section = sections["HeadStage" if name in SHARED else name]
    fields = section["properties"]
    if name in SHARED:
        fields = {key: fields[key] for key in SHARED[name]}
    elif set(SHARED["Training"]) <= set(fields):
        fields = {key: field for key, field in fields.items() if key not in SHARED["Training"]}
    rows = []
    for key, field in fields.items():
        told = REQUIRED if key in section.get("required", ()) else _default(field, sections)
        rows.append((f"`{key}`", _value(field, sections, headings), told, _cell(PAGE.sub(r"[\1](\1)", field["description"]))))
    return _table(KEYS, rows)


def _default(field: Schema, sections: Mapping[str, Schema]) -> str:
    default = field.get("default")
    own = sections.get(field.get("$ref", "").rpartition("/")[2], {}).get("properties", {})
    if own and default == {key: of.get("default") for key, of in own.items()}:
        return "its defaults"
    return _code(default)


def _value(field: Schema, sections: Mapping[str, Schema], headings: Mapping[str, str]) -> str:
    """What a value may be, in words."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        if "enum" in sections.get(name, {}):
            return _value(sections[name], sections, headings)
        title = headings.get(name, name)
        return f"[{title}](#{title.lower().replace(' ', '-').replace(chr(39), '')})"
    for several in ("anyOf", "oneOf"):
        if several in field:
            return " or ".join(_value(one, sections, headings) for one in field[several])
    if "const" in field:
        return _code(field["const"])
    if "enum" in field:
        return ", ".join(map(_code, field["enum"]))
    kind = field.get("type")
    if kind == "array":
        least = field.get("minItems", 0)
        return f"list of {_value(field['items'], sections, headings)}" + (f"; at least {least}" if least else "")
    if kind == "object":
        of = field.get("additionalProperties")
        return f"mapping to {_value(of, sections, headings)}" if isinstance(of, Mapping) else "mapping"
    if kind == "string":
        return f"text like {_code(field['pattern'])}" if "pattern" in field else "text"
    if kind in ("integer", "number"):
        return ", ".join([{"integer": "whole number", "number": "number"}[kind], *_range(field)])
    return {"boolean": "`true`, `false`", "null": "`null`"}.get(str(kind), "anything")


def _range(field: Schema) -> Iterable[str]:
    words = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most", "exclusiveMaximum": "less than"}
    return (f"{said} {field[bound]:g}" for bound, said in words.items() if bound in field)


def _rewards() -> str:
    rows = []
    for name, function in registry.BUILT_IN.items():
        if inspect.isclass(function):
            rows.append((f"`{name}`", "[those of a judge](#settings-of-a-judge)", "", "", ""))
            continue
        settings = _settings(function)
        for at, (key, parameter) in enumerate(settings.items()):
            rows.append((f"`{name}`" if at == 0 else "", f"`{key}`", *_setting(parameter), REWARDS[f"{name}.{key}"]))
        if not settings:
            rows.append((f"`{name}`", "none", "", "", ""))
    return _table(("reward", "setting", "value", "default", "meaning"), rows)


def _judge() -> str:
    settings = _settings(registry.BUILT_IN["judge"])
    return _table(("setting", "value", "default", "meaning"), [(f"`{key}`", *_setting(p), JUDGE[key]) for key, p in settings.items()])


def _settings(function: Any) -> dict[str, inspect.Parameter]:
    """The parameters that a recipe may set."""
    columns = frozenset() if inspect.isclass(function) else COLUMNS
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    return {p.name: p for p in parameters if p.kind == p.KEYWORD_ONLY and p.name not in columns}


def _setting(parameter: inspect.Parameter) -> tuple[str, str]:
    value = _value(TypeAdapter(parameter.annotation).json_schema(), {}, {})
    return value, REQUIRED if parameter.default is parameter.empty else _code(parameter.default)


def _code(value: Any) -> str:
    """A value as a recipe writes it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"`{_cell(text)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = ["|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
