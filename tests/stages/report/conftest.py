"""One real run for all tests of reports."""

from __future__ import annotations

from pathlib import Path

import pytest

import report_run
from browser import chromium as chromium
from omnistage.stages.report import page


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_run.real(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="session")
def report(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of that run."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    page.write(run, out)
    return out
