"""A run of all kinds of stage that takes seconds: rendered clips, a two-layer model, a few steps, a checkpoint every other step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

MODALITIES = ("video", "audio", "audio_video")
# Random weights earn no accuracy; the share of one letter differs from completion to completion, so that there is something to learn.
REWARD_FILE = "e_share.py"
REWARD = "def e_share(completions, **columns):\n    return [c[0]['content'].count('e') / 8 for c in completions]\n"


def sources(split: str, *modalities: str) -> list[dict[str, Any]]:
    root = "${run_dir}/data"
    return [{"path": f"{root}/{split}_{m}.json", "media_root": root, "modality": m} for m in modalities]


def grpo(modality: str, **changes: Any) -> dict[str, Any]:
    stage = {
        "name": modality,
        "kind": "grpo",
        "modality": modality,
        "data": sources("train", modality, *[m for m in MODALITIES if m != modality]),
        "freeze": ["vision", "audio"],
        "rewards": [{"name": "accuracy"}, {"name": "format", "weight": 0.2}, {"name": f"{REWARD_FILE}:e_share"}],
        "num_generations": 4,
        "prompts_per_step": 4,
        "max_completion_length": 8,
        "learning_rate": 1e-3,
        "steps": 6,
        "save_every": 2,
    }
    return stage | changes


def recipe(**changes: Any) -> dict[str, Any]:
    """A whole recipe as plain data; `changes` replace top-level sections."""
    whole: dict[str, Any] = {
        "run_dir": "run",
        "seed": 3,
        "prompt": "short",
        "media": {"min_pixels": 784, "max_pixels": 12544},
        "model": {"tiny": {"layers": 2}, "dtype": "float32"},
        "synth": {"path": "${run_dir}/data", "seed": 3, "cold_start": 16, "train": 16, "held_out": 12, "wrong_answers": {"video": 0.5}},
        "launch": {"threads": 1},
        "evaluation": {"data": sources("held_out", *MODALITIES), "controls": ["swapped"], "before": False, "max_new_tokens": 12},
        "stages": [
            {
                "name": "cold_start",
                "kind": "sft",
                "data": sources("cold_start", *MODALITIES),
                "batch_size": 8,
                "learning_rate": 3e-3,
                "steps": 6,
                "save_every": 2,
            },
            *[grpo(m) for m in MODALITIES],
        ],
    }
    return whole | changes


def write(path: Path, data: dict[str, Any]) -> Path:
    """The recipe, and the reward that its stages name, in a file beside it."""
    (path.parent / REWARD_FILE).write_text(REWARD)
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "omnistage.launch", *map(str, arguments)]


def omnistage(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own, without a terminal."""
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, env=os.environ, timeout=280)
