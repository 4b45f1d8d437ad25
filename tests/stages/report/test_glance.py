"""What the top of the page tells of a run in a real browser: what it measured, of whichever kind, and of which model that is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, NO_CHROMIUM, Opened, opened
from omnistage.stages import files
from omnistage.stages.report import page
from report_run import CONTROLS, copied, with_heads

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


def test_an_evaluate_stage_has_cards_a_chart_and_its_probes(chromium: Any, run: Path, tmp_path: Path) -> None:
    """Also where nothing was trained."""
    final = copied(run, tmp_path / "run", without=["00-start", "01-cold_start", "02-video", "03-audio", "summary.json"])
    (final / "04-audio_video").rename(final / "01-final")
    held = files.read_json(final / "run.json")
    held["recipe"]["stages"] = [{"name": "final", "kind": "evaluate"} | held["recipe"].pop("evaluation")]
    del held["recipe"]["stages"][0]["before"]
    files.write_json(final / "run.json", held)
    scores = files.read_json(final / "01-final" / "evaluation" / "scores.json")
    # Random weights are never right: figures that differ.
    told = [figure for found in scores["runs"].values() for name, figure in found["figures"].items() if name.startswith("modality ")]
    for at, figure in enumerate(told, start=1):
        figure |= {"value": at / 13, "low": at / 17, "high": at / 11.5}
    files.write_json(final / "01-final" / "evaluation" / "scores.json", scores)
    with opened(chromium, paged(final)) as shown:
        greedy = {name: figure for name, figure in scores["runs"]["greedy"]["figures"].items() if name.startswith("modality ")}
        for card, (name, figure) in zip(cards(shown), greedy.items(), strict=True):
            title = name.removeprefix("modality ").replace("_", " + ")
            constant = 100 * scores["baseline"]["figures"][name]
            within = f"[{100 * figure['low']:.0f} %, {100 * figure['high']:.0f} %] of 12 held-out items"
            assert card == f"final: {title} {100 * figure['value']:.1f} % {within} a constant answer: {constant:.1f} %"
        assert shown.chart("evaluated")["final"] == [["video", "audio", "audio + video"], [figure["value"] for figure in greedy.values()]]
        drawn = shown.chart("probes")
        assert set(drawn) == {"real media", *CONTROLS}
        for control in CONTROLS:
            figures = scores["runs"][control]["figures"]
            assert drawn[control][1] == [figures[name]["value"] for name in greedy if name in figures]
        said = shown.page.locator("#probes").inner_text()
        assert "no evaluation of this run asked probes" not in said
        assert "After stage final." in said
        assert shown.faults == []
