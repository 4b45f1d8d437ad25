"""Sets the ground for every test: no network, one thread, one device; and says at the end what did not run on this machine."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from world import World

# Before torch or a hub client is imported, and inherited by the commands that tests start.
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
# With two devices in sight a Trainer wraps its model in DataParallel, which is not what the tests are about.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")

NO_CUDA = "needs a CUDA device"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what is marked `gpu` where there is no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _cuda():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=NO_CUDA))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Lists what was skipped or left out, by file and reason: a green run says no more than what ran."""
    skipped = Counter(_file_and_reason(report) for report in terminalreporter.stats.get("skipped", []))
    left_out = Counter((item.location[0], "left out by -m or -k") for item in terminalreporter.stats.get("deselected", []))
    total = skipped + left_out
    if not total:
        terminalreporter.write_line("\nnot run here: nothing, every test that was collected ran")
        return
    terminalreporter.section(f"not run here: {total.total()} tests")
    for (file, reason), count in sorted(total.items()):
        terminalreporter.write_line(f"{count:4d}  {file}: {reason}")


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _file_and_reason(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str]:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return report.nodeid.split("::")[0], reason.removeprefix("Skipped: ")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A tiny model and a few rendered clips, made once a session."""
    from world import build

    return build(tmp_path_factory.mktemp("world"))
