"""docs/quickstart.md does what it says: its files are written and its commands run, on the demo's own clips and an untrained model."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from omnistage.data import formats, synth
from omnistage.data.records import Record
from omnistage.launch import cli
from omnistage.rl import tiny
from omnistage.stages import files
from pages import blocks, commands
from repository import ROOT

PAGE = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
CLIPS = Path("runs/demo/data/clips")


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the page needs of a demo's run, where it looks for it; the clips are the demo's: their number changes none of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    synth.render("runs/demo/data", seed=0, cold_start=0, train=12, held_out=12, modalities=["video"], workers=1)
    tiny.build(Path("runs/demo/01-cold_start/model"), synth.corpus(), size=tiny.TinySize(), seed=0)
    return tmp_path


def answers(records: list[Record]) -> dict[str, tuple[str, str]]:
    """Question and right answer of each clip."""
    return {Path(record.media[0].path).name: (record.question, record.target) for record in records}


@pytest.mark.slow
def test_every_command_of_the_page(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = []
    for language, name, body in blocks(PAGE):
        if name is not None:
            Path(name).write_text(body, encoding="utf-8")
            continue
        for command, shown in commands(body) if language == "console" else []:
            words = shlex.split(command)
            assert words[0] == "omnistage"
            assert cli.main(words[1:]) == 0, command
            out = capsys.readouterr().out
            for line in shown:
                assert line in out.splitlines(), f"{command}\n{out}"
            ran.append(words[1])
    assert ran == ["data", "data", "run", "run", "compare", "rewards", "report", "evaluate"]
    assert Path("sheets/a-0.png").is_file()
    assert Path("runs/mine/report.html").is_file()
    assert files.read_json(Path("results/mine/scores.json"))["items"] == 12
    rendered = answers(list(formats.read("humansense", Path("runs/demo/data/train_video.json"), media_root=Path("runs/demo/data"))))
    own = answers(list(formats.read("conversations", Path("mine.jsonl"), media_root=CLIPS)))
    assert len(own) == 8
    assert own.items() <= rendered.items()
