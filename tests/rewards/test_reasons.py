"""Each completion's value is recorded with why it has it: what was read, what is missing, how far off."""

from __future__ import annotations

from typing import Any

import pytest

from omnistage.rewards.registry import RewardSpec, load

FOUR = ["happy", "sad", "angry", "afraid"]
SEEN = {"sight": ["red disc|red circle"], "sound": ["beep"]}
RIGHT = "<think>A red disc and a beep: so it is B.</think><answer>B</answer>"
OTHER = "<think>So it is B.</think><answer>C</answer>"


def reasons(spec: RewardSpec, text: str, **row: Any) -> tuple[float | None, Any]:
    """A completion's value, and what was recorded of it."""
    logged: dict[str, list[Any]] = {}
    given = {"record_id": "r", "target": "B", "kind": "single_choice", "options": FOUR, "values": [], "evidence": SEEN} | row
    values = load(spec)([text], log_extra=logged.__setitem__, **{name: [value] for name, value in given.items()})
    return values[0], logged[f"{spec.name}/reason"][0]


@pytest.mark.parametrize(
    ("name", "text", "value", "reason"),
    [
        ("accuracy", RIGHT, 1.0, "right: read as B"),
        ("accuracy", OTHER, 0.0, "wrong: read as C"),
        ("accuracy", "<answer>B or C</answer>", 0.0, "unreadable"),
        ("accuracy", "B", 0.0, "not answered"),
        ("format", RIGHT, 1.0, "well formed"),
        ("format", "<answer>B</answer>", 0.0, "not one thinking and one answer alone, in this order"),
        ("format", "<think>x</think><answer>B or C</answer>", 0.0, "the answer is no single_choice answer"),
        ("consistency", OTHER, 0.0, "the thinking concludes B, the answer is C"),
        ("consistency", "<think>hm</think><answer>C</answer>", None, "the thinking concludes nothing"),
        ("evidence", RIGHT, 1.0, "mentions all that is seen and heard"),
        ("evidence", "<think>no beep, a red circle</think>", 0.5, "not mentioned: beep"),
    ],
)
def test_why_a_completion_is_worth_that(name: str, text: str, value: float | None, reason: str) -> None:
    assert reasons(RewardSpec(name), text) == (value, reason)


def test_the_parts_of_a_reasoning_each_say_why() -> None:
    spec = RewardSpec("reasoning", config={"parts": {"consistency": 1.0, "evidence": 1.0}})
    assert reasons(spec, OTHER) == (0.0, "the thinking concludes B, the answer is C; not mentioned: red disc, beep")


def test_how_far_off_a_number_and_a_pose_are() -> None:
    spec = RewardSpec("scalar", config={"scale": 10.0, "measure": "linear"})
    row = {"kind": "scalar", "target": "55", "values": [55.0], "options": []}
    assert reasons(spec, "<answer>50</answer>", **row) == (0.5, "50 answered, 55 is right")
    assert reasons(spec, "<answer>much</answer>", **row) == (0.0, "no number answered")
    rest = [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0] * 24
    row = {"kind": "pose", "target": "", "values": rest, "options": []}
    assert reasons(RewardSpec("pose"), f"<answer>{' '.join(map(str, rest))}</answer>", **row) == (1.0, "0 degrees off on average")
    assert reasons(RewardSpec("pose"), "<answer>up</answer>", **row) == (0.0, "the answer is no pose")
