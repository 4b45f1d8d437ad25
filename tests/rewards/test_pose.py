"""Joint errors in degrees that are known beforehand: every joint turned by the same angle about its own z axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnistage.data.errors import InputError
from omnistage.data.rotations import LAYOUTS, axis_angle_to_matrices, matrices_to_six
from omnistage.rewards.extract import read_numbers
from omnistage.rewards.families.pose import JOINTS, error_deg, pose, read_pose

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(scale=0.8, size=(JOINTS, 3))
RIGHT = axis_angle_to_matrices(VECTORS)


def _text(numbers: Iterable[Any], decimals: int = 6) -> str:
    return " ".join(f"{number:.{decimals}f}" for number in np.ravel(list(numbers)))


def _turned(degrees: float) -> Any:
    return RIGHT @ axis_angle_to_matrices([0.0, 0.0, math.radians(degrees)])


def _scored(answer: str, **settings: Any) -> float | None:
    return pose([f"<think>x</think><answer>{answer}</answer>"], ["pose"], [RIGHT.ravel().tolist()], **settings)[0]


@pytest.mark.parametrize("degrees", [0.0, 0.5, 10.0, 90.0, 179.0, 180.0])
def test_the_error_is_the_angle(degrees: float) -> None:
    assert error_deg(_turned(degrees), RIGHT) == pytest.approx(degrees, abs=1e-3)


def test_the_error_is_the_mean_over_joints() -> None:
    """One joint of 24 is 48 degrees off: 2 degrees."""
    answered = RIGHT.copy()
    answered[5] = _turned(48.0)[5]
    assert error_deg(answered, RIGHT) == pytest.approx(2.0, abs=1e-3)


def test_every_way_of_writing_the_right_pose_earns_one() -> None:
    assert _scored(_text(VECTORS)) == 1.0
    assert _scored(_text(RIGHT)) == 1.0
    for layout in LAYOUTS:
        assert _scored(_text(matrices_to_six(RIGHT, layout)), layout=layout) == 1.0
    rows = "\n".join(f"[{x:.6f}, {y:.6f}, {z:.6f}]," for x, y, z in VECTORS)
    assert _scored(f"[{rows}]") == 1.0


def test_the_value_falls_with_the_error() -> None:
    """20 degrees at a scale of 20, and at one of 10."""
    assert _scored(_text(_turned(20.0))) == pytest.approx(math.exp(-1), abs=1e-5)
    assert _scored(_text(_turned(20.0)), scale_deg=10.0) == pytest.approx(math.exp(-2), abs=1e-5)
    assert _scored(_text(RIGHT, decimals=2)) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "arms raised",
        _text(VECTORS[:-1]),
        _text(VECTORS) + " 0.0",
        _text(matrices_to_six(RIGHT, "columns")),
        _text(VECTORS).replace("-", "minus "),
        "nan " * 72,
        "1e999 " * 72,
        "1e200 " * 72,
        "0 " * 216,
        _text(1000 * RIGHT),
        _text(np.tile(1000 * np.eye(3), (24, 1, 1))),
        _text(-RIGHT),
        _text(RIGHT @ np.diag([1.0, 1.0, -1.0])),
        "The pose is " + _text(VECTORS),
    ],
    ids=lambda answer: f"{answer[:20]}-{len(answer)}",
)
def test_what_is_no_pose_earns_nothing(answer: str) -> None:
    """Scaled and mirrored matrices among them: by the trace alone, 1,000 times the identity would be everybody's rotation."""
    assert _scored(answer) == 0.0


def test_six_numbers_that_span_no_plane_earn_nothing() -> None:
    assert _scored("1 0 0 " * 48, layout="columns") == 0.0
    assert _scored("0 " * 144, layout="rows") == 0.0


def test_untagged_poses_earn_nothing_and_other_kinds_are_not_scored() -> None:
    values = [RIGHT.ravel().tolist()]
    assert pose([_text(VECTORS)], ["pose"], values) == [0.0]
    for kind in ("single_choice", "multi_select", "number", "yes_no", "open", "level", "scalar"):
        assert pose([f"<answer>{_text(VECTORS)}</answer>"], [kind], [[]]) == [None]


def test_a_right_pose_that_is_none_is_an_error() -> None:
    with pytest.raises(InputError, match="a pose has 3 values; must be 216"):
        pose(["<answer>1</answer>"], ["pose"], [[1.0, 2.0, 3.0]])
    with pytest.raises(InputError, match="no 24 rotation matrices"):
        pose(["<answer>1</answer>"], ["pose"], [[1.0] * 216])
    with pytest.raises(InputError, match=r"^record 'r1': a pose has 0 values; must be 216"):
        pose(["1"] * 2, ["open", "pose"], [[], []], ["r0", "r1"])
    with pytest.raises(InputError, match=r"^record 'r1': unknown answer kind 'x'"):
        pose(["1"] * 2, ["open", "x"], [[], []], ["r0", "r1"])


def test_a_scale_that_measures_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="must be a number above 0"):
        _scored("1", scale_deg=0.0)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1", [1.0]),
        ("1,2", [1.0, 2.0]),
        ("[1.5, -2e-3; (.5)]", [1.5, -0.002, 0.5]),
        ("\uff11\u3001\uff12", [1.0, 2.0]),
        ("\uff11\uff0c\uff12", [1.0, 2.0]),
        ("1 two", None),
        ("1.2.3", None),
        ("0.1-0.2", None),
        ("x=1", None),
        ("1" * 41, None),
        ("", None),
        ("[]", None),
        ("inf", None),
        ("1e999", [math.inf]),
    ],
)
def test_numbers_of_an_answer(text: str, numbers: list[float] | None) -> None:
    assert read_numbers(text) == numbers


@settings(max_examples=100, deadline=None)
@given(
    st.text(st.sampled_from(" ,;[]+-.e0123456789na"), max_size=200)
    | st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=72, max_size=72).map(lambda row: " ".join(map(repr, row)))
)
def test_no_answer_raises(text: str) -> None:
    for layout in (None, *LAYOUTS):
        found = read_pose(text, layout)  # type: ignore[arg-type]
        assert found is None or (found.shape == (JOINTS, 3, 3) and np.isfinite(found).all())
    value = _scored(text)
    assert value is not None
    assert 0 <= value <= 1
