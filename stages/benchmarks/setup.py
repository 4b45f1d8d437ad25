"""How an evaluation was made (`setup.json`): what its figures depend on, so that it goes on only as it began and can be made again.

Everything but `made` must be alike when an evaluation is gone on with: the benchmark, its files by their digests, the model by the digest
of its weights, how clips and questions are shown, how answers are drawn, the seed, and the versions and the device that last bits depend
on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnistage.data.errors import InputError
from omnistage.stages import files
from omnistage.stages.benchmarks.items import ITEMS, PARTS, PREDICTIONS, SCORES
from omnistage.stages.difference import first_difference

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
        found = [name for name in (ITEMS, PREDICTIONS, SCORES, PARTS) if (folder / name).exists()]
        if found:
            raise InputError(f"{folder} holds {', '.join(found)} and no {SETUP}: nobody knows whose they are; choose another folder")
        files.write_json(path, dict(setup))
        return
    # Through JSON, since a tuple comes back as a list.
    now, before = json.loads(json.dumps(dict(setup))), read(folder)
    differs = first_difference(_alike(before), _alike(now))
    if differs is not None:
        raise InputError(
            f"{path}: another evaluation stands there: {differs}; choose another folder, or remove this whole one to measure again"
        )
    check_items(folder, before)


def check_items(folder: Path, setup: Mapping[str, Any]) -> None:
    """Raises `InputError` when `items.jsonl` is not what was asked, where the setup says what that was."""
    told = setup.get("items")
    if isinstance(told, dict) and "sha256" in told and (folder / ITEMS).exists() and files.digest(folder / ITEMS) != told["sha256"]:
        raise InputError(
            f"{folder / ITEMS} has changed since it was asked ({SETUP} has another digest); restore it, or take {SETUP}'s away"
        )


def read(folder: Path) -> dict[str, Any]:
    """What stands in a folder; raises `InputError` when it is missing or no JSON object."""
    if not (folder / SETUP).is_file():
        raise InputError(f"{folder} holds no {SETUP}; allowed: a folder that `omnistage evaluate` has written")
    found = files.read_json(folder / SETUP)
    if not isinstance(found, dict) or not isinstance(found.get("benchmark"), str) or not isinstance(found.get("made", {}), dict):
        raise InputError(f"{folder / SETUP}: holds no `benchmark`; allowed: what `omnistage evaluate` writes")
    return found


def _alike(setup: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in setup.items() if name != _MAY_DIFFER}
