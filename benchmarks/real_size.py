"""A published architecture with random weights takes GRPO steps on one GPU, beside what `omnistage plan` says of them.

    python benchmarks/real_size.py [--size 7b] [--steps 3] [--rank 32] [--frames 16] [--out benchmarks/results]
    python benchmarks/real_size.py --size tiny --frames 4                  # does the script run? (on a CPU, too)

The whole command `omnistage run`: LoRA on the language model, frozen towers, bfloat16, clips of 16 frames that are heard, 8 completions of
256 tokens a prompt. Writes seconds of each step and the peak of memory, predicted and measured, to `OUT/DEVICE-SIZE-run.json`. The
first step loads kernels and is not counted. On a CPU the plan, which is of a GPU, says little.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from gpu import model_of

from omnistage.data import synth
from omnistage.stages import files
from omnistage.stages.plan import report
from omnistage.stages.recipe import loading as recipes
from omnistage.stages.recipe.schema import Recipe

CLIPS = 8


def recipe_of(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One GRPO stage on video with its sound."""
    pixels = 151_200 if arguments.size != "tiny" else 3136
    return {
        "run_dir": str(folder / "run"),
        "prompt": "short",
        "model": {
            "path": str(folder / "model"),
            "dtype": "bfloat16" if torch.cuda.is_available() else "float32",
            "freeze": ["vision", "audio"],
            "lora": {"rank": arguments.rank, "alpha": 2 * arguments.rank},
        },
        "media": {"fps": 8.0, "max_frames": arguments.frames, "min_pixels": pixels, "max_pixels": pixels},
        "stages": [
            {
                "name": "audio_video",
                "kind": "grpo",
                "modality": "audio_video",
                "data": [
                    {"path": str(folder / "train_audio_video.json"), "media_root": str(folder), "modality": "audio_video"},
                ],
                # The more words the better: random weights write different numbers of them, so that there is something to learn.
                "rewards": [{"name": "length", "config": {"least": 1000, "soft": 1000, "unit": "words"}}],
                "learning_rate": 1e-5,
                "steps": arguments.steps,
                "num_generations": 8,
                "prompts_per_step": 2,
                "max_completion_length": 256 if arguments.size != "tiny" else 16,
            }
        ],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=("3b", "7b", "tiny"), default="7b")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if gpu else "cpu"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synth.render(folder, seed=0, cold_start=0, train=CLIPS, held_out=0, modalities=["audio_video"], workers=1)
        model, processor = model_of(arguments.size, "cuda" if gpu else "cpu", torch.bfloat16 if gpu else torch.float32)
        model.save_pretrained(folder / "model")
        processor.save_pretrained(folder / "model")
        del model
        recipe = folder / "recipe.yaml"
        recipe.write_text(json.dumps(recipe_of(folder, arguments)), encoding="utf-8")
        total = torch.cuda.get_device_properties(0).total_memory / 1e9 if gpu else 80.0
        planned = report.plan(recipes.build(Recipe, json.loads(recipe.read_text()), "recipe"), gpu_gb=total)["stages"][0]
        # Of this process the GPU shall hold nothing.
        if gpu:
            torch.cuda.empty_cache()
        done = subprocess.run([sys.executable, "-m", "omnistage.launch", "run", str(recipe)], check=False)
        if done.returncode:
            return done.returncode
        rows = [row for row in files.read_lines(folder / "run" / "01-audio_video" / "metrics.jsonl") if "step_seconds" in row]
    peak, seconds = planned["memory"]["single"]["peak"], planned["time"]["step_s"]
    found = {
        "device": device,
        "size": arguments.size,
        "tokens": planned["tokens"],
        "gradient_norms": [row["grad_norm"] for row in rows if "grad_norm" in row],
        "peak_bytes": {"predicted": peak, "measured": rows[-1]["peak_memory_mb"] * 1e6},
        "step_s": {"predicted": seconds, "measured": statistics.median(row["step_seconds"] for row in rows[1:])},
    }
    for what in ("peak_bytes", "step_s"):
        both = found[what]
        ratio = both["predicted"] / both["measured"]
        print(f"{what}: predicted {both['predicted']:.4g}, measured {both['measured']:.4g}, ratio {ratio:.2f}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{re.sub(r'[^a-z0-9]+', '-', device.lower())}-{arguments.size}-run.json"
    files.write_json(path, found)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
