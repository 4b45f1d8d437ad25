"""A run that leaves out records by their pass rate and refills its steps says so: in its folder, its metrics, its rollouts, its summary."""

from __future__ import annotations

import json
from pathlib import Path

from omnistage.data import pass_rates
from omnistage.data.pass_rates import Rate, digest_of
from omnistage.rewards import rollouts
from omnistage.stages import files
from small_run import grpo, omnistage, write
from world import World

# Flat for records of an odd number; the completions of the others differ by their length.
REWARD = """
def parity(completions, record_id, **columns):
    return [0.0 if int(r[-1]) % 2 else float(len(c[0]["content"])) for c, r in zip(completions, record_id)]
"""


def test_a_run_says_what_it_left_out_and_drew_again(world: World, tmp_path: Path) -> None:
    records = world.records("video")
    rates = tmp_path / "rates.jsonl"
    media = {"fps": 2.0, "max_frames": 16, "max_sound_s": 300.0, "min_pixels": 784, "max_pixels": None}
    pass_rates.begin(rates, {"samples": 4, "shown": {"prompt": "short", "media": media, "system_prompt": None}})
    # The first is always answered, the second never; six are left.
    shares = [4, 0, 1, 2, 3, 1, 2, 3]
    pass_rates.append(rates, [Rate(r.id, "f", r.source, digest_of(r), n, 4) for r, n in zip(records, shares, strict=True)])
    source = {"path": str(world.data / "train_video.json"), "modality": "video", "pass_rate": {"file": "rates.jsonl"}}
    held_out = {"path": str(world.data / "held_out_video.json"), "modality": "video"}
    recipe = {
        "run_dir": "run",
        "prompt": "short",
        "model": {"path": str(world.checkpoint), "dtype": "float32"},
        "media": {"min_pixels": 784, "max_pixels": 12544},
        "launch": {"threads": 1},
        "evaluation": {"data": [held_out], "before": False, "max_new_tokens": 4},
        "stages": [
            grpo(
                "video",
                data=[source],
                rewards=[{"name": "parity.py:parity"}],
                prompts_per_step=2,
                steps=2,
                save_every=None,
                dynamic_sampling={"rounds": 2},
            )
        ],
    }
    write(tmp_path / "recipe.yaml", recipe)
    (tmp_path / "parity.py").write_text(REWARD)
    done = omnistage("run", "recipe.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    told = f"{source['path']}: 2 of 8 records are left out: their pass rate in rates.jsonl is not more than 0 and less than 1"
    assert told in done.stdout
    (note,) = (line for line in done.stdout.splitlines() if line.startswith("note: "))
    assert note.startswith("note: the pass rates in rates.jsonl were measured with media {")
    assert '"max_pixels": null}, and this recipe has {' in note
    assert f"video: 2 of 8 records of {source['path']} were left out (pass_rate 2)" in done.stdout
    chosen = {"file": "rates.jsonl", "range": "more than 0 and less than 1"}
    expected = [{"path": source["path"], "records": 6, "left_out": {"pass_rate": 2}, "pass_rate": chosen}]
    assert files.read_json(tmp_path / "run" / "01-video" / "data.json") == expected
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["stages"][0]["data"] == expected

    steps = list(rollouts.read(tmp_path / "run" / "01-video" / "rollouts"))
    metrics = [row for row in files.read_lines(tmp_path / "run" / "01-video" / "metrics.jsonl") if "loss" in row]
    assert len(steps) == len(metrics) == 2
    for rows, logged in zip(steps, metrics, strict=True):
        assert {row["record_id"] for row in rows}.isdisjoint({records[0].id, records[1].id})
        again = sum(row["dropped"] for row in rows) / 8
        assert logged["groups/drawn_again"] == again
        assert logged["groups/refilled"] == logged["groups/no_spread"] - logged["groups/no_spread_after"]
    assert any(row["dropped"] for rows in steps for row in rows)

    pass_rates.append(rates, [Rate("another", "f", "s", "d", 1, 4)])
    again = omnistage("run", "recipe.yaml", cwd=tmp_path)
    assert again.returncode == 2
    assert "rates.jsonl has changed since run_dir 'run' was begun" in again.stderr
