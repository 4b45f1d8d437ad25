"""An evaluate stage against the nearest earlier one that asked the same items: the paired difference of every figure.

Kept beside the evaluation as `against.json`: {"stage", "scores", "items", "figures"}, where `figures` are the rows of
`stages.benchmarks.compare` and `scores` the digests of both `scores.jsonl`, so that a stage that is measured again is compared again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnistage.stages import files
from omnistage.stages.benchmarks import compare, items, registry, setup

NAME = "against.json"


def note(out: Path, earlier: Mapping[str, Path]) -> None:
    """Compare the evaluate stage in `out` with the last of the `earlier` ones (folders by their names) that asked the same, if any, unless
    that is done.

    Raises:
        InputError: a file cannot be read.
    """
    asked = _asked(out)
    before = next((name for name in reversed(list(earlier)) if _asked(earlier[name]) == asked), None)
    if asked is None or before is None:
        (out / NAME).unlink(missing_ok=True)
        return
    found = kept(out, earlier)
    if found is not None and found["stage"] == before:
        return
    result = compare.compare(earlier[before] / "evaluation", out / "evaluation", registry.of(asked["benchmark"]).figures)
    row = {"stage": before, "scores": _digests(earlier[before], out), "items": result["items"], "figures": result["figures"]}
    files.write_json(out / NAME, row)


def kept(out: Path, earlier: Mapping[str, Path]) -> dict[str, Any] | None:
    """What was noted; None where there is nothing, or where either evaluation is another one now."""
    path = out / NAME
    if not path.exists():
        return None
    found = dict(files.read_json(path))
    before = earlier.get(found["stage"])
    if before is None or not (before / "evaluation" / items.SCORES).exists() or found["scores"] != _digests(before, out):
        return None
    return found


def table(found: dict[str, Any]) -> list[str]:
    """The lines for a terminal."""
    return [f"  against {found['stage']}:", *(f"  {line}" for line in compare.lines(found["figures"]))]


def _asked(folder: Path) -> dict[str, Any] | None:
    """What makes two evaluations ask the same: the benchmark and its items, as they were put."""
    if not (folder / "evaluation" / items.SCORES).exists():
        return None
    made = setup.read(folder / "evaluation")
    return {"benchmark": made["benchmark"], "items": made["items"]["sha256"]}


def _digests(before: Path, after: Path) -> list[str]:
    return [files.digest(folder / "evaluation" / items.SCORES) for folder in (before, after)]
