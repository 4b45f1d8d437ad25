"""Rewards by name, the user's own among them; what fails says which reward and which record."""

from __future__ import annotations

import asyncio
import inspect
import sys
from pathlib import Path

import pytest

from omnistage.data.errors import InputError, RewardError
from omnistage.rewards import registry
from omnistage.rewards.registry import RewardSpec, load

OWN = """
from dataclasses import dataclass

from helper_beside import LENGTH


@dataclass
class Longest:
    limit: int
    scale: float = 1.0

    def __call__(self, completions, **columns):
        return [self.scale * min(len(text), self.limit) for text in completions]


class Waiting:
    async def __call__(self, completions, **columns):
        return [0.25] * len(completions)


class NotCallable:
    pass


class Failing:
    def __init__(self):
        raise OSError("no key")


def short(completions, **columns):
    return [1.0 if len(text) < LENGTH else None for text in completions]


def matches(completions, target):
    return [text == right for text, right in zip(completions, target)]


def scaled(completions, *, factor, offset=0.0, **columns):
    return [factor * len(text) + offset for text in completions]


async def later(completions, *, value=0.5, **columns):
    return [value] * len(completions)


async def later_fails(completions, **columns):
    raise ConnectionError("judge is gone")


def fails(completions, **columns):
    return [1 / 0 for text in completions]


def one_too_few(completions, **columns):
    return [0.0] * (len(completions) - 1)


def not_a_number(completions, **columns):
    return [0.0, float("nan")]


def infinite(completions, **columns):
    return [0.0, float("inf")]


def text(completions, **columns):
    return [0.0, "1"]


def single(completions, **columns):
    return 1.0


def nothing(**columns):
    return None


def no_completions(target):
    return [0.0]


five = 5
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own_rewards.py").write_text(OWN)
    (tmp_path / "helper_beside.py").write_text("LENGTH = 3\n")
    return str(tmp_path / "own_rewards.py")


@pytest.mark.parametrize("name", ["accuracy", "format", "reasoning"])
def test_built_in(name: str) -> None:
    reward = load(RewardSpec(name, weight=0.5))
    assert (reward.name, reward.weight, reward.__name__) == (name, 0.5, name)
    columns = {"target": ["B"], "kind": ["single_choice"], "options": [["x", "y"]], "record_id": ["r"], "trainer_state": None}
    completion = [{"role": "assistant", "content": "<think>so B</think><answer>B</answer>"}]
    assert reward(prompts=[[]], completions=[completion], completion_ids=[[0]], **columns) == [1.0]


def test_settings_reach_the_function() -> None:
    columns = {"target": ["A,B"], "kind": ["multi_select"], "options": [["x", "y"]]}
    assert load(RewardSpec("accuracy", config={"partial": True}))(["<answer>A</answer>"], **columns) == [0.5]
    assert load(RewardSpec("accuracy"))(["<answer>A</answer>"], **columns) == [0.0]


def test_known_names_have_a_summary() -> None:
    assert {"accuracy", "format", "reasoning"} <= set(registry.known())
    assert [name for name, _ in registry.listing()] == registry.known()
    assert dict(registry.listing())["accuracy"].startswith("1 for the right answer")


def test_a_function_of_a_file(own: str) -> None:
    path_before = list(sys.path)
    reward = load(RewardSpec(f"{own}:short", weight=2.0))
    assert reward(["a", "abcd"], record_id=["r0", "r1"]) == [1.0, None]
    assert (reward.name, reward.weight, reward.__name__) == (f"{own}:short", 2.0, "short")
    assert sys.path == path_before


def test_a_path_is_relative_to_the_working_directory(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(own).parent)
    assert load(RewardSpec("own_rewards.py:short"))(["a"]) == [1.0]


def test_a_file_runs_once(tmp_path: Path) -> None:
    (tmp_path / "counted.py").write_text(
        "state = []\ndef one(completions, **c):\n    state.append(1)\n    return [len(state)]\ntwo = one\n"
    )
    assert [load(RewardSpec(f"{tmp_path}/counted.py:{name}"))(["x"]) for name in ("one", "two")] == [[1.0], [2.0]]


def test_a_function_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_rewards"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "lengths.py").write_text("def length(completions, **columns):\n    return [len(text) for text in completions]\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load(RewardSpec("some_rewards.lengths:length"))(["abc", ""]) == [3.0, 0.0]


def test_an_installed_plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugged.py").write_text("def zero(completions, **columns):\n    return [0] * len(completions)\n")
    info = tmp_path / "plugged-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[omnistage.rewards]\nnought = plugged:zero\naccuracy = plugged:zero\n")
    monkeypatch.syspath_prepend(tmp_path)
    reward = load(RewardSpec("nought"))
    assert (reward(["x", "y"]), reward.__name__) == ([0.0, 0.0], "nought")
    assert dict(registry.listing())["nought"] == "plugged:zero"
    assert dict(registry.listing())["accuracy"] != "plugged:zero", "a plug-in does not replace a built-in reward"


def test_a_function_gets_the_columns_that_it_asks_for(own: str) -> None:
    reward = load(RewardSpec(f"{own}:matches"))
    assert reward(completions=["a", "b"], target=["a", "c"], kind=["open"] * 2, prompts=[[]] * 2) == [1.0, 0.0]


def test_a_class_is_built_with_its_settings(own: str) -> None:
    reward = load(RewardSpec(f"{own}:Longest", config={"limit": 2, "scale": 0.5}))
    assert (reward(["a", "abc"]), reward.__name__) == ([0.5, 1.0], "Longest")


@pytest.mark.parametrize(("name", "config", "value"), [("later", {"value": 0.75}, 0.75), ("later", {}, 0.5), ("Waiting", {}, 0.25)])
def test_async_rewards_stay_async(own: str, name: str, config: dict[str, float], value: float) -> None:
    reward = load(RewardSpec(f"{own}:{name}", config=config))
    assert inspect.iscoroutinefunction(reward)
    assert asyncio.run(reward(["x", "y"], record_id=["r0", "r1"])) == [value, value]


@pytest.mark.parametrize(("name", "is_async"), [("later", True), ("Waiting", True), ("short", False), ("Longest", False)])
def test_trl_sees_the_name_and_what_to_await(own: str, name: str, is_async: bool) -> None:
    from trl.trainer.utils import get_callable_name, is_async_callable

    reward = load(RewardSpec(f"{own}:{name}", config={"limit": 3} if name == "Longest" else {}))
    assert (get_callable_name(reward), is_async_callable(reward)) == (name, is_async)


def test_a_plain_reward_is_not_async(own: str) -> None:
    assert not inspect.iscoroutinefunction(load(RewardSpec(f"{own}:short")))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("fails", r"^reward 'fails' failed on records 'r0', 'r1': ZeroDivisionError: division by zero$"),
        ("one_too_few", r"^reward 'one_too_few' returned 1 values for 2 completions$"),
        ("not_a_number", r"^reward 'not_a_number', record 'r1', returned nan; must be a finite number, or None for not scored$"),
        ("infinite", r"^reward 'infinite', record 'r1', returned inf"),
        ("text", r"^reward 'text', record 'r1', returned '1'"),
        ("single", r"^reward 'single' returned float; must return a list"),
    ],
)
def test_a_reward_that_fails_is_never_a_zero(own: str, name: str, problem: str) -> None:
    """Hazard 22."""
    with pytest.raises(RewardError, match=problem):
        load(RewardSpec(f"{own}:{name}"))(["x", "y"], record_id=["r0", "r1"])


def test_an_async_reward_that_fails_is_never_a_zero(own: str) -> None:
    """Hazard 21: a judge that cannot be reached."""
    with pytest.raises(RewardError, match=r"^reward 'later_fails' failed on records 'r0': ConnectionError: judge is gone$") as caught:
        asyncio.run(load(RewardSpec(f"{own}:later_fails"))(["x", "y"], record_id=["r0", "r0"]))
    assert isinstance(caught.value.__cause__, ConnectionError)


def test_a_failure_names_some_records_of_many(own: str) -> None:
    with pytest.raises(RewardError, match=r"on records 'r0', 'r1', 'r2', 'r3', 'r4' and 3 more: Zero"):
        load(RewardSpec(f"{own}:fails"))(["x"] * 8, record_id=[f"r{row}" for row in range(8)])


def test_without_ids_the_row_is_named(own: str) -> None:
    with pytest.raises(RewardError, match=r"^reward 'not_a_number', row 1, returned nan"):
        load(RewardSpec(f"{own}:not_a_number"))(["x", "y"])


def test_wrong_input_stays_the_users_to_mend() -> None:
    with pytest.raises(InputError, match=r"^record 'r0': target 'E'"):
        load(RewardSpec("accuracy"))(["x"], target=["E"], kind=["single_choice"], options=[["x", "y"]], record_id=["r0"])


@pytest.mark.parametrize(
    ("name", "config", "problem"),
    [
        (
            "accurcy",
            {},
            r"^unknown reward 'accurcy'; did you mean 'accuracy'\? known: accuracy, consistency, .*'path/file.py:function'$",
        ),
        ("", {}, r"^unknown reward ''"),
        ("accuracy", {"partal": True}, r"^reward 'accuracy': unknown setting 'partal'; did you mean 'partial'\? known: partial$"),
        ("accuracy", {"target": ["A"]}, r"^reward 'accuracy': unknown setting 'target'"),
        ("format", {"strict": True}, r"^reward 'format': unknown setting 'strict'; known: context$"),
        ("missing.py:f", {}, r"^reward 'missing.py:f': file 'missing.py' does not exist or is no file$"),
        ("no_such_module:f", {}, r"^reward 'no_such_module:f' cannot be imported: ModuleNotFoundError: No module named 'no_such_module'$"),
        ("dir/file:f", {}, r"^reward 'dir/file:f': 'dir/file' is neither a module nor a .py file$"),
        ("json:dumpz", {}, r"^reward 'json:dumpz': unknown function 'dumpz'; did you mean 'dumps?'\? known: "),
        ("json:dumps", {}, r"^reward 'json:dumps': setting 'obj' has no default and is not given, and it is none of the columns"),
        ("builtins:dict", {}, r"^reward 'builtins:dict' does not say which arguments it takes"),
    ],
)
def test_a_spec_that_cannot_be_loaded(name: str, config: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        load(RewardSpec(name, config=config))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "config", "problem"),
    [
        ("shrt", {}, r"unknown function 'shrt'; did you mean 'short'"),
        ("five", {}, r"is 'int', not a function or a class$"),
        ("scaled", {}, r"setting 'factor' has no default and is not given"),
        ("scaled", {"factor": 1, "ofset": 2}, r"unknown setting 'ofset'; did you mean 'offset'\? known: factor, offset$"),
        ("Longest", {}, r"setting 'limit' has no default and is not given$"),
        ("Longest", {"limit": 1, "x": 1}, r"unknown setting 'x'; known: limit, scale$"),
        ("NotCallable", {}, r"objects of the class cannot be called"),
        ("Failing", {}, r"cannot be built: OSError: no key$"),
        ("no_completions", {}, r"takes no completions; write it as"),
    ],
)
def test_an_own_reward_that_cannot_be_loaded(own: str, name: str, config: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        load(RewardSpec(f"{own}:{name}", config=config))


def test_a_file_that_does_not_run(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("def f(:\n")
    with pytest.raises(InputError, match=r"broken.py:f' cannot be loaded: SyntaxError: invalid syntax \(broken.py, line 1\)$"):
        load(RewardSpec(f"{file}:f"))
    file.write_text("import no_such_module_at_all\n")
    with pytest.raises(InputError, match=r"cannot be loaded: ModuleNotFoundError: No module named 'no_such_module_at_all'$"):
        load(RewardSpec(f"{file}:f"))
    file.write_text("def f(completions, **columns):\n    return [1] * len(completions)\n")
    assert load(RewardSpec(f"{file}:f"))(["x"]) == [1.0], "a file that failed is run again once it is mended"


def test_a_module_name_of_a_file_in_the_working_directory_gets_a_hint(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(own).parent)
    with pytest.raises(InputError, match=r"for the file write 'own_rewards.py:short'$"):
        load(RewardSpec("own_rewards:short"))


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_is_a_finite_number(weight: float) -> None:
    with pytest.raises(InputError, match=r"^reward 'format': weight is (nan|inf); must be a finite number$"):
        load(RewardSpec("format", weight=weight))
