"""`omnistage data passrate`: a model that always, sometimes and never answers is measured, and a source keeps what it sometimes does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from omnistage.data import pass_rates
from omnistage.data.errors import InputError
from omnistage.launch import cli
from omnistage.rl import policy
from omnistage.rl.sft_trainer import Collator
from omnistage.rl.towers import raw_media
from omnistage.stages import rows, training
from omnistage.stages.presentation import Presentation
from omnistage.stages.recipe.source import PassRate, Source
from omnistage.stages.recipe.surroundings import Media
from world import SHAPE, World

ALWAYS, SOMETIMES, NEVER = 0, 1, 4
SAMPLES = 16


@pytest.fixture(scope="module")
def checkpoint(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, taught to say the right letter to one question, one of two letters to another, and a wrong word to a third."""
    records = world.records("video")
    said = [(ALWAYS, "D"), (ALWAYS, "D"), (SOMETIMES, "A"), (SOMETIMES, "B"), (NEVER, "yes"), (NEVER, "yes")]
    taught = [replace(records[at], id=str(n), response=f"<answer>{answer}</answer>") for n, (at, answer) in enumerate(said)]
    assert [records[at].target for at in (ALWAYS, SOMETIMES, NEVER)] == ["D", "A", "no"]
    torch.manual_seed(0)
    model = world.model()
    policy.freeze(model, ["vision", "audio"])
    collator = Collator(world.encoder(model), {record.id: record for record in taught})
    batch: dict[str, Any] = collator([{"record_id": record.id} for record in taught])
    batch |= raw_media(batch.pop("encoded"), torch.device("cpu"))
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("taught") / "model"
    media = Media(fps=SHAPE.limits.fps, max_frames=SHAPE.limits.max_frames, min_pixels=SHAPE.min_pixels, max_pixels=SHAPE.max_pixels)
    training.write_folder(model, folder, policy.load_processor(str(world.checkpoint)), Presentation(media=media, prompt="short"))
    return folder


@pytest.fixture
def three(world: World, tmp_path: Path) -> Path:
    """An annotation file of the three questions."""
    found = json.loads((world.data / "train_video.json").read_text())
    path = tmp_path / "train.json"
    path.write_text(json.dumps([found[at] for at in (ALWAYS, SOMETIMES, NEVER)]))
    return path


def command(world: World, checkpoint: Path, data: Path, out: Path, *more: str) -> list[str]:
    given = ["--media-root", str(world.data), "--modality", "video", "--samples", str(SAMPLES), "--max-new-tokens", "12"]
    return ["data", "passrate", str(checkpoint), "--data", str(data), "--out", str(out), "--batch-size", "2", *given, *more]


def source(world: World, data: Path, out: Path, **bounds: float) -> Source:
    return Source(path=str(data), media_root=str(world.data), modality="video", pass_rate=PassRate(file=str(out), **bounds))


@pytest.fixture
def measured(world: World, checkpoint: Path, three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "rates" / "train.jsonl"
    assert cli.main(command(world, checkpoint, three, out)) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{three}: 3 records, 1 never answered, 1 sometimes, 1 always; mean pass rate 0.")
    return out


def test_rates_are_what_the_model_does(world: World, measured: Path, three: Path) -> None:
    lines = [json.loads(line) for line in measured.read_text().splitlines()]
    assert (lines[0]["settings"]["samples"], lines[0]["settings"]["shown"]["prompt"]) == (SAMPLES, "short")
    always, sometimes, never = lines[1:]
    assert [(line["file"], line["source"]) for line in lines[1:]] == [(str(three), f"train.json: record {at}") for at in range(3)]
    assert (always["passed"], never["passed"]) == (SAMPLES, 0)
    # Half the time: fewer than 3 or more than 13 of 16 would come once in 240 times, and the seed is fixed.
    assert 3 <= sometimes["passed"] <= 13
    assert [line["pass_rate"] for line in lines[1:]] == [line["passed"] / SAMPLES for line in lines[1:]]


def test_a_source_keeps_what_is_sometimes_answered(
    world: World, measured: Path, three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [record.id for record in world.records("video")]
    kept, pools, blocks = rows.counted_pools([source(world, three, measured)])
    assert [record.id for record in kept] == [ids[SOMETIMES]]
    assert [pool.rows for pool in pools] == [(0,)]
    assert blocks[0].counts() == {
        "path": str(three),
        "records": 1,
        "left_out": {"pass_rate": 2},
        "pass_rate": {"file": str(measured), "range": "more than 0 and less than 1"},
    }
    told = capsys.readouterr().out
    assert told == f"{three}: 2 of 3 records are left out: their pass rate in {measured} is not more than 0 and less than 1\n"
    assert [record.id for record in rows.read_source(source(world, three, measured, at_least=0.1, at_most=1.0))] == ids[:2]
    assert [record.id for record in rows.read_source(source(world, three, measured, at_least=0.0))] == [ids[SOMETIMES], ids[NEVER]]


def test_a_measurement_that_was_killed_goes_on(
    world: World, measured: Path, checkpoint: Path, three: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut in the middle of the second line of three: its batch is drawn again, and the file is the uninterrupted one's, byte for byte."""
    whole = measured.read_text()
    lines = whole.splitlines(keepends=True)
    measured.write_text("".join(lines[:2]) + lines[2][:20])
    assert cli.main(command(world, checkpoint, three, measured, "--json")) == 0
    assert measured.read_text() == whole
    found = json.loads(capsys.readouterr().out)[str(three)]
    assert [found[name] for name in ("records", "never", "sometimes", "always")] == [3, 1, 1, 1]


def refusal(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert cli.main(arguments) == 2
    return capsys.readouterr().err.removeprefix("omnistage: ").rstrip("\n")


def test_other_settings_and_other_files_are_refused(
    world: World, measured: Path, checkpoint: Path, three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = measured.read_bytes()
    other = refusal(capsys, command(world, checkpoint, three, measured, "--seed", "1"))
    assert other == f"pass rates {str(measured)!r}: it holds rates of other settings: seed is 0 there and 1 here; choose another file"
    assert measured.read_bytes() == before
    told = refusal(capsys, command(world, checkpoint, three, three))
    assert told.startswith(f"pass rates {str(three)!r}: line 1 is no JSON") or "is no header" in told or "is no object" in told
    assert "no such file" in refusal(capsys, command(world, checkpoint, tmp_path / "gone.json", measured))


def test_answers_without_a_grader_are_refused_before_any_is_drawn(
    world: World, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = {"messages": [{"role": "user", "content": "Describe it."}], "solution": "A dog runs home."}
    (tmp_path / "open.jsonl").write_text(json.dumps(line) + "\n")
    arguments = ["data", "passrate", str(checkpoint), "--data", str(tmp_path / "open.jsonl"), "--format", "conversations"]
    told = refusal(capsys, [*arguments, "--out", str(tmp_path / "out.jsonl")])
    assert told == "open.jsonl: line 1: open answers are not graded by this grader; a pass rate needs answers that are right or wrong"
    assert not (tmp_path / "out.jsonl").exists()


def test_a_stale_or_incomplete_file_is_refused(world: World, measured: Path, three: Path, tmp_path: Path) -> None:
    found = json.loads(three.read_text())
    (tmp_path / "more").mkdir()
    moved = tmp_path / "more" / "train.json"
    moved.write_text(json.dumps(found[::-1]))
    assert len(rows.read_source(source(world, moved, measured))) == 1, "rows may stand elsewhere"
    more = json.loads((world.data / "train_video.json").read_text())
    moved.write_text(json.dumps(more))
    with pytest.raises(InputError) as caught:
        rows.read_source(source(world, moved, measured))
    told = "train.json: record 2 (id 'train_video_00002') was not measured, and 4 more records were not or have changed"
    assert str(caught.value) == f"pass rates {str(measured)!r}: {told}; run omnistage data passrate on this file"
    found[1]["questions"]["answer"] = "B"
    moved.write_text(json.dumps(found))
    with pytest.raises(InputError, match=r"record 1 \(id 'train_video_00001'\) has changed since it was measured; run"):
        rows.read_source(source(world, moved, measured))
    with pytest.raises(InputError, match=r"no record is left by its pass rate in .*: wanted is at least 0\.99 and less than 1, and"):
        rows.read_source(source(world, three, measured, at_least=0.99))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 is no JSON"),
        ('{"omnistage": "quarantine", "version": 2}\n', "its first line is no header of version 1"),
        ('{"omnistage": "pass_rates", "version": 1, "settings": {}}\n[]\n', "line 2 is no object"),
        ('{"omnistage": "pass_rates", "version": 1, "settings": {}}\n{"id": "a"}\n', "line 2 has no 'file'"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rates.jsonl").write_text(text)
    with pytest.raises(InputError, match=f"pass rates '.*rates.jsonl': {message}"):
        pass_rates.read(tmp_path / "rates.jsonl")


@pytest.mark.parametrize("change", [{"passed": 9}, {"passed": 1.0}, {"samples": 0, "passed": 0}, {"id": 3}, {"passed": True}])
def test_a_wrong_line_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "rates.jsonl"
    pass_rates.begin(path, {})
    line = {"id": "a", "file": "f", "source": "s", "digest": "d", "passed": 1, "samples": 8, "pass_rate": 0.125}
    path.write_text(path.read_text() + json.dumps(line | change) + "\n")
    with pytest.raises(InputError, match="line 2: id, file, source and digest must be texts"):
        pass_rates.read(path)
