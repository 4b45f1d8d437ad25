"""The page for everybody: what axe-core finds, the keyboard alone, and screens from a small phone to a wide one."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, NO_CHROMIUM, Opened, opened
from omnistage.stages.report import page
from report_run import with_heads

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)

# What the Tab key must reach, in the order of the document.
FOCUSABLE = """() => [...document.querySelectorAll(
  'a[href], button, select, input, textarea, summary, video[controls], audio[controls], [tabindex="0"]')]
  .filter(one => !one.disabled && one.checkVisibility({visibilityProperty: true}))"""
# What holds the focus: what it is, its place among these, and what of it is seen.
FOCUSED = """() => {
  const one = document.activeElement;
  if (!one || one === document.body) return null;
  const style = getComputedStyle(one), box = one.getBoundingClientRect(), bar = document.getElementById('side').getBoundingClientRect();
  const onTop = innerWidth < 900 && one.closest('main') ? bar.bottom : 0;
  if (!one.dataset.tabbed) one.dataset.tabbed = String(window.tabbed = (window.tabbed || 0) + 1);
  return {
    name: `${one.tagName.toLowerCase()}#${one.id} ${(one.getAttribute('aria-label') || one.textContent).slice(0, 40)}`,
    number: Number(one.dataset.tabbed), at: window.all.indexOf(one),
    scrolls: one.scrollHeight > one.clientHeight || one.scrollWidth > one.clientWidth,
    ring: (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2) || style.boxShadow !== 'none',
    seen: box.width > 0 && box.height > 0 && box.bottom > onTop && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
  };
}"""


@pytest.fixture(scope="module")
def heads_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run whose stage trained a head."""
    folder = tmp_path_factory.mktemp("heads")
    page.write(with_heads(folder / "run"), folder / "report.html", with_plan=False)
    return folder / "report.html"


def walk_through(shown: Opened) -> None:
    """Everything into sight once, so that charts are drawn and players filled."""
    for one in shown.page.locator("#main > *, figure.chart").all():
        one.scroll_into_view_if_needed()
    shown.until("[...document.querySelectorAll('figure.chart')].every(one => one.dataset.drawn)")


@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (390, "dark")])
@pytest.mark.parametrize("of", ["report", "heads_report"])
def test_axe_finds_nothing_serious(chromium: Any, request: pytest.FixtureRequest, of: str, width: int, scheme: str) -> None:
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    with opened(chromium, request.getfixturevalue(of), width=width, scheme=scheme, bypass_csp=True) as shown:
        walk_through(shown)
        shown.page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
        if of == "report":
            assert shown.page.locator("#rollout .completion").count() == 4
            assert shown.page.locator("#answer-view .side-answer").count() == 2
        else:
            assert shown.page.locator("#heads .pose-card").count() == 2
        shown.page.evaluate(axe)
        found = shown.page.evaluate("async () => await axe.run(document, {resultTypes: ['violations', 'incomplete']})")
        assert len(found["passes"]) > 20
        told = [(v["id"], v["impact"], [node["target"] for node in v["nodes"][:3]]) for v in found["violations"]]
        assert [one for one in told if one[1] in ("serious", "critical")] == []
        assert shown.faults == []


@pytest.mark.parametrize("width", [1400, 390])
def test_tab_reaches_everything_in_order_and_is_seen(chromium: Any, report: Path, width: int) -> None:
    with opened(chromium, report, width=width) as shown:
        walk_through(shown)
        shown.page.evaluate("scrollTo(0, 0)")
        wanted = shown.page.evaluate(f"() => (window.all = ({FOCUSABLE})()).length")
        assert wanted > 40
        stops = tabbed(shown, limit=8 * wanted)
        assert [stop["name"] for stop in stops if not stop["ring"]] == []
        assert [stop["name"] for stop in stops if not stop["seen"]] == []
        places = [stop["at"] for stop in stops if stop["at"] >= 0]
        assert places == list(range(wanted))
        # What a browser adds by itself: boxes that scroll.
        assert [stop["name"] for stop in stops if stop["at"] < 0 and not stop["scrolls"]] == []
        assert shown.faults == []


def tabbed(shown: Opened, limit: int) -> list[dict[str, Any]]:
    """What the Tab key stops at from the beginning until it leaves the page, each once: a player has several stops inside."""
    stops: list[dict[str, Any]] = []
    for _ in range(limit):
        shown.page.keyboard.press("Tab")
        stop = shown.page.evaluate(FOCUSED)
        if stop is None or (stops and stop["number"] < stops[-1]["number"]):
            return stops
        if not stops or stop["number"] != stops[-1]["number"]:
            stops.append(stop)
    raise AssertionError(f"Tab does not leave the page; at last: {stops[-3:]}")


def test_the_keyboard_operates_what_it_reaches(chromium: Any, report: Path) -> None:
    with opened(chromium, report) as shown:
        keys = shown.page.keyboard
        keys.press("Tab")
        skip = shown.page.evaluate(
            "() => { const a = document.activeElement; return [a.textContent, a.getBoundingClientRect().left >= 0]; }"
        )
        assert skip == ["Skip to the report", True]
        keys.press("Enter")
        assert shown.page.evaluate("document.activeElement.id") == "main"
        keys.press("Tab")
        assert shown.page.evaluate("document.activeElement.closest('main') !== null && document.activeElement.tagName") == "SUMMARY"
        keys.press("Enter")
        shown.until("document.activeElement.parentNode.open")
        keys.press("Space")
        shown.until("!document.activeElement.parentNode.open")

        place = shown.page.locator("#rollout-position")
        shown.page.locator("#rollout-stage").focus()
        keys.press("ArrowDown")
        assert shown.page.locator("#rollout-stage").input_value() == "video"
        assert place.inner_text() == "1 of 24"
        shown.page.locator("#rollout-next").focus()
        keys.press("Enter")
        keys.press("Space")
        assert place.inner_text() == "3 of 24"
        shown.page.locator("#rollout-slider").focus()
        keys.press("End")
        assert place.inner_text() == "24 of 24"
        keys.press("ArrowLeft")
        assert place.inner_text() == "23 of 24"
        shown.page.locator("#rollout-nospread").focus()
        keys.press("Space")
        assert shown.page.locator("#rollout-nospread").is_checked()

        tab = shown.page.locator('button.tab[data-stage="cold_start"]')
        tab.focus()
        keys.press("Enter")
        assert tab.get_attribute("aria-pressed") == "true"
        shown.page.locator("#theme").focus()
        keys.type("dark")
        assert shown.page.evaluate("document.documentElement.dataset.theme") == "dark"
        assert shown.faults == []


@pytest.mark.parametrize("which", ["next", "previous"])
def test_the_arrows_go_on_after_the_end_was_reached(chromium: Any, report: Path, which: str) -> None:
    """The button that led to the end can do no more; the focus stays in the player all the same, and the way back works."""
    back = {"next": "ArrowLeft", "previous": "ArrowRight"}[which]
    end = {"next": "24 of 24", "previous": "1 of 24"}[which]
    with opened(chromium, report) as shown:
        place = shown.page.locator("#rollout-position")
        shown.page.locator("#rollout-stage").select_option("video")
        shown.page.locator("#rollout-slider").focus()
        shown.page.keyboard.press("End" if which == "next" else "Home")
        shown.page.keyboard.press("ArrowLeft" if which == "next" else "ArrowRight")
        shown.page.locator(f"#rollout-{which}").focus()
        shown.page.keyboard.press("Enter")
        assert place.inner_text() == end
        shown.page.keyboard.press("Enter")
        assert place.inner_text() == end
        shown.page.keyboard.press(back)
        assert place.inner_text() == {"next": "23 of 24", "previous": "2 of 24"}[which]
        assert shown.faults == []


@pytest.mark.parametrize("of", ["report", "heads_report"])
@pytest.mark.parametrize("width", [320, 390, 768, 1400, 2560])
def test_nothing_is_wider_than_the_screen(chromium: Any, request: pytest.FixtureRequest, of: str, width: int) -> None:
    with opened(chromium, request.getfixturevalue(of), width=width) as shown:
        walk_through(shown)
        shown.page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
        shown.page.wait_for_timeout(200)
        wide = (
            "[...document.querySelectorAll('main *')].filter(one => one.getBoundingClientRect().right > innerWidth + 1"
            " && !one.closest('.scroll, pre, .said, svg'))"
        )
        assert shown.page.evaluate(f"{wide}.map(one => one.tagName + '.' + one.className).slice(0, 5)") == []
        assert shown.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert shown.faults == []
