"""Runs to report on: a real one of all kinds of stage, and rollouts written as a GRPO stage writes them, as many as a test wants."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnistage.rewards import rollouts
from omnistage.stages import files
from small_run import MODALITIES, omnistage, recipe, sources, write

# What a page must show as text. `window.ran` tells that something of it was run.
HOSTILE = [
    "</script><script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 1'>",
    "<!-- <script> --> \u2028 \u2029 &lt; &amp; %%DATA%% %%SCRIPT%%",
    "\u202eright to left\u202c \u2066 \x00 \x1b[31m",
    "a" * 1_000_000,
]
CONTROLS = ["swapped", "shuffled", "muted"]


def real(folder: Path) -> Path:
    """A finished run that was measured before and after every stage, by the real command; seconds."""
    evaluation = {"data": sources("held_out", *MODALITIES), "controls": CONTROLS, "before": True, "max_new_tokens": 12}
    write(folder / "recipe.yaml", recipe(evaluation=evaluation))
    done = omnistage("run", "recipe.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "run"


def copied(run: Path, to: Path, *, without: Sequence[str] = ()) -> Path:
    """The run in another place, without some of its folders."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("checkpoints", "events"))
    for name in without:
        path = to / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return to


def completion(record: str, group: int, text: str, reward: float | None, **changes: Any) -> dict[str, Any]:
    """A row as it is recorded, with one reward `right`."""
    row: dict[str, Any] = {
        "record_id": record,
        "group": group,
        "target": "A",
        "solution": "A",
        "kind": "single_choice",
        "options": ["left", "right"],
        "values": [],
        "task": "direction",
        "modality": "video",
        "media": [],
        "question": "which way?",
        "evidence": {"sight": [], "sound": []},
        "prompt": "which way? A left B right",
        "messages": "[]",
        "completion": text,
        "completion_ids": [1, 2],
        "advantage": 0.0,
        "reward/right": reward,
    }
    return row | changes


def recorded(folder: Path, steps: Mapping[int, Sequence[dict[str, Any]]], **stage: Any) -> Path:
    """A run directory whose one GRPO stage has recorded these completions by step."""
    given = {"name": "video", "kind": "grpo", "modality": "video", "rewards": [{"name": "right", "weight": 2.0}], "data": []} | stage
    files.write_json(folder / "run.json", {"recipe": {"run_dir": str(folder), "seed": 0, "stages": [given]}, "versions": {}})
    for step, rows in steps.items():
        rollouts.write(folder / "01-video" / "rollouts", step, rows)
    logged = [{"step": step, "reward": 0.5, "loss": 0.0} for step in steps]
    (folder / "01-video").mkdir(parents=True, exist_ok=True)
    files.write_lines(folder / "01-video" / "metrics.jsonl", logged)
    return folder


def hostile(folder: Path) -> Path:
    """A run whose every text, and whose folder's name, would be markup."""
    rows = [
        completion(text[:100], group, text, float(at), question=text, options=[text], target=text, task=text[:100], **{"extra/why": text})
        for group, text in enumerate(HOSTILE)
        for at in range(2)
    ]
    return recorded(folder / HOSTILE[1].replace("/", ""), {1: rows})


def data_in(html: str, key: str = "data") -> Any:
    """The value of one of a page's JSON elements, as its script reads it."""
    opening = f'<script type="application/json" id="{key}">'
    start = html.index(opening) + len(opening)
    return json.loads(html[start : html.index("</script>", start)])
