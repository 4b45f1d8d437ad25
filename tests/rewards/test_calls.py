"""How rewards are called: for some rows only, with failures that stop or mask, within their range; and what the decorator says of them."""

from __future__ import annotations

import asyncio
import inspect
import time
from pathlib import Path
from typing import Any

import pytest

from omnistage.data.errors import InputError, RecordError, RewardError
from omnistage.data.records import AnswerKind, Modality, Record
from omnistage.rewards.base import About, about, columns_of, reward
from omnistage.rewards.registry import RewardSpec, load

OWN = """
import asyncio
import time

from omnistage.rewards.base import reward
from typing import Literal


def hangs(completions, **columns):
    time.sleep(60 if "slow" in completions else 0)
    return [1.0] * len(completions)


async def later_hangs(completions, **columns):
    await asyncio.sleep(60 if "slow" in completions else 0)
    return [1.0] * len(completions)


LATE = []


def logs_late(completions, log_metric, **columns):
    time.sleep(0.6)
    log_metric("late", 1.0)
    LATE.append(True)
    return [1.0] * len(completions)


def fails_or_hangs(completions, **columns):
    if "bad" in completions:
        raise ValueError("bad")
    time.sleep(60 if "slow" in completions else 0)
    return [1.0] * len(completions)


def own_timeout(completions, **columns):
    raise TimeoutError("a socket's")


def length(completions, **columns):
    return [float(len(text)) for text in completions]


def picky(completions, **columns):
    return [1.0 / len(text) for text in completions]


async def later_picky(completions, **columns):
    return [1.0 / len(text) for text in completions]


def nan_for_empty(completions, **columns):
    return [1.0 if text else float("nan") for text in completions]


CALLS = []


def flaky(completions, **columns):
    # Fails on the batch, on its second row alone, on what is left, and then no more.
    CALLS.append(len(completions))
    if len(CALLS) in (1, 3, 5):
        raise ConnectionError("503")
    return [1.0] * len(completions)


def counting(completions, log_metric, **columns):
    log_metric("seen", 1.0)
    return [1.0 / len(text) for text in completions]


def huge(completions, **columns):
    return [0.0, 1e39]


def leaves(completions, **columns):
    raise SystemExit(3)


def batch_fails(completions, **columns):
    if len(completions) > 1:
        raise OSError("too many at once")
    return [1.0]


def noting(completions, log_extra, task, **columns):
    log_extra("seen", list(task))
    return [1.0] * len(completions)


def notes_then_fails(completions, log_extra, **columns):
    log_extra("seen", list(completions))
    if "" in completions:
        raise ValueError("empty")
    return [1.0] * len(completions)


def notes_too_little(completions, log_extra, **columns):
    log_extra("seen", ["x"])
    return [1.0] * len(completions)


def waits(completions, **columns):
    import asyncio
    return asyncio.sleep(0)


@reward(name="capped", range=(0, 1), config={"most": 4}, looks_at=["form"], segment="think")
def marked(completions, *, most: int, how: Literal["linear", "square"] = "linear", **columns):
    return [len(text) / most for text in completions]


@reward(range=(-1, 0))
class Marked:
    def __init__(self, factor: float = 1.0):
        self.factor = factor

    def __call__(self, completions, **columns):
        return [-self.factor * len(text) for text in completions]
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


def test_only_some_rows_are_scored(own: str) -> None:
    only = {"modality": frozenset({"video", "audio"}), "task": frozenset({"count"})}
    function = load(RewardSpec(f"{own}:length", only=only))
    columns = {"modality": ["video", "text", "audio", "audio"], "task": ["count", "count", "name", "count"], "record_id": list("abcd")}
    assert function(["a", "ab", "abc", "abcd"], **columns) == [1.0, None, None, 4.0]


def test_a_reward_is_not_called_for_no_rows(own: str) -> None:
    function = load(RewardSpec(f"{own}:picky", only={"modality": frozenset({"audio"})}))
    assert function(["", ""], modality=["video", "video"]) == [None, None]


def test_a_filter_needs_its_column(own: str) -> None:
    function = load(RewardSpec(f"{own}:length", only={"modality": frozenset({"audio"})}))
    with pytest.raises(RewardError, match="no such column"):
        function(["a"], task=["x"])


def test_extra_columns_of_some_rows_are_logged_for_all(own: str) -> None:
    logged: dict[str, list[Any]] = {}
    function = load(RewardSpec(f"{own}:noting", only={"task": frozenset({"a"})}))
    function(["x", "y", "z"], task=["a", "b", "a"], log_extra=logged.__setitem__, record_id=["1", "2", "3"])
    assert logged == {"noting/seen": ["a", None, "a"]}


def test_what_a_failed_call_noted_is_not_noted_twice(own: str) -> None:
    """TRL adds the values of a column to those that it has: of a batch that was asked anew it would keep both."""
    logged: list[tuple[str, list[Any]]] = []
    function = load(RewardSpec(f"{own}:notes_then_fails", on_error="mask"))
    values = function(["x", "", "z"], log_extra=lambda *of: logged.append(of), log_metric=lambda *of: None, record_id=["1", "2", "3"])
    assert values == [1.0, None, 1.0]
    assert logged == [("notes_then_fails/seen", ["x", None, "z"])]


def test_a_note_has_a_value_a_completion(own: str) -> None:
    with pytest.raises(RewardError, match=r"log_extra\('seen', \.\.\.\) was given 1 values for 2 completions"):
        load(RewardSpec(f"{own}:notes_too_little"))(["x", "y"], log_extra=lambda *of: None, record_id=["1", "2"])


def test_a_failure_names_the_record_that_caused_it(own: str) -> None:
    with pytest.raises(RewardError, match=r"^reward 'picky' failed on records 'r1': ZeroDivisionError: float division by zero$"):
        load(RewardSpec(f"{own}:picky"))(["a", "", "abc"], record_id=["r0", "r1", "r2"])


def test_a_failure_of_the_batch_names_the_batch(own: str) -> None:
    with pytest.raises(RewardError, match=r"^reward 'batch_fails' failed on records 'r0', 'r1': OSError: too many at once$"):
        load(RewardSpec(f"{own}:batch_fails"))(["a", "b"], record_id=["r0", "r1"])


@pytest.mark.parametrize("name", ["picky", "later_picky"])
def test_a_failure_can_be_masked_and_is_counted(own: str, name: str) -> None:
    metrics: dict[str, float] = {}
    function = load(RewardSpec(f"{own}:{name}", on_error="mask", label="mine"))
    values = function(["a", "", "ab", ""], record_id=list("abcd"), log_metric=metrics.__setitem__)
    assert (asyncio.run(values) if name == "later_picky" else values) == [1.0, None, 0.5, None]
    assert metrics == {"rewards/mine/failed": 0.5}


def test_a_failure_while_failures_are_masked_is_masked(own: str) -> None:
    """Row 0 answers alone, row 1 fails alone; the rest fails again, and each of its rows answers alone: no row is to blame, so all are."""
    values = load(RewardSpec(f"{own}:flaky", on_error="mask"))(["a", "b", "c"], record_id=list("abc"))
    assert values == [None, None, None]


def test_finding_out_who_failed_logs_nothing(own: str) -> None:
    logged: list[str] = []
    load(RewardSpec(f"{own}:counting", on_error="mask"))(["a", "", "ab"], log_metric=lambda name, value: logged.append(name))
    assert logged == ["seen", "seen", "rewards/counting/failed"], "the call that failed, and the one of what is left"


def test_a_value_beyond_32_bits_is_an_error(own: str) -> None:
    with pytest.raises(RewardError, match=r"record 'b', returned 1e\+39; must be a finite number"):
        load(RewardSpec(f"{own}:huge"))(["x", "y"], record_id=["a", "b"])


def test_leaving_python_is_a_failure(own: str, tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"^reward 'leaves' failed on records 'a': SystemExit: 3$"):
        load(RewardSpec(f"{own}:leaves"))(["x"], record_id=["a"])
    (tmp_path / "left.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(InputError, match=r"cannot be loaded: SystemExit: 0$"):
        load(RewardSpec(f"{tmp_path}/left.py:f"))


@pytest.mark.parametrize("value", [__import__("datetime").date(2020, 1, 1), {1, 2}])
def test_a_setting_is_a_value_of_json(value: object) -> None:
    with pytest.raises(InputError, match=r"^reward 'accuracy': setting 'partial' must be of numbers, texts"):
        load(RewardSpec("accuracy", config={"partial": value}))


def test_a_value_that_is_no_number_is_masked_too(own: str) -> None:
    assert load(RewardSpec(f"{own}:nan_for_empty", on_error="mask"))(["a", ""]) == [1.0, None]


def test_masking_a_failure_of_the_whole_batch_masks_the_batch(own: str) -> None:
    assert load(RewardSpec(f"{own}:batch_fails", on_error="mask"))(["a", "b"]) == [None, None]


def test_an_unreadable_target_is_never_masked() -> None:
    function = load(RewardSpec("accuracy", on_error="mask"))
    with pytest.raises(InputError, match=r"^record 'r0': target 'E'"):
        function(["x"], target=["E"], kind=["single_choice"], options=[["x", "y"]], record_id=["r0"])


def test_waiting_in_a_plain_function_is_an_error(own: str) -> None:
    with pytest.raises(RewardError, match="write it as `async def`"):
        load(RewardSpec(f"{own}:waits"))(["a"])


def test_a_decorated_function(own: str) -> None:
    function = load(RewardSpec(f"{own}:marked"))
    assert function.__name__ == "capped"
    assert about(function) == About("capped", 0, 1, {"most": 4}, frozenset({"form"}), "think")
    assert function(["ab"]) == [0.5]
    assert load(RewardSpec(f"{own}:marked", config={"most": 8}))(["ab"]) == [0.25]
    assert about(load(RewardSpec(f"{own}:marked", segment="answer"))).segment == "answer"


@pytest.mark.parametrize(("name", "text"), [("marked", "abcdefgh"), ("Marked", "ab")])
def test_a_value_outside_the_range_is_an_error(own: str, name: str, text: str) -> None:
    with pytest.raises(RewardError, match=r"record 'r0', returned (2.0|-2.0); its range is (0 to 1|-1 to 0)$"):
        load(RewardSpec(f"{own}:{name}"))([text], record_id=["r0"])


@pytest.mark.parametrize(
    ("name", "config", "problem"),
    [
        ("marked", {"most": "four"}, r"setting 'most' is 'four': input should be a valid integer$"),
        ("marked", {"most": 4.5}, r"setting 'most' is 4.5: input should be a valid integer"),
        ("marked", {"how": "cubic"}, r"setting 'how' is 'cubic': input should be 'linear' or 'square'$"),
        ("Marked", {"factor": True}, r"setting 'factor' is True: input should be a valid number$"),
    ],
)
def test_settings_have_the_types_that_they_are_annotated_with(own: str, name: str, config: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        load(RewardSpec(f"{own}:{name}", config=config))


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"range": (1, 1)}, r"range is \(1, 1\); must be two finite numbers, the lower one first"),
        ({"range": (0, float("inf"))}, r"must be two finite numbers"),
        ({"looks_at": ["anser"]}, r"unknown aspect 'anser'; did you mean 'answer'\?"),
        ({"segment": "thinking"}, r"unknown segment 'thinking'; did you mean 'think'\?"),
        ({"needs": ["shufled"]}, r"unknown need 'shufled'; did you mean 'shuffled'\?"),
    ],
)
def test_what_a_decorator_cannot_say(wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        reward(**wrong)


def test_rewards_of_trl_work_unmodified() -> None:
    said = [[{"role": "assistant", "content": text}] for text in ("<think>\nfour\n</think>\n\\boxed{4}", "no tags")]
    assert load(RewardSpec("trl.rewards:think_format_reward"))(said) == [1.0, 0.0]
    overlong = load(RewardSpec("trl.rewards:get_soft_overlong_punishment", config={"max_completion_len": 4, "soft_punish_cache": 2}))
    assert overlong(["", "", ""], completion_ids=[[1], [1] * 3, [1] * 9]) == [0, -0.5, -1]
    accuracy = load(RewardSpec("trl.rewards:accuracy_reward"))
    assert accuracy(said, solution=["4", "5"]) == [1.0, 0.0]


def test_the_columns_of_a_record() -> None:
    record = Record("r", Modality.VIDEO, "count", AnswerKind.NUMBER, "How many?", "4", extra={"evidence": {"sight": ["disc"]}})
    columns = columns_of(record)
    assert (columns["target"], columns["solution"], columns["kind"], columns["evidence"]) == (
        "4",
        "4",
        "number",
        {"sight": ["disc"], "sound": []},
    )


@pytest.mark.parametrize("wrong", ["disc", {"smell": ["x"]}, {"sight": "disc"}, {"sight": [1]}, {"sight": [" | "]}])
def test_evidence_that_is_no_evidence(wrong: Any) -> None:
    record = Record("r", Modality.VIDEO, "count", AnswerKind.NUMBER, "?", "4", source="a.json: record 3", extra={"evidence": wrong})
    with pytest.raises(RecordError, match=r"^a.json: record 3: evidence"):
        columns_of(record)


def value_of(reward: Any, completions: list[str], **columns: Any) -> Any:
    values = reward(completions, **columns)
    return asyncio.run(values) if inspect.iscoroutine(values) else values


@pytest.mark.parametrize("name", ["hangs", "later_hangs"])
def test_a_reward_that_hangs_is_left_behind(own: str, name: str) -> None:
    stops = load(RewardSpec(f"{own}:{name}", timeout_s=0.2))
    assert value_of(stops, ["a", "b"]) == [1.0, 1.0]
    began = time.monotonic()
    with pytest.raises(RewardError, match=rf"^reward '{name}' took longer than its timeout_s of 0\.2 s$"):
        value_of(stops, ["a", "slow"])
    logged: dict[str, float] = {}
    masks = load(RewardSpec(f"{own}:{name}", timeout_s=0.2, on_error="mask"))
    assert value_of(masks, ["a", "slow"], log_metric=logged.__setitem__) == [None, None]
    assert logged == {f"rewards/{name}/failed": 1.0}
    assert time.monotonic() - began < 10


def test_a_rewards_own_time_out_is_its_own_failure(own: str) -> None:
    with pytest.raises(RewardError, match=r"reward .own_timeout. failed.*TimeoutError: a socket"):
        value_of(load(RewardSpec(f"{own}:own_timeout", timeout_s=5.0)), ["a"])


def test_what_a_reward_logs_too_late_is_dropped(own: str) -> None:
    logged: dict[str, float] = {}
    reward = load(RewardSpec(f"{own}:logs_late", timeout_s=0.1, on_error="mask"))
    assert value_of(reward, ["a"], log_metric=logged.__setitem__) == [None]
    time.sleep(1.5)
    assert logged == {"rewards/logs_late/failed": 1.0}


def test_rows_behind_one_that_hangs_are_not_asked_one_by_one(own: str) -> None:
    """The first row fails, the others would hang for their time-out each."""
    reward = load(RewardSpec(f"{own}:fails_or_hangs", timeout_s=0.3, on_error="mask"))
    began = time.monotonic()
    assert value_of(reward, ["bad", *["slow"] * 20]) == [None] * 21
    assert time.monotonic() - began < 3
