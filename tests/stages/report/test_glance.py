"""What the top of the page tells of a run in a real browser: what it measured, of whichever kind, and of which model that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, NO_CHROMIUM, Opened, opened
from omnistage.stages import files
from omnistage.stages.report import page
from report_run import copied, with_heads

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)


def paged(run: Path) -> Path:
    out = run.parent / "page.html"
    page.write(run, out, with_plan=False)
    return out


def cards(shown: Opened) -> list[str]:
    found: list[str] = shown.page.locator("#glance .card").evaluate_all("all => all.map(one => one.innerText.replace(/\\s+/g, ' '))")
    return found


def test_figures_of_an_earlier_model_are_marked(chromium: Any, run: Path, tmp_path: Path) -> None:
    """Everywhere: the cards, the chart and the table. A stage that was done again leaves those after it standing on its earlier model."""
    with opened(chromium, paged(copied(run, tmp_path / "fresh"))) as shown:
        assert "from an earlier model" not in shown.page.locator("#main").inner_text()
    stale = copied(run, tmp_path / "stale")
    summary = files.read_json(stale / "summary.json")
    summary["stages"][-1]["stale"] = True
    files.write_json(stale / "summary.json", summary)
    with opened(chromium, paged(stale)) as shown:
        assert len(cards(shown)) == 3
        assert all("from an earlier model" in card for card in cards(shown))
        for x, _ in shown.chart("accuracy").values():
            assert x == ["(start)", "cold_start", "video", "audio", "audio_video (from an earlier model)"]
        assert "from an earlier model" in shown.page.locator("#accuracy table.matrix").inner_text()
        assert shown.faults == []


def test_heads_have_cards(chromium: Any, tmp_path: Path) -> None:
    with opened(chromium, paged(with_heads(tmp_path / "run"))) as shown:
        score, pose = cards(shown)
        assert score == "quality: score 0.936 SRCC [0.920, 0.950] of 8 held-out records head both after video"
        assert pose == "pose 34.5 mm PA-MPJPE [33.2, 35.8] of 2 held-out records head both after video; the mean pose: 220.7 mm"
        assert shown.faults == []
