"""A run that chooses among checkpoints, is killed while it does, is stopped by a gate, and is measured as HumanSense between its stages."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from omnistage.data import synth
from omnistage.stages import files
from omnistage.stages.benchmarks import registry
from omnistage.stages.benchmarks.compare import compare
from small_run import command, grpo, omnistage, recipe, write

# Names of HumanSense's tasks for what the renderer asks about pictures.
TASKS = ("Gesture_Recognition", "Action_Recognition", "Human_Counting")


def source(split: str, modality: str) -> list[dict[str, Any]]:
    return [{"path": f"data/{split}_{modality}.json", "media_root": "data", "modality": modality}]


def render(folder: Path) -> None:
    """Clips as the tiny runs have them; the held-out questions about pictures are given to tasks of HumanSense in turn."""
    synth.render(folder / "data", seed=3, cold_start=8, train=6, held_out=8, wrong={}, workers=1)
    path = folder / "data" / "held_out_video.json"
    rows = json.loads(path.read_text())
    for number, row in enumerate(rows):
        row["questions"]["task_type"] = TASKS[number % 3]
    path.write_text(json.dumps(rows))


def stages() -> list[dict[str, Any]]:
    human_sense = {"kind": "evaluate", "benchmark": "humansense", "data": source("held_out", "video"), "max_new_tokens": 8}
    cold_start = {
        "name": "cold_start",
        "kind": "sft",
        "data": source("cold_start", "video") + source("cold_start", "audio"),
        "batch_size": 8,
        # Enough for the tiny model to answer some of it in tags.
        "learning_rate": 1e-2,
        "steps": 36,
        "save_every": 12,
        "choose": {"data": source("train", "video"), "max_new_tokens": 16},
        "gate": {"otherwise": "say"},
    }
    audio = grpo("audio", data=source("train", "audio"), lora={"rank": 4}, steps=2, save_every=1)
    audio |= {"choose": {"data": source("train", "video"), "figure": "all items", "max_new_tokens": 8}, "gate": {"at_least": 1.0}}
    return [cold_start, {"name": "first", **human_sense}, audio, {"name": "last", **human_sense}]


def begin(folder: Path) -> Path:
    """A run that is killed while it measures the first stage's checkpoints; `seen` keeps these."""
    render(folder)
    evaluation = {"data": source("held_out", "video") + source("held_out", "audio"), "max_new_tokens": 16}
    write(folder / "recipe.yaml", recipe(synth=None, evaluation=evaluation, stages=stages()))
    stage = folder / "run" / "01-cold_start"
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command("run", "recipe.yaml"), cwd=folder, stdout=log, stderr=log)
        limit = time.monotonic() + 120
        while not (stage / "choice" / "step-12" / "scores.json").exists():
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < limit
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (stage / "model").exists()
    shutil.copytree(stage / "checkpoints", folder / "seen")
    return folder


def check_adapters(stage: Path, start: Path) -> None:
    """The model of the stage is W + alpha / rank x B A, of the checkpoint that was chosen, computed here."""
    chosen = stage / "checkpoints" / f"checkpoint-{files.read_json(stage / 'choice.json')['chosen']}"
    scale = json.loads((chosen / "adapter_config.json").read_text())["lora_alpha"] / 4
    adapters = load_file(chosen / "adapter_model.safetensors")
    before = load_file(start / "model.safetensors")
    after = load_file(stage / "model" / "model.safetensors")
    assert not list((stage / "model").glob("adapter*"))
    [first] = [name for name in adapters if name.endswith("layers.0.self_attn.q_proj.lora_A.weight")]
    wanted = before["model.layers.0.self_attn.q_proj.weight"]
    wanted = wanted + scale * adapters[first.replace("lora_A", "lora_B")] @ adapters[first]
    assert torch.allclose(after["model.layers.0.self_attn.q_proj.weight"], wanted, rtol=0, atol=1e-6)
    assert not torch.equal(after["model.layers.0.self_attn.q_proj.weight"], before["model.layers.0.self_attn.q_proj.weight"])


def test_a_run_chooses_is_stopped_and_goes_on(tmp_path: Path) -> None:
    begun = begin(tmp_path)
    run, kept = begun / "run", begun / "run" / "01-cold_start" / "choice" / "step-12" / "scores.json"
    measured = kept.stat().st_mtime_ns
    done = omnistage("run", "recipe.yaml", cwd=begun)
    assert done.returncode == 1, done.stderr[-2000:]
    # What was measured before the kill was not measured again, and no step was trained twice.
    assert kept.stat().st_mtime_ns == measured
    assert [row["step"] for row in files.read_lines(run / "01-cold_start" / "metrics.jsonl") if "loss" in row] == list(range(1, 37))

    choice = files.read_json(run / "01-cold_start" / "choice.json")
    assert (choice["figure"], [entry["step"] for entry in choice["steps"]]) == ("all items", [12, 24, 36])
    for entry in choice["steps"]:
        scores = files.read_json(run / "01-cold_start" / "choice" / f"step-{entry['step']}" / "scores.json")
        assert scores["runs"]["greedy"]["figures"]["all items"]["value"] == entry["value"]
    best = max(entry["value"] for entry in choice["steps"])
    assert best > choice["steps"][0]["value"], "a choice among equals would show nothing"
    assert choice["chosen"] == min(entry["step"] for entry in choice["steps"] if entry["value"] == best)
    ours = load_file(run / "01-cold_start" / "model" / "model.safetensors")
    theirs = load_file(begun / "seen" / f"checkpoint-{choice['chosen']}" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert sorted(path.name for path in (run / "01-cold_start" / "checkpoints").iterdir()) == ["checkpoint-24", "checkpoint-36"]

    # The first gate says what the paired test says of the two evaluations.
    verdict = files.read_json(run / "01-cold_start" / "gate.json")
    figures = registry.of("choice").figures
    pair = compare(run / "00-start" / "evaluation", run / "01-cold_start" / "evaluation", lambda records: figures(records)[:1])
    assert verdict["change"] == pair["figures"][0]
    assert verdict["passed"] == (verdict["change"]["high"] >= 0)
    assert verdict["said"] in done.stdout

    # Nobody answers everything rightly after so few steps: the second gate ends the run.
    failed = files.read_json(run / "03-audio" / "gate.json")
    assert (failed["figure"], failed["passed"], failed["change"]["items"]) == ("modality audio", False, 8)
    line = f"omnistage: {failed['said']}; the run ends before stage 'last'; to go on from this model: --from last"
    assert line in done.stderr
    assert not (run / "04-last").exists()
    summary = files.read_json(run / "summary.json")
    assert {name: found["passed"] for name, found in summary["gates"].items()} == {"cold_start": verdict["passed"], "audio": False}
    assert summary["choices"]["audio"]["figure"] == "all items"
    assert "cold_start: step " in done.stdout
    assert failed["said"] in done.stdout

    again = omnistage("run", "recipe.yaml", cwd=begun)
    assert (again.returncode, line in again.stderr) == (1, True)
    assert "stage 03-audio is done" in again.stdout

    last = omnistage("run", "recipe.yaml", "--from", "last", cwd=begun)
    assert last.returncode == 0, last.stderr[-2000:]
    assert failed["said"] in last.stdout
    against = files.read_json(run / "summary.json")["evaluations"]["last"]["against"]
    assert (against["stage"], against["items"]) == ("first", 8)
    named = ["average", "all items", "tier 1", "tier 2", "AR Action Recognition", "GR Gesture Recognition"]
    assert [row["name"] for row in against["figures"]] == [*named, "HC Human Counting with ReID"]
    assert files.read_json(run / "summary.json")["evaluations"]["first"]["against"] is None
    assert "  against first:" in last.stdout
    check_adapters(run / "03-audio", run / "01-cold_start" / "model")
