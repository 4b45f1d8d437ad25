"""Filters of the rollouts in a real browser: what is shown after each choice is all like that, and all that is like that is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, NO_CHROMIUM, Opened, opened
from omnistage.stages.report import page
from report_run import completion, data_in, recorded

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)

Group = dict[str, Any]
FIELDS = ("stage", "step", "task", "modality")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of rollouts of which some fell, some have no spread, some both: two tasks, two modalities, three steps."""
    folder = tmp_path_factory.mktemp("mixed")
    senses = {"direction": "video", "pitch": "audio"}
    steps = {}
    for step in (1, 2, 3):
        rows = []
        for record in range(8):
            task = ("direction", "pitch")[record % 2]
            # From step to step some gain, some lose and some stay; those of every third record are all worth the same.
            mean = (0.4, 0.1 * record, 0.1 * (record + 3 * step) % 1)[record % 3]
            for sign in (-1, 1):
                reward = mean + (0 if record % 3 == 1 and step > 1 else 0.125 * sign) - (0.05 * step if record in (1, 4) else 0)
                rows.append(completion(f"r{record}", record, "x", reward, task=task, modality=senses[task]))
        steps[step] = rows
    page.write(recorded(folder / "run", steps), folder / "page.html", with_plan=False)
    return folder / "page.html"


def groups_of(path: Path) -> list[Group]:
    """The page's groups, each with the sample that it stands for."""
    html = path.read_text("utf-8")
    return [group | {"sample": data_in(html, f"group-{group['n']}")} for group in data_in(html)["groups"]]


def shown_groups(shown: Opened) -> list[int]:
    """The numbers of all groups that can be walked through now, from the first on."""
    found: list[int] = shown.page.evaluate(
        """() => {
            const view = document.getElementById("rollout"), slider = document.getElementById("rollout-slider");
            const total = document.getElementById("rollout-position").textContent;
            if (total === "none") return [];
            const out = [];
            for (let at = 1; at <= Number(slider.max); at++) {
                slider.value = String(at);
                slider.dispatchEvent(new Event("input"));
                out.push(Number(view.dataset.shown));
            }
            return out;
        }"""
    )
    return found


def holds(shown: Opened, wanted: list[Group]) -> None:
    """These are shown, in their order, as many as the page says; and the texts beside the last one say so, too."""
    assert shown_groups(shown) == [group["n"] for group in wanted]
    place = shown.page.locator("#rollout-position").inner_text()
    assert place == (f"{len(wanted)} of {len(wanted)}" if wanted else "none")
    if wanted:
        last = wanted[-1]
        assert f"{last['stage']}, step {last['step']}" in shown.page.locator("#rollout h3").inner_text()
        assert last["sample"]["task"] in shown.page.locator("#rollout .facts").inner_text()


def choices(shown: Opened, field: str) -> Iterator[str]:
    for value in shown.page.locator(f"#rollout-{field} option").evaluate_all("all => all.map(one => one.value).filter(Boolean)"):
        shown.page.locator(f"#rollout-{field}").select_option(value)
        yield value


def chosen(group: Group, field: str, value: str) -> bool:
    return str(group["sample"][field]) == value == str(group[field])


@pytest.mark.parametrize("name", ["real", "mixed"])
def test_each_filter_shows_all_that_is_like_that_and_nothing_else(name: str, chromium: Any, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue("report" if name == "real" else "mixed")
    groups = groups_of(path)
    with opened(chromium, path) as shown:
        holds(shown, groups)
        for field in FIELDS:
            offered = []
            for value in choices(shown, field):
                holds(shown, [group for group in groups if chosen(group, field, value)])
                offered.append(value)
            assert sorted(offered) == sorted({str(group[field]) for group in groups})
            shown.page.locator(f"#rollout-{field}").select_option("")
        for box, key in (("nospread", "no_spread"), ("fell", "fell")):
            shown.page.locator(f"#rollout-{box}").check()
            holds(shown, [group for group in groups if group[key] is True])
            of = shown.page.locator(f"label:has(#rollout-{box}) .sub").inner_text()
            assert of.strip() == str(sum(group[key] for group in groups))
            shown.page.locator(f"#rollout-{box}").uncheck()
        assert shown.faults == []


def test_what_is_marked_is_what_the_rewards_say(mixed: Path) -> None:
    """No spread: all completions are worth the same. Fell: less than the last time that the same prompt was drawn."""
    before: dict[str, float] = {}
    found = {"no_spread": 0, "fell": 0}
    for group in sorted(groups_of(mixed), key=lambda group: group["step"]):
        # The reward counts twofold in `recorded`.
        worth = [2 * one["rewards"]["right"] for one in group["sample"]["completions"]]
        mean = sum(worth) / len(worth)
        assert group["mean"] == pytest.approx(mean)
        assert group["no_spread"] == (len(set(worth)) == 1)
        fell = group["sample"]["id"] in before and mean < before[group["sample"]["id"]] - 1e-9
        assert group["fell"] == fell
        before[group["sample"]["id"]] = mean
        found = {name: count + group[name] for name, count in found.items()}
    assert all(0 < count < 24 for count in found.values()), found


def test_filters_go_together(chromium: Any, mixed: Path) -> None:
    groups = groups_of(mixed)
    with opened(chromium, mixed) as shown:
        shown.page.locator("#rollout-task").select_option("pitch")
        holds(shown, [group for group in groups if group["task"] == "pitch"])
        shown.page.locator("#rollout-fell").check()
        holds(shown, [group for group in groups if group["task"] == "pitch" and group["fell"]])
        # No step is offered that would leave nothing.
        for step in choices(shown, "step"):
            like = [group for group in groups if group["task"] == "pitch" and group["fell"] and str(group["step"]) == step]
            assert like
            assert shown_groups(shown) == [group["n"] for group in like]
        shown.page.locator("#rollout-step").select_option("")
        shown.page.locator("#rollout-nospread").check()
        holds(shown, [group for group in groups if group["task"] == "pitch" and group["fell"] and group["no_spread"]])
        assert shown.faults == []
