"""Which rollouts are shown: the same ones each time, of every step and filter, and told apart rightly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omnistage.stages.report import collect, rollouts
from omnistage.stages.report.order import spread_order
from omnistage.stages.report.reading import Notes
from omnistage.stages.report.texts import FIRST, LAST, parts_of
from report_run import completion, recorded


def groups(folder: Path) -> list[rollouts.Group]:
    return rollouts.groups_of(folder, collect.collect(folder)["stages"], Notes())


def test_groups_are_told_apart(tmp_path: Path) -> None:
    """Step 1: a is worth 2 × (0 + 1) / 2 = 1, and b 0 both times; step 2: a falls to 0, b rises to 1; c is not scored."""
    first = [completion("a", 0, "x", 0.0), completion("a", 0, "y", 1.0), completion("b", 1, "x", 0.0), completion("b", 1, "y", 0.0)]
    second = [completion("a", 0, "x", 0.0), completion("a", 0, "y", 0.0), completion("b", 1, "x", 1.0), completion("b", 1, "y", 0.0)]
    unscored = [completion("c", 2, "x", None), completion("c", 2, "y", None)]
    found = {(g.step, g.record_id): g for g in groups(recorded(tmp_path, {1: first, 2: [*second, *unscored]}))}
    told = {key: (g.mean, g.no_spread, g.fell) for key, g in found.items()}
    assert told == {
        (1, "a"): (1.0, False, False),
        (1, "b"): (0.0, True, False),
        (2, "a"): (0.0, True, True),
        (2, "b"): (1.0, False, False),
        (2, "c"): (None, False, False),
    }
    assert found[2, "a"].before == 1.0


def test_a_record_drawn_twice_in_one_step_has_not_fallen(tmp_path: Path) -> None:
    """Worth 2 and 0 in step 1, of which neither came first; the 0.5 of step 2 are less than the 1 that it was worth on average."""
    twice = [completion("a", 0, "x", 1.0), completion("a", 1, "y", 0.0)]
    found = groups(recorded(tmp_path, {1: twice, 2: [completion("a", 0, "x", 0.25)], 3: [completion("a", 0, "x", 0.5)]}))
    assert [(g.step, g.before, g.fell) for g in found] == [(1, None, False), (1, None, False), (2, 1.0, True), (3, 0.5, False)]


def many(steps: int, per_step: int, size: int = 4) -> dict[int, list[dict[str, Any]]]:
    """Every 50th group has no spread."""
    return {
        step: [
            completion(
                f"r{(step * per_step + g) % 97}", g, f"text {step} {g} {at}", 0.0 if (step * per_step + g) % 50 == 0 else at % 2 + 0.0
            )
            for g in range(per_step)
            for at in range(size)
        ]
        for step in range(1, steps + 1)
    }


def test_every_step_and_filter_has_its_sample_and_the_order_is_the_same(tmp_path: Path) -> None:
    folder = recorded(tmp_path, many(20, 5))
    found = groups(folder)
    assert len(found) == 100
    ranked = rollouts.ranked(found)
    assert sorted(ranked, key=lambda g: g.digest) == sorted(found, key=lambda g: g.digest)
    first = ranked[:26]
    assert {g.step for g in first} == set(range(1, 21))
    assert sum(g.no_spread for g in first) == 2
    assert ranked == rollouts.ranked(list(reversed(found)))


def test_few_of_many_steps_are_spread() -> None:
    assert spread_order(list(range(9)))[:5] == [8, 0, 4, 2, 6]
    for count in (0, 1, 2, 3, 17, 100):
        assert sorted(spread_order(list(range(count)))) == list(range(count))


def test_a_sample_holds_what_was_recorded(tmp_path: Path) -> None:
    rows = [
        completion(
            "a",
            0,
            "<think>up</think> so <answer>A</answer>",
            1.0,
            advantage=0.7,
            **{"extra/why": "looks right", "extra/judge/reason": "unclear"},
        ),
        completion("a", 0, "no", None, advantage=-0.7, **{"extra/why": None, "extra/judge/reason": None}),
    ]
    folder = recorded(tmp_path, {1: rows})
    (group,) = groups(folder)
    sample = rollouts.samples_of([group], {"video": {"right": 2.0}}, Notes())[group]
    good, bad = sample["completions"]
    assert [(part["kind"], part["text"]) for part in good["parts"]] == [
        ("tag", "<think>"),
        ("think", "up"),
        ("tag", "</think>"),
        ("text", " so "),
        ("tag", "<answer>"),
        ("answer", "A"),
        ("tag", "</answer>"),
    ]
    assert (good["rewards"], good["total"], good["advantage"], good["said"]) == (
        {"right": 1.0},
        2.0,
        0.7,
        {"why": "looks right", "judge": "unclear"},
    )
    assert (bad["rewards"], bad["total"], "said" in bad) == ({"right": None}, None, False)
    assert (sample["target"], sample["options"], sample["question"]) == ("A", ["left", "right"], "which way?")


def test_long_texts_are_cut_and_say_by_how_much() -> None:
    (part,) = parts_of("a" * FIRST + "b" * 1_000_000 + "c" * LAST)
    assert part == {"kind": "text", "text": "a" * FIRST, "cut": 1_000_000, "end": "c" * LAST}
    kinds = [(part["kind"], part.get("cut")) for part in parts_of("<think>" + "t" * 10_000 + "</think><answer>B</answer>")]
    assert kinds == [("tag", None), ("think", 10_000 - FIRST - LAST), ("tag", None), ("tag", None), ("answer", None), ("tag", None)]


def test_a_damaged_step_is_left_out_and_said(tmp_path: Path) -> None:
    folder = recorded(tmp_path, many(3, 2))
    (folder / "01-video" / "rollouts" / "step-000002.parquet").write_bytes(b"PAR1 no")
    notes = Notes()
    found = rollouts.groups_of(folder, collect.collect(folder)["stages"], notes)
    assert {g.step for g in found} == {1, 3}
    assert ["step-000002.parquet is left out" in note["line"] for note in notes.lines] == [True]


def test_many_damaged_steps_are_one_note(tmp_path: Path) -> None:
    folder = recorded(tmp_path, many(30, 1))
    paths = sorted((folder / "01-video" / "rollouts").iterdir())
    for path in paths[3:]:
        path.write_bytes(b"PAR1 no")
    notes = Notes()
    assert len(rollouts.groups_of(folder, collect.collect(folder)["stages"], notes)) == 3
    (note,) = notes.lines
    assert note["line"].startswith("01-video/rollouts/step-000004.parquet is left out: ")
    assert note["line"].endswith(" (and 26 more alike)")


@pytest.mark.slow
def test_a_hundred_thousand_rollouts_in_two_minutes(tmp_path: Path) -> None:
    import time

    from omnistage.stages.report import page

    folder = recorded(tmp_path / "run", many(800, 16, size=8))
    began = time.monotonic()
    made = page.write(folder, tmp_path / "page.html", max_mb=20, with_plan=False)
    assert time.monotonic() - began < 120
    assert made["bytes"] < 20e6
    assert made["told"].startswith("600 of 12800 prompts")
