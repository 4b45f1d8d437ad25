"""The bench: our rewards pass it, HumanSense's rule fails it on its known holes and nowhere else, and careless rewards are found out."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnistage.data.records import AnswerKind, Modality, Record
from omnistage.rewards.bench import check
from omnistage.rewards.bench.check import Report
from omnistage.rewards.bench.probes import probes_of
from omnistage.rewards.registry import RewardSpec, load

HUMANSENSE = Path(__file__).parents[1] / "helpers" / "humansense_rule.py"


def record(kind: str, target: str, options: str = "", **fields: object) -> Record:
    name = f"{kind} {target}"
    return Record(name, Modality.VIDEO, "task", AnswerKind(kind), "What?", target, options=tuple(options.split()), **fields)  # type: ignore[arg-type]


RECORDS = [
    record("single_choice", "B", "red blue green"),
    record("single_choice", "E", "red blue green black white"),
    record("single_choice", "A", "up down"),
    record("multi_select", "A,C", "red blue green black"),
    record("number", "4"),
    record("number", "10"),
    record("yes_no", "yes"),
]
CHOICES = ["single_choice B", "single_choice E", "single_choice A"]
SELECT, FOUR, TEN, YES = "multi_select A,C", "number 4", "number 10", "yes_no yes"
LESS = "a right completion earns less than the best value"
BEST = "a faulty completion earns the best value"
MORE = "no answer earns more than a wrong one"

# What each hole of the rule (facts of the released code, and of the hazards that follow from it) looks like on the bench.
ACCURACY_HOLES = {
    # Yes and no have no branch.
    ("gold", LESS, 1, YES),
    ("gold, spaced out", LESS, 1, YES),
    ("gold as 'YES'", LESS, 1, YES),
    ("gold as 'Yes.'", LESS, 1, YES),
    # The first character of the answer is compared: "(b)" and "Answer: B" are lost, "B or A" wins, 10 is 1 is 13 is 47.
    ("gold as '(b)'", LESS, 3, CHOICES[0]),
    ("gold as 'Answer: B'", LESS, 2, CHOICES[0]),
    ("two letters", BEST, 3, CHOICES[0]),
    ("wrong answer", BEST, 1, TEN),
    ("wrong answer, gold before it", BEST, 1, TEN),
    ("a number that begins alike", BEST, 2, FOUR),
    ("the first digit", BEST, 1, TEN),
    ("two numbers", BEST, 2, FOUR),
    # A number in the thinking, or behind the answer, earns accuracy for a wrong answer, and for none.
    ("wrong answer, right thinking", BEST, 2, FOUR),
    ("wrong answer, gold behind it", BEST, 2, FOUR),
    ("empty answer", BEST, 2, FOUR),
    ("punctuation for an answer", BEST, 2, FOUR),
    ("gold in the thinking alone", BEST, 2, FOUR),
    ("answer never closed", BEST, 2, FOUR),
    # The first of two answers counts, and an answer without its tag.
    ("gold, then a wrong answer", BEST, 6, CHOICES[0]),
    ("gold without tags", BEST, 6, CHOICES[0]),
    # Letters are compared as characters: none of them is half of the right ones, and words between them are wrong letters.
    ("empty answer", MORE, 1, SELECT),
    ("nothing", MORE, 1, SELECT),
    ("gold as 'A and C'", LESS, 1, SELECT),
    ("gold as lines", LESS, 1, SELECT),
}
# The pattern is anchored at its start alone, and takes empty tags.
FORMAT_HOLES = {
    "wrong answer, gold behind it",
    "empty answer",
    "punctuation for an answer",
    "empty thinking",
    "repeated blocks",
    "gold, then a wrong answer",
    "wrong answer, then gold",
    "text behind the answer",
}


def checked(spec: str, records: list[Record] = RECORDS, **config: object) -> Report:
    return check.check(load(RewardSpec(spec, config=config)), records)


def problems(report: Report) -> dict[str, str]:
    return {finding.probe: finding.problem for finding in report.findings}


@pytest.mark.parametrize(("name", "looks_at"), [("accuracy", "answer"), ("format", "form"), ("reasoning", "thinking")])
def test_our_rewards_have_nothing_to_mend(name: str, looks_at: str) -> None:
    report = checked(name)
    assert report.findings == []
    assert (report.looks_at, report.scored, report.best, report.low) == ([looks_at], len(RECORDS), 1.0, 0.0)


def test_the_released_accuracy_rule_fails_on_its_holes_and_nowhere_else() -> None:
    """Hazards 13 to 20."""
    report = checked(f"{HUMANSENSE}:accuracy")
    assert report.looks_at == ["answer"]
    assert {(found.probe, found.problem, found.failed, found.record) for found in report.findings} == ACCURACY_HOLES


def test_the_released_format_rule_fails_on_its_holes_and_nowhere_else() -> None:
    """Hazard 17."""
    report = checked(f"{HUMANSENSE}:format")
    assert report.looks_at == ["form"]
    assert problems(report) == dict.fromkeys(FORMAT_HOLES, BEST)
    assert {found.failed for found in report.findings} == {len(RECORDS)}


OWN = """
import itertools
import random
import re
import time

from omnistage.rewards.base import reward

COUNT = itertools.count()


def text(completion):
    return completion[0]["content"]


def right(completion, target):
    return f"<answer>{target}</answer>" in text(completion)


def slow_pattern(completions, target, **columns):
    return [float(re.search(r"(<answer>)+(.*)*</answer>$", text(c)) is not None) for c in completions]


def quadratic(completions, **columns):
    return [float(len(re.findall(r"<answer>.*?</answer>", text(c), re.DOTALL)) == 1) for c in completions]


def moody(completions, **columns):
    return [next(COUNT) / 1e6 for c in completions]


def fails_on_ten(completions, target, **columns):
    return [1.0 / (t != "10") for t in target]


def never(completions, **columns):
    return [None] * len(completions)


@reward(range=(0, 2), looks_at=["answer"])
def half(completions, target, **columns):
    return [float(right(c, t)) for c, t in zip(completions, target)]


@reward(range=(0, 1), looks_at=["form"])
def says_it_looks_at_form(completions, target, **columns):
    return [float(right(c, t)) for c, t in zip(completions, target)]


def first(completions, target, **columns):
    return [float(text(c).partition("<answer>")[2].partition("</answer>")[0].strip() == t) for c, t in zip(completions, target)]


def only_right(completions, target, **columns):
    return [1.0 if right(c, t) else None for c, t in zip(completions, target)]


def one(completions, **columns):
    return [1.0]


def constant(completions, **columns):
    return [0.0] * len(completions)


def leaves(completions, **columns):
    raise SystemExit(3)


def neighbours(completions, **columns):
    return [float(at == 0) for at in range(len(completions))]


def length(completions, **columns):
    return [min(1.0, len(text(c)) / 10) for c in completions]


@reward(range=(0, 1))
async def later(completions, target, **columns):
    return [float(right(c, t)) for c, t in zip(completions, target)]
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


@pytest.mark.parametrize(
    ("name", "probe", "problem"),
    [
        ("moody", "gold", "the same completion earns another value when asked again"),
        ("neighbours", "gold", "the same completion earns another value when asked again"),
        ("fails_on_ten", "gold", "it fails"),
        ("never", "gold", "no gold answer is scored: there is nothing to check"),
        ("half", "gold", LESS),
        ("first", "gold, then a wrong answer", BEST),
        ("only_right", "wrong answer", "a wrong answer is not scored, where gold is"),
        ("leaves", "every probe", "it fails"),
        ("one", "gold", "it fails"),
        ("constant", "every probe", "it gives one value to all: it teaches nothing"),
        ("says_it_looks_at_form", "repeated blocks", BEST),
        ("quadratic", "100,000 characters of answers never closed", "it takes"),
    ],
)
def test_careless_rewards_are_found_out(own: str, name: str, probe: str, problem: str) -> None:
    found = {(finding.probe, finding.problem) for finding in checked(f"{own}:{name}").findings}
    assert any(of_probe == probe and what.startswith(problem) for of_probe, what in found), found


def test_a_failure_names_its_record(own: str) -> None:
    (finding, *_) = [f for f in checked(f"{own}:fails_on_ten").findings if f.probe == "gold"]
    assert (finding.record, finding.failed, finding.tried) == (TEN, 1, len(RECORDS))
    assert finding.value == "reward 'fails_on_ten' failed on records 'number 10': ZeroDivisionError: float division by zero"


def test_a_pattern_that_takes_for_ever_is_stopped(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_LIMIT_S", 0.5)
    findings = checked(f"{own}:slow_pattern", RECORDS[:1]).findings
    assert any(isinstance(found.value, str) and found.value.startswith("took over") for found in findings)


def test_what_a_reward_looks_at_decides_what_it_must_see(own: str) -> None:
    report = checked(f"{own}:length")
    assert report.looks_at == []
    assert report.findings == []


def test_long_numbers_have_wrong_answers_too() -> None:
    assert checked("accuracy", [record("number", "2000000"), record("number", "1234567.25")]).findings == []


def test_async_rewards_are_checked_too(own: str) -> None:
    report = checked(f"{own}:later", RECORDS[:1])
    assert report.looks_at == ["answer"]
    assert problems(report)["gold as 'b'"] == LESS


def test_evidence_and_poses_have_probes_of_their_own() -> None:
    seen = record("number", "4", extra={"evidence": {"sight": ["red disc|circle"], "sound": ["beep"]}})
    names = {probe.name for probe in probes_of(seen)}
    assert "thinking mentions nothing" in names
    gold = next(probe for probe in probes_of(seen) if probe.name == "gold")
    assert gold.text == "<think>I see red disc. I hear beep. So the answer is 4.</think><answer>4</answer>"
    pose = record("pose", "arms raised", values=tuple(float(i % 4 == 0) for i in range(9)) * 24)
    gold = next(probe for probe in probes_of(pose) if probe.name == "gold")
    assert len(gold.text.partition("<answer>")[2].split()) == 216
