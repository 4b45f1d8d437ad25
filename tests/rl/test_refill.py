"""Groups without spread are replaced: which, by what, how often; and what a step then learns is what the final set alone would teach."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import trainers
from omnistage.rewards import rollouts
from omnistage.rewards.base import About, marked
from omnistage.rl import credit
from omnistage.rl.grpo_trainer import OmniGRPOTrainer
from omnistage.rl.sampler import Pool
from omnistage.rl.shared_prefix import decode
from world import World

G, P = 2, 4


class Scripted(OmniGRPOTrainer):
    """What is said of a prompt follows from the prompt, and what was asked for is noted; all else is the real thing."""

    def _sample(self, heads: Any, num_generations: int) -> list[list[int]]:
        self.asked: list[int] = [*getattr(self, "asked", []), len(heads)]
        out = []
        for row in heads:
            first = (sum(row.ids) * 7 + int(1000 * float(row.positions.float().mean()))) % 150 + 20
            out += [[first + 31 * k + t for t in range(3 + k)] + [self._tokenizer.eos_token_id] for k in range(num_generations)]
        return out


class Worth:
    """A reward of 1 and 0 in turn, but the same for all completions of the records that are `flat`."""

    __name__ = "worth"

    def __init__(self, flat: Sequence[str], values: Sequence[float | None] = (1.0, 0.0), flat_value: float | None = 0.25) -> None:
        self.flat, self.values, self.flat_value = frozenset(flat), values, flat_value

    def __call__(self, completions: list[Any], record_id: list[str], **columns: Any) -> list[float | None]:
        turns = [self.values[at % len(self.values)] for at in range(len(completions))]
        return [self.flat_value if name in self.flat else value for name, value in zip(record_id, turns, strict=True)]


def trainer_for(world: World, tmp_path: Path, rewards: list[Any], rounds: int, **settings: Any) -> Any:
    """Four groups of two a step of eight records; `kind` may be given."""
    kind = settings.pop("kind", Scripted)
    given = {"num_generations": G, "per_device_train_batch_size": P * G, "max_completion_length": 6} | settings
    trainer = trainers.trainer_for(world, world.records("video"), tmp_path, rewards, kind=kind, **given)
    trainer.refill_rounds = rounds
    return trainer


def first_ids(trainer: Any) -> list[str]:
    """The records that the first step draws, in order."""
    return [row["record_id"] for row in first_rows(trainer)[::G]]


def first_rows(trainer: Any) -> list[dict[str, Any]]:
    return list(next(iter(trainer.get_train_dataloader())))


def step(trainer: Any, rows: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The batch of these rows, and the gradients of its loss."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    batch = trainer._generate_and_score_completions(rows)
    trainer.compute_loss(trainer.model, batch).backward()
    return batch, {name: value.grad.clone() for name, value in trainer.model.named_parameters() if value.grad is not None}


def metrics(trainer: Any, *names: str) -> list[float]:
    return [trainer._metrics["train"][f"groups/{name}"][-1] for name in names]


def drawn_order(world: World, tmp_path: Path) -> tuple[list[str], list[str]]:
    """Records of the first step, and those outside it in the order in which they are drawn."""
    trainer = trainer_for(world, tmp_path, [Worth([])], 0)
    rows = first_rows(trainer)
    ids = [record.id for record in world.records("video")]
    return [row["record_id"] for row in rows[::G]], [ids[at] for at in trainer._further(rows)]


def test_a_group_without_spread_is_replaced_in_its_place(world: World, tmp_path: Path) -> None:
    """Two of four are flat; of the two drawn for them one is flat, too: the next round draws one more."""
    step_ids, order = drawn_order(world, tmp_path)
    assert len(order) == 4
    assert not set(order) & set(step_ids)
    steps: dict[int, list[dict[str, Any]]] = {}
    trainer = trainer_for(world, tmp_path, [Worth([step_ids[0], step_ids[2], order[0]])], 2, recorder=steps.__setitem__)
    batch, _ = step(trainer, first_rows(trainer))
    assert trainer.asked == [4, 2, 1]
    rows = steps[1]
    expected = [order[1], step_ids[1], order[2], step_ids[3]]
    assert [row["record_id"] for row in rows if not row["dropped"]][::G] == expected
    assert [trainer.encoder(trainer.records[name]) for name in expected] == batch["encoded"][::G]
    assert (batch["advantages"] != 0).all()
    assert metrics(trainer, "no_spread", "no_spread_after", "refilled", "drawn_again") == [0.5, 0.0, 0.5, 0.75]


def test_what_was_dropped_is_recorded_too(world: World, tmp_path: Path) -> None:
    def noting(completions: list[Any], record_id: list[str], log_extra: Any, **columns: Any) -> list[float]:
        log_extra("of", list(record_id))
        return [0.0] * len(completions)

    step_ids, order = drawn_order(world, tmp_path)
    folder = tmp_path / "rollouts"
    trainer = trainer_for(
        world, tmp_path, [Worth([step_ids[3], order[0]]), noting], 2, recorder=lambda number, rows: rollouts.write(folder, number, rows)
    )
    trainer.train()
    (rows,) = rollouts.read(folder)
    kept, dropped = rows[: P * G], rows[P * G :]
    assert [row["dropped"] for row in rows] == [False] * 8 + [True] * 4
    assert [row["record_id"] for row in kept[::G]] == [*step_ids[:3], order[1]]
    assert [row["record_id"] for row in dropped[::G]] == [order[0], step_ids[3]]
    assert [row["group"] for row in rows] == [at // G for at in range(12)]
    assert [row["reward/worth"] for row in dropped] == [0.25] * 4
    assert [row["advantage"] for row in dropped] == [None] * 4
    assert all(row["extra/of"] == f'"{row["record_id"]}"' for row in rows), "logged columns follow their completions"
    assert all(row["completion_ids"] and row["messages"] and row["prompt"] for row in dropped)


def test_rounds_are_bounded_and_what_has_no_spread_stays(world: World, tmp_path: Path) -> None:
    """Everything is flat: two rounds of four and of none, as eight records leave four to draw."""
    everything = [record.id for record in world.records("video")]
    steps: dict[int, list[dict[str, Any]]] = {}
    trainer = trainer_for(world, tmp_path, [Worth(everything)], 3, recorder=steps.__setitem__)
    ids = first_ids(trainer)
    batch, gradients = step(trainer, first_rows(trainer))
    assert trainer.asked == [4, 4]
    assert [row["record_id"] for row in steps[1] if not row["dropped"]][::G] == ids
    assert (batch["advantages"] == 0).all()
    assert all((value == 0).all() for value in gradients.values())
    assert metrics(trainer, "no_spread", "no_spread_after", "refilled", "drawn_again") == [1.0, 1.0, 0.0, 1.0]
    once = trainer_for(world, tmp_path, [Worth(ids)], 1)
    once.pools = [Pool(tuple(range(8)), 1.0)]
    step(once, first_rows(once))
    assert once.asked == [4, 4], "one round replaces all four"
    assert metrics(once, "no_spread_after") == [0.0]


def part(values: list[float], segment: Any) -> Callable[..., Any]:
    """A reward for a segment; it differs for every prompt."""

    def of_part(completions: list[Any], **columns: Any) -> list[float]:
        return [values[at % len(values)] for at in range(len(completions))]

    return marked(of_part, About(segment=segment))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scale_rewards": "batch", "beta": 0.1},
        {"multi_objective_aggregation": "normalize_then_sum"},
        {"loss_type": "grpo"},
        {"num_iterations": 2, "gradient_accumulation_steps": 1},
    ],
    ids=["group", "batch_and_reference", "normalize_then_sum", "grpo", "old_log_probs"],
)
def test_the_step_is_that_of_its_final_set_alone(world: World, tmp_path: Path, settings: dict[str, Any]) -> None:
    """Every entry of the batch, the gradients, and what is logged, against a step that was given the final prompts at once."""
    step_ids, order = drawn_order(world, tmp_path)
    values = [1.0, 0.0, 0.5, 0.25]
    worth = Worth([step_ids[0], step_ids[2], order[0]], values)
    refilled = trainer_for(world, tmp_path, [worth], 2, **settings)
    found, gradients = step(refilled, first_rows(refilled))

    plain = trainer_for(world, tmp_path, [Worth([], values)], 0, **settings)
    rows = {row["record_id"]: dict(row) for row in plain.train_dataset}
    final = [order[1], step_ids[1], order[2], step_ids[3]]
    # A prompt's two values depend on its place in the call that scored it: both rounds drew it first.
    given = {order[1]: [0.5, 0.25], step_ids[1]: [0.5, 0.25], order[2]: [1.0, 0.0], step_ids[3]: [0.5, 0.25]}
    plain.reward_funcs = [lambda completions, record_id, **columns: [given[name][at % G] for at, name in enumerate(record_id)]]
    wanted, theirs = step(plain, [rows[name] for name in final for _ in range(G)])

    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-7, msg=name)
    assert found["num_items_in_batch"] == found["completion_mask"].sum()
    assert [len(row.ids) for row in found["encoded"]] == [len(row.ids) for row in wanted["encoded"]]
    assert gradients.keys() == theirs.keys()
    assert max(float(value.abs().max()) for value in theirs.values()) > 0
    for name, value in theirs.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-5, atol=1e-7, msg=name)
    for name in ("reward", "rewards/worth/mean", "completions/mean_length", "frac_reward_zero_std"):
        assert refilled._metrics["train"][name] == pytest.approx(plain._metrics["train"][name]), name
    # Of the first four prompts two are flat: (0.25 + (0.5 + 0.25) / 2 + 0.25 + (0.5 + 0.25) / 2) / 4
    assert refilled._metrics["train"]["reward_before_refill"] == pytest.approx([0.3125])


def test_without_a_flat_group_nothing_is_drawn_again(world: World, tmp_path: Path) -> None:
    """Really sampled, with the same random numbers: two steps with and without are the same to the last bit."""
    weights = []
    for rounds in (0, 2):
        torch.manual_seed(7)
        trainer = trainer_for(world, tmp_path, [Worth([])], rounds, kind=OmniGRPOTrainer, max_steps=2, logging_steps=1)
        trainer.train()
        weights.append([value.detach().clone() for value in trainer.model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))
    logs = trainer.state.log_history
    assert [logs[0][f"groups/{name}"] for name in ("no_spread", "drawn_again")] == [0.0, 0.0]


def test_log_probs_of_other_prompts_are_never_taken(world: World, tmp_path: Path) -> None:
    """A policy that always says the same draws the same tokens for other prompts, too; theirs were noted last."""
    everything = [record.id for record in world.records("video")]
    model = world.model()
    end = world.encoder(model).processor.tokenizer.eos_token_id
    batches = []
    for reuse in (True, False):
        worth = Worth([])
        trainer = trainer_for(
            world,
            tmp_path,
            [worth],
            1,
            kind=OmniGRPOTrainer,
            num_iterations=2,
            generation_kwargs={"suppress_tokens": [token for token in range(model.vocab_size) if token != end]},
        )
        trainer.sharing.reuse = reuse
        step(trainer, first_rows(trainer))
        worth.flat = frozenset(everything)
        batches.append(step(trainer, first_rows(trainer))[0])
        assert metrics(trainer, "drawn_again", "refilled") == [1.0, 0.0]
    assert batches[0]["completion_ids"].unique().tolist() == [end]
    assert (batches[0]["old_per_token_logps"] - batches[1]["old_per_token_logps"]).abs().max() <= 1e-5


def test_what_a_rollout_noted_is_proved_behind_a_refilled_step_too(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step, one of whose groups is replaced, is scored; the next one's shapes are known, and what it notes is wrong."""
    right = decode._by_kernel
    monkeypatch.setattr(decode, "_by_kernel", lambda query, key, value, *others: right(query, key, torch.zeros_like(value), *others))
    calls = []

    def worth(completions: list[Any], **columns: Any) -> list[float]:
        calls.append(len(completions))
        return [0.0 if len(calls) == 1 and at < G else float(at % 2) for at in range(len(completions))]

    trainer = trainer_for(world, tmp_path, [worth], 1, kind=OmniGRPOTrainer, num_iterations=2, max_steps=4)
    with pytest.warns(UserWarning, match="log-probs noted while sampling differ from the plain way by .*: those of the rollout policy are"):
        trainer.train()
    assert calls == [P * G, G, P * G]
    assert not trainer.sharing.reuse


def test_a_segment_or_what_is_not_scored_counts(world: World, tmp_path: Path) -> None:
    """A flat total with a segment's reward that differs teaches; a group of which one completion is scored does not."""
    everything = [record.id for record in world.records("video")]
    taught = trainer_for(world, tmp_path, [Worth(everything), part([1.0, 0.0], "answer")], 1)
    step(taught, first_rows(taught))
    assert taught.asked == [4]
    untaught = trainer_for(world, tmp_path, [Worth([], [1.0, None])], 1)
    step(untaught, first_rows(untaught))
    assert metrics(untaught, "no_spread") == [1.0]


NAN = math.nan


@pytest.mark.parametrize(
    ("values", "weights", "spread"),
    [
        ([[0.3], [0.3]], [1.0], False),
        ([[0.3], [0.30001]], [1.0], True),
        ([[NAN], [NAN]], [1.0], False),
        ([[NAN], [0.5]], [1.0], False),
        ([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0], False),
        ([[1.0, 0.0], [0.0, 1.0]], [1.0, 0.5], True),
        ([[1.0, 0.0], [0.0, 0.0]], [0.0, 1.0], False),
        ([[0.1, 0.7], [0.7, 0.1]], [1.0, 1.0], False),
        ([[0.8, NAN], [0.8, 1.0]], [1.0, 1.0], False),
    ],
)
def test_spread_is_what_advantages_see(values: list[list[float]], weights: list[float], spread: bool) -> None:
    """Sums that differ; what one reward did not score is taken for its mean in the group."""
    rewards, factors = torch.tensor(values), torch.tensor(weights)
    (found,) = credit.has_spread(rewards, factors, G, aggregation="sum_then_normalize").tolist()
    assert found is spread
    made = credit.advantages(rewards, factors, G, scale="group", aggregation="sum_then_normalize")
    assert bool((made.abs() > 1e-2).any()) is spread


def test_each_reward_counts_where_each_is_normalized() -> None:
    rewards = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1e3, 0.5], [1e3, 0.25], [1.0, NAN], [1.0, 0.5]])
    found = credit.has_spread(rewards, torch.tensor([1.0, 1.0]), G, aggregation="normalize_then_sum")
    assert found.tolist() == [True, True, False]


class Half:
    """Flat for the records whose number is even; so that every step has groups to replace."""

    __name__ = "half"

    def __call__(self, completion_ids: list[list[int]], record_id: list[str], **columns: Any) -> list[float]:
        odd = trainers.odd_tokens(completion_ids)
        return [0.0 if int(name.rpartition("_")[2]) % 2 == 0 else value for name, value in zip(record_id, odd, strict=True)]


def test_a_resumed_run_draws_what_the_uninterrupted_one_drew(world: World, tmp_path: Path) -> None:
    """Four steps, really sampled, and the last two again from the checkpoint after the second: same prompts, same weights to the bit."""

    def run(steps: dict[int, list[dict[str, Any]]], **how: Any) -> Any:
        torch.manual_seed(3)
        trainer = trainer_for(
            world,
            tmp_path,
            [Half()],
            2,
            kind=OmniGRPOTrainer,
            recorder=steps.__setitem__,
            max_steps=4,
            per_device_train_batch_size=2 * G,
            gradient_accumulation_steps=2,
            save_strategy="steps",
            save_steps=2,
        )
        trainer.train(**how)
        return trainer

    whole: dict[int, list[dict[str, Any]]] = {}
    again: dict[int, list[dict[str, Any]]] = {}
    first = run(whole)
    second = run(again, resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert list(again) == [3, 4]
    for number, rows in again.items():
        assert rows == whole[number]
        assert any(row["dropped"] for row in rows), "else the test could not fail"
    for ours, theirs in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
