"""Completions and clips in TensorBoard's events: few, and never interpreted; reporters of transformers beside them."""

from __future__ import annotations

import io
import re
import wave
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from events import events_of
from omnistage.data.errors import RecipeError
from omnistage.data.media import MediaLimits
from omnistage.rewards import rollouts
from omnistage.stages import files, training
from omnistage.stages.events import Events
from omnistage.stages.samples import MOST_STEPS, SIDE, Samples, as_code, recorder
from report_run import completion
from small_run import grpo, omnistage, recipe, sources, write
from world import World

HOSTILE = "<script>ran()</script>\r\n```\n![x](http://a)\n\u202eturned\x1b[31m\u2028# head"


def test_what_is_said_stands_as_code() -> None:
    """Every line is indented by four, whatever ends it: to Markdown all of it is code."""
    lines = as_code(HOSTILE).split("\n")
    assert lines == ["    <script>ran()</script>", "    ```", "    ![x](http://a)", "    U+202EturnedU+001B[31mU+2028# head"]


def test_the_best_and_the_worst_of_few_steps(world: World, tmp_path: Path) -> None:
    """Rewards 2 × 0.5 = 1, 2 × 1 = 2 and 2 × 0: `right` has weight 2. A dropped one and one that was not scored are left out."""
    clip = world.records("audio_video")[0].media[0].path
    samples = Samples("video", {"right": 2.0}, MediaLimits(), steps=1000)
    given = {"media": [clip], "modality": "audio_video"}
    rows = [
        completion("a", 0, "middle", 0.5, **given),
        completion("b", 0, "<think>x</think>best", 1.0, advantage=1.2, **given),
        completion("c", 0, HOSTILE, 0.0, **given),
        completion("d", 0, "dropped", 9.0, dropped=True, **given),
        completion("e", 0, "unscored", None, **given),
    ]
    writer = Events(tmp_path / "events")
    for step in range(1, 1001):
        samples(writer, step, rows)
    writer.close()
    found = events_of(tmp_path / "events")
    steps = sorted({step for _, step in found})
    assert len(steps) == MOST_STEPS
    assert steps == list(range(1, 1001, 50))
    kinds = ("completions/{}/text_summary", "clips/{}", "sounds/{}")
    assert {tag for tag, _ in found} == {f"video/{kind.format(which)}" for kind in kinds for which in ("highest", "lowest")}
    best = found["video/completions/highest/text_summary", 1].tensor.string_val[0].decode()
    assert "reward 2: right 1" in best
    assert "advantage 1.2" in best
    assert "gold: A" in best
    assert best.endswith("    <think>x</think>best")
    worst = found["video/completions/lowest/text_summary", 1].tensor.string_val[0].decode()
    assert all(line.startswith("    ") for line in worst.split("\n"))
    assert "U+202E" in worst
    picture = Image.open(io.BytesIO(found["video/clips/highest", 1].image.encoded_image_string))
    assert picture.height <= SIDE
    assert np.asarray(picture).std() > 5
    with wave.open(io.BytesIO(found["video/sounds/highest", 1].audio.encoded_audio_string)) as heard:
        assert heard.getframerate() == 16_000
        assert np.abs(np.frombuffer(heard.readframes(heard.getnframes()), "<i2")).max() > 300
    assert sum(path.stat().st_size for path in (tmp_path / "events").iterdir()) < 8e6


def test_a_clip_that_is_gone_leaves_the_text(tmp_path: Path) -> None:
    samples = Samples("video", {"right": 1.0}, MediaLimits(), steps=1)
    writer = Events(tmp_path / "events")
    samples(writer, 1, [completion("a", 0, "x", 1.0, media=[str(tmp_path / "gone.mp4")])])
    writer.close()
    assert {tag for tag, _ in events_of(tmp_path / "events")} == {
        "video/completions/highest/text_summary",
        "video/completions/lowest/text_summary",
    }


def test_samples_that_cannot_be_made_stop_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rollouts of all three steps are written, samples of the first alone."""
    written = Events(tmp_path / "events")

    class Broken(Samples):
        def __call__(self, writer: Events, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
            if step == 2:
                raise RuntimeError("no such\nclip")
            super().__call__(writer, step, rows)

    broken = Broken("video", {"right": 1.0}, MediaLimits(), steps=3)
    record = recorder(partial(rollouts.write, tmp_path / "rollouts"), broken, lambda: written)
    for step in (1, 2, 3):
        record(step, [completion("a", 0, "x", 1.0)])
    written.close()
    assert [rows[0]["step"] for rows in rollouts.read(tmp_path / "rollouts")] == [1, 2, 3]
    assert {step for _, step in events_of(tmp_path / "events")} == {1}
    assert capsys.readouterr().out == "  video: no samples for TensorBoard from step 2 on (RuntimeError: no such clip)\n"


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one GRPO stage that reports to transformers' own TensorBoard, too."""
    folder = tmp_path_factory.mktemp("reported")
    stage = grpo("video", data=sources("train", "video"), steps=2, save_every=2, trainer={"report_to": ["tensorboard"]}, keep=None)
    stage = {name: value for name, value in stage.items() if value is not None}
    write(folder / "recipe.yaml", recipe(stages=[stage], evaluation=None))
    done = omnistage("run", "recipe.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "run" / "01-video"


def test_a_run_logs_its_samples_beside_its_numbers(reported: Path) -> None:
    found = events_of(reported / "events")
    rows = {row["step"]: row for row in files.read_lines(reported / "metrics.jsonl") if "reward" in row}
    for step, row in rows.items():
        assert found["video/reward", step].simple_value == pytest.approx(row["reward"])
        assert found["video/completions/highest/text_summary", step].tensor.string_val
        assert found["video/clips/lowest", step].image.encoded_image_string[:2] == b"\xff\xd8"


def test_reporters_of_transformers_are_untouched(reported: Path) -> None:
    """What the stage's `trainer: {report_to: [tensorboard]}` asks for is written where transformers writes it."""
    (folder,) = {path.parent for path in (reported / "checkpoints").rglob("events.out.tfevents.*")}
    found: dict[Any, Any] = events_of(folder)
    row = next(row for row in files.read_lines(reported / "metrics.jsonl") if row["step"] == 1)
    assert found["train/reward", 1].simple_value == pytest.approx(row["reward"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["wanbd"], "unknown reporter 'wanbd'; did you mean 'wandb'?"),
        (["codecarbon"], "'codecarbon' is not installed here; installed: tensorboard"),
    ],
)
def test_a_reporter_that_is_not_there_is_one_line(given: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(f"stages.video.trainer.report_to: {said}")):
        training.check_reporters("stages.video.trainer.report_to", given)
