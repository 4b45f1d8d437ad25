"""What a GRPO step costs with one copy of the prompt, beside TRL's way and HumanSense's, in one run on one CPU thread.

    python benchmarks/grpo_step.py [--json FILE] [--rounds 3] [--modality video ...] [--prompts 4] [--group 8] [--checkpointing] ...
    python benchmarks/grpo_step.py --sweep [--json FILE] [--plot FILE.svg]

The ways are those of `grpo_ways.py`: `shared` (this package's default), `off`, `trl` and `one_at_a_time`, called in turn on the same tiny
model and the same clips. Times are CPU seconds, medians over the rounds; their ratio to `shared` is what counts.

Single passes (policy, scoring, 64 generated tokens) are made over one group, without activation checkpointing unless `--checkpointing` asks
for it. Saved memory is what autograd keeps for the backward of the policy pass, parameters not counted. `bound` is what the floating-point
operations of the language model alone predict for that pass; `against_bound` is that over what is measured against `off`, which has its
media encoded as `shared` has, so that what towers cost TRL's way does not flatter it (1: as predicted; 1.25: a fifth less is gained).

A step holds `--prompts` distinct prompts of one modality, and all that is done for them: clips read and processed (2 G times a prompt in
TRL: `_tokenize_prompts`, and again for the loss; else once), completions drawn (`trl`: all rows of the step in one batch; `shared` and
`off`: all prompts together; `one_at_a_time`: one sequence after the other), scored by a reference, and trained on, a group at a time with
gradients added up, in every way. `shared` could take several groups in one pass; on a CPU that gains nothing (docs/performance.md). The
optimizer's step is the same for all and left out.

Activation checkpointing decides what of a step is computed twice, so each ratio of steps names its settings:

- `step_vs_plain`: `trl` over `shared`, both without. (TRL's own default is with; this is the smaller of the two ratios.)
- `step_vs_one_at_a_time`: the settings that are in force on either side: HumanSense's script trains with checkpointing, this package
  without it on a CPU. With it transformers makes the inputs of every embedding want gradients, a tower's too, so that a frozen tower is
  differentiated where it is run with gradients; the code that does so is transformers' and TRL's own.
- `step_ratios`: the same without on both sides, and with on both sides.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from grpo_sweep import sweep
from grpo_ways import WAYS, cases, operations

MODALITIES = ("video", "audio", "audio_video")
PASSES = ("policy", "scoring", "generation")
PARTS = ("reading", "generation", "scoring", "policy", "step")
# Ways whose step is measured with activation checkpointing, too.
CHECKPOINTED = ("shared", "trl", "one_at_a_time")


def timed(call: Callable[[], None]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(
    folder: Path, modality: str, tokens: int, width: int, group: int, prompts: int, rounds: int, checkpointing: bool
) -> dict[str, Any]:
    """Median CPU seconds of each pass over one group and of the parts of a step, their ratios, and what the policy pass keeps."""
    both = [(way, False) for way in WAYS] + [(way, True) for way in CHECKPOINTED]
    if checkpointing:
        both.append(("off", True))
    made = cases(folder, modality, tokens, width, group, prompts, both)
    singles = {way: made[way, checkpointing] for way in WAYS}
    seconds: dict[str, dict[str, list[float]]] = {way: {each: [] for each in PASSES} for way in WAYS}
    # The first round is not counted.
    for turn in range(rounds + 1):
        for way, case in singles.items():
            for each in PASSES:
                took = timed(getattr(case, each))
                if turn:
                    seconds[way][each].append(took)
    steps: dict[tuple[str, bool], list[dict[str, float]]] = {key: [] for key in made}
    for _ in range(rounds):
        for key, case in made.items():
            steps[key].append(case.step())
    medians = {way: {each: statistics.median(times) for each, times in of.items()} for way, of in seconds.items()}
    step = {key: {part: statistics.median(of[part] for of in laps) for part in PARTS} for key, laps in steps.items()}
    saved = {way: case.saved() for way, case in singles.items()}
    times = {way: {each: medians[way][each] / medians["shared"][each] for each in PASSES} for way in WAYS}

    def ratio(way: str, theirs: bool, ours: bool) -> float:
        return step[way, theirs]["step"] / step["shared", ours]["step"]

    shared = singles["shared"]
    prompt = len(shared.rows[0].ids)
    copies, once = (sum(operations(shared.text_config, prompt, width, group, copies=each)) for each in (True, False))
    return {
        "prompt": prompt,
        "completion": width,
        "group": group,
        "prompts": prompts,
        "checkpointing": checkpointing,
        "seconds": medians,
        "spread": {way: {each: max(taken) - min(taken) for each, taken in of.items()} for way, of in seconds.items()},
        "times": times,
        "saved_bytes": saved,
        "step_seconds": {label(*key): parts for key, parts in step.items()},
        "step_spread": {label(*key): max(of["step"] for of in laps) - min(of["step"] for of in laps) for key, laps in steps.items()},
        "step_ratios": {
            "without": {way: ratio(way, False, False) for way in WAYS},
            "with": {way: ratio(way, True, True) for way in CHECKPOINTED},
            "in_force": {"one_at_a_time": ratio("one_at_a_time", True, False)},
        },
        "encodings_per_prompt": {way: case.encodings() for way, case in singles.items()},
        "bound": copies / once,
        "against_bound": copies / once / times["off"]["policy"],
        "ratios": {each: times["trl"][each] for each in PASSES}
        | {
            "step_vs_plain": ratio("trl", False, False),
            "step_vs_one_at_a_time": ratio("one_at_a_time", True, False),
            "saved_memory": saved["trl"] / saved["shared"],
        },
    }


def label(way: str, checkpointing: bool) -> str:
    return f"{way}, checkpointing" if checkpointing else way


def shown(modality: str, result: dict[str, Any]) -> str:
    """For people: a line a way for single passes, a line a way and setting for the step, and the ratios of steps by setting."""
    with_or_without = "with" if result["checkpointing"] else "without"
    lines = [
        f"{modality}: prompt {result['prompt']} tokens, completions {result['completion']}, group {result['group']}; "
        f"operations predict {result['bound']:.2f}x for the policy pass, over what is measured {result['against_bound']:.2f}",
        f"  one group, {with_or_without} activation checkpointing:",
        f"  {'':30}" + "".join(f"{each:>20}" for each in PASSES) + f"{'kept MiB':>12}{'encodings':>11}",
    ]
    for way, of in result["seconds"].items():
        cells = "".join(f"{of[each]:10.3f} s {result['times'][way][each]:6.2f}x" for each in PASSES)
        lines.append(f"  {way:30}{cells}{result['saved_bytes'][way] / 2**20:12.1f}{result['encodings_per_prompt'][way]:11.0f}")
    lines.append(f"  a step of {result['prompts']} prompts:")
    lines.append(f"  {'':30}" + "".join(f"{part:>14}" for part in PARTS))
    for way, parts in result["step_seconds"].items():
        lines.append(f"  {way:30}" + "".join(f"{parts[part]:12.2f} s" for part in PARTS))
    of = result["step_ratios"]
    for setting, ratios in (("none", of["without"]), ("on both sides", of["with"]), ("theirs with, ours without", of["in_force"])):
        said = ", ".join(f"{way} {times:.2f}x" for way, times in ratios.items() if way != "shared")
        lines.append(f"  step over shared, checkpointing {setting}: {said}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds (3)")
    parser.add_argument("--modality", nargs="+", choices=MODALITIES, default=list(MODALITIES))
    parser.add_argument("--prompt", type=int, default=960, help="media tokens of a prompt (960)")
    parser.add_argument("--completion", type=int, default=96, help="tokens of a completion (96)")
    parser.add_argument("--group", type=int, default=8, help="completions of a prompt (8)")
    parser.add_argument("--prompts", type=int, default=4, help="prompts of a step (4)")
    parser.add_argument("--checkpointing", action="store_true", help="single passes with activation checkpointing")
    parser.add_argument(
        "--sweep", action="store_true", help="how a step of one prompt grows with the group, the prompt and the completions"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="with --sweep: draw it there, as SVG")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)

    def keep(results: dict[str, Any]) -> None:
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.sweep:
            keep(sweep(folder, arguments.rounds, arguments.plot))
            return
        sizes = (arguments.prompt, arguments.completion, arguments.group, arguments.prompts)
        results: dict[str, Any] = {}
        for modality in arguments.modality:
            results[modality] = measure(folder, modality, *sizes, arguments.rounds, arguments.checkpointing)
            print(shown(modality, results[modality]), flush=True)
            # A modality takes a quarter of an hour: what is measured is kept.
            keep(results)


if __name__ == "__main__":
    sys.exit(main())
