"""The page: within its size, clips dropped first; whatever the run says stands in it as data."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest

from omnistage.data.media import MediaLimits
from omnistage.data.records import MediaRef
from omnistage.launch import cli
from omnistage.stages import files
from omnistage.stages.report import media, page
from omnistage.stages.report.texts import SHORT
from omnistage.stages.report.view import as_json, view
from report_run import HOSTILE, completion, copied, data_in, hostile, recorded


class Scripts(HTMLParser):
    """Types and contents of a page's script elements, as a parser of HTML finds them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str | None, str]] = []
        self.tags: set[str] = set()
        self._in = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "script":
            self.found.append((dict(attrs).get("type"), ""))
            assert "src" not in dict(attrs)
            self._in = True

    def handle_endtag(self, tag: str) -> None:
        self._in = self._in and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._in:
            self.found[-1] = (self.found[-1][0], self.found[-1][1] + data)


def test_what_the_run_says_stays_data(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    page.write(hostile(tmp_path), out, with_plan=False)
    html = out.read_text("utf-8")
    scripts = Scripts()
    scripts.feed(html)
    assert [text for kind, text in scripts.found if kind is None] == [page.script()]
    assert "img" not in scripts.tags
    asked = {data_in(html, f"group-{number}")["question"] for number in range(len(HOSTILE))}
    assert asked == {*HOSTILE[:-1], f"{HOSTILE[-1][:SHORT]} … {1_000_000 - SHORT} more characters"}
    outside = re.sub(r'<script type="application/json".*?</script>|<title>[^<]*</title>', "", html, flags=re.DOTALL)
    assert "window.ran" not in outside


def test_the_policy_allows_the_two_scripts_and_no_connection(tmp_path: Path) -> None:
    policy = dict(rule.split(" ", 1) for rule in page.policy().split("; "))
    assert policy["default-src"] == "'none'"
    assert len(policy["script-src"].split()) == 2
    assert all(one.startswith("'sha256-") for one in policy["script-src"].split())
    assert not any("http" in rule for rule in policy.values())


def test_a_page_of_a_real_run(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert page.write(run, out)["bytes"] == out.stat().st_size < 20e6
    html = out.read_text("utf-8")
    data = data_in(html)
    assert data["shown"]["groups"] == data["shown"]["groups_of"] == 72
    assert data["shown"]["completions_of"] == 288
    assert data["shown"]["items"] == data["shown"]["items_of"] == 36
    assert data["shown"]["clips"]["played"] == data["shown"]["clips"]["of"] > 0
    assert [stage["name"] for stage in data["plan"]["stages"]] == ["cold_start", "video", "audio", "audio_video"]
    item = data_in(html, "item-0")
    assert set(item["answers"]) == {"(start)", "cold_start", "video", "audio", "audio_video"}
    assert str(run) not in re.sub(r'<script type="application/json" id="data">.*?</script>', "", html, flags=re.DOTALL)


def test_half_a_pair_of_surrogates_is_kept(run: Path, tmp_path: Path) -> None:
    """In a question, an answer and a reason: the other items are there, and this one is as it was written."""
    moved = copied(run, tmp_path / "run")
    broken = "\ud800 half a pair"
    for evaluation in moved.glob("*/evaluation"):
        for name, field in (("items", "question"), ("predictions", "raw"), ("scores", "reason")):
            path = evaluation / f"{name}.jsonl"
            first, *rows = files.read_lines(path)
            path.write_text("".join(json.dumps(row) + "\n" for row in (first | {field: f"{field} {broken}"}, *rows)))
    made = view(moved, room=15_000_000)
    assert not [note for note in made.data["notes"] if note["section"] == "answers"]
    assert made.shown["items"] == 36
    held = json.dumps([part for key, part in made.parts.items() if key.startswith("item-")])
    assert all(json.dumps(f"{field} {broken}") in held for field in ("question", "raw", "reason"))
    page.render(made).encode()


def test_nested_answers_are_a_note(run: Path, tmp_path: Path) -> None:
    moved = copied(run, tmp_path / "run")
    (moved / "02-video" / "evaluation" / "predictions.jsonl").write_text("[" * 100_000 + "\n")
    made = view(moved, room=15_000_000)
    (note,) = [note["line"] for note in made.data["notes"] if note["section"] == "answers"]
    assert "predictions.jsonl: line 1: " in note
    assert "video" not in made.shown["evaluated"]


def test_clips_are_dropped_before_samples(run: Path) -> None:
    whole = view(run, room=15_000_000)
    texts = sum(len(as_json(part)) for key, part in whole.parts.items() if not key.startswith("clip-"))
    clips = sum(len(as_json(part)) for key, part in whole.parts.items() if key.startswith("clip-"))
    head = len(as_json(whole.head()))
    assert clips > texts
    less = view(run, room=head + texts + clips // 2)
    assert (less.shown["groups"], less.shown["items"]) == (72, 36)
    assert 0 < less.shown["clips"]["played"] < whole.shown["clips"]["played"]
    least = view(run, room=head + texts // 3)
    assert least.shown["clips"]["played"] < less.shown["clips"]["played"]
    assert 0 < least.shown["groups"] < 72
    for made, room in ((less, head + texts + clips // 2), (least, head + texts // 3)):
        size = len(as_json(made.head())) + sum(len(as_json(part)) for part in made.parts.values())
        assert size <= room


def test_clips_without_room_are_linked(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "pages" / "page.html"
    made = view(run, room=700_000, page=out)
    linked = [part for key, part in made.parts.items() if key.startswith("clip-") and "link" in part]
    assert len(linked) == made.shown["clips"]["linked"] > 0
    for part in linked:
        assert (out.parent.resolve() / part["link"]).resolve().is_file()


def test_a_run_that_was_moved_finds_its_clips(run: Path, tmp_path: Path) -> None:
    moved = copied(run, tmp_path / "moved")
    hidden = run.with_name("gone")
    run.rename(hidden)
    try:
        made = view(moved, room=15_000_000)
    finally:
        hidden.rename(run)
    assert made.shown["clips"]["missing"] == 0
    assert made.shown["clips"]["played"] == made.shown["clips"]["of"] > 0


@pytest.mark.parametrize("given", [["--max-mb", "1"], ["--max-mb", "4.99"]])
def test_a_page_that_cannot_be_so_small_is_refused(given: list[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(run), "--out", str(tmp_path / "page.html"), *given]) == 2
    assert "--max-mb" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_a_packed_clip_plays(run: Path) -> None:
    """What is embedded decodes to the picture and the sound of the clip, over its whole length."""
    path = next(iter(sorted((run / "data" / "clips").glob("train_audio_video_*.mp4"))))
    clip = media.packed(MediaRef("video", str(path), sound=str(path)), MediaLimits())
    assert clip["shown"]["frames"] == clip["shown"]["of"] == 4
    assert len(clip["wave"]) == media.WAVE_POINTS
    assert max(clip["wave"]) > 0.01
    content = base64.b64decode(clip["video"].partition(",")[2])
    with av.open(io.BytesIO(content), "r") as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        assert file.streams.video[0].codec_context.name == "h264"
    with av.open(str(path), "r") as file:
        true = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    with av.open(io.BytesIO(content), "r") as file:
        heard = sum(frame.samples for frame in file.decode(audio=0)) / file.streams.audio[0].rate
    assert heard == pytest.approx(2, abs=0.2)
    assert len(frames) == len(true)
    for made, given in zip(frames, true, strict=True):
        assert np.abs(made.astype(float) - given.astype(float)).mean() < 12


def test_a_clip_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))
    found = media.packed(MediaRef("video", str(path)), MediaLimits())
    assert set(found) == {"kind", "error"}


def wide(folder: Path, steps: int, columns: int) -> Path:
    """A run of some rollouts whose stage has logged so many numbers at full precision."""
    run = recorded(folder, {step: [completion("a", 0, "x" * 500, float(step % 2), question=f"{step}?")] for step in range(1, 31)})
    rows = [{"step": step, **{f"numbers/{name}": math.sin(step * name + 1) for name in range(columns)}} for step in range(1, steps + 1)]
    files.write_lines(run / "01-video" / "metrics.jsonl", rows)
    return run


def test_curves_are_fitted_to_the_room(tmp_path: Path) -> None:
    """3,000 steps of 80 numbers: 1,500 would be 2.6 MB; in 1 MB they have half of it, and samples have room."""
    run = wide(tmp_path / "run", 3000, 80)
    made = view(run, room=1_000_000)
    size = len(as_json(made.head())) + sum(len(as_json(part)) for part in made.parts.values())
    metrics = made.data["stages"][0]["metrics"]
    assert size <= 1_000_000
    assert 300_000 < len(as_json(metrics)) < 500_000
    assert made.shown["groups"] == 30
    assert metrics["steps"][-1] == metrics["rows"] == 3000
    assert set(range(1, 3001, metrics["every"])) <= set(metrics["steps"])
    assert metrics["columns"]["numbers/7"][:2] == [float(f"{math.sin(step * 7 + 1):.6g}") for step in metrics["steps"][:2]]
    assert "at" not in metrics
    (told,) = [note["line"] for note in made.data["notes"] if note["section"] == "curves"]
    assert told.startswith(f"stage video: {len(metrics['steps'])} of 3,000 logged steps are drawn, numbers to 6 digits")
    whole = view(run, room=15_000_000)
    assert len(whole.data["stages"][0]["metrics"]["steps"]) == 1501
    assert not [note for note in whole.data["notes"] if note["section"] == "curves"]


@pytest.mark.parametrize("fault", ["curves", "damaged"])
def test_the_size_is_kept_and_a_refusal_says_what_is_needed(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a page has no room for, at sizes from the least to where all of it fits; of 400 damaged files the notes are one."""
    run, out = tmp_path / "run", tmp_path / "page.html"
    if fault == "curves":
        wide(run, 200, 200)
    else:
        recorded(run, {1: [completion("a", 0, "x", 1.0)]})
        for step in range(2, 402):
            (run / "01-video" / "rollouts" / f"step-{step:06d}.parquet").write_bytes(b"PAR1 no")
    least = page.frame_size() / 1e6
    assert cli.main(["report", str(run), "--out", str(out), "--max-mb", f"{least + 0.001:.6f}"]) == 2
    needed = float(re.findall(r"give ([0-9.]+) or more\n", capsys.readouterr().err)[0])
    assert needed < least + 0.5
    for more in (0, 0.05, 0.1, 0.2, 0.4, 0.8, 5):
        made = page.write(run, out, max_mb=needed + more, with_plan=False)
        assert made["bytes"] == out.stat().st_size <= (needed + more) * 1e6, more
    if fault == "damaged":
        (note,) = [note["line"] for note in data_in(out.read_text("utf-8"))["notes"] if "parquet" in note["line"]]
        assert note.endswith("(and 399 more alike)")
