"""Clips are read ahead of their step, once, and nothing else is different: same numbers, same errors, no thread that stays."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler
from trl import SFTConfig

from omnistage.data.errors import MediaError
from omnistage.data.media import Clip, MediaLimits
from omnistage.data.records import MediaRef, Record
from omnistage.rewards.base import About, marked
from omnistage.rl.encoding import Encoder
from omnistage.rl.prefetch import Prefetch
from omnistage.rl.sampler import Pool, StepSampler
from omnistage.rl.sft_trainer import OmniSFTTrainer
from omnistage.stages.answering import local, plan
from trainers import G, odd_tokens, trainer_for
from world import World

PATIENCE_S = 60.0


def until(holds: Callable[[], bool]) -> bool:
    """Whether it comes to hold before patience ends."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def workers_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "omnistage-prefetch"]


class Readings:
    """Real decoding that remembers which thread decoded which clip; those behind the first `free` wait until it is `open`."""

    def __init__(self, encoder: Encoder, free: int = 10**6) -> None:
        self.of: list[tuple[str, str]] = []
        self.free = free
        self.open = threading.Event()
        self.decode = encoder.decode
        encoder.decode = self

    def __call__(self, ref: MediaRef, limits: MediaLimits) -> Clip:
        self.of.append((threading.current_thread().name, Path(ref.path).name))
        assert len(self.of) <= self.free or self.open.wait(PATIENCE_S)
        return self.decode(ref, limits)

    def by_workers(self) -> list[str]:
        return [clip for thread, clip in self.of if thread == "omnistage-prefetch"]


def encoder_of(world: World, workers: int) -> Encoder:
    encoder = world.encoder(world.model())
    encoder.workers = workers
    return encoder


# The encoder among threads.


def test_two_who_want_one_prompt_wait_for_one_decode(world: World) -> None:
    encoder = encoder_of(world, 0)
    readings = Readings(encoder, free=0)
    record = world.records("video")[0]
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(encoder(record))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert until(lambda: len(readings.of) == 1)
    time.sleep(0.05)
    assert (len(readings.of), found) == (1, [])
    readings.open.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert found[0] is found[1] is encoder(record)
    assert (len(readings.of), encoder.misses, encoder.hits) == (1, 1, 2)


def test_who_waited_for_a_failure_meets_it_under_its_own_name(world: World) -> None:
    encoder = encoder_of(world, 0)
    readings = Readings(encoder, free=0)
    gone = world.records("video")[0].with_media((MediaRef("video", "gone.mp4"),))
    records = [replace(gone, source=f"file: record {at}") for at in range(2)]
    said: list[str] = []

    def ask(record: Record) -> None:
        with pytest.raises(MediaError) as error:
            encoder(record)
        said.append(str(error.value))

    threads = [threading.Thread(target=ask, args=(record,)) for record in records]
    for thread in threads:
        thread.start()
    assert until(lambda: len(readings.of) == 1)
    readings.open.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(text.split(": ")[1] for text in said) == ["record 0", "record 1"]


# The plan: what a process will be given.


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_process_sees_its_own_batches_come(processes: int) -> None:
    """As accelerate deals them out, here with groups of 4, a step given 3 times, and 2 prompts a process."""
    pools = [Pool(tuple(range(7)), 1.0), Pool(tuple(range(7, 20)), 2.0)]
    for process in range(processes):
        sampler = StepSampler(pools, prompts=2 * processes, steps=9, repeats=4, passes=3, seed=3)
        shard = BatchSamplerShard(BatchSampler(sampler, 8, drop_last=False), processes, process)
        given = list(shard)
        assert len(given) == 27
        planned = list(sampler.batches(2, process=process, processes=processes))
        assert [batch[::4] for batch in given[::3]] == planned
        assert given == [[row for row in batch for _ in range(4)] for batch in planned for _ in range(3)]


def test_a_supervised_step_has_several_batches_of_a_process() -> None:
    for process in range(2):
        sampler = StepSampler([Pool(tuple(range(24)), 1.0)], prompts=12, steps=3, seed=0)
        shard = BatchSamplerShard(BatchSampler(sampler, 2, drop_last=False), 2, process)
        assert list(shard) == list(sampler.batches(2, process=process, processes=2))


def test_a_look_at_the_plan_leaves_a_loaded_state_alone() -> None:
    made = [StepSampler([Pool(tuple(range(9)), 1.0)], prompts=2, steps=6, repeats=2, seed=1) for _ in range(2)]
    made[1].load_state_dict({"given": 12})
    planned = list(made[1].batches(2))
    rest = list(made[1])
    assert rest == list(made[0])[12:]
    assert [rest[at : at + 4 : 2] for at in range(0, 12, 4)] == planned[3:]


# Batches ahead of time.


def test_the_next_batch_is_ready_and_no_more(world: World) -> None:
    """Of four batches of two, with one worker: two clips are decoded while nobody asks, and two more each time that two are taken."""
    encoder = encoder_of(world, 1)
    readings = Readings(encoder)
    records = world.records("video")
    plain = [encoder_of(world, 0)(record) for record in records]
    batches = [records[at : at + 2] for at in range(0, 8, 2)]
    with Prefetch(encoder) as prefetch:
        prefetch.follow(batches)
        for at, batch in enumerate(batches):
            assert until(lambda: not workers_left())
            assert len(readings.by_workers()) == 2 * (at + 1)
            rows = prefetch.take([record for record in batch for _ in range(G)])
            assert rows[0] is rows[1]
            for row, expected in zip(rows[::G], plain[2 * at :], strict=False):
                assert row.ids == expected.ids
                assert row.pictures is not None
                assert expected.pictures is not None
                assert row.pictures.equal(expected.pictures)
    assert len(readings.of) == len(records)
    waited_s, decoded = prefetch.spent()
    assert (waited_s > 0, decoded, prefetch.spent()) == (True, 8, (0.0, 0))


def test_what_is_ready_keeps_to_the_encoders_bound(world: World) -> None:
    """With room for one and a half clips, two of four are ready ahead of time, and kept although the encoder keeps only the last."""
    encoder = encoder_of(world, 1)
    records = world.records("video")[:4]
    encoder.cache_bytes = int(1.5 * encoder_of(world, 0).bytes_of(encoder_of(world, 0)(records[0])))
    with Prefetch(encoder) as prefetch:
        prefetch.follow([records])
        assert until(lambda: not workers_left())
        assert encoder.misses == 2
        prefetch.take(records)
    assert encoder.misses == 4


def test_who_needs_a_batch_helps(world: World) -> None:
    """While the worker is held up with the first clip, the thread that waits for the batch reads the others."""
    encoder = encoder_of(world, 1)
    readings = Readings(encoder, free=0)
    records = world.records("video")[:4]
    with Prefetch(encoder) as prefetch:
        prefetch.follow([records])
        assert until(lambda: len(readings.of) == 1)
        threading.Timer(0.2, readings.open.set).start()
        prefetch.take(records)
    assert len(readings.by_workers()) < 4
    assert sorted(clip for _, clip in readings.of) == sorted(Path(record.media[0].path).name for record in records)


def test_another_batch_in_between_changes_nothing(world: World) -> None:
    encoder = encoder_of(world, 1)
    records = world.records("video")
    with Prefetch(encoder) as prefetch:
        prefetch.follow([records[:2], records[2:4]])
        assert prefetch.take(records[4:6])[0] is encoder(records[4])
        prefetch.take(records[:2])
        assert until(lambda: not workers_left())
        assert encoder.misses == 6
        prefetch.take(records[2:4])
    assert encoder.misses == 6


def test_an_error_waits_for_its_batch(world: World) -> None:
    """The first bad clip of a batch is named, as without workers, although the worker has met both before."""
    records = world.records("video")[:4]
    for at in (2, 3):
        records[at] = replace(records[at].with_media((MediaRef("video", f"gone{at}.mp4"),)), source=f"file: record {at}")
    said = []
    for workers in (0, 1):
        with Prefetch(encoder_of(world, workers)) as prefetch:
            prefetch.follow([records[:2], records[2:]])
            prefetch.take(records[:2])
            assert until(lambda: not workers_left())
            with pytest.raises(MediaError) as error:
                prefetch.take(records[2:])
        said.append(str(error.value))
    assert said[0] == said[1]
    assert "record 2" in said[0]
    assert "gone2.mp4" in said[0]


def test_leaving_ends_the_workers(world: World) -> None:
    encoder = encoder_of(world, 2)
    readings = Readings(encoder, free=0)
    with Prefetch(encoder) as prefetch:
        prefetch.follow([world.records("video")])
        assert until(lambda: len(readings.of) == 2)
    assert len(workers_left()) == 2
    readings.open.set()
    assert until(lambda: not workers_left())
    assert len(readings.of) == 2


# In training.


def first_is_odd(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    return [float(ids[0] % 2) for ids in completion_ids]


def trained(world: World, folder: Path, workers: int, *, rounds: int = 0, **settings: Any) -> tuple[Any, list[Any]]:
    """A trainer that has trained, and the rows of completions that it recorded."""
    rows: list[Any] = []
    records = world.records("audio_video")
    trainer = trainer_for(world, records, folder, (first_is_odd,), recorder=lambda step, found: rows.extend(found), **settings)
    trainer.refill_rounds = rounds
    trainer.encoder.workers = workers
    trainer.train()
    return trainer, rows


@pytest.mark.parametrize("rounds", [0, 2], ids=["as drawn", "drawn again"])
def test_the_same_numbers_with_and_without_workers(world: World, tmp_path: Path, rounds: int) -> None:
    """Completions, losses and weights, also where prompts without spread are replaced by others, which nobody can foresee."""
    found = {}
    for workers in (0, 1, 2):
        trainer, rows = trained(world, tmp_path / str(workers), workers, rounds=rounds, max_steps=4, logging_steps=1, seed=9)
        losses = [(row["loss"], row["grad_norm"]) for row in trainer.state.log_history if "loss" in row]
        weights = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
        found[workers] = ([row["completion_ids"] for row in rows], losses, weights)
        assert (sum(row.get("groups/drawn_again", 0) for row in trainer.state.log_history) > 0) == (rounds > 0)
    assert len(found[0][0]) >= 4 * 2 * G
    for workers in (1, 2):
        assert found[workers][:2] == found[0][:2]
        assert all(value.equal(found[0][2][name]) for name, value in found[workers][2].items())


def test_a_step_finds_its_clips_ready(world: World, tmp_path: Path) -> None:
    """While a step's completions are scored, the clips of the next one are decoded, and the step itself decodes none."""
    steps = 4

    def patient(completion_ids: list[list[int]], **columns: Any) -> list[float]:
        assert until(lambda: not workers_left())
        return odd_tokens(completion_ids)

    trainer = trainer_for(world, world.records("video"), tmp_path, (patient,), max_steps=steps, logging_steps=1)
    trainer.encoder.workers = 1
    readings = Readings(trainer.encoder)
    trainer.train()
    assert len(readings.of) == steps * 2
    ahead = [thread == "omnistage-prefetch" for thread, _ in readings.of]
    assert all(ahead[2:])
    logs = [row for row in trainer.state.log_history if "media/wait_s" in row]
    assert [row["media/decoded"] for row in logs] == [2.0] * steps
    assert min(row["media/wait_s"] for row in logs) >= 0


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("batching", "rollouts"),
    [
        ({"per_device_train_batch_size": 4}, 4),
        ({"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}, 4),
        ({"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "num_iterations": 2}, 2),
        ({"per_device_train_batch_size": 2, "steps_per_generation": 2, "gradient_accumulation_steps": 1}, 2),
        ({"per_device_train_batch_size": 1, "steps_per_generation": 4, "gradient_accumulation_steps": 2, "num_iterations": 2}, 1),
    ],
    ids=["one pass", "four passes", "two passes twice", "two steps a rollout", "four steps a rollout"],
)
def test_a_prompt_is_decoded_once_a_rollout(world: World, tmp_path: Path, workers: int, batching: dict[str, Any], rollouts: int) -> None:
    """Four steps with an encoder that keeps one clip alone: two decodes a rollout of two prompts, in however many passes it is used."""
    trainer = trainer_for(world, world.records("audio"), tmp_path, max_steps=4, logging_steps=1, **batching)
    trainer.encoder.workers, trainer.encoder.cache_bytes = workers, 1
    readings = Readings(trainer.encoder)
    trainer.train()
    assert len(readings.of) == 2 * rollouts
    assert len({clip for _, clip in readings.of}) == 2 * rollouts
    assert sum(row.get("media/decoded", 0) for row in trainer.state.log_history) == 2 * rollouts


def test_shuffled_frames_are_read_ahead_too(world: World, tmp_path: Path) -> None:
    def ordered(completion_ids: list[list[int]], shuffled: list[list[str]], **columns: Any) -> list[float]:
        assert until(lambda: not workers_left())
        return [float(len(texts)) for texts in shuffled]

    rewards = (marked(ordered, About(needs=frozenset({"shuffled"}))),)
    trainer = trainer_for(world, world.records("video"), tmp_path, rewards, max_steps=3)
    trainer.encoder.workers = 1
    readings = Readings(trainer.encoder)
    trainer.train()
    assert len(readings.of) == 3 * 2 * 2
    assert {thread for thread, _ in readings.of[4:]} == {"omnistage-prefetch"}


def test_a_resumed_run_looks_ahead_from_where_it_is(world: World, tmp_path: Path) -> None:
    """Two of four steps are done again from a checkpoint, each with two optimizer steps a rollout: only their own clips are decoded."""
    settings: dict[str, Any] = {"max_steps": 8, "save_strategy": "steps", "save_steps": 4, "num_iterations": 2, "seed": 4}
    whole, _ = trained(world, tmp_path, 1, **settings)
    assert whole.encoder.misses == 8
    second = trainer_for(world, world.records("audio_video"), tmp_path, (first_is_odd,), **settings)
    second.encoder.workers = 1
    readings = Readings(second.encoder)
    second.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
    assert len(readings.of) == 4
    for name, value in second.model.named_parameters():
        assert value.equal(whole.model.get_parameter(name)), name


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_clip_ends_training_at_its_step(world: World, tmp_path: Path, workers: int) -> None:
    """Whichever step draws it: the steps before it are done, and the message is the encoder's own."""
    records = world.records("video")
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(Path(records[5].media[0].path).read_bytes()[:800])
    records[5] = replace(records[5].with_media((MediaRef("video", str(bad)),)), source="train.json: record 5")
    trainer = trainer_for(world, records, tmp_path, max_steps=4, seed=2)
    trainer.encoder.workers = workers
    with pytest.raises(MediaError) as alone:
        encoder_of(world, 0)(records[5])
    (step,) = (at for at, batch in enumerate(trainer._get_train_sampler().batches(2)) if 5 in batch)
    assert step > 0
    with pytest.raises(MediaError) as error:
        trainer.train()
    assert str(error.value) == str(alone.value)
    assert str(error.value).startswith("train.json: record 5: ")
    assert trainer.state.global_step == step
    assert until(lambda: not workers_left())


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_no_worker_outlasts_a_failure(world: World, tmp_path: Path, failure: type[BaseException]) -> None:
    """In the middle of a step, with two of the next step's four clips in hand, which it does not wait for."""

    def failing(completion_ids: list[list[int]], **columns: Any) -> list[float]:
        assert until(lambda: len(readings.of) == 6)
        raise failure

    trainer = trainer_for(world, world.records("video"), tmp_path, (failing,), max_steps=2, per_device_train_batch_size=8)
    trainer.encoder.workers = 2
    readings = Readings(trainer.encoder, free=4)
    with pytest.raises(failure):
        trainer.train()
    assert len(workers_left()) == 2
    readings.open.set()
    assert until(lambda: not workers_left())
    assert len(readings.of) == 6


# Elsewhere.


def test_supervised_steps_look_ahead(world: World, tmp_path: Path) -> None:
    """Three steps of two accumulated batches: same losses, and each clip is decoded once."""
    records = world.records("video", "cold_start") + world.records("audio", "cold_start")
    found = []
    for workers in (0, 1):
        model = world.model()
        encoder = world.encoder(model)
        encoder.workers = workers
        readings = Readings(encoder)
        args = SFTConfig(
            str(tmp_path / str(workers)),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_steps=3,
            logging_steps=1,
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            gradient_checkpointing=False,
        )
        trainer = OmniSFTTrainer(model, args=args, records=records, pools=[Pool(tuple(range(16)), 1.0)], encoder=encoder)
        trainer.train()
        assert len(readings.of) == len(set(readings.of)) == 12
        assert bool(readings.by_workers()) == bool(workers)
        logs = [row for row in trainer.state.log_history if "loss" in row]
        assert sum(row["media/decoded"] for row in logs) == 12
        found.append([(row["loss"], row["grad_norm"]) for row in logs])
    assert found[0] == found[1]


def test_an_evaluation_looks_ahead(world: World) -> None:
    records = world.records("video", "held_out") + world.records("audio", "held_out")
    found = []
    for workers in (0, 1):
        model = world.model()
        encoder = world.encoder(model)
        encoder.workers = workers
        readings = Readings(encoder)
        batches = plan.batches(records, plan.ways(0, []), 3, 0)
        found.append(list(local.drawn(local.Answerer(model, encoder, max_new_tokens=8), batches)))
        assert len(readings.of) == len(records)
        assert bool(readings.by_workers()) == bool(workers)
    assert found[0] == found[1]


def test_copies_of_the_processor_read_as_the_processor_does(world: World) -> None:
    """In another thread, for every modality, and an image."""
    encoder = encoder_of(world, 0)
    records = world.mixed()
    elsewhere: list[Any] = []
    thread = threading.Thread(target=lambda: elsewhere.extend(encoder.encode(record) for record in records))
    thread.start()
    thread.join(PATIENCE_S)
    for record, other in zip(records, elsewhere, strict=True):
        row = encoder.encode(record)
        assert row.ids == other.ids
        assert row.positions.equal(other.positions)
        for mine, theirs in ((row.pictures, other.pictures), (row.stills, other.stills)):
            assert (mine is None) == (theirs is None)
            assert mine is None or mine.equal(theirs)
        assert all(torch.equal(a, b) for a, b in zip(row.mels, other.mels, strict=True))
