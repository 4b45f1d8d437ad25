"""Reads a recipe's YAML and applies `--set` overrides to it, before it is validated. A fault is one `RecipeError` line with its place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from omnistage.data.errors import RecipeError, unknown_name

RUN_DIR = "${run_dir}"
PATH_KEYS = frozenset({"path", "media_root"})


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys and reads `1e-6` as the number it is in YAML 1.2."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Checked here, before merge keys are resolved: a key that overrides a merged one is no duplicate."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"duplicate key {key.value!r}", key.start_mark)
            seen.add(str(key.value))
        return node


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))


def parse_yaml(text: str, where: str) -> Any:
    """The value that `text` holds, no object shared between two places of it. `where` opens the line of a `RecipeError`."""
    try:
        return _unshared(yaml.load(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise RecipeError(f"{where}: {line}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise RecipeError(f"{where}: is nested too deeply, or holds itself") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping at the top of the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict):
        raise RecipeError(f"{path}: must hold a mapping (run_dir, model, stages, ...), not {_kind(value)}")
    return value


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Sets one `a.b.c=value` in `raw`. Lists are addressed by index or by the `name` of an entry; a section that is not there is made."""
    address, sign, text = override.partition("=")
    where = f"--set {override}"
    parts = address.strip().split(".")
    if not sign or not all(parts):
        raise RecipeError(f"{where}: must read KEY=VALUE, with dots between the parts of KEY")
    value = parse_yaml(text, where)
    spot: Any = raw
    for position, part in enumerate(parts[:-1]):
        spot = _step_into(spot, part, ".".join(parts[:position]), where)
    if isinstance(spot, list):
        spot[_index(spot, parts[-1], ".".join(parts[:-1]), where)] = value
    elif isinstance(spot, dict):
        spot[parts[-1]] = value
    else:
        raise RecipeError(f"{where}: {'.'.join(parts[:-1])} is {spot!r}, which has no parts")


def fill_run_dir(value: Any, run_dir: str, key: str = "") -> Any:
    """`value` with `${run_dir}` replaced in every `path` and `media_root`."""
    if isinstance(value, dict):
        return {name: fill_run_dir(entry, run_dir, str(name)) for name, entry in value.items()}
    if isinstance(value, list):
        return [fill_run_dir(entry, run_dir) for entry in value]
    return value.replace(RUN_DIR, run_dir) if isinstance(value, str) and key in PATH_KEYS else value


def _step_into(spot: Any, part: str, address: str, where: str) -> Any:
    if isinstance(spot, list):
        return spot[_index(spot, part, address, where)]
    if not isinstance(spot, dict):
        raise RecipeError(f"{where}: {address} is {spot!r}, which has no parts")
    if spot.get(part) is None:
        spot[part] = {}
    return spot[part]


def _index(entries: list[Any], part: str, address: str, where: str) -> int:
    names = [str(entry["name"]) for entry in entries if isinstance(entry, dict) and "name" in entry]
    for index, entry in enumerate(entries):
        if isinstance(entry, dict) and str(entry.get("name")) == part:
            return index
    if re.fullmatch(r"[0-9]+", part) and int(part) < len(entries):
        return int(part)
    if names and not part.isdecimal():
        raise RecipeError(f"{where}: {unknown_name(f'entry of {address}', part, names)}")
    raise RecipeError(f"{where}: {address} has {len(entries)} entries, counted from 0; {part!r} is none of them")


def _unshared(value: Any) -> Any:
    """A copy in which an anchor's aliases are objects of their own, so that an override of one stage leaves the others alone."""
    if isinstance(value, dict):
        return {key: _unshared(entry) for key, entry in value.items()}
    return [_unshared(entry) for entry in value] if isinstance(value, list) else value


def _kind(value: Any) -> str:
    names: dict[type, str] = {type(None): "nothing", list: "a list", str: "text"}
    return names.get(type(value), repr(value))
