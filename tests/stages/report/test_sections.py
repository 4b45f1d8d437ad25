"""Sections of the page in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM, NO_CHROMIUM, opened
from omnistage.stages.report import page
from report_run import with_heads

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)


def paged(run: Path) -> Path:
    out = run.parent / "page.html"
    page.write(run, out, with_plan=False)
    return out


def test_every_id_stands_once(chromium: Any, report: Path, tmp_path: Path) -> None:
    for path in (report, paged(with_heads(tmp_path / "run"))):
        with opened(chromium, path) as shown:
            names = shown.page.locator("[id]").evaluate_all("all => all.map(one => one.id)")
            assert sorted(names) == sorted(set(names))
