"""What heads learn from, rendered by a run: the levels in words are learned by a plain supervised stage, as LMME3DHF's first stage does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from small_run import omnistage, recipe, write

ROOT = "${run_dir}/data/quality"


def _levels(name: str) -> list[dict[str, Any]]:
    return [{"format": "gen3dhf", "path": f"{ROOT}/text/{name}_quality.json", "media_root": ROOT}]


def test_a_run_renders_and_learns_from_it(tmp_path: Path) -> None:
    counts = {"cold_start": 0, "train": 0, "held_out": 0, "quality": {"train": 8, "held_out": 4}, "pose": {"train": 2, "held_out": 1}}
    stage = {"name": "levels", "kind": "sft", "data": _levels("train"), "batch_size": 4, "learning_rate": 1e-3, "steps": 2}
    write(
        tmp_path / "recipe.yaml",
        recipe(
            synth={"path": "${run_dir}/data", "seed": 3, **counts},
            evaluation={"data": _levels("eval"), "controls": [], "before": False, "max_new_tokens": 12},
            stages=[stage],
        ),
    )
    done = omnistage("run", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    data = tmp_path / "run" / "data"
    assert json.loads((data / "render_heads.json").read_text())["quality"] == {"train": 8, "held_out": 4}
    assert len(list((data / "quality" / "video_RGB").iterdir())) == 12
    assert len(json.loads((data / "pose" / "images" / "train_images.json").read_text())) == 2
    (stage,) = json.loads((tmp_path / "run" / "summary.json").read_text())["stages"]
    assert stage["modalities"]["video"]["n"] == 4
    assert json.loads((tmp_path / "run" / "00-start" / "seconds.json").read_text())["render_s"] > 0
