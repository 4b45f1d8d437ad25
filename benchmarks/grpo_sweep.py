"""How a step of one prompt grows with the group, the prompt and the completions, for `shared` and for TRL's way; see `grpo_step.py`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from grpo_ways import cases, operations
from plot import Panel, Series, write_svg

# What stays as it is while another grows: completions, media tokens of the prompt, tokens of a completion.
BASE = {"group": 8, "prompt": 968, "completion": 96}
AXES: dict[str, tuple[int, ...]] = {
    "group": (2, 4, 8, 16, 32),
    "prompt": (200, 512, 968, 2048, 3872, 8192),
    "completion": (32, 96, 256, 512),
}
# Tokens of all copies of a prompt, of which TRL's way keeps some 70 kB each for the backward; more of them would crowd a small machine.
MOST_COPIED = 17_000
# Longer prompts spend more on pairs of tokens than on tokens, at this size of model.
LINEAR = 2_100


def sweep(
    folder: Path, rounds: int, plot: Path | None, axes: Mapping[str, Sequence[int]] = AXES, base: Mapping[str, int] = BASE
) -> dict[str, Any]:
    """Median CPU seconds of a step at each point of each axis, and how near to a straight line in P + G C those of `shared` are."""
    results: dict[str, Any] = {axis: [] for axis in axes}
    print(f"{'':12}{'P':>7}{'G':>5}{'C':>5}{'P + G C':>9}{'pairs':>7}{'shared':>12}{'trl':>12}{'trl / shared':>14}")
    for axis, values in axes.items():
        for value in values:
            found = point(folder, rounds, **{**base, axis: value})
            results[axis].append(found)
            theirs = f"{found['trl']:10.2f} s{found['trl'] / found['shared']:13.2f}x" if "trl" in found else f"{'-':>12}{'-':>14}"
            sizes = f"{found['prompt']:7}{found['group']:5}{found['completion']:5}{found['tokens']:9}{found['pairs']:7.0%}"
            print(f"{axis:12}{sizes}{found['shared']:10.2f} s{theirs}", flush=True)
    lines = {axis: straight(results[axis]) for axis in axes}
    lines[f"prompt, up to {LINEAR:,} tokens"] = straight([found for found in results["prompt"] if found["prompt"] <= LINEAR])
    for axis, line in lines.items():
        print(f"{axis}: shared = {line['start']:.2f} s + {line['per_1000']:.3f} s for 1,000 tokens, R² {line['r2']:.4f}, ", end="")
        print(f"at most {line['worst']:.0%} off the line", flush=True)
    results["lines"] = lines
    if plot:
        write_svg(plot, [panel(axis, results[axis]) for axis in ("group", "prompt")])
    return results


def point(folder: Path, rounds: int, *, group: int, prompt: int, completion: int) -> dict[str, Any]:
    """Medians of one setting. The first step of either way is not counted.

    `tokens` is P + G C, what `shared` computes; `pairs` is the share of the language model's operations that attention takes in it, which
    grow with the square of P.
    """
    ways = ["shared", "trl"] if prompt * group <= MOST_COPIED else ["shared"]
    made = cases(folder, "video", prompt, completion, group, 1, [(way, False) for way in ways])
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds + 1):
        for (way, _), case in made.items():
            seconds = case.step()["step"]
            if turn:
                taken[way].append(seconds)
    case = made["shared", False]
    length = len(case.rows[0].ids)
    linear, squared = operations(case.text_config, length, completion, group, copies=False)
    return {
        "prompt": length,
        "group": group,
        "completion": completion,
        "tokens": length + group * completion,
        "pairs": squared / (linear + squared),
    } | {way: statistics.median(seconds) for way, seconds in taken.items()}


def straight(points: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The line through `shared` over P + G C by least squares, the variance that it explains, and the largest relative distance from it."""
    tokens, seconds = (np.array([float(found[name]) for found in points]) for name in ("tokens", "shared"))
    slope, start = np.polyfit(tokens, seconds, 1)
    fitted = start + slope * tokens
    r2 = 1 - ((seconds - fitted) ** 2).sum() / ((seconds - seconds.mean()) ** 2).sum()
    return {
        "start": float(start),
        "per_1000": float(1000 * slope),
        "r2": float(r2),
        "worst": float((np.abs(fitted - seconds) / seconds).max()),
    }


def panel(axis: str, points: Sequence[Mapping[str, Any]]) -> Panel:
    """What is drawn of an axis: both ways, and a multiple of P + G C through a point of `shared` in the middle."""
    middle = points[(len(points) - 1) // 2]
    fixed = points[0]
    label = {
        "group": f"completions of a prompt G (P = {fixed['prompt']}, C = {fixed['completion']})",
        "prompt": f"tokens of the prompt P (G = {fixed['group']}, C = {fixed['completion']})",
    }[axis]
    guide = [(found[axis], middle["shared"] * found["tokens"] / middle["tokens"]) for found in points]
    return Panel(
        x_label=label,
        y_label="CPU seconds of a step",
        series=(
            Series("trl", [(found[axis], found["trl"]) for found in points if "trl" in found], "#d55e00"),
            Series("shared", [(found[axis], found["shared"]) for found in points], "#0072b2"),
            Series("∝ P + G C", guide, "#777777", dashed=True),
        ),
    )
