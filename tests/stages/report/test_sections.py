"""Sections of the page in a real browser: each is made of what the run has, and one whose data are broken takes no other with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, NO_CHROMIUM, opened
from omnistage.stages import files
from omnistage.stages.report import page
from omnistage.stages.report.view import as_json
from report_run import completion, copied, data_in, recorded, with_heads
from watched import watched

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)

SECTIONS = ["glance", "accuracy", "probes", "rollouts", "answers", "heads", "curves", "sources", "throughput", "about"]
COULD_NOT = "This section could not be drawn: TypeError"


def paged(run: Path) -> Path:
    out = run.parent / "page.html"
    page.write(run, out, with_plan=False)
    return out


def changed(path: Path, change: Callable[[Any], Any]) -> Path:
    """The page with other data."""
    html = path.read_text("utf-8")
    data = data_in(html)
    before = as_json(data)
    assert before in html
    change(data)
    path.write_text(html.replace(before, as_json(data)), "utf-8")
    return path


BROKEN: dict[str, tuple[Callable[[Any], Any], str]] = {
    "head": (lambda data: data["heads"]["video"].update(scores={"head": "both"}), "heads"),
    "run": (lambda data: data["run"].update(versions=None), "glance"),
    "metrics": (lambda data: data["stages"][0]["metrics"].update(steps=[1], columns={"loss": 3}), "curves"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_section_that_cannot_be_drawn_says_so_and_the_others_stand(name: str, chromium: Any, tmp_path: Path) -> None:
    change, broken = BROKEN[name]
    with opened(chromium, changed(paged(with_heads(tmp_path / "run")), change)) as shown:
        assert shown.page.locator("#main > *").evaluate_all("all => all.map(one => one.id)") == SECTIONS
        told = shown.page.locator("#main > *", has_text="could not be drawn").evaluate_all("all => all.map(one => [one.id, one.innerText])")
        assert [(told_of, COULD_NOT in line) for told_of, line in told] == [(broken, True)]
        assert shown.page.locator(f'#nav a[href="#{broken}"]').count() == 1
        assert any(f"section {broken} could not be drawn" in fault for fault in shown.faults)


def test_every_id_stands_once(chromium: Any, report: Path, tmp_path: Path) -> None:
    for path in (report, paged(with_heads(tmp_path / "run"))):
        with opened(chromium, path) as shown:
            names = shown.page.locator("[id]").evaluate_all("all => all.map(one => one.id)")
            assert sorted(names) == sorted(set(names))


def test_a_section_of_a_run_under_way_comes_back(chromium: Any, tmp_path: Path) -> None:
    """Its data are broken at first, and whole later."""
    with watched(with_heads(tmp_path / "run")) as serving:
        serving.until(lambda data: "data" in data)
        context = chromium.new_context()
        found = context.new_page()

        def broken(route: Any) -> None:
            content = serving.ask("data.json").json()
            content["data"]["heads"]["video"]["scores"] = {"head": "both"}
            route.fulfill(body=json.dumps(content), headers={"ETag": '"broken"'}, content_type="application/json")

        found.route("**/data.json", broken)
        found.goto(serving.url)
        found.wait_for_selector("html[data-ready]")
        assert COULD_NOT in found.locator("#heads").inner_text()
        assert found.locator("#main > *").evaluate_all("all => all.map(one => one.id)") == SECTIONS
        assert found.locator("#live .trouble").inner_text() == ""
        found.unroute("**/data.json")
        found.wait_for_selector("#heads figure.chart")
        assert COULD_NOT not in found.locator("#heads").inner_text()
        context.close()


def test_a_head_that_is_not_measured_yet_is_told(chromium: Any, tmp_path: Path) -> None:
    with opened(chromium, paged(recorded(tmp_path / "run", {1: []}, kind="head", rewards=[]))) as shown:
        assert shown.page.locator("#heads .missing").inner_text() == "stage video: its head has not been measured"
        assert shown.faults == []
    with opened(chromium, paged(recorded(tmp_path / "grpo", {1: [completion("a", 0, "x", 1.0)]}))) as shown:
        assert shown.page.locator("#heads").count() == 0


def test_answers_open_on_stages_that_were_asked_the_same(chromium: Any, run: Path, report: Path, tmp_path: Path) -> None:
    """And what is not judged, or was not asked, has not changed."""
    made = copied(run, tmp_path / "run")
    for path in (made / "04-audio_video" / "evaluation").glob("*s.jsonl"):
        files.write_lines(path, [row | {"id": f"other {row['id']}"} for row in files.read_lines(path)])
    path = made / "03-audio" / "evaluation" / "scores.jsonl"
    rows = list(files.read_lines(path))
    for at, row in enumerate(rows):
        row["value"] = [1.0, None, row["value"]][at % 3]
    files.write_lines(path, rows)
    with opened(chromium, report) as shown:
        assert [shown.page.locator(f"#answer-{side}").input_value() for side in ("before", "after")] == ["(start)", "audio_video"]
    with opened(chromium, paged(made)) as shown:
        assert [shown.page.locator(f"#answer-{side}").input_value() for side in ("before", "after")] == ["video", "audio"]
        assert "Of 36 items 12 became right and 0 became wrong." in shown.page.locator("#answer-counts").inner_text()
        shown.page.locator("#answer-what").select_option("changed")
        assert shown.page.locator("#answer-position").inner_text() == "1 of 12"
        shown.page.locator("#answer-after").select_option("audio_video")
        assert shown.page.locator("#answer-position").inner_text() == "none"
        assert shown.faults == []
