"""One real run for all tests of reports."""

from __future__ import annotations

from pathlib import Path

import pytest

import report_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_run.real(tmp_path_factory.mktemp("report"))
