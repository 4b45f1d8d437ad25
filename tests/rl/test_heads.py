"""A head: what it may be, where it reads, what it learns, and that it travels with its policy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from pydantic import ValidationError
from safetensors.torch import load_file

from head_data import POSES, SCORES, posed, scored
from head_trainers import poses_of, read, scores_of, spec_of, trained
from omnistage.data.errors import InputError, RecordError
from omnistage.data.records import AnswerKind
from omnistage.data.rotations import geodesic_deg
from omnistage.rewards import registry
from omnistage.rl import policy
from omnistage.rl.encoding import Encoder
from omnistage.rl.feature_cache import FeatureCache
from omnistage.rl.head_trainer import HeadCollator, check_records, learn_token
from omnistage.rl.heads import anchor, carried
from omnistage.rl.heads.codec import codec_of, correlation_loss
from omnistage.rl.heads.predict import Reader
from omnistage.rl.heads.words import WordReader
from omnistage.rl.sft_trainer import right_padded
from omnistage.stages import presentation
from trainers import trainer_for
from world import World, reference_log_probs

LEVELS = {"kind": "levels", "words": ["bad", "good", "best"], "centres": [0.0, 10.0, 40.0]}


# What a head may be.


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"codec": {"kind": "affine", "low": 5.0, "high": 5.0}}, "low is 5 and high is 5"),
        ({"losses": [{"name": "body"}]}, "losses has 'body' and codec is 'affine'; allowed: text, l1, l2, correlation"),
        ({"losses": [{"name": "text"}]}, "nothing but 'text'"),
        ({"losses": [{"name": "l1"}, {"name": "l1"}]}, "each may stand there once"),
        ({"codec": {"kind": "levels", "words": ["a", "b"], "centres": [1.0]}}, "words has 2 entries and centres 1"),
        ({"codec": {"kind": "levels", "words": ["a", "b"], "centres": [2.0, 1.0]}, "losses": [{"name": "l1"}]}, "must rise"),
        ({"codec": {"kind": "rot6d"}, "body": {"final": "sigmoid"}, "losses": [{"name": "root"}]}, "a sigmoid goes with 'affine'"),
        ({"codec": {"kind": "rot6d", "joints": 22}, "losses": [{"name": "joints"}]}, "places are known of 24 joints"),
        ({"anchor": {"at": "end"}}, "prompt_end"),
        ({"body": {"size": [3]}}, "did you mean 'sizes'"),
        ({"name": "My head"}, "pattern"),
        ({"anchor": {"at": "token", "token": "a pose"}}, "is 'a pose'; a token is one word without spaces"),
        ({"anchor": {"at": "token", "token": "<|pose|>"}}, "reads as a control token of the chat"),
    ],
)
def test_a_wrong_specification_says_what_is_allowed(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec_of(SCORES, **changes)
    assert told in str(caught.value)


# Where it reads.


def test_places_do_not_depend_on_the_side_of_the_padding() -> None:
    """The prompt's last token, and each answered token but not the one in the question, whichever side is padded."""
    token = 7
    rows = [([1, token, 2], [3, token, 4, token]), ([5], [token])]
    at_token = spec_of(POSES)
    alone = spec_of(POSES, anchor={"at": "token", "token": "<POSE>", "state": "self"})
    for left in (False, True):
        ids, mask = torch.zeros(2, 8, dtype=torch.long), torch.zeros(2, 8, dtype=torch.long)
        starts = []
        for index, (prompt, answer) in enumerate(rows):
            whole = torch.tensor(prompt + answer)
            start = 8 - len(whole) if left else 0
            starts.append(start)
            ids[index, start : start + len(whole)] = whole
            mask[index, start : start + len(whole)] = 1
        lengths = [3, 1]
        ends = anchor.places(spec_of(SCORES), ids, mask, lengths, None)
        assert ends.tolist() == [[0, starts[0] + 2], [1, starts[1]]]
        own = anchor.places(alone, ids, mask, lengths, token)
        assert own.tolist() == [[0, starts[0] + 4], [0, starts[0] + 6], [1, starts[1] + 1]]
        assert anchor.places(at_token, ids, mask, lengths, token).tolist() == [[row, column - 1] for row, column in own.tolist()]


def test_a_head_reads_the_same_state_alone_and_in_a_batch(world: World) -> None:
    """Prompts of different lengths, one by one and four together, and with an answer behind them."""
    model = world.model()
    encoder = world.encoder(model)
    carried.add(model, spec_of(SCORES))
    records = [scored(record, 1.0) for record in world.mixed()]
    assert len({len(encoder(record).ids) for record in records}) > 2
    alone, together = (read(model, encoder, "mos", records, batch_size=size) for size in (1, 4))
    for one, other in zip(alone, together, strict=True):
        assert one[0]["values"]["score"] == pytest.approx(other[0]["values"]["score"], abs=1e-3)
    reader = Reader(model, encoder, carried.heads_of(model)["mos"])
    row = encoder(records[0])
    [[answered]] = reader.values([row], [[11, 12, 13]])
    assert answered["values"]["score"] == pytest.approx(alone[0][0]["values"]["score"], abs=1e-3)


# What its numbers stand for.


def test_numbers_words_and_poses_come_back_from_their_targets(world: World) -> None:
    record = world.records("video")[0]
    numbers = codec_of(spec_of(SCORES, codec={"kind": "affine", "low": -1.0, "high": 3.0, "names": ["valence", "arousal"]}))
    both = replace(scored(record, 0.0), values=(1.0, -0.5))
    assert numbers.decode(numbers.targets(both)) == [{"values": {"valence": 1.0, "arousal": -0.5}}]
    with pytest.raises(RecordError, match=r"has 1 values and the head puts out 2 \(valence, arousal\)"):
        numbers.targets(scored(record, 0.0))
    bounded = codec_of(spec_of(SCORES, body={"final": "sigmoid"}))
    with pytest.raises(RecordError, match=r"has the value \[101.0\], and the head's sigmoid reaches 0 to 100"):
        bounded.targets(scored(record, 101.0))

    words = codec_of(spec_of(SCORES, codec=LEVELS, losses=[{"name": "cross_entropy"}]))
    for value, shares in ((0.0, [1, 0, 0]), (2.5, [0.75, 0.25, 0]), (25.0, [0, 0.5, 0.5]), (99.0, [0, 0, 1])):
        target = words.targets(scored(record, value))
        assert target.tolist() == [pytest.approx(shares)]
        [said] = words.decode((target + 1e-9).log())
        assert said["values"]["score"] == pytest.approx(min(value, 40.0), abs=1e-4)
        assert words.loss("l1", (target + 1e-9).log(), target) == pytest.approx(0.0, abs=1e-6)
    level = replace(record, kind=AnswerKind.LEVEL, target="good")
    assert words.targets(level).tolist() == [[0, 1, 0]]
    with pytest.raises(RecordError, match="has the level 'fair'; the head's words are bad, good, best"):
        words.targets(replace(level, target="fair"))
    # A level and a score can be items of one head.
    assert codec_of(spec_of(SCORES)).targets(replace(level, target="excellent")).tolist() == [[pytest.approx(0.9)]]

    for layout in ("columns", "interleaved", "rows"):
        poses = codec_of(spec_of(POSES, codec={"kind": "rot6d", "layout": layout}))
        two = posed(record, 1, 2)
        targets = poses.targets(two)
        assert targets.shape == (2, 216)
        matrices = targets.view(2, 24, 3, 3)
        six = {
            "columns": matrices[..., :2].mT.reshape(2, -1),
            "interleaved": matrices[..., :2].reshape(2, -1),
            "rows": matrices[..., :2, :].reshape(2, -1),
        }[layout]
        assert np.abs(np.array([pose["rotations"] for pose in poses.decode(six)]).reshape(2, -1) - targets.numpy()).max() < 1e-6
        for name in ("body", "root", "joints"):
            assert float(poses.loss(name, six, targets)) < 1e-6
            assert float(poses.loss(name, poses.constant(targets).expand(2, -1), targets)) > 0.05
    assert len(codec_of(spec_of(POSES)).targets(record)) == 0


@pytest.mark.parametrize("spec", [SCORES, SCORES | {"codec": LEVELS, "losses": [{"name": "l1"}]}, POSES])
def test_a_value_that_is_no_number_is_named(world: World, spec: dict[str, Any]) -> None:
    """NaN marks what is not asked: as a target it would be left out without a word."""
    record = world.records("video")[0]
    wrong = posed(record, 1) if spec is POSES else scored(record, 0.0)
    for value in (np.nan, np.inf):
        broken = replace(wrong, values=(*wrong.values[:-1], value))
        with pytest.raises(RecordError, match=r"record 0: has the values .*; allowed: finite numbers"):
            codec_of(spec_of(spec)).targets(broken)


def test_outputs_that_are_all_alike_have_a_gradient() -> None:
    """As those of a dead layer are: the root in Pearson's r has no slope at 0."""
    made = torch.full((4, 1), 0.3, requires_grad=True)
    correlation_loss(made, torch.arange(4.0)[:, None]).backward()
    assert made.grad is not None
    assert torch.isfinite(made.grad).all()


def test_correlation_loss_is_one_minus_r() -> None:
    generator = torch.Generator().manual_seed(0)
    made, right = torch.randn(20, 2, generator=generator), torch.randn(20, 2, generator=generator)
    r = np.mean([np.corrcoef(made[:, at], right[:, at])[0, 1] for at in range(2)])
    assert float(correlation_loss(made, right)) == pytest.approx(1 - r, abs=1e-5)
    assert float(correlation_loss(made[:1], right[:1])) == 0.0


# What it learns from.


def test_records_that_a_head_cannot_learn_from_are_named(world: World) -> None:
    plain = world.records("video")
    with pytest.raises(RecordError, match="record 0: says nothing that the head 'mos' puts out"):
        check_records(plain, spec_of(SCORES))
    instructions = [replace(record, response="it is red") for record in plain]
    with pytest.raises(InputError, match=r"none of 8 records has an answer for the head 'mos' \(affine\)"):
        check_records(instructions, spec_of(SCORES, losses=[{"name": "l1"}, {"name": "text"}]))
    poses = poses_of(world)
    check_records([*poses, *instructions], spec_of(POSES))
    with pytest.raises(RecordError, match=r"its answer holds <POSE> 1 times, and it has 2 values"):
        check_records([posed(plain[0], 1, 2)], spec_of(POSES))
    check_records([replace(posed(plain[0], 1, 2), response="<POSE> then <POSE>")], spec_of(POSES))
    with pytest.raises(RecordError, match="has no 'response' and no value"):
        check_records([*poses, plain[0]], spec_of(POSES))


def test_a_batch_mixes_poses_with_instructions(world: World) -> None:
    """States stand before each answered token, in the order of the values; rows without a value have none."""
    model = world.model()
    encoder = world.encoder(model)
    token = learn_token(model, encoder.processor, "<POSE>")
    assert learn_token(model, encoder.processor, "<POSE>") == token
    plain = world.records("video")
    rows = [
        replace(posed(plain[0], 1, 2), id="two", response="<POSE> then <POSE>"),
        replace(plain[1], id="none", response="it is red"),
        replace(posed(plain[2], 3), id="one"),
    ]
    collator = HeadCollator(encoder, {row.id: row for row in rows}, spec_of(POSES), ["It is {token}."])
    batch = collator([{"record_id": row.id} for row in rows])
    found = batch["head_reads"]["pose"]
    assert found[:, 0].tolist() == [0, 0, 2]
    assert all(batch["input_ids"][row, column + 1] == token for row, column in found.tolist())
    assert torch.equal(batch["head_targets"], torch.tensor([rows[0].values[:216], rows[0].values[216:], rows[2].values]))
    alone = collator([{"record_id": "none"}])
    assert alone["head_targets"].isnan().all()


def test_the_loss_is_text_and_terms_and_does_not_depend_on_micro_batches(world: World, tmp_path: Path) -> None:
    """One batch of 4 and two micro-batches of 2 move the weights alike; the logged terms add up to the loss."""
    records = poses_of(world)[:4]
    spec = spec_of(POSES)
    found = {}
    for size in (4, 2):
        settings: dict[str, Any] = {
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": 4 // size,
            "max_steps": 1,
            "learning_rate": 1e-3,
        }
        trainer = trained(world, records, spec, tmp_path / str(size), **settings)
        found[size] = ({name: value.detach().clone() for name, value in trainer.model.named_parameters()}, trainer.state.log_history)
    for name, value in found[4][0].items():
        assert torch.allclose(value, found[2][0][name], atol=3e-5), name
    first = found[4][1][0]
    assert first["loss"] == pytest.approx(first["pose/text"] + 0.1 * first["pose/body"] + 0.1 * first["pose/root"], abs=1e-3)
    assert found[2][1][0]["loss"] == pytest.approx(first["loss"], abs=1e-3)


def test_a_head_has_its_own_learning_rate(world: World, tmp_path: Path) -> None:
    trainer = trained(
        world, scores_of(world), spec_of(SCORES), tmp_path, head_learning_rate=0.5, learning_rate=1e-9, lr_scheduler_type="constant"
    )
    rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    own = {id(parameter) for parameter in trainer.head.parameters()}
    assert {rates[i] for i in own} == {0.5}
    assert {rate for i, rate in rates.items() if i not in own} == {1e-9}


# That it travels.


@pytest.mark.parametrize("lora", [False, True])
def test_a_checkpoint_holds_the_head_and_a_restart_goes_on_with_it(world: World, tmp_path: Path, lora: bool) -> None:
    """Two steps at once and two steps with a restart between them end with the same weights, adapters' tokens and head included."""
    spec = spec_of(POSES, body={"sizes": [8], "dropout": 0.1})
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "lora": lora, "lr_scheduler_type": "constant"}
    records = poses_of(world)
    whole = trained(world, records, spec, tmp_path / "whole", **settings)
    trained(world, records, spec, tmp_path / "parts", **settings | {"max_steps": 1})
    resumed = trained(world, records, spec, tmp_path / "parts", resume=str(tmp_path / "parts" / "checkpoint-1"), **settings)
    ours, theirs = whole.model.state_dict(), resumed.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    saved = load_file(tmp_path / "whole" / "checkpoint-2" / carried.WEIGHTS)
    assert all(torch.equal(saved[f"pose.{name}"], value) for name, value in whole.head.state_dict().items())
    weights = tmp_path / "whole" / "checkpoint-2" / ("adapter_model.safetensors" if lora else "model.safetensors")
    assert not any("omni_heads" in name for name in load_file(weights))


def test_a_saved_head_says_what_it_said(world: World, tmp_path: Path) -> None:
    records = scores_of(world)
    trainer = trained(world, records, spec_of(SCORES), tmp_path, save_strategy="steps", save_steps=2)
    encoder = world.encoder(trainer.model)
    before = read(trainer.model, encoder, "mos", records)
    assert len({value[0]["values"]["score"] for value in before}) == len(records)
    loaded = policy.load(str(tmp_path / "checkpoint-2"), dtype="float32")
    assert read(loaded, encoder, "mos", records) == before
    assert not any(parameter.requires_grad for parameter in carried.heads_of(loaded)["mos"].parameters())


def test_a_policy_in_grpo_keeps_its_head(world: World, tmp_path: Path) -> None:
    trainer = trained(world, scores_of(world), spec_of(SCORES), tmp_path / "head", save_strategy="steps", save_steps=2)
    weights = {name: value.clone() for name, value in trainer.head.state_dict().items()}

    class Carrying(World):
        def model(self) -> Any:
            return policy.load(str(tmp_path / "head" / "checkpoint-2"), dtype="float32")

    later = trainer_for(Carrying(world.data, world.checkpoint), world.records("video"), tmp_path, save_strategy="steps", save_steps=1)
    later.train()
    saved = load_file(tmp_path / "out" / "checkpoint-1" / carried.WEIGHTS)
    assert saved.keys() == {f"mos.{name}" for name in weights}
    assert all(torch.equal(saved[f"mos.{name}"], value) for name, value in weights.items())


def test_what_a_head_reads_off_a_completion_can_be_a_reward(world: World, tmp_path: Path) -> None:
    """Completions with the token earn what the head's pose is worth, others 0; the record holds what was read, and replays to the same."""
    poses = poses_of(world)
    settings: dict[str, Any] = {"learning_rate": 5e-3, "max_steps": 30, "save_strategy": "steps", "save_steps": 30}
    first = trained(world, poses, spec_of(POSES), tmp_path / "head", answers=["{token}"], **settings)
    folder = tmp_path / "head" / "checkpoint-30"

    class Carrying(World):
        def model(self) -> Any:
            return policy.load(str(folder), dtype="float32")

        def encoder(self, model: Any) -> Encoder:
            made = super().encoder(model)
            made.processor = policy.load_processor(str(folder))
            return made

    recorded: list[dict[str, Any]] = []
    reward = registry.load(registry.RewardSpec("head", config={"scale": 30.0}))
    later = trainer_for(
        Carrying(world.data, world.checkpoint), poses, tmp_path, [reward], recorder=lambda _, rows: recorded.extend(rows), temperature=1.5
    )
    later.train()
    encoder = world.encoder(first.model)
    encoder.processor = first.processing_class
    reader = Reader(first.model, encoder, first.head)
    by_id = {record.id: record for record in poses}
    answered = []
    for row in recorded:
        [values] = reader.values([reader.encoder(by_id[row["record_id"]])], [row["completion_ids"]])
        assert len(values) == row["completion_ids"].count(reader.token_id)
        answered.append(bool(values))
        worth = 0.0
        if values:
            apart = geodesic_deg(np.array(values[0]["rotations"]), np.reshape(by_id[row["record_id"]].values, (24, 3, 3))).mean()
            worth = float(np.exp(-apart / 30.0))
        assert row["reward/head"] == pytest.approx(worth, abs=1e-4)
        assert len(json.loads(row["heads"])["pose"]) == len(values)
    assert len(recorded) == 4
    assert any(answered)
    with pytest.raises(InputError, match="the policy carries no head"):
        trainer_for(world, poses, tmp_path / "no", [reward])


class Carrying(World):
    """Its model carries a head with random weights and dropout."""

    def model(self) -> Any:
        torch.manual_seed(1)
        model = super().model()
        carried.add(model, spec_of(SCORES, body={"sizes": [16], "dropout": 0.5}))
        return model


def test_a_reward_reads_heads_with_all_units_a_group_at_a_time(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy in training drops units of its adapters and of its head; what is read of a completion is not to depend on which."""
    trainer = trainer_for(
        Carrying(world.data, world.checkpoint),
        world.records("video"),
        tmp_path,
        adapter=LoraConfig(r=4, lora_dropout=0.5, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False),
        per_device_train_batch_size=8,
    )
    sizes = []
    values = Reader.values

    def noting(reader: Reader, rows: Any, answers: Any) -> Any:
        sizes.append(len(rows))
        return values(reader, rows, answers)

    monkeypatch.setattr(Reader, "values", noting)
    rows = list(next(iter(trainer.get_train_dataloader())))
    trainer._shown(rows)
    trainer.model.train()
    first, second = (trainer.head_values([[40, 41]] * 8) for _ in range(2))
    assert first == second
    assert len({read["mos"][0]["values"]["score"] for read in first}) == 4, "one value for each of four prompts"
    assert sizes == [2] * 8, "each row has its own copy of the prompt: a whole forward of packed groups would not fit"
    assert carried.heads_of(policy.thinker_of(trainer.model))["mos"].training


def test_a_reader_uses_the_feature_cache(world: World, tmp_path: Path) -> None:
    model = Carrying(world.data, world.checkpoint).model()
    policy.freeze(model, ["vision", "audio", "language"])
    found = []
    for _ in range(2):
        encoder = world.encoder(model)
        encoder.feature_cache = FeatureCache(tmp_path, 10**9)
        reader = Reader(model.eval(), encoder, carried.heads_of(model)["mos"])
        found.append([prediction.values for prediction in reader(world.records("video"))])
    assert found[0] == found[1]
    assert reader.towers.origins == {"disk": 8}


def test_a_head_drops_nothing_when_its_policy_does_not(world: World, tmp_path: Path) -> None:
    """Read back twice, and as a reward in the middle of training, a head with dropout says the same."""
    spec = spec_of(SCORES, body={"sizes": [16], "dropout": 0.5})
    model = world.model()
    carried.add(model, spec)
    carried.write(model, tmp_path)
    loaded = world.model()
    carried.attach(loaded, tmp_path)
    records = scores_of(world)[:2]
    assert read(loaded, world.encoder(loaded), "mos", records) == read(loaded, world.encoder(loaded), "mos", records)

    class Carrying(World):
        def model(self) -> Any:
            return loaded

    later = trainer_for(Carrying(world.data, world.checkpoint), records, tmp_path / "out")
    later.model.train()
    later._rows = [later.encoder(record) for record in records]
    assert later.head_values([[1], [2]]) == later.head_values([[1], [2]])
    assert carried.heads_of(policy.thinker_of(later.model))["mos"].training


def test_a_head_of_the_same_name_goes_on_where_its_weights_fit(world: World) -> None:
    """Other losses: the same weights. Other layers: a new head."""
    model = world.model()
    first = carried.add(model, spec_of(SCORES))
    assert carried.add(model, spec_of(SCORES)) is first
    other = spec_of(SCORES, losses=[{"name": "l2"}])
    second = carried.add(model, other)
    assert carried.heads_of(model)["mos"].spec == other
    weights = [head.state_dict()["layers.0.weight"] for head in (first, second)]
    assert torch.equal(*weights)
    third = carried.add(model, spec_of(SCORES, body={"sizes": [8]})).state_dict()["layers.0.weight"]
    fourth = carried.add(model, spec_of(SCORES, body={"sizes": [8], "activation": "relu"})).state_dict()["layers.0.weight"]
    assert third.shape == fourth.shape == (8, 64)
    assert not torch.equal(third, fourth)


def test_names_of_torch_are_no_heads() -> None:
    carried.check_name("mos")
    for name in ("type", "values", "train"):
        with pytest.raises(InputError, match=rf"name is '{name}', which torch's modules have for themselves"):
            carried.check_name(name)


def test_a_checkpoint_on_the_hub_has_its_head(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the hub's cache holds it: the head and how clips were shown come with the weights."""
    snapshot = tmp_path / "models--org--name" / "snapshots" / "0123"
    model = world.model()
    carried.add(model, spec_of(SCORES))
    model.save_pretrained(snapshot)
    carried.write(model, snapshot)
    presentation.save(presentation.Presentation(prompt="plain"), snapshot)
    (tmp_path / "models--org--name" / "refs").mkdir()
    (tmp_path / "models--org--name" / "refs" / "main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = policy.load("org/name", dtype="float32")
    ours, theirs = (carried.heads_of(thinker)["mos"].state_dict() for thinker in (model, loaded))
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())
    assert presentation.of_checkpoint("org/name").prompt == "plain"
    assert presentation.of_checkpoint("org/other") == presentation.Presentation()


def test_damaged_head_files_are_named(world: World, tmp_path: Path) -> None:
    model = world.model()
    carried.add(model, spec_of(SCORES))
    carried.write(model, tmp_path)
    carried.attach(world.model(), tmp_path)
    (tmp_path / carried.WEIGHTS).write_bytes(b"broken")
    with pytest.raises(InputError, match=r"head.safetensors: cannot be read"):
        carried.attach(world.model(), tmp_path)
    (tmp_path / carried.ABOUT).write_text("[]")
    with pytest.raises(InputError, match=r"head.json: is no description of heads"):
        carried.attach(world.model(), tmp_path)


def test_the_choice_among_heads_is_the_users(world: World) -> None:
    model = world.model()
    with pytest.raises(InputError, match="here carries no head"):
        carried.chosen(carried.heads_of(model), None, "here")
    carried.add(model, spec_of(SCORES))
    assert carried.chosen(carried.heads_of(model), None, "here").spec.name == "mos"
    carried.add(model, spec_of(POSES))
    with pytest.raises(InputError, match=r"carries the heads mos, pose; name one"):
        carried.chosen(carried.heads_of(model), None, "here")
    with pytest.raises(InputError, match="did you mean 'pose'"):
        carried.chosen(carried.heads_of(model), "poses", "here")


def test_responses_stand_behind_prompts(world: World) -> None:
    """`right_padded` is what trainer and reader share: positions go on behind the prompt's."""
    encoder = world.encoder(world.model())
    rows = [encoder(record) for record in world.records("video")[:2]]
    ids, mask, positions = right_padded(rows, [[1, 2], []], 0)
    start = len(rows[0].ids)
    assert ids[0, start : start + 2].tolist() == [1, 2]
    assert mask.sum(1).tolist() == [start + 2, len(rows[1].ids)]
    assert positions[:, 0, start].tolist() == [int(rows[0].positions.max()) + 1] * 3


def test_levels_are_the_probabilities_of_words_in_their_sentence(world: World) -> None:
    """As the plainest way has them: each whole sentence alone, without padding."""
    model = world.model()
    encoder = world.encoder(model)
    record = replace(world.records("audio_video")[0], kind=AnswerKind.LEVEL, options=())
    names = ["bad", "so so", "good"]
    [found] = WordReader(model, encoder, "it is {level} .", names)([record])
    tokenizer = encoder.processor.tokenizer
    whole = [float(reference_log_probs(model, encoder(record), tokenizer(f"it is {name} .")["input_ids"]).sum()) for name in names]
    shares = torch.tensor(whole).double().softmax(-1)
    [value] = found.values
    assert list(value["probabilities"].values()) == pytest.approx(shares.tolist(), abs=1e-5)
    assert value["level"] == names[int(shares.argmax())]
    assert value["values"]["level"] == pytest.approx(float(shares @ torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)), abs=1e-4)
    for sentence, words, told in (("it is good", names, "must hold {level} once"), ("{level}", ["good"], "at least two words")):
        with pytest.raises(InputError, match=told):
            WordReader(model, encoder, sentence, words)
