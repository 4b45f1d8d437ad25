"""What `omnistage plan` says of memory, beside the peak of real training steps on the CPU.

    python benchmarks/plan.py [--case NAME ...] [--json]

Each case is a GRPO stage of two whole steps, through the package's own trainer, in a process of its own: rollout, policy forward and
backward, AdamW, on rendered clips and a thinker of the real architecture (25 million parameters). Before it the process makes two steps
with a far smaller model, so that what libraries and threads take is there already; measured is the highest resident memory (VmHWM) less the
resident memory before the model is loaded. glibc is told to give blocks above 64 KiB back at once, else what is measured is its habit of
keeping them.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from omnistage.data import synth
from omnistage.rl import policy, tiny
from omnistage.rl.grpo_trainer import OmniGRPOTrainer
from omnistage.stages import grpo, presentation, rows, training
from omnistage.stages.plan import memory, sizes, tokens, work
from omnistage.stages.recipe import loading as recipes
from omnistage.stages.recipe.schema import GrpoStage, Recipe

SIZE = tiny.TinySize(hidden=512, layers=8, heads=8, kv_heads=2, tower_hidden=256, tower_layers=4)
WARM = tiny.TinySize()
CLIPS = 4
STEPS = 2
FROZEN = ["vision", "audio"]
GRPO: dict[str, Any] = {
    "name": "video",
    "kind": "grpo",
    "modality": "video",
    "data": [{"path": "${run_dir}/train_video.json", "media_root": "${run_dir}", "modality": "video"}],
    "rewards": [{"name": "length", "config": {"most": 1000}}],
    "learning_rate": 1e-6,
    "steps": STEPS,
    "num_generations": 4,
    "prompts_per_step": 1,
    "max_completion_length": 64,
    "freeze": FROZEN,
    "trainer": {"gradient_checkpointing": False},
}
CHECKPOINTED = {"trainer": {"gradient_checkpointing": True}}
LORA = {"lora": {"rank": 16, "alpha": 32}}
# What differs from the stage above; `frame` is the pixels of a frame, `dtype` the model's.
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "full, checkpointing": CHECKPOINTED,
    "full, long prompt": {"frame": 28 * 28 * 144},
    "full, long prompt, checkpointing": {"frame": 28 * 28 * 144, **CHECKPOINTED},
    "full, towers trained": {"freeze": []},
    "full, 4 passes": {"prompts_per_step": 4, "per_device_batch": 4},
    "full, not shared": {"shared_prefix": "off"},
    "full, KL reference": {"beta": 0.1},
    "full, bfloat16": {"dtype": "bfloat16"},
    "LoRA": LORA,
    "LoRA, checkpointing": LORA | CHECKPOINTED,
    "LoRA, long prompt": {"frame": 28 * 28 * 144, **LORA},
    "LoRA, long completions": {"max_completion_length": 256, **LORA},
}


def recipe_of(case: str, folder: Path, model: Path) -> Recipe:
    """The recipe of a case, with the checkpoint in `model` and the clips in `folder`."""
    changes = dict(CASES[case])
    frame, dtype = changes.pop("frame", 28 * 28 * 36), changes.pop("dtype", "float32")
    data = {
        "run_dir": str(folder),
        "prompt": "short",
        "model": {"path": str(model), "dtype": dtype},
        "media": {"fps": 8.0, "max_frames": 16, "min_pixels": frame, "max_pixels": frame, "workers": 0},
        "launch": {"threads": 1},
        "stages": [GRPO | changes],
    }
    text = json.dumps(data).replace("${run_dir}", str(folder))
    return recipes.build(Recipe, json.loads(text), case)


def predicted(recipe: Recipe) -> tuple[memory.Memory, memory.Load]:
    """What the plan says of a CPU, for the longest prompt of the files."""
    [stage] = recipe.stages
    assert isinstance(stage, GrpoStage)
    config, source = sizes.config_of(recipe)
    counted = tokens.of_stage(recipe, stage, source.folder, CLIPS)
    load = work.load_of(recipe, stage, counted, counted.longest, cpu=True)
    model = memory.model_of(config, sizes.parameters_of(config, stage, recipe))
    return memory.estimate(model, work.setting_of(recipe, stage, cpu=True), load), load


def train(recipe: Recipe, out: Path) -> None:
    """Two steps through the stage's own trainer."""
    [stage] = recipe.stages
    assert isinstance(stage, GrpoStage)
    assert recipe.model.path is not None
    records, pools = rows.pools(stage.data)
    start = training.Start(recipe.model.path, recipe.model.path, 0)
    trainer = OmniGRPOTrainer(
        training.load(stage, recipe, start),
        grpo.rewards_of(stage),
        args=grpo.config(stage, recipe, out, len(records), 0),
        records=records,
        pools=pools,
        encoder=presentation.encoder(presentation.of_recipe(recipe), recipe.model.path),
        reference=grpo.reference_folder(stage, start),
        shared_prefix=stage.shared_prefix,
        peft_config=training.adapter(stage, recipe),
    )
    # Completions as long as the plan takes them to be.
    trainer.generation_config.suppress_tokens = [*trainer.generation_config.suppress_tokens, *trainer.eos_token_ids]
    trainer.train()
    assert trainer.state.global_step == STEPS


def resident(name: str) -> int:
    """Bytes of this process: VmRSS now, or VmHWM, the most so far."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def child(case: str, folder: Path) -> None:
    """Prints the bytes that the steps of a case took in this process."""
    torch.set_num_threads(1)
    policy.quiet_libraries()
    train(recipe_of(case, folder, folder / "warm"), folder / "out")
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    train(recipe_of(case, folder, folder / "model"), folder / "out")
    print(json.dumps(resident("VmHWM") - before))


def measured(case: str, folder: Path) -> int:
    """The same from a process of its own."""
    kept = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--child", case, "--folder", str(folder)]
    done = subprocess.run(command, env=os.environ | kept, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return int(done.stdout.strip().splitlines()[-1])


def prepare(folder: Path) -> None:
    """Clips and checkpoints."""
    synth.render(folder, seed=0, cold_start=0, train=CLIPS, held_out=0, modalities=["video"], workers=1)
    for name, size in (("model", SIZE), ("warm", WARM)):
        tiny.build(folder / name, synth.corpus(), size=size)


def compared(case: str, folder: Path) -> dict[str, Any]:
    """Bytes predicted and measured."""
    expected, load = predicted(recipe_of(case, folder, folder / "model"))
    found = measured(case, folder)
    return {"case": case, "tokens": load.tokens, "predicted": expected.peak, "measured": found, "ratio": expected.peak / found} | (
        {"parts": expected.to_json()}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--case", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=list(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        if not arguments.json:
            print("| setting | tokens of a pass | predicted | measured | ratio |\n|---|---|---|---|---|")
        for case in arguments.case:
            row = compared(case, folder)
            if arguments.json:
                print(json.dumps(row), flush=True)
            else:
                sizes_ = " | ".join(f"{row[key] / 1e6:.0f} MB" for key in ("predicted", "measured"))
                print(f"| {case} | {row['tokens']:,} | {sizes_} | {row['ratio']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
