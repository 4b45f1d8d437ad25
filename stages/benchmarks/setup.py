"""How an evaluation was made (`setup.json`): what its figures depend on, so that it goes on only as it began and can be made again.

Everything but `made` must be alike when an evaluation is gone on with: the benchmark, its files by their digests, the model by the digest of
its weights, how clips and questions are shown, how answers are drawn, the seed, and the versions and the device that last bits depend on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnistage.data.errors import InputError
from omnistage.stages import files

SETUP = "setup.json"
# What does not change an answer.
_MAY_DIFFER = "made"


def begin(folder: Path, setup: Mapping[str, Any]) -> None:
    """Note how an evaluation is made, or see that the one in `folder` was made in this way.

    Raises:
        InputError: another evaluation stands in `folder`; the message names the first thing that differs.
    """
    path = folder / SETUP
    if not path.exists():
        files.write_json(path, dict(setup))
        return
    # Through JSON, since a tuple comes back as a list.
    now, before = json.loads(json.dumps(dict(setup))), files.read_json(path)
    differs = _first_difference(before, now, "")
    if differs is not None:
        name, was, is_now = differs
        raise InputError(
            f"{path}: an evaluation with {name} {_short(was)} stands there, and this one has {_short(is_now)}; "
            "choose another --out, or remove that folder to measure again"
        )


def read(folder: Path) -> dict[str, Any]:
    """What stands in a folder; raises `InputError` when it is missing or no JSON object."""
    found = files.read_json(folder / SETUP)
    if not isinstance(found, dict) or not isinstance(found.get("benchmark"), str):
        raise InputError(f"{folder / SETUP}: holds no `benchmark`; allowed: what `omnistage evaluate` writes")
    return found


def _first_difference(before: Any, now: Any, name: str) -> tuple[str, Any, Any] | None:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            if name or key != _MAY_DIFFER:
                found = _first_difference(before.get(key), now.get(key), f"{name}.{key}" if name else key)
                if found is not None:
                    return found
        return None
    return None if before == now else (name, before, now)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
