"""The page of a run under way in a browser: it changes by itself, and what a person chose in it stays."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omnistage.stages import files
from report_run import copied
from watched import Watched, watched

REWARD = "curves/audio/reward"


@pytest.fixture
def half(run: Path, tmp_path: Path) -> Path:
    """The real run in the middle of its third stage, of which only four steps have recorded their rollouts."""
    folder = copied(run, tmp_path / "run", without=["04-audio_video", "03-audio/model", "03-audio/evaluation", "03-audio/seconds.json"])
    # Of what is measured by now, so that no server has to load torch to make it anew.
    summary = files.read_json(folder / "summary.json")
    stages = [stage for stage in summary["stages"] if stage["name"] in ("cold_start", "video")]
    files.write_json(folder / "summary.json", summary | {"stages": stages})
    (tmp_path / "later").mkdir()
    for step in (5, 6):
        name = f"step-{step:06d}.parquet"
        (folder / "03-audio" / "rollouts" / name).rename(tmp_path / "later" / name)
    return folder


@pytest.fixture
def serving(half: Path) -> Iterator[Watched]:
    with watched(half) as found:
        found.until(lambda data: data.get("data", {}).get("summary"))
        yield found


@pytest.fixture
def page(serving: Watched, chromium: Any) -> Iterator[Any]:
    """The page as it is drawn, which may complain of nothing and ask no one else."""
    faults: list[str] = []
    context = chromium.new_context(viewport={"width": 1300, "height": 900}, reduced_motion="reduce")
    found = context.new_page()
    found.set_default_timeout(60_000)
    found.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    found.on("pageerror", lambda error: faults.append(str(error)))
    found.on("request", lambda asked: None if asked.url.startswith((serving.url, "data:")) else faults.append(asked.url))
    found.goto(serving.url)
    found.wait_for_selector("html[data-ready]")
    yield found
    found.unroute_all()
    context.close()
    assert [fault for fault in faults if "ERR_CONNECTION_REFUSED" not in fault] == []


def until(page: Any, true: Callable[[], Any]) -> None:
    """The page's policy forbids what playwright's own waiting for expressions does."""
    end = time.monotonic() + 90
    while not true():
        assert time.monotonic() < end
        page.wait_for_timeout(100)


def drawn(page: Any) -> list[float]:
    """The rewards in the drawn curve."""
    found: list[float] = page.evaluate(f"[...document.querySelector('[data-chart=\"{REWARD}\"] .plot').data[0].y]")
    return found


def append(half: Path, step: int, reward: float) -> None:
    with (half / "03-audio" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "reward": reward, "loss": 0.1}) + "\n")


def test_it_changes_by_itself_and_keeps_what_was_chosen(page: Any, half: Path, tmp_path: Path) -> None:
    rows = [row for row in files.read_lines(half / "03-audio" / "metrics.jsonl") if "reward" in row]
    page.select_option("#rollout-stage", "audio")
    page.click("#rollout-next")
    page.fill("#rollout-text", "a")
    until(page, lambda: page.text_content("#rollout-position").startswith("1 of"))
    page.click("#rollout-next")
    chosen = page.text_content("#rollout .group-head")
    steps = page.locator("#rollout-step option").all_text_contents()
    page.click(".tab[data-stage=audio]")
    page.locator(f'[data-chart="{REWARD}"]').scroll_into_view_if_needed()
    page.wait_for_selector(f'[data-chart="{REWARD}"][data-drawn]')
    assert drawn(page) == [row["reward"] for row in rows]
    page.locator(f'[data-chart="{REWARD}"] summary').click()
    page.evaluate("window.before = document.querySelector('#accuracy')")
    place = page.locator(f'[data-chart="{REWARD}"]').bounding_box()["y"]

    append(half, 7, 0.625)
    until(page, lambda: len(drawn(page)) == 7)
    assert drawn(page)[-1] == 0.625
    assert "0.625" in page.text_content(f'[data-chart="{REWARD}"] .data')
    assert abs(page.locator(f'[data-chart="{REWARD}"]').bounding_box()["y"] - place) < 3
    assert page.evaluate("window.before === document.querySelector('#accuracy')"), "what has not changed is left alone"

    for path in sorted((tmp_path / "later").iterdir()):
        path.rename(half / "03-audio" / "rollouts" / path.name)
    until(page, lambda: "step 6" in page.locator("#rollout-step option").all_text_contents())
    assert "step 6" not in steps
    assert page.input_value("#rollout-stage") == "audio"
    assert page.input_value("#rollout-text") == "a"
    assert page.text_content("#rollout .group-head") == chosen
    assert page.locator(f'[data-chart="{REWARD}"] details').evaluate("details => details.open")
    assert abs(page.locator(f'[data-chart="{REWARD}"]').bounding_box()["y"] - place) < 3


def test_a_clip_that_plays_goes_on_and_can_be_sought(page: Any, half: Path, tmp_path: Path) -> None:
    page.select_option("#rollout-stage", "video")
    video = page.wait_for_selector("#rollout video")
    video.evaluate("video => { video.muted = true; return video.play() }")
    until(page, lambda: video.evaluate("video => video.readyState >= 3 && video.currentTime > 0"))
    for path in sorted((tmp_path / "later").iterdir()):
        path.rename(half / "03-audio" / "rollouts" / path.name)
    until(page, lambda: "rollouts" in page.text_content("#live .late"))
    assert video.evaluate("video => video.isConnected && !video.paused")
    page.wait_for_timeout(2500)
    assert video.evaluate("video => video.isConnected && !video.paused")
    video.evaluate("video => { video.pause(); video.currentTime = 1.5 }")
    assert video.evaluate("video => video.seekable.end(0)") > 1.5
    until(page, lambda: video.evaluate("video => !video.seeking && Math.abs(video.currentTime - 1.5) < 0.1 || !video.isConnected"))
    until(page, lambda: page.text_content("#live .late") == "")
    assert page.input_value("#rollout-stage") == "video"


def test_it_says_when_it_was_updated_and_when_nobody_answers(page: Any, serving: Watched, half: Path) -> None:
    until(page, lambda: page.text_content("#updated") == "updated 5 s ago")
    append(half, 7, 0.5)
    until(page, lambda: page.text_content("#updated") in ("updated now", "updated 2 s ago"))
    serving.process.send_signal(2)
    assert serving.process.wait(timeout=60) == 130
    until(page, lambda: "the server is gone" in page.text_content("#live .trouble"))
    assert page.locator("#rollout .group-head").count() == 1
