"""Groups of four completions, right ones marked; the shares are compared by hand."""

from __future__ import annotations

from typing import Any

import pytest

from omnistage.data.errors import InputError
from omnistage.rewards.base import about
from omnistage.rewards.families.temporal import temporal

RIGHT, WRONG = "<think>x</think><answer>B</answer>", "<think>x</think><answer>A</answer>"


def _group(right: int, shuffled: tuple[int, int], count: int = 4, **columns: Any) -> dict[str, Any]:
    """`right` of `count` completions are right, and `shuffled[0]` of `shuffled[1]` with shuffled frames; right ones come first."""
    other = [RIGHT] * shuffled[0] + [WRONG] * (shuffled[1] - shuffled[0])
    row = {"target": "B", "kind": "single_choice", "options": ["x", "y"], "modality": "video", "record_id": "r", "shuffled": other}
    rows = {name: [value] * count for name, value in (row | columns).items()}
    return {"completions": [RIGHT] * right + [WRONG] * (count - right), **rows}


def _joined(*groups: dict[str, Any]) -> dict[str, Any]:
    return {name: [value for group in groups for value in group[name]] for name in groups[0]}


@pytest.mark.parametrize(
    ("right", "shuffled", "margin", "earned"),
    [
        (2, (1, 4), 0.0, True),
        (2, (2, 4), 0.0, False),
        (4, (4, 4), 0.0, False),
        (1, (2, 4), 0.0, False),
        (4, (0, 2), 1.0, True),
        (2, (1, 4), 0.25, True),
        (2, (1, 4), 0.26, False),
        (3, (1, 2), 0.25, True),
    ],
)
def test_right_completions_earn_when_order_mattered(right: int, shuffled: tuple[int, int], margin: float, earned: bool) -> None:
    expected = [float(earned)] * right + [0.0] * (4 - right)
    assert temporal(**_group(right, shuffled), margin=margin) == expected


def test_thirds_do_not_fail_by_rounding() -> None:
    """0.6 - 0.4 is 0.19999999999999996 in floats."""
    assert temporal(**_group(3, (2, 5), count=5), margin=0.2) == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_groups_are_rows_of_one_record_next_to_each_other() -> None:
    groups = [_group(2, (0, 2), record_id="a"), _group(2, (2, 2), record_id="b"), _group(4, (0, 2), record_id="a")]
    assert temporal(**_joined(*groups)) == [1.0, 1.0, 0.0, 0.0] + [0.0] * 4 + [1.0] * 4


def test_shuffled_completions_of_all_rows_are_taken_together() -> None:
    """One row's two are both right, the other's both wrong: 1/2, as much as in order."""
    group = _group(1, (0, 2), count=2)
    group["shuffled"] = [[RIGHT, RIGHT], [WRONG, WRONG]]
    assert temporal(**group) == [0.0, 0.0]
    group["shuffled"] = [[RIGHT], [WRONG, WRONG]]
    assert temporal(**group) == [1.0, 0.0]


@pytest.mark.parametrize("modality", ["text", "image", "audio"])
def test_without_a_moving_picture_nothing_is_scored(modality: str) -> None:
    groups = [_group(2, (0, 2), modality=modality, record_id="a"), _group(2, (0, 2), modality="audio_video", record_id="b")]
    assert temporal(**_joined(*groups)) == [None] * 4 + [1.0, 1.0, 0.0, 0.0]


def test_what_is_not_graded_or_not_compared_is_not_scored() -> None:
    assert temporal(**_group(2, (0, 2), kind="open", target="friends")) == [None] * 4
    assert temporal(**_group(2, (0, 2), kind="pose", target="x")) == [None] * 4
    assert temporal(**_group(2, (0, 0))) == [None] * 4


def test_a_target_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(InputError, match=r"^record 'r': target 'E' is no single_choice answer to 2 options$"):
        temporal(**_group(2, (0, 2), target="E"))


def test_it_asks_for_shuffled_completions() -> None:
    assert about(temporal).needs == {"shuffled"}
