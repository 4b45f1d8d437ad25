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
# The same and more, short enough for names; those of `BROKEN` can stand in a recipe alone: readers of answers refuse them.
EVIL = [
    *HOSTILE[:4],
    "<svg onload='window.ran = 1'><a href='javascript:window.ran = 1'>press</a></svg>",
    "javascript:window.ran = 1",
    '" onfocus="window.ran = 1" autofocus tabindex="0" onmouseover="window.ran = 1',
    "'; window.ran = 1; '${window.ran = 1}`${window.ran = 1}`",
    "</style><style>* { display: none }</style><b>bold</b>",
    "<iframe srcdoc='<script>parent.ran = 1</script>'></iframe>",
    "</title></head></body></html><base href='https://example.org/'>",
    "<meta http-equiv=refresh content='0; url=https://example.org/'>",
]
BROKEN = ["\ud800 half a pair \udc00", "\udcff a byte that is no text"]
LABEL = "<img src=x onerror=window.ran=1>"
CONTROLS = ["swapped", "shuffled", "muted"]


def real(folder: Path) -> Path:
    """A finished run that was measured before and after every stage, by the real command; seconds."""
    evaluation = {"data": sources("held_out", *MODALITIES), "controls": CONTROLS, "before": True, "max_new_tokens": 12}
    given = recipe(evaluation=evaluation)
    given["stages"][2] |= {"beta": 0.04, "reference": "stage_start"}
    write(folder / "recipe.yaml", given)
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
    of_stage = folder / f"01-{given['name']}"
    for step, rows in steps.items():
        rollouts.write(of_stage / "rollouts", step, rows)
    logged = [{"step": step, "reward": 0.5, "loss": 0.0} for step in steps]
    of_stage.mkdir(parents=True, exist_ok=True)
    files.write_lines(of_stage / "metrics.jsonl", logged)
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


def with_heads(folder: Path) -> Path:
    """A run with a stage that trained heads for scores and for poses, as far as a page shows it: two poses, one bent, and some scores."""
    bent = [[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]
    flat = [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]] for _ in range(24)]
    numbers = [value for joint in flat for line in joint for value in line]
    made = {"p0": flat, "p1": [*flat[:4], bent, *flat[5:]]}
    rows: list[dict[str, Any]] = [
        {"id": name, "task": "pose", "control": None, "target_values": numbers, "value": {"rotations": pose}} for name, pose in made.items()
    ]
    for control in (None, "blank"):
        rows += [
            {
                "id": f"q{at}",
                "task": "quality",
                "control": control,
                "target_values": [10.0 * at],
                "value": {"values": {"score": 9.0 * at + 5}},
            }
            for at in range(8)
        ]
    score = {"srcc": {"value": 0.9359, "low": 0.9204, "high": 0.9499}, "rmse": {"value": 5.355, "low": 4.945, "high": 5.739}}
    pose = {name: {"value": 34.51, "low": 33.16, "high": 35.78, "mean_pose": 220.68} for name in ("mpjpe_mm", "pa_mpjpe_mm")}
    tasks = {"quality": {"n": 8, "missing": 0, "score": score}, "pose": {"n": 2, "missing": 0} | pose}
    scores = {"head": "both", "tasks": tasks, "controls": {"blank": {"quality": {"n": 8, "missing": 0, "score": score}}}}
    recorded(folder, {}, kind="head", rewards=[])
    files.write_json(folder / "01-video" / "head" / "scores.json", scores)
    files.write_lines(folder / "01-video" / "head" / "predictions.jsonl", rows)
    return folder


def evil(run: Path, to: Path) -> Path:
    """A copy of a real run in which every text of a model, a file or a recipe would be markup, in a folder named so."""
    made = copied(run, to / LABEL)
    held = files.read_json(made / "run.json")
    stages = held["recipe"]["stages"]
    (made / "02-video").rename(made / f"02-{LABEL}")
    stages[1]["name"] = LABEL
    for stage in stages[1:]:
        for use, text in zip(stage["rewards"], EVIL, strict=False):
            use["label"] = text
    held |= {"source": BROKEN[0], "versions": {EVIL[0]: EVIL[1], "x": BROKEN[1]}}
    held["recipe"]["prompt"] = EVIL[0]
    held["recipe"]["model"]["system_prompt"] = "".join([*EVIL, *BROKEN])
    _write(made / "run.json", [held])
    clip = next((made / "data" / "clips").glob("held_out_video*"))
    clips = [str(shutil.copy(clip, made / f"{text.replace('/', '').replace(chr(0), '')}.mp4")) for text in EVIL]
    for folder in (made / "00-start", *(made / f"{at:02d}-{stage['name']}" for at, stage in enumerate(stages, start=1))):
        for at, path in enumerate(sorted((folder / "rollouts").glob("*.parquet"))):
            _poison(path, clips, at)
        if (folder / "metrics.jsonl").exists():
            rows = list(files.read_lines(folder / "metrics.jsonl"))
            _write(
                folder / "metrics.jsonl",
                [row | {text: 1.0, f"rewards/accuracy/task/{text}/mean": 0.5} for row in rows for text in EVIL[:1]],
            )
        texts = [*EVIL, HOSTILE[4]]
        items = list(files.read_lines(folder / "evaluation" / "items.jsonl"))
        for at, row in enumerate(items):
            text = texts[at % len(texts)]
            options = {"options": [text for _ in row["options"]]} if row["options"] else {}
            media = [given | {"path": clips[at % len(clips)]} for given in row["media"] if given["kind"] == "video"] or row["media"]
            row |= {"question": text, "task": text[:200], "media": media, **options}
        _write(folder / "evaluation" / "items.jsonl", items)
        for name, changed in (("predictions", ("raw",)), ("scores", ("answer", "reason"))):
            rows = list(files.read_lines(folder / "evaluation" / f"{name}.jsonl"))
            _write(
                folder / "evaluation" / f"{name}.jsonl", [r | {key: texts[at % len(texts)] for key in changed} for at, r in enumerate(rows)]
            )
    summary = files.read_json(made / "summary.json")
    for row in summary["stages"]:
        row["name"] = LABEL if row["name"] == "video" else row["name"]
    files.write_json(made / "summary.json", summary)
    return made


def _write(path: Path, rows: Sequence[Any]) -> None:
    """JSON in ASCII, which may hold half pairs."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _poison(path: Path, clips: Sequence[str], at: int) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    for number, row in enumerate(rows):
        text = EVIL[(at + row["group"]) % len(EVIL)]
        row |= {"question": text, "options": [text, text], "target": text, "task": text, "prompt": text, "extra/why": text}
        row |= {"completion": f"<think>{text}</think>{text}<answer>{EVIL[number % len(EVIL)]}</answer>"}
        row |= {"media": [clips[(at + row["group"]) % len(clips)]], "record_id": f"{row['group']} {text}"}
    step = rows[0]["step"]
    rollouts.write(path.parent, step, rows)
