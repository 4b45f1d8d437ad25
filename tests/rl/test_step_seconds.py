"""A step's seconds do not hold the wait for its clips, which is logged beside them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from omnistage.data.media import Clip, MediaLimits
from omnistage.data.records import MediaRef
from omnistage.rl.sampler import Pool
from omnistage.stages import files, grpo, training
from omnistage.stages.recipe import loading
from omnistage.stages.recipe.schema import GrpoStage
from small_run import grpo as grpo_stage
from small_run import recipe
from world import World

SLOW_S = 1.5


def test_slow_clips_are_no_part_of_a_step(world: World, tmp_path: Path) -> None:
    """Two prompts a step, their clips decoded one after the other as the step asks for them: 3 s that a step of a tiny model does not take.
    Both steps of a batch that is passed over twice are timed, and only the first waits."""
    given = grpo_stage("video", rewards=[{"name": "accuracy"}], prompts_per_step=2, num_generations=2, steps=4, iterations=2, data=[])
    given |= {"data": [{"path": str(world.data / "train_video.json"), "media_root": str(world.data), "modality": "video"}]}
    resolved = loading.build(loading.Recipe, recipe(stages=[given], evaluation=None), "recipe")
    (stage,) = resolved.stages
    assert isinstance(stage, GrpoStage)
    encoder = world.encoder(world.model())
    encoder.workers = 0
    decode = encoder.decode

    def slowly(ref: MediaRef, limits: MediaLimits) -> Clip:
        time.sleep(SLOW_S)
        return decode(ref, limits)

    encoder.decode = slowly
    records = world.records("video")
    start = training.Start(str(world.checkpoint), str(world.checkpoint), 3)
    began = time.monotonic()
    grpo.run(stage, resolved, tmp_path, start, encoder, (records, [Pool(tuple(range(len(records))), 1.0)]))
    whole = time.monotonic() - began
    rows = [row for row in files.read_lines(tmp_path / "metrics.jsonl") if "step_seconds" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    waits = [row.get("media/wait_s", 0.0) for row in rows]
    assert waits[0] >= 2 * SLOW_S
    assert waits == pytest.approx([waits[0], 0, waits[2], 0])
    assert 0 < min(row["step_seconds"] for row in rows)
    # Were the wait in both, they would be 6 s more than there were.
    assert sum(row["step_seconds"] for row in rows) + sum(waits) < whole
