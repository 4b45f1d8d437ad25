"""Pages of reports in Debian's Chromium, without a network; tests skip where that is not installed, and fail without playwright."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
NO_CHROMIUM = "needs chromium (apt-get install chromium)"


@dataclass
class Opened:
    """A page under test, and what it complained of."""

    page: Any
    faults: list[str] = field(default_factory=list)

    def until(self, expression: str, limit_s: float = 20.0) -> None:
        """Wait until a JavaScript expression is true. The page's policy forbids what playwright's own `wait_for_function` does."""
        limit = time.monotonic() + limit_s
        while not self.page.evaluate(expression):
            assert time.monotonic() < limit, f"not within {limit_s:g} s: {expression}"
            self.page.wait_for_timeout(50)

    def dialog(self, dialog: Any) -> None:
        """Nothing on the page may ask."""
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def chart(self, name: str) -> dict[str, list[Any]]:
        """What is drawn in a chart, by the column that each line is of: [[x, ...], [y, ...]]."""
        figure = self.page.locator(f'figure[data-chart="{name}"]')
        figure.scroll_into_view_if_needed()
        self.page.wait_for_selector(f'figure[data-chart="{name}"][data-drawn]')
        drawn = figure.locator(".plot").evaluate("plot => plot.data.map(t => [t.meta, [...t.x], [...t.y]])")
        return {meta["column"]: [x, y] for meta, x, y in drawn if "column" in meta}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser, started once a module: while it is there its thread has a running event loop, which other tests must not meet."""
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    from playwright import sync_api

    with sync_api.sync_playwright() as started:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = started.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Any, path: Path, *, width: int = 1400, height: int = 900, scheme: str = "light", bypass_csp: bool = False
) -> Iterator[Opened]:
    """A page from disk, drawn. Whatever it asks of a network fails, and counts as a fault; `bypass_csp`: for tools put into it."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce", offline=True, bypass_csp=bypass_csp
    )
    found = Opened(context.new_page())
    found.page.on("console", lambda message: found.faults.append(message.text) if message.type in ("error", "warning") else None)
    found.page.on("pageerror", lambda error: found.faults.append(str(error)))
    found.page.on("dialog", found.dialog)
    found.page.on("popup", lambda popup: found.faults.append(f"popup: {popup.url}"))
    found.page.on("request", lambda asked: found.faults.append(asked.url) if asked.url.startswith(("http", "ws")) else None)
    try:
        found.page.goto(path.resolve().as_uri())
        found.page.wait_for_selector("html[data-ready]")
        yield found
    finally:
        context.close()
