"""Every chart in a real browser: what is drawn is what the run's files hold, and all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, NO_CHROMIUM, Opened, opened
from omnistage.stages import files
from omnistage.stages.report import page
from report_run import with_heads

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)

STAGES = {"cold_start": "01-cold_start", "video": "02-video", "audio": "03-audio", "audio_video": "04-audio_video"}
# Logged at the end of a stage, once.
ONCE = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos"}
# Chooses each of the other numbers in turn; gives what is drawn then, as `Opened.chart` does.
EACH_OTHER = """name => {
    const select = document.getElementById("other-metric");
    const plot = document.querySelector(`figure[data-chart="${CSS.escape(name)}"] .plot`);
    return Object.fromEntries([...select.options].map(({ value }) => {
        select.value = value;
        select.dispatchEvent(new Event("change"));
        const lines = plot.data.filter(one => one.meta.column);
        return [value, Object.fromEntries(lines.map(one => [one.meta.column, [[...one.x], [...one.y]]]))];
    }));
}"""


def logged(folder: Path) -> tuple[list[int], dict[str, list[Any]]]:
    """The steps of a metrics.jsonl, and what was logged at them by name; `epoch` is the step in another unit."""
    rows = [row for row in files.read_lines(folder / "metrics.jsonl") if "loss" in row]
    names = {name for row in rows for name in row} - {"step", "epoch"}
    return [row["step"] for row in rows], {name: [row.get(name) for row in rows] for name in names}


def drawn(shown: Opened, stage: str) -> dict[str, dict[str, dict[str, list[Any]]]]:
    """All that the curves of a stage draw: by chart and way to split it, or by what is chosen of the others, the columns."""
    shown.page.locator(f'button.tab[data-stage="{stage}"]').click()
    found = {}
    for name in shown.page.locator("#curves-panel figure.chart").evaluate_all("all => all.map(one => one.dataset.chart)"):
        figure = shown.page.locator(f'figure[data-chart="{name}"]')
        found[name] = {"": shown.chart(name)}
        for at in range(figure.locator(".minis button").count()):
            button = figure.locator(".minis button").nth(at)
            button.click()
            found[name][button.inner_text()] = shown.chart(name)
    others = f"curves/{stage}/other"
    if others in found:
        found[others] |= shown.page.evaluate(EACH_OTHER, others)
    return found


def test_every_curve_is_what_was_logged_and_every_logged_number_has_one(chromium: Any, run: Path, report: Path) -> None:
    with opened(chromium, report) as shown:
        for stage, folder in STAGES.items():
            steps, columns = logged(run / folder)
            found = drawn(shown, stage)
            for name, ways in found.items():
                for way, of_chart in ways.items():
                    for column, (x, y) in of_chart.items():
                        assert (x, y) == (steps, columns[column]), (name, way, column)
            assert {column for ways in found.values() for of_chart in ways.values() for column in of_chart} == set(columns)
            if stage != "cold_start":
                holds_what_its_titles_say(stage, found, columns)
            # `audio` alone is held to a reference.
            assert ("kl" in columns and any(columns["kl"])) == (stage == "audio") == (f"curves/{stage}/kl" in found)
            once = shown.page.locator("#curves-panel > .hint").last.inner_text()
            assert all(name in once for name in ONCE)
        assert shown.faults == []


def holds_what_its_titles_say(stage: str, found: Any, columns: Any) -> None:
    """The charts of a GRPO stage hold the columns that they are named by."""
    for column in ("loss", "entropy", "frac_reward_zero_std", "reward", "reward_std", "completions/clipped_ratio", "grad_norm"):
        assert set(found[f"curves/{stage}/{column}"][""]) == {column}
    assert set(found[f"curves/{stage}/length"][""]) == {f"completions/{end}_length" for end in ("mean", "min", "max")}
    assert set(found[f"curves/{stage}/clip_ratio"][""]) == {f"clip_ratio/{end}_mean" for end in ("low", "high", "region")}
    for title in ("not_scored", "rewards/accuracy", "rewards/format", "rewards/e_share"):
        begins, end = (f"{title}/", "mean") if title.startswith("rewards/") else ("rewards/", "not_scored")
        of_title = {name for name in columns if name.startswith(begins) and name.endswith(f"/{end}")}
        by = {way: {name for name in of_title if f"/{way}/" in name} for way in ("modality", "task")}
        assert all(by.values())
        of_all = of_title - by["modality"] - by["task"]
        wanted = {"": of_all, "all": of_all, "by modality": by["modality"], "by task": by["task"]}
        assert {way: set(of_way) for way, of_way in found[f"curves/{stage}/{title}"].items()} == wanted


def test_head_charts_hold_the_predictions_and_the_losses(chromium: Any, tmp_path: Path) -> None:
    folder = with_heads(tmp_path / "run") / "01-video"
    logs = [{"step": step, "loss": 1 / step, "both/l1": 2 / step, "both/correlation": -1 / step} for step in range(1, 5)]
    files.write_lines(folder / "metrics.jsonl", logs)
    out = tmp_path / "page.html"
    page.write(folder.parent, out, with_plan=False)
    with opened(chromium, out) as shown:
        points = shown.chart("heads/video/quality/score")
        said = [row for row in files.read_lines(folder / "head" / "predictions.jsonl") if row["task"] == "quality"]
        for column, control in (("real", None), ("blank", "blank")):
            pairs = sorted((row["target_values"][0], row["value"]["values"]["score"]) for row in said if row["control"] == control)
            assert list(zip(*points[column], strict=True)) == pairs
        assert set(points) == {"real", "blank"}
        steps, columns = logged(folder)
        found = {column: line for ways in drawn(shown, "video").values() for of_chart in ways.values() for column, line in of_chart.items()}
        assert found == {column: [steps, values] for column, values in columns.items()}
        assert set(found) == {"loss", "both/l1", "both/correlation"}
        assert shown.faults == []
