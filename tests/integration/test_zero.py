"""FSDP2 and DeepSpeed's ZeRO-2 and ZeRO-3 on two CPU processes do what plain data parallelism does in whole runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import head_data
from omnistage.stages import files
from small_run import grpo, omnistage, recipe, sources, write
from world import World

STAGES = ("01-cold_start", "02-video", "03-audio_video", "04-mos")


def trained(folder: Path, engine: str) -> Path:
    """A cold start, a GRPO stage with frozen towers, and one with trained towers and a reference, on video with its sound."""
    folder.mkdir()
    whole = recipe()["stages"][0] | {"data": sources("cold_start", "video"), "steps": 2, "save_every": 1}
    shared: dict[str, Any] = {"steps": 2, "save_every": 1}
    stages = [whole, grpo("video", data=sources("train", "video"), **shared)]
    stages.append(grpo("audio_video", data=sources("train", "audio_video"), freeze=[], beta=0.1, **shared))
    data = [source | {"format": f"{head_data.__file__}:scores"} for source in sources("train", "video")]
    stages.append({"name": "mos", "kind": "head", "head": head_data.SCORES, "data": data, "batch_size": 4, "learning_rate": 1e-3, **shared})
    launch = {"engine": engine, "processes": 2, "threads": 1, "restart": False}
    # Measuring between the stages loads whole models beside the sharded ones.
    evaluation = recipe()["evaluation"] | {"data": sources("held_out", "video"), "max_new_tokens": 4}
    write(folder / "recipe.yaml", recipe(stages=stages, launch=launch, evaluation=evaluation))
    done = omnistage("run", "recipe.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "run"


@pytest.fixture(scope="module")
def data_parallel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("engines") / "ddp", "ddp")


def weights(run: Path, stage: str) -> dict[str, torch.Tensor]:
    return dict(load_file(run / stage / "model" / "model.safetensors"))


@pytest.mark.parametrize("engine", ["fsdp2", "zero2", "zero3"])
def test_shards_train_as_whole_models_do(engine: str, data_parallel: Path, tmp_path: Path) -> None:
    """The same rewards, and the same weights after each stage; then a stage that lost its model goes on from its last shards."""
    run = trained(tmp_path / engine, engine)
    for stage in STAGES:
        ours, theirs = weights(run, stage), weights(data_parallel, stage)
        assert ours.keys() == theirs.keys()
        # Two first steps of Adam move a weight of hardly any gradient by the learning rate, whichever way rounding decides.
        tolerance = 5e-4 if stage == STAGES[-1] else 1e-4
        assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) <= tolerance, stage
        if stage == STAGES[-1]:
            heads = [load_file(folder / stage / "model" / "head.safetensors") for folder in (run, data_parallel)]
            assert max(float((heads[0][name] - heads[1][name]).abs().max()) for name in heads[0]) <= tolerance
            rows = [files.read_lines(folder / stage / "metrics.jsonl") for folder in (run, data_parallel)]
            assert [row["grad_norm"] for row in rows[0][:2]] == pytest.approx([row["grad_norm"] for row in rows[1][:2]], rel=1e-3)
        elif stage != STAGES[0]:
            rows = [files.read_lines(folder / stage / "metrics.jsonl") for folder in (run, data_parallel)]
            assert rows[0][1]["reward"] == pytest.approx(rows[1][1]["reward"], abs=1e-6)
            assert rows[0][1]["grad_norm"] > 0
    # FSDP2 goes on bit for bit.
    assert _farthest_after_going_on(run, STAGES[-1]) <= (0 if engine == "fsdp2" else 1e-6)


def _farthest_after_going_on(run: Path, stage: str) -> float:
    """How far a weight of the stage is from what it was, once the stage has lost its model and its second step and is gone on with."""
    before = weights(run, stage)
    shutil.rmtree(run / stage / "model")
    shutil.rmtree(run / stage / "checkpoints" / "checkpoint-2")
    done = omnistage("run", "recipe.yaml", cwd=run.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    after = weights(run, stage)
    return max(float((before[name] - after[name]).abs().max()) for name in before)


@pytest.mark.parametrize("engine", ["fsdp2", "zero3"])
def test_adapters_are_merged_from_shards(engine: str, tmp_path: Path) -> None:
    """LoRA leaves a plain folder, also where it went on from a checkpoint; only the weights that have an adapter differ from the stage's
    start. Under ZeRO-3 no features are kept, though the recipe names a folder for them; under FSDP2 frozen towers are whole. A head of an
    earlier stage is in every checkpoint, though nothing trains it."""
    data = [source | {"format": f"{head_data.__file__}:scores"} for source in sources("train", "video")]
    head = {"name": "mos", "kind": "head", "head": head_data.SCORES, "data": data, "batch_size": 4, "learning_rate": 1e-3, "steps": 1}
    head |= {"freeze": ["vision", "audio", "language"]}
    stage = grpo("video", lora={"rank": 4}, beta=0.1, data=sources("train", "video"), steps=2, save_every=1)
    launch = {"engine": engine, "processes": 2, "threads": 1, "restart": False}
    media = recipe()["media"] | {"feature_cache": {"path": "features", "max_gb": 1}}
    write(tmp_path / "recipe.yaml", recipe(stages=[head, stage], launch=launch, evaluation=None, media=media))
    done = omnistage("run", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    kept = [path for path in (tmp_path / "features" / "entries").rglob("*") if path.is_file()]
    first = files.read_lines(tmp_path / "run" / "01-mos" / "metrics.jsonl")[0]
    assert (bool(kept), "features/encoded" in first) == ((True, True) if engine == "fsdp2" else (False, False))
    before, after = weights(tmp_path / "run", "00-start"), weights(tmp_path / "run", "02-video")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight")) for name in changed)
    trained, *carried = (
        load_file(tmp_path / "run" / folder / "head.safetensors")
        for folder in ("01-mos/model", "02-video/checkpoints/checkpoint-1", "02-video/model")
    )
    for found in carried:
        assert found.keys() == trained.keys()
        assert all(torch.equal(found[name], value) for name, value in trained.items())
    assert _farthest_after_going_on(tmp_path / "run", "02-video") <= (0 if engine == "fsdp2" else 1e-6)


def test_a_tower_that_is_not_used_has_no_gradient(world: World, tmp_path: Path) -> None:
    """A step of sound, then one of pictures: the second must not repeat what the audio tower was told in the first."""
    data = [{"path": str(world.data / f"cold_start_{modality}.json"), "modality": modality} for modality in ("audio", "video")]
    stage = recipe()["stages"][0] | {"data": data, "batch_size": 2, "steps": 2, "save_every": None, "evaluate": False}
    model = {"path": str(world.checkpoint), "dtype": "float32"}
    found = []
    for engine in ("single", "zero3"):
        changes: dict[str, Any] = {"run_dir": engine, "launch": {"engine": engine, "threads": 1}, "model": model, "synth": None}
        write(tmp_path / "recipe.yaml", recipe(stages=[stage], evaluation=None, **changes))
        done = omnistage("run", "recipe.yaml", cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append([row["grad_norm"] for row in files.read_lines(tmp_path / engine / "01-cold_start" / "metrics.jsonl")[:2]])
    assert found[1] == pytest.approx(found[0], rel=1e-4)
