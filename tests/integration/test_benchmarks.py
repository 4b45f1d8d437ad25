"""The benchmarks run, at sizes that take seconds; their figures are for docs, never for a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from repository import ROOT


@pytest.fixture(autouse=True)
def benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def ran(*arguments: str | Path) -> None:
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_step_benchmark_writes_its_figures(tmp_path: Path) -> None:
    small = ("--prompt", "60", "--completion", "8", "--group", "2", "--prompts", "2", "--rounds", "1")
    ran("benchmarks/grpo_step.py", "--modality", "audio_video", *small, "--json", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())["audio_video"]
    assert set(found["ratios"]) == {"policy", "scoring", "generation", "step_vs_plain", "step_vs_one_at_a_time", "saved_memory"}
    # Ours once a prompt; TRL's: rollout, scoring and policy pass, for each of two completions.
    assert (found["encodings_per_prompt"]["shared"], found["encodings_per_prompt"]["trl"]) == (1, 6)
    assert found["bound"] > 1
    assert found["against_bound"] == pytest.approx(
        found["bound"] * found["seconds"]["shared"]["policy"] / found["seconds"]["off"]["policy"]
    )
    steps = {way: of["step"] for way, of in found["step_seconds"].items()}
    assert found["ratios"]["step_vs_plain"] == pytest.approx(steps["trl"] / steps["shared"])
    assert found["ratios"]["step_vs_one_at_a_time"] == pytest.approx(steps["one_at_a_time, checkpointing"] / steps["shared"])
    assert set(found["step_ratios"]["with"]) == {"shared", "trl", "one_at_a_time"}


def test_a_step_encodes_the_clips_of_all_its_prompts(tmp_path: Path) -> None:
    """And checkpointing differentiates a frozen tower wherever it is run with gradients, which `shared` does nowhere."""
    from grpo_ways import cases

    ways = [("shared", False), ("shared", True), ("trl", False), ("trl", True)]
    made = cases(tmp_path, "video", tokens=32, width=4, group=2, prompts=3, ways=ways)
    pictures = [row.pictures for row in made["trl", False].rows if row.pictures is not None]
    assert len(pictures) == 3
    assert not any(torch.equal(pictures[0], other) for other in pictures[1:])
    differentiated = {}
    for key, case in made.items():
        seen: list[bool] = []
        hook = case.trainer.model.model.visual.register_forward_hook(
            lambda module, given, output, seen=seen: seen.append(output.pooler_output.requires_grad)
        )
        case.step()
        hook.remove()
        # Three prompts once, or in each pass: drawn together, scored and trained on a group at a time.
        assert len(seen) == (3 if key[0] == "shared" else 1 + 3 + 3)
        differentiated[key] = any(seen)
    assert differentiated == {key: key == ("trl", True) for key in ways}


def test_a_sweep_is_drawn(tmp_path: Path) -> None:
    """Well-formed, both axes labelled, each way with its points, and a line for P + G C."""
    from grpo_sweep import sweep

    plot = tmp_path / "sweep.svg"
    axes = {"group": (2, 3), "prompt": (32, 72)}
    found = sweep(tmp_path, 1, plot, axes=axes, base={"group": 2, "prompt": 32, "completion": 4})
    assert [point["tokens"] for point in found["group"]] == [
        point["prompt"] + 4 * group for point, group in zip(found["group"], (2, 3), strict=True)
    ]
    svg = "{http://www.w3.org/2000/svg}"
    drawn = ElementTree.parse(plot).getroot()
    assert len(drawn.findall(f"{svg}circle")) == 2 * 2 * 2
    assert len(drawn.findall(f"{svg}polyline")) == 2 * 3
    texts = [text.text or "" for text in drawn.iter(f"{svg}text")]
    assert texts.count("CPU seconds of a step") == 2
    assert {"shared", "trl", "∝ P + G C"} <= set(texts)
    assert any(text.startswith("completions of a prompt G (P = ") for text in texts)
    places = [float(value) for mark in drawn.iter(f"{svg}circle") for value in (mark.get("cx", ""), mark.get("cy", ""))]
    assert all(0 <= place <= 960 for place in places)


def test_a_straight_line_is_told_from_a_curve() -> None:
    from grpo_sweep import straight

    points = [{"tokens": tokens, "shared": 0.5 + tokens / 1000} for tokens in (1000, 2000, 4000)]
    assert straight(points) == pytest.approx({"start": 0.5, "per_1000": 1.0, "r2": 1.0, "worst": 0.0}, abs=1e-9)
    # 1, 4 and 16 s at 1, 2 and 4 thousand tokens: the line is -5 + 36/7 t, its values 1/7, 37/7 and 109/7.
    curved = straight([point | {"shared": (point["tokens"] / 1000) ** 2} for point in points])
    assert curved == pytest.approx({"start": -5, "per_1000": 36 / 7, "r2": 1 - 1 / 49, "worst": 6 / 7})


def test_the_feature_benchmark_runs() -> None:
    """It counts itself that the one way encodes and the other does not."""
    ran("benchmarks/features.py", "--tokens", "60", "--rounds", "2")


def test_the_prefetch_benchmark_measures_each_way(tmp_path: Path) -> None:
    small = ("--rounds", "1", "--clips", "2", "--steps", "1", "--prompts", "1", "--group", "2", "--completion", "4")
    ran("benchmarks/prefetch.py", *small, "--json", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert set(found["reading"]["ways"]) == {"caller", "threads 1", "threads 2", "processes 1", "processes 2"}
    assert {workers: len(samples) for workers, samples in found["steps"].items()} == {"0": 1, "1": 1, "2": 1}


def test_the_benchmark_of_heads_runs(tmp_path: Path) -> None:
    """Two clips with two dimensions each."""
    ran("benchmarks/heads.py", "--clips", "2", "--rounds", "1", "--tokens", "60", "--json", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["samples"] == 4
    assert set(found["samples_per_s"]) == {"here", "seeds"}


def test_the_gpu_benchmark_runs_on_a_cpu(tmp_path: Path) -> None:
    ran("benchmarks/gpu.py", "--size", "tiny", "--device", "cpu", "--rounds", "1", "--shape", "short", "--out", tmp_path)
    found = json.loads((tmp_path / "cpu-tiny.json").read_text())["shapes"]["short"]
    assert {way: of["scored_by"] for way, of in found.items() if way != "flex"} == {
        "cat": "cat",
        "cascade": "cascade",
        "off": None,
        "trl": None,
    }
    assert "does not support backward on CPU" in found["flex"]["failed"]
