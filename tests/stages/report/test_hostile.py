"""A run whose every text, name and label would be markup or a script: the page shows it as text, and nothing of it is run."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, NO_CHROMIUM, Opened, opened
from omnistage.stages.report import page
from report_run import BROKEN, EVIL, LABEL, evil

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)

# Elements that would have come from a text, and attributes that would run one.
FOREIGN = """() => {
  const foreign = 'img, script, iframe, base, meta, style, b, a[href]:not([href^="#"])';
  const out = [...document.getElementById('main').querySelectorAll(foreign)].map((one) => one.outerHTML.slice(0, 200));
  for (const one of document.body.querySelectorAll('*')) for (const { name, value } of one.attributes) {
    const address = ['href', 'src', 'action', 'formaction', 'srcdoc'].includes(name);
    if (name.startsWith('on') || (address && !/^(data:(video|audio|image)|#)/.test(value))) out.push(one.outerHTML.slice(0, 200));
  }
  return out;
}"""
# Whether the charts' library has put its own element there depends on when it is looked at.
OTHERS = "/^(clip|group|item)-|^js-plotly-tester$/"
FRAME = f"[...document.body.children].filter(one => !{OTHERS}.test(one.id)).map(one => `${{one.tagName}}#${{one.id}}`)"


@pytest.fixture(scope="module")
def hostile_page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    page.write(evil(run, folder), folder / "page.html")
    return folder / "page.html"


def visible(text: str) -> str:
    """A text as a page shows it, by the rule that docs/report.md tells."""
    hidden = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
    return re.sub(hidden, lambda found: f"U+{ord(found[0]):04X}", text)


def told(shown: Opened) -> list[str]:
    """Every text of the page, a string an element that holds no others but spans of hidden characters."""
    found: list[str] = shown.page.evaluate("[...document.querySelectorAll('main bdi')].map(one => one.textContent)")
    return found


def press_everything(shown: Opened, within: str = "main") -> None:
    """Whatever a visitor might do to what stands there."""
    shown.page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
    shown.page.evaluate(
        f"for (const one of document.querySelectorAll('{within} *')) for (const name of"
        " ['mouseover', 'mouseenter', 'focus', 'pointerdown', 'error', 'load'])"
        " if (!['VIDEO', 'AUDIO'].includes(one.tagName)) one.dispatchEvent(new Event(name));"
    )


def test_everything_is_shown_as_text_and_nothing_runs(chromium: Any, hostile_page: Path) -> None:
    with opened(chromium, hostile_page) as shown:
        texts: set[str] = set()
        for player, most in (("rollout", 72), ("answer", 36)):
            shown.page.locator(f"#{player}-slider").evaluate("one => { one.value = 1; one.dispatchEvent(new Event('input')); }")
            number = int(shown.page.locator(f"#{player}-slider").get_attribute("max") or 0)
            assert number == most
            for at in range(number):
                if at:
                    shown.page.locator(f"#{player}-next").evaluate("one => one.click()")
                texts |= set(told(shown))
                press_everything(shown, "#rollout" if player == "rollout" else "#answer-view")
                assert shown.page.evaluate(FOREIGN) == []
        for text in EVIL:
            assert visible(text) in texts, text
        for text in BROKEN:
            assert any(visible(text) in one for one in texts), text
        assert any(text.startswith("a" * 100) for text in texts)
        for stage in shown.page.locator("button.tab").all():
            stage.click()
            press_everything(shown)
        for figure in shown.page.locator("figure.chart").all():
            figure.scroll_into_view_if_needed()
        shown.until("[...document.querySelectorAll('figure.chart')].every(one => one.dataset.drawn)")
        ticks = shown.page.locator('figure[data-chart="accuracy"] .xtick text').all_text_contents()
        assert LABEL in ticks
        assert shown.page.locator("h1").inner_text() == LABEL
        for name in ("rollout-task", "rollout-stage", "answer-after", "other-metric"):
            options = shown.page.locator(f"#{name} option").all_text_contents()
            wanted = LABEL if name in ("rollout-stage", "answer-after") else visible(EVIL[0])
            assert wanted in options, name
        shown.page.wait_for_timeout(300)
        assert shown.page.evaluate(FOREIGN) == []
        assert shown.page.evaluate("[window.ran, document.baseURI === location.href, document.title]") == [
            None,
            True,
            f"{LABEL} · omnistage report",
        ]
        assert shown.faults == []


def test_the_page_keeps_its_form(chromium: Any, report: Path, hostile_page: Path) -> None:
    """As a browser reads it, and as a strict reader of its markup does: the frame of the page is that of a harmless run."""
    frames = []
    for path in (report, hostile_page):
        with opened(chromium, path) as shown:
            frames.append(shown.page.evaluate(FRAME))
            assert shown.page.evaluate(
                "[...document.querySelectorAll('script[type=\"application/json\"]')].every(one => JSON.parse(one.textContent) !== 0)"
            )
            assert shown.page.evaluate("document.characterSet") == "UTF-8"
    assert frames[0] == frames[1]
    reader = _Reader()
    reader.feed(hostile_page.read_text("utf-8"))
    reader.close()
    assert reader.faults == []
    assert reader.open == []


def test_what_stands_in_the_file_is_plain(hostile_page: Path) -> None:
    html = hostile_page.read_text("utf-8")
    data = "".join(re.findall(r'<script type="application/json" id="[a-z0-9-]+">(.*?)</script>', html, re.DOTALL))
    assert len(data) > 1e5
    assert data.isascii()
    assert not set("<>&\x00") & set(data)
    assert not set("\x00\u2028\u2029\u202e") & set(html.split('id="library"')[0])


class _Reader(HTMLParser):
    """Whether every element that is opened is closed in its order."""

    VOID = frozenset(["meta", "br", "hr", "img", "input", "link"])

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Nothing is opened."""

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"{tag} at {self.getpos()}")
