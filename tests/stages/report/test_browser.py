"""The page in a real browser: it opens without complaint, shows the run's numbers, plays its clips, and runs nothing of its texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, NO_CHROMIUM, opened
from omnistage.stages import files
from omnistage.stages.report import page
from report_run import HOSTILE, hostile

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark")])
def test_it_opens_and_every_chart_is_drawn(chromium: Any, report: Path, width: int, scheme: str) -> None:
    with opened(chromium, report, width=width, scheme=scheme) as shown:
        names = shown.page.locator("figure.chart").evaluate_all("all => all.map(one => one.dataset.chart)")
        assert {"accuracy", "probes", "curves/audio_video/reward", "curves/audio_video/rewards/accuracy"} <= set(names)
        for name in names:
            assert shown.chart(name)
        assert shown.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert shown.faults == []


def test_charts_hold_what_was_logged(chromium: Any, run: Path, report: Path) -> None:
    with opened(chromium, report) as shown:
        for stage, folder in (("cold_start", "01-cold_start"), ("video", "02-video")):
            shown.page.locator(f'button.tab[data-stage="{stage}"]').click()
            rows = [row for row in files.read_lines(run / folder / "metrics.jsonl") if "loss" in row]
            for column in ("loss", "grad_norm", "learning_rate", "entropy", "step_seconds", *(["reward"] if stage == "video" else [])):
                x, y = shown.chart(f"curves/{stage}/{column}")[column]
                assert x == [row["step"] for row in rows]
                assert y == [row[column] for row in rows]
        figure = shown.page.locator('figure[data-chart="curves/video/rewards/e_share"]')
        figure.get_by_role("button", name="by task").click()
        by_task = shown.chart("curves/video/rewards/e_share")
        logged = {name for row in rows for name in row if name.startswith("rewards/e_share/task/") and name.endswith("/mean")}
        assert set(by_task) == logged
        for name in logged:
            assert by_task[name][1] == [row.get(name) for row in rows]
        summary = files.read_json(run / "summary.json")
        measured = [summary["start"], *summary["stages"]]
        for modality, (_, y) in shown.chart("accuracy").items():
            assert y == [row["modalities"][modality]["accuracy"] for row in measured]
        assert shown.faults == []


def test_the_player_walks_filters_and_plays(chromium: Any, report: Path) -> None:
    with opened(chromium, report) as shown:
        place = shown.page.locator("#rollout-position")
        assert place.inner_text().endswith("of 72")
        shown.page.locator("#rollout-stage").select_option("video")
        assert place.inner_text() == "1 of 24"
        shown.page.locator("#rollout-next").click()
        assert place.inner_text() == "2 of 24"
        shown.page.keyboard.press("ArrowRight")
        assert place.inner_text() == "3 of 24"
        shown.page.keyboard.press("ArrowLeft")
        assert place.inner_text() == "2 of 24"
        assert shown.page.locator("#rollout .completion").count() == 4
        asked = shown.page.locator("#rollout .asked").inner_text()
        shown.page.locator("#rollout-text").fill("no such text in any rollout")
        shown.until("document.getElementById('rollout-position').textContent === 'none'")
        shown.page.locator("#rollout-text").fill(asked)
        shown.until("document.getElementById('rollout-position').textContent !== 'none'")
        assert shown.page.locator("#rollout .asked").inner_text() == asked
        shown.until("document.querySelector('#rollout video').readyState >= 2")
        video = shown.page.locator("#rollout video")
        video.evaluate("async video => { video.muted = true; await video.play(); }")
        shown.until("document.querySelector('#rollout video').currentTime > 0.2")
        assert video.evaluate("video => [video.videoWidth, Math.round(video.duration)]") == [56, 2]
        assert shown.faults == []


def test_two_stages_side_by_side(chromium: Any, run: Path, report: Path) -> None:
    answers = {
        (stage, row["id"]): row["raw"]
        for stage, folder in (("cold_start", "01-cold_start"), ("audio", "03-audio"))
        for row in files.read_lines(run / folder / "evaluation" / "predictions.jsonl")
        if row["run"] == "greedy"
    }
    with opened(chromium, report) as shown:
        shown.page.locator("#answer-before").select_option("cold_start")
        shown.page.locator("#answer-after").select_option("audio")
        shown.page.locator("#answer-modality").select_option("audio")
        assert shown.page.locator("#answer-position").inner_text() == "1 of 12"
        item = shown.page.locator("#answer-view h3").inner_text()
        titles = shown.page.locator("#answer-view .side-answer h4").all_inner_texts()
        assert titles == ["after cold_start", "after audio"]
        for at, stage in enumerate(("cold_start", "audio")):
            told = shown.page.locator("#answer-view .side-answer").nth(at).inner_text()
            for word in (answers[stage, item] or "").replace("<", " ").replace(">", " ").split():
                if word.isascii() and word.isalpha():
                    assert word.lower() in told.lower()
        shown.until("document.querySelector('#answer-view audio').readyState >= 2")
        assert shown.faults == []


def test_nothing_that_a_model_writes_is_run(chromium: Any, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    page.write(hostile(tmp_path), out, with_plan=False)
    with opened(chromium, out) as shown:
        found = []
        for _ in HOSTILE:
            found.append(shown.page.locator("#rollout").inner_text())
            shown.page.evaluate("document.getElementById('rollout-previous').click()")
        for field in ("stage", "task"):
            assert shown.page.locator(f"#rollout-{field} option").count() >= 2
        shown.page.locator("summary").evaluate_all("all => all.forEach(one => one.click())")
        assert shown.page.evaluate("window.ran") is None
        assert shown.page.locator("main img").count() == 0
        assert any(HOSTILE[0] in text for text in found)
        assert any("U+202E" in text and "\u202e" not in text for text in found)
        assert any("more characters" in text for text in found)
        assert shown.faults == []
