"""One process of a run: `python -m torch.distributed.run ... -m omnistage.launch.worker RESOLVED.json`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from omnistage.launch.rank import as_rank
from omnistage.stages import asked
from omnistage.stages.recipe.choices import DEEPSPEED


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the resolved recipe as one rank."""
    parser = argparse.ArgumentParser(prog="omnistage.launch.worker", description="Runs a resolved recipe as one rank of torchrun.")
    parser.add_argument("resolved", type=Path, metavar="RESOLVED.json")
    parser.add_argument("--source", metavar="RECIPE", help="file that the recipe was read from")
    parser.add_argument("--from", dest="first", metavar="STAGE")
    parser.add_argument("--only", metavar="STAGE")
    parser.add_argument("--until", metavar="STAGE")
    parser.add_argument("--goes-on", action="store_true", help="another process does the stages after --until")
    arguments = parser.parse_args(argv)

    def work() -> int:
        summary = _work(arguments)
        if os.environ.get("RANK", "0") == "0" and not arguments.goes_on:
            print(summary)
        return 0

    return as_rank(work)


def open_deepspeed(*, gpu: bool, wait: timedelta = timedelta(hours=1)) -> None:
    """Open the process group through DeepSpeed: ZeRO-3 spreads a model while it is built, before the first trainer would open the group.
    Its processes `wait` so long for one another."""
    if not gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    if not gpu:
        # Processes on a CPU meet over gloo. Else DeepSpeed compiles a way of its own, which takes minutes and a compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if gpu else "gloo", timeout=wait)


def _work(arguments: argparse.Namespace) -> Path:
    from omnistage.stages.recipe.loading import Recipe, build

    recipe = build(Recipe, json.loads(arguments.resolved.read_text(encoding="utf-8")), arguments.resolved.name)

    import torch
    from accelerate import PartialState

    gpu, wait = torch.cuda.is_available(), timedelta(minutes=recipe.launch.wait_min)
    with asked.ending_at_once():
        if recipe.launch.engine in DEEPSPEED:
            open_deepspeed(gpu=gpu, wait=wait)
        # Left to itself, accelerate takes each CPU process for the only one.
        PartialState(cpu=not gpu, timeout=wait)

    from omnistage.stages import pipeline

    asked.listen()

    return pipeline.run(
        recipe,
        first=arguments.first,
        only=arguments.only,
        until=arguments.until,
        source=arguments.source and Path(arguments.source),
        goes_on=arguments.goes_on,
    )


if __name__ == "__main__":
    sys.exit(main())
