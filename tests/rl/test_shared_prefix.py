"""One copy of the prompt gives what a copy for each completion gives: log-probs, gradients, whole runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor

from omnistage.rl import policy
from omnistage.rl.encoding import Encoded, left_padded, positions_with_completions
from omnistage.rl.policy import accept_encoded_audio
from omnistage.rl.shared_prefix import attention, forward, layout
from omnistage.rl.shared_prefix.attention import Mode
from omnistage.rl.shared_prefix.check import Sharing
from omnistage.rl.shared_prefix.layout import Group, Layout, pack
from omnistage.rl.towers import Towers
from trainers import trainer_for
from world import World, reference_log_probs

MODES: tuple[Mode, ...] = ("dense", "cat", "cascade")
# Two groups of three, rows of one group not beside each other, one completion of one token and one without any.
LENGTHS = [7, 3, 1, 5, 7, 0]
CPU = torch.device("cpu")


def batch(world: World, model: Any, *modalities: str) -> tuple[list[Encoded], Tensor, Tensor]:
    encoder = world.encoder(model)
    heads = [encoder(world.records(modality)[0]) for modality in modalities]
    torch.manual_seed(0)
    completions = torch.randint(10, 100, (len(LENGTHS), max(LENGTHS)))
    mask = (torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]).long()
    return [heads[at % len(heads)] for at in range(len(LENGTHS))], completions, mask


def plain(model: Any, rows: list[Encoded], completions: Tensor, mask: Tensor) -> Tensor:
    """Log-probs [B, C] with a copy of the prompt for each row, by transformers' own forward and whole logits."""
    ids, prompt_mask, _ = left_padded(rows, 0)
    whole, whole_mask = torch.cat([ids, completions], 1), torch.cat([prompt_mask, mask], 1)
    width = completions.shape[1]
    positions = positions_with_completions(rows, ids.shape[1], width)
    logits = model(input_ids=whole, attention_mask=whole_mask, position_ids=positions, **Towers(model).media(rows, CPU)).logits
    log_probs: Tensor = logits[:, -width - 1 : -1].float().log_softmax(-1).gather(-1, completions[..., None])[..., 0]
    return log_probs * mask


def shared(model: Any, rows: list[Encoded], completions: Tensor, mask: Tensor, mode: Mode) -> Tensor:
    packed = pack(rows, completions, mask)
    output = model(packed=packed, packed_mode=mode, **Towers(model).media(packed.heads, CPU))
    log_probs: Tensor = output.log_probs
    return log_probs


def ready(world: World, *frozen: policy.Part) -> Any:
    model = world.model()
    policy.freeze(model, frozen)
    accept_encoded_audio(model)
    forward.install(model, temperature=1.0)
    return model


@pytest.mark.parametrize("mode", [*MODES, "flex"])
@pytest.mark.parametrize("modalities", [["video"], ["audio"], ["audio_video"], ["video", "audio"], ["audio_video", "video", "audio"]])
def test_log_probs_equal_an_independent_reference(world: World, mode: Mode, modalities: list[str]) -> None:
    model = ready(world, "vision", "audio")
    rows, completions, mask = batch(world, model, *modalities)
    with torch.no_grad():
        found = shared(model, rows, completions, mask, mode)
    for at, length in enumerate(LENGTHS):
        assert not found[at, length:].any()
        if length:
            expected = reference_log_probs(model, rows[at], completions[at, :length].tolist())
            assert (found[at, :length] - expected).abs().max() <= 1e-5


def gradients(model: Any, log_probs: Tensor) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    (log_probs * torch.randn(log_probs.shape)).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        assert (found[name] - grad).norm() <= 1e-4 * grad.norm() + 1e-9, name


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("modality", ["video", "audio", "audio_video"])
@pytest.mark.parametrize("frozen", [("vision", "audio"), ()], ids=["towers frozen", "towers trained"])
def test_gradients_equal_the_plain_way(world: World, mode: Mode, modality: str, frozen: tuple[policy.Part, ...]) -> None:
    model = ready(world, *frozen)
    rows, completions, mask = batch(world, model, modality)
    expected = gradients(model, plain(model, rows, completions, mask))
    assert any(name.startswith(("visual", "model.visual", "audio_tower", "model.audio_tower")) for name in expected) == (not frozen)
    assert_close(gradients(model, shared(model, rows, completions, mask, mode)), expected)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_with_checkpointing(world: World, mode: Mode) -> None:
    model = ready(world, "vision", "audio")
    rows, completions, mask = batch(world, model, "audio_video", "video")
    expected = gradients(model, plain(model, rows, completions, mask))
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert_close(gradients(model, shared(model, rows, completions, mask, mode)), expected)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_of_adapters(world: World, mode: Mode) -> None:
    from peft import get_peft_model

    model = ready(world, "vision", "audio")
    rows, completions, mask = batch(world, model, "video", "audio")
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False))
    expected = gradients(adapted, plain(adapted, rows, completions, mask))
    assert all("lora_" in name for name in expected)
    assert_close(gradients(adapted, shared(adapted, rows, completions, mask, mode)), expected)


def test_the_tests_can_fail(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Completions that see each other, and positions that run on, are seen at once."""
    model = ready(world, "vision", "audio")
    rows, completions, mask = batch(world, model, "video")
    with torch.no_grad():
        right = shared(model, rows, completions, mask, "dense")
        members = Layout.members
        monkeypatch.setattr(Layout, "members", lambda self, index: members(self, index).clamp(max=0))
        assert (shared(model, rows, completions, mask, "dense") - right).abs().max() > 1e-3
        monkeypatch.undo()
        packed = pack(rows, completions, mask)
        packed.positions[:, 0, packed.layout.groups[0].prefix :] = torch.arange(sum(packed.layout.groups[0].lengths)) + 500
        moved = model(packed=packed, packed_mode="dense", **Towers(model).media(packed.heads, CPU)).log_probs
        assert (moved - right).abs().max() > 1e-4


def test_rows_with_nothing_asked_keep_their_graph(world: World) -> None:
    model = ready(world, "vision", "audio")
    rows, completions, mask = batch(world, model, "video")
    found = shared(model, rows, completions, mask * 0, "cat")
    assert not found.any()
    assert not any(grad.any() for grad in gradients(model, found).values())


def test_clips_with_the_same_question_are_two_groups(world: World) -> None:
    model = ready(world, "vision", "audio")
    encoder = world.encoder(model)
    first, other = (encoder(record) for record in world.records("video")[:2])
    first.ids, other.ids = first.ids, list(first.ids)
    packed = pack([first, other, first], torch.ones(3, 2, dtype=torch.long), torch.ones(3, 2, dtype=torch.long))
    assert len(packed.layout.groups) == 2
    assert packed.heads == (first, other)


def test_shapes_are_classed_by_powers_of_two() -> None:
    assert Group(0, 1000, (96, 20)).size_class == Group(7, 1024, (65,)).size_class
    assert Group(0, 1025, (96,)).size_class != Group(0, 1024, (96,)).size_class


def run(world: World, tmp_path: Path, shared_prefix: str, **settings: Any) -> tuple[list[float], list[Any]]:
    records = world.records("audio_video")[:4]
    trainer = trainer_for(
        world,
        records,
        tmp_path,
        frozen=("vision", "audio"),
        shared_prefix=shared_prefix,
        max_steps=10,
        max_completion_length=10,
        beta=0.05,
        logging_steps=1,
        **settings,
    )
    completions: list[Any] = []
    trainer.recorder = lambda step, rows: completions.extend(row["completion_ids"] for row in rows)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], completions


@pytest.mark.parametrize("mode", ["cat", "cascade"])
@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}], ids=["whole", "in parts"])
def test_ten_steps_are_the_same_with_and_without_sharing(world: World, tmp_path: Path, mode: str, settings: dict[str, Any]) -> None:
    losses, completions = run(world, tmp_path, "off", **settings)
    shared_losses, shared_completions = run(world, tmp_path, mode, **settings)
    assert len(losses) == 10
    assert shared_completions == completions
    assert shared_losses == pytest.approx(losses, abs=1e-5)
    assert max(map(abs, losses)) > 1e-3


def test_groups_stay_together_in_the_parts_of_a_step(world: World, tmp_path: Path) -> None:
    """TRL shuffles single completions over the parts of a step, each of which would hold every prompt."""
    trainer = trainer_for(
        world,
        world.records("video")[:8],
        tmp_path,
        num_generations=4,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        frozen=("vision", "audio"),
    )
    sizes: list[tuple[int, ...]] = []
    packed = layout.pack

    def watched(rows: Any, *others: Any) -> Any:
        made = packed(rows, *others)
        sizes.append(tuple(len(group.lengths) for group in made.layout.groups))
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("omnistage.rl.grpo_trainer.pack", watched)
        trainer.train()
    # Two rows at a time are the checks of the shared way.
    assert [size for size in sizes if size != (2,)] == [(4,)] * 4


@pytest.fixture
def wrong_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    right = attention._cat

    def blind(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> Tensor:
        return right(query, key, torch.zeros_like(value), *others)

    monkeypatch.setattr(attention, "_cat", blind)


@pytest.mark.usefixtures("wrong_attention")
def test_a_wrong_shared_way_is_found_out_and_left(world: World, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="shared_prefix 'cat' differs from the plain way by .*: completions are scored plainly"):
        losses, completions = run(world, tmp_path, "cat")
    plain_losses, plain_completions = run(world, tmp_path, "off")
    assert completions == plain_completions
    assert losses == pytest.approx(plain_losses, abs=1e-5)


def test_dropout_in_adapters_is_no_difference(world: World, tmp_path: Path) -> None:
    """The two ways are compared, and completions drawn, with all units; the loss still drops some."""
    adapter = LoraConfig(r=4, lora_dropout=0.5, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False)
    trainer = trainer_for(world, world.records("video")[:4], tmp_path, adapter=adapter, num_iterations=2, max_steps=2)
    dropouts = [module for module in trainer.model.modules() if isinstance(module, torch.nn.Dropout) and module.p]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*differ")
        trainer.train()
    assert trainer.sharing.checks > 0
    assert trainer.sharing.mode is not None
    assert trainer.sharing.reuse
    assert dropouts
    assert all(module.training for module in dropouts)


def test_the_check_is_made_once_for_each_class_of_shapes() -> None:
    row = Encoded(ids=list(range(20)), positions=torch.arange(20).expand(3, -1))
    sharing = Sharing("cat", lambda value: value, half=False, device="cpu")

    def zeros(rows: Any, ids: Tensor, mask: Tensor, width: int) -> tuple[Tensor, None]:
        return torch.zeros(len(rows), width), None

    def prove(width: int, other: Callable[..., Any] = zeros) -> int:
        ids = torch.ones(4, 20 + width, dtype=torch.long)
        sharing.prove([row] * 4, ids, ids, width, zeros, other)
        return sharing.checks

    assert [prove(width) for width in (5, 8, 6, 9, 16, 3)] == [1, 1, 1, 2, 2, 3]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        prove(64, lambda *x: (zeros(*x)[0] + 1e-3, None))
    assert [str(warning.message).startswith("shared_prefix 'cat' differs") for warning in said] == [True]
    assert sharing.mode is None
    assert prove(300) == 4, "nothing is left to check"
