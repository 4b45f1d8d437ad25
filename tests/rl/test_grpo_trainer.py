"""The trainer sees and hears in every pass: equality with plain references, and controls that show that the tests can fail."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

from clip_files import write_clip
from omnistage.data.errors import BlindBatchError
from omnistage.data.records import MediaRef, Modality, Record
from omnistage.rl import policy, rollout
from omnistage.rl.encoding import Encoded, Encoder, check_not_blind
from omnistage.rl.grpo_trainer import OmniGRPOTrainer
from omnistage.rl.towers import Towers
from trainers import G, odd_tokens, trainer_for
from world import SHAPE, World, reference_log_probs


def scored(trainer: OmniGRPOTrainer, rows: list[Encoded], completions: list[list[int]]) -> torch.Tensor:
    """Log-probs [B, C] by the trainer's own training forward on a padded batch."""
    from omnistage.rl.encoding import left_padded

    width = max(map(len, completions))
    ids, mask, _ = left_padded(rows, 0)
    tail = torch.zeros(len(rows), width, dtype=torch.long)
    tail_mask = torch.zeros_like(tail)
    for index, completion in enumerate(completions):
        tail[index, : len(completion)] = torch.tensor(completion)
        tail_mask[index, : len(completion)] = 1
    trainer._rows = rows
    log_probs, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model, torch.cat([ids, tail], 1), torch.cat([mask, tail_mask], 1), width
    )
    return log_probs.detach()


def worst(log_probs: torch.Tensor, references: list[torch.Tensor]) -> float:
    return max(float((row[: len(ref)] - ref).abs().max()) for row, ref in zip(log_probs, references, strict=True))


CASES = {
    "video": lambda world: world.records("video")[:4],
    "audio": lambda world: world.records("audio")[:4],
    "audio_video": lambda world: world.records("audio_video")[:4],
    "mixed": lambda world: world.mixed(),
}
COMPLETIONS = [[11, 12, 13], [40, 41], [60, 61, 62, 63], [15], [16, 17, 18], [19, 20], [33, 34, 35], [36, 37]]


@pytest.mark.parametrize("frozen", [(), ("vision", "audio"), ("audio",)], ids=["trained", "frozen", "audio_frozen"])
@pytest.mark.parametrize("case", CASES)
def test_training_forward_equals_the_plain_reference(world: World, tmp_path: Path, case: str, frozen: tuple[policy.Part, ...]) -> None:
    """A padded batch with our positions and shared media gives what an unpadded single row with the model's own positions gives."""
    trainer = trainer_for(world, CASES[case](world), tmp_path, frozen=frozen)
    rows = [trainer.encoder(record) for record in CASES[case](world)]
    completions = COMPLETIONS[: len(rows)]
    references = [reference_log_probs(trainer.model, row, completion) for row, completion in zip(rows, completions, strict=True)]
    assert worst(scored(trainer, rows, completions), references) <= 1e-5


@pytest.mark.parametrize("modality", ["video", "audio", "audio_video"])
def test_swapped_media_change_the_log_probs(world: World, tmp_path: Path, modality: str) -> None:
    """The equality test can fail: with the media of another clip the same completion scores differently."""
    trainer = trainer_for(world, world.records(modality)[:2], tmp_path)
    first, second = world.records(modality)[:2]
    rows = [trainer.encoder(first), trainer.encoder(first.with_media(second.media))]
    log_probs = scored(trainer, rows, [COMPLETIONS[0]] * 2)
    assert float((log_probs[0] - log_probs[1]).abs().max()) > 1e-3


def test_one_flag_for_the_batch_would_be_wrong(world: World) -> None:
    """A clip whose sound is not heard, beside one whose sound is: the model's own batch positions differ from the single row's."""
    model = world.model()
    encoder = world.encoder(model)
    heard, silent = (encoder(record) for record in (world.records("audio_video")[2], world.mixed()[-2]))
    assert heard.audio_in_video
    assert not silent.audio_in_video
    ids = torch.tensor([silent.ids])
    flagged, _ = model.model.get_rope_index(ids, None, silent.grid, torch.ones_like(ids), True, None, silent.second_per_grid)
    assert not torch.equal(flagged[:, 0].long(), silent.positions)


@pytest.mark.parametrize("frozen", [(), ("vision", "audio")], ids=["trained", "frozen"])
@pytest.mark.parametrize("case", CASES)
def test_rollout_log_probs_equal_the_training_forward(world: World, tmp_path: Path, case: str, frozen: tuple[policy.Part, ...]) -> None:
    """What the policy samples from, prefilled once and decoded step by step, is what it is scored with, for mixed rows too."""
    trainer = trainer_for(world, CASES[case](world), tmp_path, frozen=frozen)
    rows = [trainer.encoder(record) for record in CASES[case](world)]
    steps: list[torch.Tensor] = []
    hook = trainer.model.lm_head.register_forward_hook(lambda module, args, logits: steps.append(logits[:, -1].float().log_softmax(-1)))
    out = rollout.generate(
        trainer.model,
        Towers(trainer.model),
        rows,
        num_generations=G,
        pad_id=0,
        max_new_tokens=5,
        do_sample=True,
        top_k=0,
        eos_token_id=None,
        suppress_tokens=policy.forbidden_tokens(trainer.encoder.processor),
    )
    sampled = torch.stack([step.gather(-1, out[:, t : t + 1])[:, 0] for t, step in enumerate(steps)], dim=1)
    hook.remove()
    repeated = [row for row in rows for _ in range(G)]
    assert out.shape == sampled.shape == (len(rows) * G, 5)
    assert float((scored(trainer, repeated, out.tolist()) - sampled).abs().max()) <= 1e-5


def test_greedy_rollout_equals_transformers_own(world: World) -> None:
    """Prefill once and expand gives the tokens that transformers gives for each row alone."""
    model = world.model()
    encoder = world.encoder(model)
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    records = world.mixed()
    ours = rollout.generate(model, Towers(model), [encoder(r) for r in records], num_generations=1, pad_id=0, **settings)
    for record, got in zip(records, ours.tolist(), strict=True):
        row = encoder(record)
        ids = torch.tensor([row.ids])
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if row.pictures is not None:
            inputs |= {"pixel_values_videos": row.pictures, "video_grid_thw": row.grid, "video_second_per_grid": row.second_per_grid}
        if row.stills is not None:
            inputs |= {"pixel_values": row.stills, "image_grid_thw": row.still_grid}
        if row.mels:
            inputs |= {
                "input_features": row.mels[0][None],
                "feature_attention_mask": torch.ones(1, row.mels[0].shape[-1], dtype=torch.long),
            }
        if row.audio_in_video:
            inputs["use_audio_in_video"] = True
        alone = model.generate(**inputs, **settings)
        assert got == alone[0, ids.shape[1] :].tolist()


def test_a_blind_batch_is_refused(world: World) -> None:
    model = world.model()
    row = world.encoder(model)(world.records("video")[0])
    blind = Encoded(ids=row.ids, positions=row.positions)
    with pytest.raises(BlindBatchError, match="row 0 has video placeholders"):
        check_not_blind(model, torch.tensor([row.ids]), [blind])


def test_one_decode_and_one_encoding_per_distinct_prompt(world: World, tmp_path: Path) -> None:
    """Two steps over two prompts with G = 2 and a reference pass: two decodes, two tower rows, not 2 x 2 x 3."""
    records = world.records("audio_video")[:2]
    trainer = trainer_for(world, records, tmp_path, frozen=("vision", "audio"), max_steps=2, beta=0.1)
    trainer.train()
    assert trainer.encoder.misses == 2
    assert trainer.towers(trainer.model).origins["encoded"] == 2 * 2  # two rows, vision and audio
    assert trainer.ref_model is not None
    # The reference's towers are frozen, too, and hold the same weights: it finds the policy's features.
    assert set(trainer.towers(trainer.ref_model).frozen) == {"vision", "audio"}
    assert trainer.towers(trainer.ref_model).origins["encoded"] == 0


@pytest.mark.parametrize("part", ["vision", "audio", "language"])
def test_each_part_can_be_trained_alone(world: World, tmp_path: Path, part: policy.Part) -> None:
    others = tuple(p for p in policy.PARTS if p != part)
    trainer = trainer_for(world, world.records("audio_video")[:2], tmp_path, frozen=others)
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    changed = {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed
    assert changed <= {name for name, _ in policy.parameters_of(trainer.model, part)}


def test_media_tokens_are_never_sampled(world: World, tmp_path: Path) -> None:
    """Even a policy that wants nothing else: the heads' rows of all media tokens are raised above every other."""
    trainer = trainer_for(world, world.records("video")[:2], tmp_path, max_completion_length=12)
    forbidden = policy.forbidden_tokens(trainer.encoder.processor)
    assert len(set(forbidden)) == 7
    with torch.no_grad():
        trainer.model.lm_head.weight[forbidden] *= 50
    trainer._rows = [trainer.encoder(r) for r in world.records("video")[:2] for _ in range(G)]
    completions, _ = trainer._generate_single_turn(None, None, None, G)
    assert not {token for completion in completions for token in completion} & set(forbidden)


@pytest.mark.parametrize(("fps", "starts"), [(2.0, [0, 25]), (4.0, [0, 12, 25, 37])])
def test_real_fps_reaches_the_positions(world: World, tmp_path: Path, fps: float, starts: list[int]) -> None:
    """A clip of two seconds at 2 and at 4 frames per second: grids of two frames start 25 and 12.5 positions apart (25 a second)."""
    model = world.model()
    shape = replace(SHAPE, limits=replace(SHAPE.limits, fps=fps))
    encoder = Encoder(policy.load_processor(str(world.checkpoint)), model.config, shape=shape, template="short")
    clip = write_clip(tmp_path / "clip.mp4", frames=16, fps=8)
    row = encoder(world.records("video")[0].with_media((MediaRef("video", clip),)))
    times = row.positions[0, torch.tensor(row.ids) == model.config.video_token_id]
    assert sorted(set((times - times.min()).tolist())) == starts
    assert row.second_per_grid is not None
    assert row.second_per_grid.tolist() == [2 / fps]


def text_only(record: Record) -> Record:
    return replace(record, media=(), modality=Modality.TEXT)


def test_loss_on_text_equals_stock_trl(world: World, tmp_path: Path) -> None:
    """On prompts without media three steps of ours and of stock TRL give the same losses, rewards and gradient norms to 6 digits."""
    records = [text_only(r) for r in world.records("video")[:4]]
    trainer = trainer_for(world, records, tmp_path, max_steps=3, logging_steps=1, beta=0.05)
    trainer.train()
    ours = [row for row in trainer.state.log_history if "loss" in row]

    model = world.model()
    processor = policy.load_processor(str(world.checkpoint))
    args = replace_output(trainer.args, tmp_path / "stock")
    stock = GRPOTrainer(model, odd_tokens, args=args, train_dataset=trainer.train_dataset, processing_class=processor)
    stock._get_train_sampler = trainer._get_train_sampler
    stock.train()
    theirs = [row for row in stock.state.log_history if "loss" in row]
    assert len(ours) == len(theirs) == 3
    for a, b in zip(ours, theirs, strict=True):
        for key in ("loss", "grad_norm", "reward", "kl"):
            assert a[key] == pytest.approx(b[key], rel=1e-6, abs=1e-6), key


def replace_output(args: GRPOConfig, folder: Path) -> GRPOConfig:
    import copy

    other = copy.deepcopy(args)
    other.output_dir = str(folder)
    return other


def test_small_steps_move_whole_weights(world: World) -> None:
    """bfloat16 cannot hold a step of 1e-6: what is trained is float32, what is frozen is not, and nearly every weight moves."""
    for whole, moved in ((True, 0.9), (False, 0.2)):
        model = policy.load_for_training(str(world.checkpoint), ["vision", "audio"], dtype="bfloat16", whole_weights=whole)
        weight = model.model.language_model.layers[0].mlp.down_proj.weight
        assert weight.dtype == (torch.float32 if whole else torch.bfloat16)
        assert next(value for _, value in policy.parameters_of(model, "vision")).dtype == torch.bfloat16
        before = weight.detach().clone()
        optimizer = torch.optim.AdamW([weight], lr=1e-6, weight_decay=0.0)
        for _ in range(20):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        share = float((weight != before).float().mean())
        assert share >= moved if whole else share <= moved


def test_a_dropped_model_frees_its_weights(world: World) -> None:
    """Without a collection of cycles: two 7B models of finished stages must not lie beside the next one."""
    model = world.model()
    gone = weakref.ref(model.model)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()
