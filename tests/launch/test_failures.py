"""What ranks leave, and whose is heard."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnistage.launch import failures
from omnistage.launch.failures import Failure


def test_the_lowest_rank_is_heard(tmp_path: Path) -> None:
    """By number, not by name: 10 comes after 9."""
    assert failures.lowest(tmp_path) is None
    for rank in (10, 9, 11):
        failures.leave(tmp_path, rank, Failure(rank, f"clip of rank {rank}"))
    assert failures.lowest(tmp_path) == Failure(9, "clip of rank 9")


def test_a_message_may_quote_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    failure = Failure(2, b"clip-\xff.mp4".decode("utf-8", "surrogateescape"))
    failures.leave(tmp_path, 0, failure)
    assert failures.lowest(tmp_path) == failure


def test_no_folder_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(failures.VARIABLE, raising=False)
    assert failures.folder() is None
    assert failures.lowest(None) is None
