"""Says in plain lines what a recipe would do (`omnistage run RECIPE --dry-run`). Imports no torch."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from omnistage.rl.heads.spec import HeadSpec
from omnistage.stages.recipe.batching import batching
from omnistage.stages.recipe.engines import deepspeed_settings
from omnistage.stages.recipe.reward_use import RewardUse
from omnistage.stages.recipe.schema import (
    TOWERS_AND_LANGUAGE,
    EvaluateStage,
    GrpoStage,
    HeadMeasurement,
    HeadStage,
    Measurement,
    Recipe,
    SftStage,
    Training,
)
from omnistage.stages.recipe.source import Source
from omnistage.stages.recipe.surroundings import Launch

TORCHRUN = "torch.distributed.run"
# What torchrun on several machines is told through.
NODE_RANK, SLURM_NODE, ADDRESS, PORT, DEFAULT_PORT = "NODE_RANK", "SLURM_NODEID", "MASTER_ADDR", "MASTER_PORT", "29500"
WORKER = "omnistage.launch.worker"


def describe(recipe: Recipe) -> str:
    """The resolved stages in order, the folder that each starts from and writes, and the command that starts the processes."""
    lines = [f"run       {recipe.run_dir} (seed {recipe.seed})", f"model     {_model(recipe)}"]
    if recipe.synth is not None:
        made = recipe.synth
        counts = f"cold_start {made.cold_start}, train {made.train}, held_out {made.held_out} clips per modality (seed {made.seed})"
        lines.append(f"synth     {made.path}: {counts}")
        for name, what in (("quality", made.quality), ("pose", made.pose)):
            if what is not None:
                lines.append(f"          {name}: train {what.train}, held_out {what.held_out}")
    launch = recipe.launch
    on = f", on each of {launch.nodes} nodes" if launch.nodes > 1 else ""
    lines.append(f"launch    engine {launch.engine}, processes {launch.processes}{on}: {_launch(recipe)}")
    settings = deepspeed_settings(launch.engine, gpu=True)
    if settings is not None:
        lines.append(f"          DeepSpeed on GPUs: {json.dumps(settings)}")
    if recipe.evaluation is not None:
        when = "before the first stage and after every training stage" if recipe.evaluation.before else "after every training stage"
        lines += [f"evaluate  {when}", *_measurement(recipe.evaluation)]
    start = recipe.model.path or "the tiny model"
    for number, stage in enumerate(recipe.stages, start=1):
        folder = recipe.stage_dir(stage.name)
        modality = f", {stage.modality}" if isinstance(stage, GrpoStage) else ""
        if isinstance(stage, Training) and stage.start is not None:
            start = str(recipe.stage_dir(stage.start) / "model")
        lines += ["", f"{number:02d} {stage.name}  [{stage.kind}{modality}]", f"   starts from  {start}"]
        if isinstance(stage, EvaluateStage):
            lines += [f"   writes       {folder}", *_measurement(stage)]
            continue
        start = str(folder / "model")
        lines += [f"   writes       {start}", *_sources(stage.data), *_training(recipe, stage)]
        if isinstance(stage, HeadStage) and stage.evaluation is not None:
            lines += _measurement(stage.evaluation)
    return "\n".join(lines)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def launch_command(recipe: Recipe, resolved: str | Path, arguments: Sequence[str] = (), *, torchrun: str = TORCHRUN) -> list[str]:
    """The command that starts `launch.processes` workers on the resolved recipe; `torchrun` is a module that takes torchrun's arguments.

    Of several machines each starts its own workers, which meet at `MASTER_ADDR:MASTER_PORT`; the machine's number is `NODE_RANK`, or what
    SLURM says (`SLURM_NODEID`).
    """
    launch = recipe.launch
    return [
        sys.executable,
        "-m",
        torchrun,
        *_meeting(launch),
        "--nproc_per_node",
        str(launch.processes),
        "-m",
        WORKER,
        str(resolved),
        *arguments,
    ]


def node(launch: Launch) -> int:
    """The number of this machine among those of the run."""
    return int(os.environ.get(NODE_RANK, os.environ.get(SLURM_NODE, "0"))) if launch.nodes > 1 else 0


def _meeting(launch: Launch) -> list[str]:
    """Where the workers find each other."""
    if launch.nodes == 1:
        return ["--standalone"]
    rank = os.environ.get(NODE_RANK, os.environ.get(SLURM_NODE, f"${NODE_RANK}"))
    address, port = os.environ.get(ADDRESS, f"${ADDRESS}"), os.environ.get(PORT, DEFAULT_PORT)
    return ["--nnodes", str(launch.nodes), "--node_rank", rank, "--master_addr", address, "--master_port", port]


def _launch(recipe: Recipe) -> str:
    return _readable(["python", *launch_command(recipe, "RESOLVED.json")[1:]]) if recipe.launch.engine != "single" else "in this process"


def _readable(command: Sequence[str]) -> str:
    """A command for a shell, in which variables stay variables."""
    return " ".join(part if part.startswith("$") else shlex.quote(part) for part in command)


def _model(recipe: Recipe) -> str:
    model = recipe.model
    name = model.path if model.tiny is None else f"tiny (hidden {model.tiny.hidden}, layers {model.tiny.layers})"
    return f"{name}, attention {model.attention}, dtype {model.dtype}, prompt {recipe.prompt}"


def _sources(sources: Sequence[Source]) -> list[str]:
    total = sum(source.weight for source in sources)
    lines = []
    for source in sources:
        modality = source.modality or "modality as the format says"
        limit = f", first {source.limit} records" if source.limit else ""
        lines.append(f"   data         {source.path} ({source.format}, {modality}), weight {source.weight:g} of {total:g}{limit}")
        if source.pass_rate is not None:
            lines.append(f"                only records with a pass rate of {source.pass_rate.bounds} in {source.pass_rate.file}")
    return lines


def _measurement(measurement: Measurement | HeadMeasurement) -> list[str]:
    lines = [f"   held out     {source.path}" for source in measurement.data]
    if measurement.controls:
        lines.append(f"   controls     {', '.join(measurement.controls)}")
    return lines


def _training(recipe: Recipe, stage: SftStage | GrpoStage | HeadStage) -> list[str]:
    length = f"steps {stage.steps}" if stage.steps is not None else f"epochs {stage.epochs:g}"
    frozen, lora = recipe.freeze_of(stage), recipe.lora_of(stage)
    alone = isinstance(stage, HeadStage) and set(frozen) == TOWERS_AND_LANGUAGE
    trained = f"LoRA of rank {lora.rank}" if lora else "the head" if alone else "all weights"
    lines = []
    if isinstance(stage, GrpoStage):
        lines.append(f"   rewards      {', '.join(map(_reward, stage.rewards))}")
        groups = f"{stage.prompts_per_step} prompts x {stage.num_generations} = {stage.completions_per_step} completions"
        lines.append(f"   step         {groups} of at most {stage.max_completion_length} tokens")
        lines.append(f"   batch        per_device_batch: {batching(recipe, stage)}")
        if stage.dynamic_sampling is not None:
            lines.append(
                f"   refills      prompts whose completions are all worth the same, in {stage.dynamic_sampling.rounds} rounds at most"
            )
        lines.append(f"   KL           beta {stage.beta:g}, reference {stage.reference}")
    elif isinstance(stage, HeadStage):
        lines += [f"   head         {_head(stage.head)}", f"   step         {_counted(stage.batch_size, 'record')}"]
    else:
        lines.append(f"   step         {_counted(stage.batch_size, 'demonstration')}")
    frozen_text = f"; frozen: {', '.join(frozen)}" if frozen else ""
    lines += [f"   length       {length}, learning rate {stage.learning_rate:g}", f"   trains       {trained}{frozen_text}"]
    return lines + _judged(stage)


def _judged(stage: Training) -> list[str]:
    """By what a checkpoint is chosen, and what ends the run."""
    lines = []
    usual = f"modality {stage.modality}, else headline" if isinstance(stage, GrpoStage) else "headline"
    if stage.choose is not None:
        lines.append(f"   chooses      the checkpoint with the best {stage.choose.figure or usual}, of")
        lines += [f"   validation   {source.path}" for source in stage.choose.data]
    if stage.gate is not None:
        asked = "not surely worse than its start" if stage.gate.at_least == "start" else f"at least {stage.gate.at_least:g}"
        lines.append(f"   gate         {stage.gate.figure or usual}: {asked}; otherwise {stage.gate.otherwise}")
    return lines


def _head(spec: HeadSpec) -> str:
    anchor = "the prompt's end" if spec.token is None else spec.token
    losses = " + ".join(f"{term.weight:g} {term.name}" for term in spec.losses)
    return f"{spec.name}: {spec.codec.kind} at {anchor}, layers {spec.body.sizes}, loss {losses}"


def _reward(use: RewardUse) -> str:
    only = use.only.columns() if use.only else {}
    said = [f"as {use.label}"] if use.label else []
    said += [f"only {name} {' or '.join(sorted(values))}" for name, values in only.items()]
    said += [f"on the {use.segment}"] if use.segment else []
    return f"{use.name} x {use.weight:g}" + (f" ({', '.join(said)})" if said else "")
