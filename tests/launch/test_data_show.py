"""`omnistage data show` and `omnistage data convert` on rendered clips and the tiny model's processor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from omnistage.data import formats
from omnistage.data.records import Modality
from omnistage.launch import cli
from omnistage.stages import presentation
from world import World


def run(world: World, *arguments: object) -> int:
    return cli.main(["data", *map(str, arguments)])


def test_show_prints_the_prompt_and_draws_the_clip(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The placeholders are counted as the encoder counts them, and the sheet has pictures above and a wave below."""
    file = world.data / "train_audio_video.json"
    options = ["--modality", "audio_video", "--model", world.checkpoint, "-n", "2", "--sheets", tmp_path / "sheets", "--prompt", "short"]
    assert run(world, "show", file, *options) == 0
    shown = capsys.readouterr().out
    first = world.records("audio_video")[0]
    shape = presentation.of_checkpoint(str(world.checkpoint)).model_copy(update={"prompt": "short"})
    row = presentation.encoder(shape, str(world.checkpoint))(first)
    config = world.model().config
    seen, heard = row.ids.count(config.video_token_id), row.ids.count(config.audio_token_id)
    assert f"tokens: {len(row.ids)} in all, of these video {seen}, audio {heard}" in shown
    assert first.question in shown
    assert "<|VIDEO|> x " in shown
    assert f"target: {first.target}" in shown
    sheets = sorted((tmp_path / "sheets").iterdir())
    assert [sheet.name for sheet in sheets] == [f"{record.id}-0.png" for record in world.records("audio_video")[:2]]
    with Image.open(sheets[0]) as sheet:
        wave = sheet.crop((0, sheet.height - 110, sheet.width, sheet.height - 14))
        frames = sheet.crop((0, 0, sheet.width, sheet.height - 110))
        assert len(set(wave.getdata())) > 1
        assert len(set(frames.getdata())) > 10


def test_each_record_is_shown_with_its_own_system_message(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two rows that differ in nothing else are two prompts; the third has none of its own."""
    turns = [[{"role": "system", "content": text}] for text in ("SYSTEM ONE", "SYSTEM TWO")] + [[]]
    lines = [json.dumps({"messages": [*system, {"role": "user", "content": "q"}], "solution": "x"}) for system in turns]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    assert run(world, "show", tmp_path / "rows.jsonl", "--format", "conversations", "--model", world.checkpoint) == 0
    shown = capsys.readouterr().out.split("rows-")[1:]
    assert [[name in text for name in ("SYSTEM ONE", "SYSTEM TWO")] for text in shown] == [[True, False], [False, True], [False, False]]


def test_each_record_has_a_sheet_of_its_own(world: World, tmp_path: Path) -> None:
    """Ids that no file could be called, or that would be called the same."""
    ids = ["a/b", "a:b", "a_b", "x" * 300]
    given = json.loads((world.data / "train_video.json").read_text())[: len(ids)]
    path = world.data / "sheets.json"
    path.write_text(json.dumps([row | {"id": name} for row, name in zip(given, ids, strict=True)]))
    options = ["--modality", "video", "--model", world.checkpoint, "-n", str(len(ids)), "--sheets", tmp_path / "sheets"]
    assert run(world, "show", path, *options) == 0
    names = sorted(sheet.name for sheet in (tmp_path / "sheets").iterdir())
    assert len(names) == len(ids)
    assert "a_b-0.png" in names
    assert sum(name.startswith("a_b-") for name in names) == 3


def test_convert_keeps_every_record(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = world.data / "train_audio_video.json", tmp_path / "rows.jsonl"
    options = ["--modality", "audio_video", "--media-root", world.data, "--out", out]
    assert run(world, "convert", file, *options) == 0
    assert "--format conversations" in capsys.readouterr().out
    back = list(formats.read("conversations", out, media_root=world.data))
    before = world.records("audio_video")
    assert [(r.id, r.media, r.question, r.options, r.target, r.kind, r.task, r.modality) for r in back] == [
        (r.id, r.media, r.question, r.options, r.target, r.kind, r.task, r.modality) for r in before
    ]
    assert all(record.modality is Modality.AUDIO_VIDEO for record in back)
    assert run(world, "convert", file, *options) == 2
    assert "exists; choose another file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "none.json", "--model", "m"], "annotation file 'none.json' does not exist"),
        (["show", "none.json", "--model", "m", "--format", "humansens"], "unknown format 'humansens'; did you mean 'humansense'?"),
        (["convert", "none.json", "--out", "x.jsonl"], "annotation file 'none.json' does not exist"),
        (["convert", "{data}/train_video.json", "--out", "{data}/none/x.jsonl"], "x.jsonl: cannot be written (No such file or directory)"),
    ],
)
def test_bad_input_is_one_line(world: World, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(world, *(argument.format(data=world.data) for argument in arguments)) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert said in error[0]
