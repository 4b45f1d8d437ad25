"""Several rewards in one step: how they are summed, which tokens they reach, what is logged and what is recorded."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import trainers
from omnistage.data.records import Record
from omnistage.rewards import base, rollouts
from omnistage.rewards.base import About, marked
from omnistage.rl import credit
from omnistage.rl.grpo_trainer import OmniGRPOTrainer
from world import World

G = 4
TEXTS = [
    "<think>so red</think><answer>A</answer>",
    "<think>red red red</think><answer>B</answer>",
    "<think>blue so</think><answer>A</answer>",
    "<think>so</think><answer>C</answer>",
]


def scripted(values: list[float | None], name: str, segment: base.Segment | None = None) -> Callable[..., Any]:
    """A reward with the same values for each group."""

    def function(completions: list[Any], **columns: Any) -> list[float | None]:
        return [values[at % len(values)] for at in range(len(completions))]

    function.__name__ = name
    return marked(function, About(segment=segment))


class Scripted(OmniGRPOTrainer):
    """Completions are given, so that they hold segments; all else is the real thing."""

    texts = TEXTS

    def _sample(self, heads: Any, num_generations: int) -> list[list[int]]:
        ids = [[*self._tokenizer(text).input_ids, self._tokenizer.eos_token_id] for text in self.texts]
        return [list(ids[at % len(ids)]) for _ in heads for at in range(num_generations)]


def trainer_for(world: World, tmp_path: Path, rewards: list[Any], kind: type[OmniGRPOTrainer] = Scripted, **settings: Any) -> Any:
    records = settings.pop("records", None) or world.records("video")[:4]
    given = {"num_generations": G, "max_completion_length": 40} | settings
    return trainers.trainer_for(world, records, tmp_path, rewards, kind=kind, **given)


def token_gradients(trainer: Any) -> tuple[torch.Tensor, dict[str, Any]]:
    """d loss / d log-prob [B, C] of each completion token in one training step, and the step's batch."""
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    kept: list[torch.Tensor] = []
    score = trainer._get_per_token_logps_and_entropies

    def watched(*arguments: Any, **settings: Any) -> Any:
        log_probs, *others = score(*arguments, **settings)
        log_probs.retain_grad()
        kept.append(log_probs)
        return (log_probs, *others)

    trainer._get_per_token_logps_and_entropies = watched
    trainer.compute_loss(trainer.model, batch).backward()
    assert kept[-1].grad is not None
    return kept[-1].grad, batch


def masks(trainer: Any, batch: dict[str, Any], segment: base.Segment) -> torch.Tensor:
    rows = [ids[: int(mask.sum())].tolist() for ids, mask in zip(batch["completion_ids"], batch["completion_mask"], strict=True)]
    width = batch["completion_ids"].shape[1]
    made = [credit.segment_mask(trainer._decoded, ids, segment) for ids in rows]
    return torch.tensor([mask + [False] * (width - len(mask)) for mask in made])


@pytest.mark.parametrize("segment", ["think", "answer"])
def test_a_segments_reward_changes_the_gradient_of_its_tokens_and_of_no_others(world: World, tmp_path: Path, segment: base.Segment) -> None:
    """Hazard 6: a partial reward that never reaches the gradient, or reaches it through the total."""
    whole = scripted([1.0, 0.0, 1.0, 0.0], "whole")
    before, batch = token_gradients(trainer_for(world, tmp_path, [whole, scripted([0.0, 1.0, 0.0, 0.0], "part", segment)]))
    trainer = trainer_for(world, tmp_path, [whole, scripted([1.0, 0.0, 0.0, 0.5], "part", segment)])
    after, again = token_gradients(trainer)
    assert torch.equal(batch["completion_ids"], again["completion_ids"])
    mask = masks(trainer, batch, segment)
    changed = (before - after).abs() > 1e-9
    assert mask.any()
    assert mask.sum() < batch["completion_mask"].sum(), "else the test could not fail"
    moved = torch.tensor([True, True, False, True]).repeat(2)[:, None] & mask
    assert torch.equal(changed & mask, changed), "no token outside the segment"
    assert changed[moved].all(), "every token inside it, of completions whose advantage changed"


def test_the_whole_completions_reward_reaches_every_token(world: World, tmp_path: Path) -> None:
    gradient, batch = token_gradients(trainer_for(world, tmp_path, [scripted([1.0, 0.0, 0.5, 0.25], "whole")]))
    assert torch.equal(gradient != 0, batch["completion_mask"].bool())


def test_segments_alone_train_their_tokens(world: World, tmp_path: Path) -> None:
    trainer = trainer_for(world, tmp_path, [scripted([1.0, 0.0, 0.5, 0.25], "part", "answer")])
    gradient, batch = token_gradients(trainer)
    assert torch.equal(gradient != 0, masks(trainer, batch, "answer"))


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_segments_get_the_advantages_that_trl_gives_whole_completions(world: World, tmp_path: Path, aggregation: str, scale: str) -> None:
    rewards = [scripted([1.0, 0.0, 0.5, None, 0.1, 0.2, 0.9, 0.0], "a"), scripted([3.0, None, 1.0, None, 2.0, 2.0, 2.0, 1.0], "b")]
    weights = [1.0, 0.25]
    trainer = trainer_for(world, tmp_path, rewards, reward_weights=weights, multi_objective_aggregation=aggregation, scale_rewards=scale)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    ours = credit.advantages(trainer._values, torch.tensor(weights), G, scale=scale, aggregation=aggregation)
    assert ours.abs().max() > 0.05
    assert sorted(ours.tolist()) == pytest.approx(sorted(batch["advantages"].tolist()), abs=1e-6)


def test_each_reward_is_logged_by_modality_and_task(world: World, tmp_path: Path) -> None:
    records = world.records("video")[:2]
    trainer = trainer_for(world, tmp_path, [scripted([1.0, 0.0, None, 0.5], "a"), scripted([0.0, 1.0], "b", "think")], records=records)
    trainer.train()
    logs = trainer.state.log_history[0]
    assert logs["rewards/a/mean"] == pytest.approx(0.5)
    assert logs["rewards/a/not_scored"] == pytest.approx(0.25)
    assert logs["rewards/a/modality/video/mean"] == pytest.approx(0.5)
    assert logs["rewards/a/modality/video/std"] == pytest.approx(torch.tensor([1.0, 0.0, 0.5]).repeat(2).std().item())
    assert logs["rewards/b/mean"] == pytest.approx(0.5), "a segment's reward is logged as any other"
    for record in records:
        assert logs[f"rewards/a/task/{record.task}/not_scored"] == pytest.approx(0.25)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_a_reward_did_not_score_is_judged_by_the_others(world: World, tmp_path: Path, sign: float) -> None:
    """Hazard 21 in training: TRL's sum takes None for zero as soon as another reward scores the completion."""
    judge, right = scripted([0.8 * sign, None, 0.8 * sign, 0.8 * sign], "judge"), scripted([1.0, 1.0, 1.0, 0.0], "right")
    trainer = trainer_for(world, tmp_path, [judge, right], scale_rewards="none")
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    assert batch["advantages"].sort().values.tolist() == pytest.approx([-0.75] * 2 + [0.25] * 6, abs=1e-6)
    assert trainer._metrics["eval"]["rewards/judge/mean"] == [pytest.approx(0.8 * sign)]


def test_columns_that_a_step_did_not_log_are_not_those_of_the_step_before(world: World, tmp_path: Path) -> None:
    calls: list[int] = []

    def noting(completions: list[Any], log_extra: Any, **columns: Any) -> list[float]:
        calls.append(len(completions))
        if len(calls) == 1:
            log_extra("note", ["first"] * len(completions))
        return [float(at % 2) for at in range(len(completions))]

    steps: dict[int, list[dict[str, Any]]] = {}
    trainer_for(world, tmp_path, [noting], max_steps=2, recorder=steps.__setitem__).train()
    assert ["extra/note" in steps[step][0] for step in (1, 2)] == [True, False]


def test_every_completion_is_recorded_with_its_rewards(world: World, tmp_path: Path) -> None:
    def noting(completions: list[Any], log_extra: Any, **columns: Any) -> list[float | None]:
        log_extra("seen", [f"c{at}" for at in range(len(completions))])
        return [0.5 if at % 2 else None for at in range(len(completions))]

    records = world.records("audio_video")[:2]
    whole, part = scripted([1.0, 0.0, 1.0, 0.0], "whole"), scripted([1.0, 0.0], "part", "think")
    folder = tmp_path / "rollouts"
    trainer = trainer_for(
        world, tmp_path, [whole, part, noting], records=records, recorder=lambda step, rows: rollouts.write(folder, step, rows)
    )
    trainer.train()
    (rows,) = rollouts.read(folder)
    assert [row["step"] for row in rows] == [1] * 8
    assert [row["group"] for row in rows] == [0] * 4 + [1] * 4
    assert [row["completion"] for row in rows] == TEXTS * 2
    assert [row["reward/whole"] for row in rows] == [1.0, 0.0] * 4
    assert [row["reward/noting"] for row in rows] == [None, 0.5] * 4
    assert [row["extra/seen"] for row in rows] == [f'"c{at}"' for at in range(8)]
    assert {row["record_id"] for row in rows} == {record.id for record in records}
    by_id = {record.id: record for record in records}
    for row in rows:
        assert {name: row[name] for name in base.ROW_COLUMNS} == base.columns_of(by_id[row["record_id"]])
    for at, row in enumerate(rows):
        assert math.copysign(1, row["advantage/think"]) == (1 if at % 2 == 0 else -1)
        assert abs(row["advantage"]) > 0


class Sampling(OmniGRPOTrainer):
    """Notes the prompts that completions are drawn for."""

    def _sample(self, heads: Any, num_generations: int) -> list[list[int]]:
        self.drawn = [*getattr(self, "drawn", []), (list(heads), num_generations)]
        return super()._sample(heads, num_generations)


def needing(seen: list[list[str]]) -> Callable[..., Any]:
    def temporal(completions: list[Any], shuffled: list[list[str]], **columns: Any) -> list[float | None]:
        seen.extend(shuffled)
        return [float(at % 2) for at in range(len(completions))]

    return marked(temporal, About(needs=frozenset({"shuffled"})))


def drawn_for(world: World, tmp_path: Path, records: list[Record]) -> tuple[list[list[str]], list[Any]]:
    seen: list[list[str]] = []
    trainer = trainer_for(world, tmp_path, [needing(seen)], Sampling, records=records, max_completion_length=6)
    trainer.train()
    return seen, trainer.drawn


def test_a_reward_can_ask_for_completions_of_shuffled_frames(world: World, tmp_path: Path) -> None:
    seen, ((shuffled, fewer), (ordered, all_)) = drawn_for(world, tmp_path, world.records("video")[:2])
    assert (fewer, all_) == (G // 2, G)
    for one, other in zip(shuffled, ordered, strict=True):
        assert one.ids == other.ids
        assert not torch.equal(one.pictures, other.pictures)
        values = (picture.flatten().sort().values for picture in (one.pictures, other.pictures))
        torch.testing.assert_close(*values)
    assert [len(texts) for texts in seen] == [G // 2] * (G * 2)
    assert seen[:G] == [seen[0]] * G


def test_sound_has_no_frames_to_shuffle(world: World, tmp_path: Path) -> None:
    seen, drawn = drawn_for(world, tmp_path, world.records("audio")[:2])
    assert seen == [[]] * (G * 2)
    assert len(drawn) == 1
