"""One pool a step, whole groups, fair turns, and the same order from the same seed."""

from __future__ import annotations

from collections import Counter

import pytest

from omnistage.rl.sampler import Pool, StepSampler

POOLS = [Pool(tuple(range(10)), 0.6), Pool(tuple(range(10, 14)), 0.4)]


def steps(sampler: StepSampler, size: int) -> list[list[int]]:
    rows = list(sampler)
    return [rows[i : i + size] for i in range(0, len(rows), size)]


def test_a_step_holds_one_pool_in_whole_groups() -> None:
    sampler = StepSampler(POOLS, prompts=3, steps=20, repeats=4, seed=1)
    found = steps(sampler, 12)
    assert len(found) == 20
    assert len(list(sampler)) == len(sampler)
    for step in found:
        assert len({row < 10 for row in step}) == 1
        groups = [step[i : i + 4] for i in range(0, 12, 4)]
        assert all(len(set(group)) == 1 for group in groups)
        assert len({group[0] for group in groups}) == 3


def test_turns_follow_the_weights() -> None:
    """Weights 0.6 and 0.4: after any number of steps no pool is a whole step away from its share."""
    turns = StepSampler(POOLS, prompts=1, steps=50).turns()
    for n in range(1, 51):
        assert abs(turns[:n].count(0) - 0.6 * n) < 1
    assert Counter(turns) == {0: 30, 1: 20}


def test_every_row_comes_once_an_epoch() -> None:
    rows = list(StepSampler([Pool(tuple(range(10)), 1.0)], prompts=5, steps=6, seed=2))
    for start in range(0, 30, 10):
        assert sorted(rows[start : start + 10]) == list(range(10))
    assert rows[:10] != rows[10:20]


def test_passes_repeat_the_step() -> None:
    found = steps(StepSampler(POOLS, prompts=2, steps=4, repeats=2, passes=3, seed=0), 4)
    assert len(found) == 12
    assert all(found[i] == found[i + 1] == found[i + 2] for i in range(0, 12, 3))


def test_the_seed_decides() -> None:
    one, same, other = (list(StepSampler(POOLS, prompts=2, steps=9, seed=seed)) for seed in (5, 5, 6))
    assert one == same != other


def test_a_saved_state_goes_on_where_it_stopped() -> None:
    """Stopped inside a group, in another object of the same arguments: the rest is the rest, and the iteration after it is whole."""

    def made() -> StepSampler:
        return StepSampler([Pool(tuple(range(5)), 1.0), Pool(tuple(range(5, 9)), 2.0)], prompts=2, steps=7, repeats=3, passes=2, seed=4)

    whole = list(made())
    first = made()
    iterator = iter(first)
    begun = [next(iterator) for _ in range(31)]
    second = made()
    second.load_state_dict(first.state_dict())
    assert begun + list(second) == whole
    assert second.state_dict() == {"given": len(whole)}
    assert list(second) == whole
    with pytest.raises(ValueError, match="999 indices for a stage of 84"):
        second.load_state_dict({"given": 999})
