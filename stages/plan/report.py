"""What a recipe would need and take, as plain data and as lines."""

from __future__ import annotations

from typing import Any

from omnistage.stages import retention, training
from omnistage.stages.plan import fit, memory, sizes, step_time, tokens, work
from omnistage.stages.recipe.batching import TEXT_TOKENS
from omnistage.stages.recipe.choices import DEEPSPEED
from omnistage.stages.recipe.schema import GrpoStage, HeadStage, Recipe, SftStage

GB = 1e9
Trained = SftStage | GrpoStage | HeadStage


def plan(recipe: Recipe, *, gpu_gb: float = 80.0, sample: int = 64, ask_hub: bool = True) -> dict[str, Any]:
    """The plan of every stage that trains, as plain data; sizes are bytes, times seconds. Without `ask_hub` nothing is fetched.

    Raises:
        InputError: the model is not here and not known, or an annotation file that is here is wrong.
    """
    config, source = sizes.config_of(recipe, ask_hub=ask_hub)
    stages = [_of_stage(recipe, stage, config, source, gpu_gb * GB, sample) for stage in recipe.stages if isinstance(stage, Trained)]
    disk = sum(stage["disk"]["bytes"] for stage in stages)
    return {
        "gpu_bytes": gpu_gb * GB,
        "safe_share": fit.SAFE,
        "model": source.told,
        "launch": {"engine": recipe.launch.engine, "processes": recipe.launch.processes, "nodes": recipe.launch.nodes},
        "rates": {
            "matrix_rate": step_time.MATRIX_RATE,
            "train_share": step_time.TRAIN_SHARE,
            "forward_share": step_time.FORWARD_SHARE,
            "decode_floor_s": step_time.DECODE_FLOOR_S,
            "decode_launched_s": step_time.DECODE_LAUNCHED_S,
            "bandwidth": step_time.BANDWIDTH,
        },
        "stages": stages,
        "disk": disk,
    }


def _of_stage(recipe: Recipe, stage: Trained, config: Any, source: sizes.Source, gpu: float, sample: int) -> dict[str, Any]:
    counted = tokens.of_stage(recipe, stage, source.folder, sample)
    held = fit.Stage(config, recipe, stage, counted)
    parameters = held.parameters
    model, setting = memory.model_of(config, parameters), work.setting_of(recipe, stage, cpu=False)
    limit = fit.SAFE * gpu
    by_engine = held.engines()
    own = by_engine[recipe.launch.engine]
    best = held.largest(limit)
    seconds = step_time.estimate(
        model,
        setting,
        work.load_of(recipe, stage, counted, counted.typical, cpu=False),
        counted.typical,
        iterations=stage.iterations if isinstance(stage, GrpoStage) else 1,
    )
    steps = _steps(stage, counted.rows)
    answer = stage.max_completion_length if isinstance(stage, GrpoStage) else counted.answer or TEXT_TOKENS
    return {
        "name": stage.name,
        "kind": stage.kind,
        "tokens": counted.to_json() | {"answer": answer},
        "parameters": {
            "parts": parameters.base,
            "adapters": parameters.adapters,
            "head": parameters.head,
            "trained": parameters.learned,
            "frozen": parameters.total - parameters.learned,
        },
        "checkpointing": setting.checkpointing,
        "engine": recipe.launch.engine,
        "memory": {engine: found.to_json() for engine, found in by_engine.items()},
        "fits": own.peak <= limit,
        "would_fit": [one.to_json() for one in held.remedies(limit)] if own.peak > limit else [],
        "batch": {"now": fit.held(recipe, stage), "largest": best[0] if best else None, "setting": best[1] if best else None},
        "time": seconds.to_json() | {"steps": steps, "total_s": None if steps is None else steps * seconds.step},
        "disk": disk_of(recipe, stage, parameters, steps),
    }


def _steps(stage: Trained, rows: int | None) -> int | None:
    """Optimizer steps; None where they depend on rows that are not here."""
    if stage.steps is None and rows is None:
        return None
    if isinstance(stage, GrpoStage):
        return stage.steps or stage.iterations * training.steps_of(stage, rows or 0, stage.prompts_per_step)
    return training.steps_of(stage, rows or 0, stage.batch_size)


def disk_of(recipe: Recipe, stage: Trained, parameters: sizes.Parameters, steps: int | None) -> dict[str, Any]:
    """Bytes that a stage writes: its model, a checkpoint, and all checkpoints at once.

    A model folder has each part in the type that it is held in (adapters merged). A checkpoint has adapters alone, or all weights, and two
    moments of what is trained; DeepSpeed's has a float32 copy, too, and the weights once more. Two checkpoints are kept, and a third is
    there while it is written; of a stage that chooses all are.
    """
    setting = work.setting_of(recipe, stage, cpu=False)
    half, whole = setting.compute, setting.engine not in DEEPSPEED
    model = sum(n * (4 if whole and parameters.trained[part] else half) for part, n in parameters.base.items()) + 4 * parameters.head
    weights = 4 * (parameters.adapters + parameters.head) if parameters.adapters else model
    one = weights + (8 if whole else 12) * parameters.learned + (0 if whole else half * parameters.learned)
    count = 0
    if stage.save_every is not None:
        made = None if steps is None else max(1, steps // stage.save_every)
        most = retention.most(stage)
        # Of a stage that keeps all and whose steps are not known, as many as of any other.
        count = min([n for n in (made, most) if n is not None], default=retention.NEWEST.newest + 1)
    return {"model": model, "checkpoint": one, "checkpoints": count, "bytes": model + count * one}


def lines(found: dict[str, Any]) -> list[str]:
    """The plan for a reader."""
    launch = found["launch"]
    gpus = launch["processes"] * launch["nodes"]
    gpu = found["gpu_bytes"] / GB
    out = [
        f"model     {found['model']}",
        f"launch    engine {launch['engine']}, {gpus} GPU{'s' if gpus > 1 else ''} of {gpu:g} GB; "
        f"safe is what keeps to {found['safe_share']:.0%} of that",
    ]
    for stage in found["stages"]:
        out += ["", f"{stage['name']}  [{stage['kind']}]", *_stage_lines(stage, gpu)]
    rates = found["rates"]
    out += [
        "",
        f"disk      {_size(found['disk'])} for models and checkpoints of all stages",
        f"times     formulas at {rates['train_share']:.0%} (training) and {rates['forward_share']:.0%} (else) of "
        f"{rates['matrix_rate'] / 1e12:.0f} TFLOP/s, a decoding step at {rates['decode_floor_s'] * 1e3:.0f} ms or more "
        f"({rates['decode_launched_s'] * 1e3:.0f} ms where it is launched kernel by kernel); no rate here was measured",
    ]
    return out


def _stage_lines(stage: dict[str, Any], gpu: float) -> list[str]:
    counted, own, taken, disk = stage["tokens"], stage["memory"][stage["engine"]], stage["time"], stage["disk"]
    by = [f"{modality} {_percentiles(shares)}" for modality, shares in counted["by_modality"].items()]
    parameters, batch = stage["parameters"], stage["batch"]
    parts = own["phases"][own["peak_phase"]]
    fits = "fits" if stage["fits"] else "does NOT fit" if own["peak"] > gpu * GB else "is more than is safe"
    out = [
        f"   tokens       of a prompt: {'; '.join(by)}; of an answer: at most {counted['answer']:,}",
        f"                from {counted['from']}",
        f"   trains       {_count(parameters['trained'])} parameters, {_count(parameters['frozen'])} frozen",
        f"   memory       {own['peak'] / GB:.1f} GB of {gpu:g} GB in its {own['peak_phase']}: {fits}",
        f"                {', '.join(f'{part} {_size(size)}' for part, size in parts.items())}",
    ]
    others = [f"{phase} {_size(sum(sizes_.values()))}" for phase, sizes_ in own["phases"].items() if phase != own["peak_phase"]]
    on_cpu = f"; {_size(own['on_cpu'])} of a machine's own memory" if own["on_cpu"] else ""
    out.append(f"                elsewhere {', '.join(others)}{on_cpu}")
    peaks = [f"{engine} {_size(one['peak'])}" for engine, one in stage["memory"].items()]
    out.append(f"   engines      {', '.join(peaks)}")
    if stage["would_fit"]:
        options = [fit.Remedy(tuple(one["settings"]), one["peak"]) for one in stage["would_fit"]]
        out += [f"   would fit    {option}" for option in options]
    elif not stage["fits"]:
        out.append("   would fit    nothing that was tried: a smaller model, shorter clips (media), or more GPUs")
    if batch["largest"] is not None:
        out.append(f"   batch        {batch['now']} a pass; the largest that is safe: {batch['largest']} ({batch['setting']})")
    out.append(f"   time         {_time(taken)}")
    kept = f"{disk['checkpoints']} checkpoints of {_size(disk['checkpoint'])}" if disk["checkpoints"] else "no checkpoints"
    return [*out, f"   disk         model {_size(disk['model'])}, {kept}"]


def _time(taken: dict[str, Any]) -> str:
    parts = ", ".join(f"{name} {taken[f'{name}_s']:.3g}" for name in ("rollout", "scoring", "policy") if taken[f"{name}_s"])
    total = "steps are not known" if taken["steps"] is None else f"{taken['steps']:,} steps, {taken['total_s'] / 3600:.3g} h"
    return f"about {taken['step_s']:.3g} s a step ({parts}); {total}"


def _percentiles(shares: dict[str, float]) -> str:
    return ", ".join(f"{'most' if name == 'p100' else name} {value:,.0f}" for name, value in shares.items())


def _count(parameters: int) -> str:
    for size, letter in ((1e9, "billion"), (1e6, "million")):
        if parameters >= size:
            return f"{parameters / size:.2f} {letter}"
    return f"{parameters:,}"


def _size(size: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 1e3:.0f} kB"
