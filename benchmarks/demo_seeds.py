"""The demo over several seeds, with controls of the same number of steps, and the table for docs/demo.md.

    python benchmarks/demo_seeds.py [--seeds 5] [--jobs 2] [--out runs/seeds]

Each seed has clips, weights and sampling of its own; the held-out clips come from a seed range that no other part of the project
reads. Per seed:

- `demo`: the shipped recipe;
- `direct`: the same cold start, then all GRPO steps on audio with video at once (no order of modalities, no replay);
- `supervised`: the same cold start, then as many further supervised steps on its demonstrations in place of GRPO;
- `zero`: the same cold start and the same GRPO steps with a reward that is the same for every completion, so that every advantage
  is zero.

The controls start from the seed's own cold start, whose folder is copied, so that they differ in nothing else. Everything can be
interrupted and started again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from omnistage.stages.measure import summary
from omnistage.stages.measure.statistics import mean_over_runs
from omnistage.stages.recipe import loading as recipes

MODALITIES = ("video", "audio", "audio_video")
FIRST_SEED = 101
HELD_OUT_SEED = 20_260_000
ZERO = "def zero(completions, **columns):\n    return [0.0] * len(completions)\n"


def overrides(seed: int) -> list[str]:
    return [f"seed={seed}", f"synth.seed={seed}", f"synth.held_out_seed={HELD_OUT_SEED + seed}", "launch.threads=1"]


def demo_recipe(seed: int, run_dir: Path) -> dict[str, Any]:
    return recipes.dump(recipes.load("demo", [*overrides(seed), f"run_dir={run_dir}"]))


def control_recipes(seed: int, demo: Path, out: Path) -> dict[str, dict[str, Any]]:
    """The three controls as whole recipes; clips and cold start are those of the seed's demo."""
    built: dict[str, dict[str, Any]] = {}
    for name in ("direct", "supervised", "zero"):
        given = demo_recipe(seed, demo)
        cold, *grpo = given["stages"]
        steps = sum(stage["steps"] for stage in grpo)
        given["run_dir"] = str(out / f"{name}-{seed}")
        given["evaluation"] |= {"controls": [], "samples": 0}
        if name == "direct":
            both = [source for source in grpo[-1]["data"] if source["modality"] == "audio_video"]
            given["stages"] = [cold, grpo[-1] | {"name": "direct", "data": both, "steps": steps}]
        elif name == "supervised":
            more = {"name": "supervised", "steps": steps, "learning_rate": grpo[-1]["learning_rate"], "freeze": grpo[-1]["freeze"]}
            given["stages"] = [cold, cold | more]
        else:
            flat = [{"name": f"{out / 'zero.py'}:zero", "weight": 1.0, "config": {}}]
            given["stages"] = [cold, *[stage | {"rewards": flat} for stage in grpo]]
        built[name] = given
    return built


def execute(given: dict[str, Any], out: Path) -> Path:
    """Run one recipe in a process of its own; returns its run directory."""
    run_dir = Path(given["run_dir"])
    path = out / f"{run_dir.name}.yaml"
    path.write_text(yaml.safe_dump(given, sort_keys=False), encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (out / f"{run_dir.name}.log").open("a", encoding="utf-8") as log:
        command = [sys.executable, "-m", "omnistage.launch", "run", str(path)]
        subprocess.run(command, stdout=log, stderr=log, check=True, env=environment)
    print(f"{time.strftime('%H:%M:%S')} {run_dir.name} done", flush=True)
    return run_dir


def one_seed(seed: int, out: Path, only_demo: bool) -> None:
    demo = execute(demo_recipe(seed, out / f"demo-{seed}"), out)
    if only_demo:
        return
    for name, given in control_recipes(seed, demo, out).items():
        run_dir = Path(given["run_dir"])
        for part in ("00-start", "01-cold_start"):
            if not (run_dir / part).exists():
                shutil.copytree(demo / part, run_dir / part)
        execute(given, out)
        print(f"{name}-{seed}", flush=True)


def summaries(out: Path, name: str, seeds: list[int]) -> list[dict[str, Any]]:
    return [json.loads((out / f"{name}-{seed}" / "summary.json").read_text()) for seed in seeds]


def right(run_dir: Path, stage: str, modality: str) -> dict[str, float]:
    (folder,) = run_dir.glob(f"[0-9][0-9]-{stage}")
    return summary.right_of(summary.measured_of(folder), modality)


def mean(values: list[float]) -> str:
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{spread}"


def table(out: Path, seeds: list[int], only_demo: bool) -> str:
    """Markdown: the demo per seed and on average, the verdict on each promise, and the controls."""
    runs = summaries(out, "demo", seeds)
    names = [stage["name"] for stage in runs[0]["stages"]]
    lines = [f"{len(seeds)} seeds; held-out accuracy in %, mean ± standard deviation over seeds; n per modality and seed: "]
    lines[0] += ", ".join(f"{m} {runs[0]['stages'][0]['modalities'][m]['n']}" for m in MODALITIES)
    lines += ["", "| after | " + " | ".join(MODALITIES) + " | seconds |", "|---|" + "---|" * 4]
    for index, name in enumerate(names):
        cells = [mean([run["stages"][index]["modalities"][m]["accuracy"] for run in runs]) for m in MODALITIES]
        lines.append(f"| {name} | {' | '.join(cells)} | {statistics.fmean(run['stages'][index]['seconds'] for run in runs):.0f} |")
    lines.append(
        "| majority class | " + " | ".join(f"{100 * runs[0]['stages'][0]['modalities'][m]['majority']:.1f}" for m in MODALITIES) + " | |"
    )
    for control in runs[0].get("controls", {}):
        cells = [
            mean([r["controls"][control][m]["accuracy"] for r in runs]) if m in runs[0]["controls"][control] else "" for m in MODALITIES
        ]
        lines.append(f"| {control} | {' | '.join(cells)} | |")
    lines += ["", *promises(out, runs, seeds)]
    if not only_demo:
        lines += ["", *controls(out, runs, seeds)]
    return "\n".join(lines) + "\n"


def promises(out: Path, runs: list[dict[str, Any]], seeds: list[int]) -> list[str]:
    """What the demo should show, per seed."""
    lines = [
        "| seed | " + " | ".join(f"{m}: gain of its stage [95 %]" for m in MODALITIES) + " | over the cold start | end |",
        "|---|" + "---|" * 5,
    ]
    for seed, run in zip(seeds, runs, strict=True):
        stages = {stage["name"]: stage["modalities"] for stage in run["stages"]}
        gains = []
        for m in MODALITIES:
            own = stages[m][m]
            gains.append(f"{100 * own['gain']:+.1f} [{100 * own['gain_low']:+.1f}, {100 * own['gain_high']:+.1f}]")
        final = stages["audio_video"]
        over = ", ".join(f"{100 * (final[m]['accuracy'] - stages['cold_start'][m]['accuracy']):+.1f}" for m in MODALITIES)
        end = ", ".join(f"{100 * final[m]['accuracy']:.1f}" for m in MODALITIES)
        lines.append(f"| {seed} | {' | '.join(gains)} | {over} | {end} |")
    lines += [
        "",
        "Mean change of each modality in each stage, in points:",
        "",
        "| stage | " + " | ".join(MODALITIES) + " |",
        "|---|---|---|---|",
    ]
    for index in range(1, len(runs[0]["stages"])):
        cells = [f"{100 * statistics.fmean(run['stages'][index]['modalities'][m]['gain'] for run in runs):+.1f}" for m in MODALITIES]
        lines.append(f"| {runs[0]['stages'][index]['name']} | {' | '.join(cells)} |")
    return lines


def controls(out: Path, runs: list[dict[str, Any]], seeds: list[int]) -> list[str]:
    """The controls beside the demo: same cold start, same number of steps."""
    lines = [
        "| from the same cold start | " + " | ".join(MODALITIES) + " | demo's lead on audio_video [95 % over seeds] |",
        "|---|" + "---|" * 4,
    ]
    start = [mean([run["stages"][0]["modalities"][m]["accuracy"] for run in runs]) for m in MODALITIES]
    lines.append(f"| cold start | {' | '.join(start)} | |")
    end = [mean([run["stages"][-1]["modalities"][m]["accuracy"] for run in runs]) for m in MODALITIES]
    lines.append(f"| demo (video, audio, audio_video) | {' | '.join(end)} | |")
    for name, last in (("direct", "direct"), ("supervised", "supervised"), ("zero", "audio_video")):
        found = summaries(out, name, seeds)
        cells = [mean([run["stages"][-1]["modalities"][m]["accuracy"] for run in found]) for m in MODALITIES]
        # One difference a seed: the items of a seed share one trained model and are no independent draws.
        differences = []
        for seed in seeds:
            ours, other = (right(out / f"{run}-{seed}", stage, "audio_video") for run, stage in (("demo", "audio_video"), (name, last)))
            differences.append(statistics.fmean(ours[item] - other[item] for item in ours))
        difference = mean_over_runs(differences) if len(seeds) > 1 else None
        interval = f"{100 * differences[0]:+.1f}"
        if difference is not None:
            interval = f"{100 * difference.value:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
        lines.append(f"| {name} | {' | '.join(cells)} | {interval} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (5)")
    parser.add_argument("--jobs", type=int, default=2, help="seeds that run side by side (2)")
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"), help="folder of the runs (runs/seeds)")
    parser.add_argument("--only-demo", action="store_true", help="leave out the controls")
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    (out / "zero.py").write_text(ZERO, encoding="utf-8")
    seeds = list(range(FIRST_SEED, FIRST_SEED + given.seeds))
    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(lambda seed: one_seed(seed, out, given.only_demo), seeds))
    text = table(out, seeds, given.only_demo)
    (out / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
