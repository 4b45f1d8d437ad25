"""How often a 95 % interval holds the true figure, over simulated benchmarks whose items share clips.

    python benchmarks/intervals.py [--simulations 2000] [--resamples 2000] [--json FILE]

A benchmark is drawn from a law whose true figure is known; its interval over clips (`stages.measure.bootstrap`) and the naive one, the same
over items as if each had a clip of its own, either hold that figure or do not. Items of a clip are right together: each item follows its
clip's luck with probability sqrt(correlation) and its own otherwise, so that two items of a clip that are as hard correlate by exactly that
much and each is right with exactly the task's accuracy. The error of a share of 2,000 simulations is half a percentage point.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omnistage.stages.benchmarks.figures import Columns, Figure, Floats
from omnistage.stages.measure.bootstrap import interval
from omnistage.stages.measure.paired import paired


@dataclass(frozen=True)
class Setting:
    """A law of benchmarks: `accuracies` of its tasks, whose plain mean is the figure; `clips` of each task, or of all where they are
    `shared`; `size`, the mean number of items of a clip (geometric: most clips have few, some have many); `correlation` within a clip.
    With a `gain` the figure is the difference to a second run, whose accuracies are higher by that much and which shares the first one's
    luck in half of the items."""

    accuracies: tuple[float, ...]
    clips: int
    size: float
    correlation: float
    shared: bool = False
    gain: float | None = None

    @property
    def truth(self) -> float:
        return float(np.mean(self.accuracies)) if self.gain is None else self.gain


SETTINGS = {
    "one task, accuracy 0.3": Setting((0.3,), 40, 4, 0.3),
    "one task, accuracy 0.5": Setting((0.5,), 40, 4, 0.3),
    "one task, accuracy 0.8": Setting((0.8,), 40, 4, 0.3),
    "few clips": Setting((0.6,), 15, 4, 0.3),
    "many clips": Setting((0.7,), 200, 3, 0.3),
    "large clips, closely tied": Setting((0.6,), 60, 8, 0.5),
    "one item a clip": Setting((0.7,), 60, 1, 0.3),
    "mean of 5 tasks": Setting((0.3, 0.45, 0.6, 0.7, 0.8), 16, 4, 0.3),
    "mean of 5 tasks over the same clips": Setting((0.3, 0.45, 0.6, 0.7, 0.8), 60, 6, 0.3, shared=True),
    "mean of 15 small tasks": Setting(tuple(np.linspace(0.3, 0.8, 15)), 8, 3, 0.3),
    "difference of two runs": Setting((0.5,), 40, 4, 0.3, gain=0.1),
    "difference, mean of 5 tasks": Setting((0.3, 0.45, 0.6, 0.7, 0.8), 16, 4, 0.3, gain=0.05),
    "near the edge: accuracy 0.95": Setting((0.95,), 40, 4, 0.3),
    "near the edge: 0.95, one item a clip": Setting((0.95,), 40, 1, 0.3),
}
MAIN = "one task, accuracy 0.5"


def benchmark(setting: Setting, generator: np.random.Generator) -> tuple[Figure, Columns, Columns]:
    """One benchmark drawn from the law: its figure, and the scores of its items in the first and in the second run."""
    tasks = len(setting.accuracies)
    sizes = generator.geometric(1 / setting.size, setting.clips * (1 if setting.shared else tasks))
    clip = np.repeat(np.arange(len(sizes)), sizes)
    task = generator.integers(tasks, size=len(clip)) if setting.shared else clip // setting.clips
    accuracy = np.array(setting.accuracies)[task]

    def luck() -> Floats:
        together = generator.random(len(clip)) < np.sqrt(setting.correlation)
        return np.where(together, generator.random(len(sizes))[clip], generator.random(len(clip)))

    first = luck()
    second = np.where(generator.random(len(clip)) < 0.5, first, luck())
    groups = tuple(tuple(np.flatnonzero(task == each).tolist()) for each in range(tasks))
    valid = np.ones(len(clip), dtype=np.bool_)
    rights = ((first < accuracy).astype(np.float64), (second < accuracy + (setting.gain or 0)).astype(np.float64))
    before, after = (Columns(right, valid, clip, {}) for right in rights)
    return Figure("accuracy", groups), before, after


def coverage(setting: Setting, simulations: int, *, resamples: int = 2000, seed: int = 0) -> dict[str, float]:
    """The shares of intervals that hold the truth (`clips`, `items`), and their mean widths."""
    generator = np.random.default_rng(seed)
    held, width = {"clips": 0, "items": 0}, {"clips": 0.0, "items": 0.0}
    for _ in range(simulations):
        figure, before, after = benchmark(setting, generator)
        drawn = int(generator.integers(2**31))
        for way, clip in (("clips", before.clip), ("items", np.arange(len(before.clip)))):
            runs = before._replace(clip=clip), after._replace(clip=clip)
            if setting.gain is None:
                _, low, high = interval(figure, runs[0], resamples=resamples, seed=drawn)
            else:
                _, low, high, *_ = paired(figure, *runs, resamples=resamples, seed=drawn)
            held[way] += low <= setting.truth <= high
            width[way] += high - low
    shares = {way: count / simulations for way, count in held.items()}
    return shares | {f"{way}_width": total / simulations for way, total in width.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--simulations", type=int, default=2000, help="benchmarks of each setting (2000)")
    parser.add_argument("--resamples", type=int, default=2000, help="draws of each interval (2000)")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    arguments = parser.parse_args()
    found = {}
    print(f"{'':<38}{'over clips':>12}{'over items':>12}{'width':>8}{'naive':>8}")
    for name, setting in SETTINGS.items():
        one = found[name] = coverage(setting, arguments.simulations, resamples=arguments.resamples)
        shares, widths = (
            f"{100 * one['clips']:>10.1f} %{100 * one['items']:>10.1f} %",
            f"{one['clips_width']:>8.3f}{one['items_width']:>8.3f}",
        )
        print(f"{name:<38}{shares}{widths}", flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
