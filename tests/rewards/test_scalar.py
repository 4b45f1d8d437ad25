"""Closeness to 50 with a scale of 10, worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from omnistage.data.errors import InputError
from omnistage.rewards.families.scalar import scalar


def _scored(answer: str, measure: Any = "exponential", kind: str = "scalar", target: str = "50", values: Any = (50.0,)) -> float | None:
    return scalar([f"<think>5</think><answer>{answer}</answer>"], [target], [kind], [values], scale=10.0, measure=measure)[0]


@pytest.mark.parametrize(
    ("answer", "tolerance", "linear", "exponential"),
    [
        ("50", 1.0, 1.0, 1.0),
        ("50.00", 1.0, 1.0, 1.0),
        ("The score is 55.", 1.0, 0.5, math.exp(-0.5)),
        ("60", 1.0, 0.0, math.exp(-1)),
        ("39.9", 0.0, 0.0, math.exp(-1.01)),
        ("110/2", 1.0, 0.5, math.exp(-0.5)),
        ("-50", 0.0, 0.0, math.exp(-10)),
        ("9" * 400, 0.0, 0.0, 0.0),
        ("between 40 and 60", 0.0, 0.0, 0.0),
        ("good", 0.0, 0.0, 0.0),
        ("", 0.0, 0.0, 0.0),
        ("nan", 0.0, 0.0, 0.0),
    ],
)
def test_measures(answer: str, tolerance: float, linear: float, exponential: float) -> None:
    assert _scored(answer, "tolerance") == tolerance
    assert _scored(answer, "linear") == pytest.approx(linear, abs=1e-12)
    assert _scored(answer, "exponential") == pytest.approx(exponential, abs=1e-12)


def test_the_target_stands_in_for_missing_values() -> None:
    assert _scored("50", target="60", values=()) == pytest.approx(math.exp(-1))
    assert _scored("50", target="60", values=(50.0,)) == 1.0
    assert scalar(["<answer>3</answer>"], ["3"], ["number"], scale=1.0) == [1.0]
    assert scalar(["<answer>0.5</answer>"], ["1/2"], ["number"], scale=1.0) == [1.0]


def test_no_answer_earns_nothing_and_other_kinds_are_not_scored() -> None:
    assert scalar(["50", "<think>50</think>"], ["50"] * 2, ["scalar"] * 2, [[50.0]] * 2, scale=10.0) == [0.0, 0.0]
    for kind in ("single_choice", "multi_select", "yes_no", "open", "level", "pose"):
        assert _scored("50", kind=kind) is None


@pytest.mark.parametrize(("target", "values"), [("many", ()), ("50", (math.nan,)), ("50", (math.inf,))])
def test_a_right_number_that_is_none_is_an_error(target: str, values: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="is no scalar answer"):
        _scored("50", target=target, values=values)


def test_an_error_names_the_record() -> None:
    columns: dict[str, Any] = {"target": ["1", "many"], "kind": ["number"] * 2, "scale": 1.0}
    with pytest.raises(InputError, match=r"^record 'r1': target 'many' with values \[\] is no number answer$"):
        scalar(["4", "4"], **columns, record_id=["r0", "r1"])
    with pytest.raises(InputError, match=r"^row 1: target 'many'"):
        scalar(["4", "4"], **columns)
    with pytest.raises(InputError, match=r"^record 'r0': unknown answer kind 'x'"):
        scalar(["4"], ["1"], ["x"], record_id=["r0"], scale=1.0)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_measures_nothing_is_refused(scale: float) -> None:
    with pytest.raises(InputError, match="must be a number above 0"):
        scalar(["<answer>50</answer>"], ["50"], ["scalar"], [[50.0]], scale=scale)


@pytest.mark.parametrize(
    ("answer", "right", "value"),
    [("55", 50.0, 0.8), ("-50", -50.0, 1.0), ("-55", -50.0, 0.8), ("90", 50.0, 0.0), ("0", 0.0, 1.0), ("1", 0.0, 0.0)],
)
def test_a_relative_error_is_a_share_of_the_right_number(answer: str, right: float, value: float) -> None:
    found = scalar([f"<think>5</think><answer>{answer}</answer>"], [f"{right:g}"], ["scalar"], [(right,)], scale=0.5, measure="relative")
    assert found == [pytest.approx(value)]
