"""An evaluate stage against an earlier one of the same items."""

from __future__ import annotations

from pathlib import Path

import pytest

from answered import answered, questions
from omnistage.stages.measure import against


def test_the_nearest_earlier_one_of_the_same_items_is_compared_with(tmp_path: Path) -> None:
    """Ten items: three right, then all right. Seven gained and none lost: p = 2 / 2^7. The evaluation between them asked others."""
    answered(tmp_path / "01-first", questions(10), ["A"] * 10)
    answered(tmp_path / "02-second", questions(10), ["A"] * 3 + ["B"] * 7)
    answered(tmp_path / "03-other", questions(9), ["A"] * 9)
    out = answered(tmp_path / "04-last", questions(10), ["A"] * 10).parent
    earlier = {name.partition("-")[2]: tmp_path / name for name in ("01-first", "02-second", "03-other")}
    against.note(out, earlier)
    found = against.kept(out, earlier)
    assert found is not None
    assert (found["stage"], found["items"]) == ("second", 10)
    row = found["figures"][0]
    assert (row["name"], row["value"], row["p"]) == ("all items", pytest.approx(0.7), 2 / 2**7)
    told = against.table(found)
    assert told[0] == "  against second:"
    assert told[2].split()[:5] == ["all", "items", "30.0", "100.0", "+70.0"]

    # Measured again, the earlier one says something else: nothing is said until it is compared again.
    answered(tmp_path / "02-second", questions(10), ["A"] * 9 + ["B"])
    assert against.kept(out, earlier) is None
    against.note(out, earlier)
    assert (against.kept(out, earlier) or {})["figures"][0]["value"] == pytest.approx(0.1)


def test_the_first_of_its_items_is_compared_with_nothing(tmp_path: Path) -> None:
    answered(tmp_path / "01-other", questions(3), ["A"] * 3)
    out = answered(tmp_path / "02-last", questions(4), ["A"] * 4).parent
    earlier = {"other": tmp_path / "01-other", "not_there_yet": tmp_path / "03-later"}
    against.note(out, earlier)
    assert against.kept(out, earlier) is None
