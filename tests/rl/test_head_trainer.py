"""Training a head: what weighs how much, in which type, and what a token that is new to the model asks of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from head_data import POSES, SCORES, posed, scored
from head_trainers import poses_of, read, scores_of, spec_of, trained
from omnistage.data.errors import InputError
from omnistage.data.records import Record
from omnistage.rl import policy
from omnistage.rl.head_trainer import HeadTrainer, check_records, learn_token
from omnistage.rl.heads import carried
from omnistage.rl.heads.predict import Reader
from omnistage.stages import merge
from world import World


def moved(trainer: HeadTrainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def mixed(world: World) -> list[Record]:
    """Two poses in one answer, one, and instructions without any: micro-batches of two ask for 3 values and 0, or 2 and 1."""
    plain = world.records("video")
    return [
        replace(posed(plain[0], 1, 2), response="<POSE> then <POSE>"),
        posed(plain[1], 3),
        *(replace(record, response="it is red and it is blue", options=()) for record in plain[2:4]),
    ]


@pytest.mark.parametrize("size", [2, 1])
def test_each_value_weighs_the_same_however_a_step_is_cut(world: World, tmp_path: Path, size: int) -> None:
    """One batch of four, and micro-batches of which some ask nothing of the head: the same step, the same figures in the log."""
    records = mixed(world)
    found = []
    for micro in (4, size):
        settings: dict[str, Any] = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": 4 // micro, "max_steps": 1}
        trainer = trained(world, records, spec_of(POSES), tmp_path / str(micro), learning_rate=1e-3, **settings)
        found.append((moved(trainer), trainer.state.log_history[0]))
    (whole, logged), (cut, logged_cut) = found
    # Adam's first step is as long for a gradient of hardly anything, whichever way it is rounded.
    assert max(float((whole[name] - cut[name]).abs().max()) for name in whole) < 2e-4
    assert logged["loss"] == pytest.approx(logged["pose/text"] + 0.1 * logged["pose/body"] + 0.1 * logged["pose/root"], abs=1e-3)
    for key in ("loss", "grad_norm", "pose/text", "pose/body", "pose/root", "mean_token_accuracy"):
        assert logged_cut[key] == pytest.approx(logged[key], rel=1e-3), key


def test_a_loss_with_text_wants_a_text(world: World) -> None:
    records = scores_of(world)
    spec = spec_of(SCORES, losses=[{"name": "l1"}, {"name": "text", "weight": 0.1}])
    with pytest.raises(InputError, match=r"losses of the head 'mos' has 'text', and none of 8 records has a 'response' to learn"):
        check_records(records, spec)
    check_records([replace(records[0], response="it is good"), *records[1:]], spec)


@pytest.mark.parametrize("frozen", [(), ("vision", "audio", "language")])
def test_a_head_alone_can_be_trained(world: World, tmp_path: Path, frozen: tuple[policy.Part, ...]) -> None:
    class Frozen(World):
        def model(self) -> Any:
            model = super().model()
            policy.freeze(model, frozen)
            return model

    before = dict(world.model().named_parameters())
    after = moved(trained(Frozen(world.data, world.checkpoint), scores_of(world), spec_of(SCORES), tmp_path))
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert bool(changed) == (not frozen)
    assert any(name.startswith(carried.MODULE) for name in after)


@pytest.mark.parametrize("lora", [False, True])
def test_half_precision_leaves_the_head_and_the_tokens_rows_whole(world: World, tmp_path: Path, lora: bool) -> None:
    """A bfloat16 policy under adapters, a float32 one under autocast: what is trained is float32, and so it is saved."""

    class Half(World):
        def model(self) -> Any:
            return policy.load(str(self.checkpoint), dtype="bfloat16" if lora else "float32")

    half = Half(world.data, world.checkpoint)
    settings: dict[str, Any] = {"bf16": True, "save_strategy": "steps", "save_steps": 2}
    trainer = trained(half, poses_of(world), spec_of(POSES), tmp_path / "out", lora=lora, **settings)
    assert {value.dtype for value in trainer.model.parameters() if value.requires_grad} == {torch.float32}
    saved = tmp_path / "out" / "checkpoint-2"
    if lora:
        saved = merge.merge(str(saved), tmp_path / "merged", dtype="bfloat16")
    loaded = policy.load(str(saved), dtype="bfloat16")
    head = carried.heads_of(loaded)["pose"]
    assert {value.dtype for value in head.parameters()} == {torch.float32}
    assert all(torch.equal(value, trainer.head.state_dict()[name]) for name, value in head.state_dict().items())
    [values] = Reader(loaded, trainer.encoder, head).values([trainer.encoder(poses_of(world)[0])], [[int(trainer.data_collator.token_id)]])
    rotations = np.array(values[0]["rotations"])
    assert np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max() < 1e-5


@pytest.fixture(scope="module")
def tight(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A checkpoint without a row to spare: its embeddings must grow for a new token."""
    folder = tmp_path_factory.mktemp("tight")
    model, processor = world.model(), policy.load_processor(str(world.checkpoint))
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return World(world.data, folder)


@pytest.mark.parametrize("lora", [False, True])
def test_embeddings_grow_for_the_token_and_stay_grown(tight: World, tmp_path: Path, lora: bool) -> None:
    """Trained, restarted, merged and loaded: poses and the token's probability are those of the policy that was trained, unmerged.

    Under adapters the row that the restart draws by chance is another one, and must not matter.
    """
    records = poses_of(tight)
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "lora": lora, "lr_scheduler_type": "constant"}
    trainer = trained(tight, records, spec_of(POSES), tmp_path / "out", **settings)
    torch.manual_seed(11)
    again = trained(tight, records, spec_of(POSES), tmp_path / "again", resume=str(tmp_path / "out" / "checkpoint-1"), **settings)
    saved = tmp_path / "out" / "checkpoint-2"
    if lora:
        saved = merge.merge(str(saved), tmp_path / "merged")
    loaded, processor = policy.load(str(saved), dtype="float32"), policy.load_processor(str(saved))
    token = int(processor.tokenizer.convert_tokens_to_ids("<POSE>"))
    rows = loaded.get_input_embeddings().num_embeddings
    assert (rows, token, loaded.config.get_text_config().vocab_size) == (len(processor.tokenizer), rows - 1, rows)
    encoder = tight.encoder(loaded)
    encoder.processor = processor
    said, likely = [], []
    for model in (trainer.model, again.model, loaded):
        thinker = policy.thinker_of(model.eval())
        reader = Reader(thinker, encoder, carried.heads_of(thinker)["pose"])
        said.append(np.array([values[0]["rotations"] for values in reader.values([encoder(r) for r in records], [[token]] * len(records))]))
        with torch.no_grad():
            row = encoder(replace(records[0], media=()))
            likely.append(float(thinker(input_ids=torch.tensor([[*row.ids, token]])).logits[0, -2].log_softmax(-1)[token]))
    assert np.abs(said[0] - said[1]).max() <= 1e-5
    assert np.abs(said[0] - said[2]).max() <= 1e-5
    assert likely == pytest.approx([likely[0]] * 3, abs=1e-4)


def test_a_token_that_is_an_ordinary_word_is_refused(world: World) -> None:
    """In a sentence 'red' is another piece than alone: the head would find no place."""
    model = world.model()
    processor = policy.load_processor(str(world.checkpoint))
    with pytest.raises(InputError, match="token 'red' is an ordinary piece of the model's words"):
        learn_token(model, processor, "red")
    carried.add(model, spec_of(POSES))
    with pytest.raises(InputError, match="head 'pose' reads the token '<POSE>', which the checkpoint's tokenizer does not know"):
        Reader(model, world.encoder(model), carried.heads_of(model)["pose"])


def test_weights_that_ran_away_are_told(world: World) -> None:
    model = world.model()
    head = carried.add(model, spec_of(SCORES))
    with torch.no_grad():
        next(head.parameters())[0, 0] = torch.nan
    with pytest.raises(InputError, match="head 'mos' puts out numbers that are not finite"):
        read(model, world.encoder(model), "mos", [scored(world.records("video")[0], 1.0)])
