"""The demo, killed at random moments and started again each time, beside the demo in one go.

    python benchmarks/chaos.py [--kills 20] [--seed 0] [--out runs/chaos] [--whole RUN] [--json FILE]

SIGKILL, without warning. Each kill has a place in the run that it waits for (rendering, training, writing a checkpoint, measuring)
and strikes a random time after that is reached, so that all kinds of moments are among them; nothing but chance says where exactly. Each
stage saves every so many steps, in both runs. In the end every stage's weights, predictions and scores must be the same, byte for byte.
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
from typing import Any, NamedTuple

from omnistage.stages import files
from omnistage.stages.recipe import loading as recipes

SAVES = {"cold_start": 50, "video": 2, "audio": 3, "audio_video": 20}
KEPT = ("model/model.safetensors", "evaluation/predictions.jsonl", "evaluation/scores.jsonl", "evaluation/scores.json")
RENDERING, TRAINING, SAVING, MEASURING, OVER = "rendering", "training", "saving", "measuring", "over"
# What a kill waits for, and the longest time in s until it strikes: the shortest stage trains for 8 s, a checkpoint is written in far less.
LONGEST_S = {RENDERING: 5.0, TRAINING: 6.0, SAVING: 0.1, MEASURING: 6.0}
POLL_S = 0.02


class Place(NamedTuple):
    """Where a run is: the number of its stage (-1 before the first) and what is done in it."""

    stage: int
    doing: str


def command(run_dir: Path) -> list[str]:
    saves = [part for name, every in SAVES.items() for part in ("--set", f"stages.{name}.save_every={every}")]
    return [sys.executable, "-m", "omnistage.launch", "run", "demo", "--run-dir", str(run_dir), *saves]


def targets(stages: int, kills: int, chance: random.Random) -> list[Place]:
    """What the kills wait for, in the order of the run: each kind of moment once, the rest drawn among them."""
    every = [Place(-1, RENDERING), *(Place(stage, doing) for stage in range(stages) for doing in (TRAINING, SAVING, MEASURING))]
    drawn = every[:kills] + [chance.choice(every[1:]) for _ in range(kills - len(every))]
    return sorted(drawn, key=every.index)


def place_of(run_dir: Path, stages: list[str], since: float) -> Place:
    """What a run that was started at `since` (a file's time) is doing, as its directory tells."""
    if not (run_dir / "data" / "render.json").exists():
        return Place(-1, RENDERING)
    for number, name in enumerate(stages):
        folder = run_dir / name
        if not files.is_whole(folder / "model"):
            written = [folder / "model", *folder.glob("checkpoints/checkpoint-*")]
            # What the run before was killed in stands there half written, too.
            saving = any(newer(path, since) and not files.is_whole(path) for path in written)
            return Place(number, SAVING if saving else TRAINING)
        if not (folder / "evaluation" / "scores.json").exists():
            return Place(number, MEASURING)
    return Place(len(stages), OVER)


def newer(path: Path, since: float) -> bool:
    try:
        return path.stat().st_mtime >= since
    except FileNotFoundError:
        return False


def reached(place: Place, target: Place, run_dir: Path, stages: list[str], since: float) -> bool:
    """Whether a run is where a kill waits for it, or has passed that; libraries that load are no training."""
    order = (RENDERING, TRAINING, SAVING, MEASURING, OVER)
    if place == target and target.doing in (TRAINING, MEASURING):
        file = "metrics.jsonl" if target.doing == TRAINING else "evaluation"
        return newer(run_dir / stages[target.stage] / file, since)
    if place.stage == target.stage and target.doing == SAVING:
        return place.doing in (SAVING, MEASURING)
    return (place.stage, order.index(place.doing)) >= (target.stage, order.index(target.doing))


def killed(run_dir: Path, waits: list[Place], chance: random.Random, stages: list[str]) -> list[str]:
    """Where the run was each time it was killed."""
    where: list[str] = []
    with (run_dir.parent / "killed.log").open("ab") as log:
        for target in waits:
            since = time.time()
            process = subprocess.Popen(command(run_dir), stdout=log, stderr=log, start_new_session=True)
            while process.poll() is None and not reached(place_of(run_dir, stages, since), target, run_dir, stages, since):
                time.sleep(POLL_S)
            time.sleep(chance.random() * LONGEST_S[target.doing])
            if process.poll() is not None:
                if process.returncode:
                    raise SystemExit(f"the run failed with {process.returncode}; see {log.name}")
                return where
            found = place_of(run_dir, stages, since)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            where.append(f"{stages[found.stage]} {found.doing}" if 0 <= found.stage < len(stages) else found.doing)
            print(f"kill {len(where):3}: {where[-1]}", flush=True)
        last = subprocess.run(command(run_dir), stdout=log, stderr=log, check=False)
        if last.returncode:
            raise SystemExit(f"the run that was let alone failed; see {log.name}")
    return where


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="kills (20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (0)")
    parser.add_argument("--out", type=Path, default=Path("runs/chaos"), help="folder of both runs; emptied first (runs/chaos)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there")
    parser.add_argument("--whole", type=Path, metavar="RUN", help="the run in one go, made before by this program with --kills 0")
    arguments = parser.parse_args()
    shutil.rmtree(arguments.out, ignore_errors=True)
    arguments.out.mkdir(parents=True)
    recipe, chance = recipes.load("demo"), random.Random(arguments.seed)
    stages = [recipe.stage_dir(stage.name).name for stage in recipe.stages]
    whole, broken = arguments.whole or arguments.out / "whole", arguments.out / "killed"
    with (arguments.out / "whole.log").open("ab") as log:
        beside = None if arguments.whole else subprocess.Popen(command(whole), stdout=log, stderr=log)
        began = time.monotonic()
        where = killed(broken, targets(len(stages), arguments.kills, chance), chance, stages) if arguments.kills else []
        took = time.monotonic() - began
        if beside is not None and beside.wait():
            raise SystemExit(f"the run in one go failed; see {log.name}")
    if not arguments.kills:
        return 0
    places = [f"{stage}/{name}" for stage in stages for name in KEPT]
    different = [place for place in places if (whole / place).read_bytes() != (broken / place).read_bytes()]
    result: dict[str, Any] = {"kills": len(where), "where": where, "seconds": took, "different": different}
    print(f"{len(where)} kills, {took:.0f} s; {len(places)} files compared, {len(different)} differ: {', '.join(different) or '-'}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 1 if different or len(where) < arguments.kills else 0


if __name__ == "__main__":
    sys.exit(main())
