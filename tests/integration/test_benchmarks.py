"""The benchmarks run, at sizes that take seconds; their figures are for docs, never for a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from repository import ROOT


def ran(*arguments: str | Path) -> None:
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_step_benchmark_writes_its_figures(tmp_path: Path) -> None:
    small = ("--prompt", "60", "--completion", "8", "--group", "2", "--rounds", "1")
    ran("benchmarks/grpo_step.py", "--modality", "audio_video", *small, "--json", tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())["audio_video"]
    assert set(found["ratios"]) == {"policy", "scoring", "generation", "step_vs_plain", "step_vs_one_at_a_time", "saved_memory"}
    # Ours once; TRL's: rollout, scoring and policy pass, for each of two completions.
    assert (found["encodings_per_prompt"]["shared"], found["encodings_per_prompt"]["trl"]) == (1, 6)
    assert found["bound"] > 1


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
