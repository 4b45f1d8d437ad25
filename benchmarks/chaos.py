"""The demo, killed at random moments and started again each time, beside the demo in one go.

    python benchmarks/chaos.py [--kills 20] [--seed 0] [--out runs/chaos] [--json FILE]

SIGKILL, without warning, at random moments: rendering, training, checkpointing, measuring. Each stage saves every so many steps, in both
runs. In the end every stage's weights, predictions and scores must be the same, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from omnistage.stages import files
from omnistage.stages.recipe import loading as recipes

SAVES = {"cold_start": 50, "video": 2, "audio": 3, "audio_video": 20}
KEPT = ("model/model.safetensors", "evaluation/predictions.jsonl", "evaluation/scores.jsonl", "evaluation/scores.json")
# Python and torch take so long to load that nothing is under way before.
STARTS_S = 8.0


def command(run_dir: Path) -> list[str]:
    saves = [part for name, every in SAVES.items() for part in ("--set", f"stages.{name}.save_every={every}")]
    return [sys.executable, "-m", "omnistage.launch", "run", "demo", "--run-dir", str(run_dir), *saves]


def place_of(run_dir: Path, stages: list[str]) -> str:
    """What a run was doing, as its directory tells."""
    if not (run_dir / "data" / "render.json").exists():
        return "rendering"
    for name in stages:
        folder = run_dir / name
        if not files.is_whole(folder / "model"):
            saving = [path for path in folder.glob("checkpoints/checkpoint-*") if not files.is_whole(path)]
            return f"{name}, saving a checkpoint" if saving else f"{name}, training"
        if not (folder / "evaluation" / "scores.json").exists():
            return f"{name}, measuring"
    return "the end"


def killed(run_dir: Path, kills: int, longest_s: float, chance: random.Random, stages: list[str]) -> list[str]:
    """Where the run was each time; it is killed at least `kills` times unless it ends before."""
    where: list[str] = []
    with (run_dir.parent / "chaos.log").open("ab") as log:
        while True:
            process = subprocess.Popen(command(run_dir), stdout=log, stderr=log, start_new_session=True)
            if len(where) >= kills:
                if process.wait():
                    raise SystemExit(f"the run that was let alone failed; see {run_dir.parent / 'chaos.log'}")
                return where
            try:
                code = process.wait(STARTS_S + chance.random() * longest_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                where.append(place_of(run_dir, stages))
                print(f"kill {len(where):3}: {where[-1]}", flush=True)
            else:
                if code:
                    raise SystemExit(f"the run failed with {code}; see {run_dir.parent / 'chaos.log'}")
                return where


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="kills (20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (0)")
    parser.add_argument("--longest", type=float, default=45.0, help="longest time between two kills, in s, beside the start (45)")
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"), help="folder of both runs; emptied first (runs/chaos)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.out, ignore_errors=True)
    arguments.out.mkdir(parents=True)
    recipe = recipes.load("demo")
    stages = [recipe.stage_dir(stage.name).name for stage in recipe.stages]
    whole, broken = arguments.out / "whole", arguments.out / "killed"
    with (arguments.out / "whole.log").open("ab") as log:
        beside = subprocess.Popen(command(whole), stdout=log, stderr=log)
        began = time.monotonic()
        where = killed(broken, arguments.kills, arguments.longest, random.Random(arguments.seed), stages)
        took = time.monotonic() - began
        if beside.wait():
            raise SystemExit(f"the run in one go failed; see {arguments.out / 'whole.log'}")
    places = [f"{stage}/{name}" for stage in stages for name in KEPT]
    different = [place for place in places if (whole / place).read_bytes() != (broken / place).read_bytes()]
    result: dict[str, Any] = {"kills": len(where), "where": where, "seconds": took, "different": different}
    print(f"{len(where)} kills, {took:.0f} s; {len(places)} files compared, {len(different)} differ: {', '.join(different) or '-'}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 1 if different or len(where) < arguments.kills else 0


if __name__ == "__main__":
    sys.exit(main())
