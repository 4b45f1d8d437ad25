"""The ways of making a GRPO step that the benchmarks compare, on the same model, clips and prompts.

- `shared`: as this package trains by default;
- `off`: with `shared_prefix: off`: each completion has its own copy of the prompt, media are encoded once;
- `trl`: TRL's own way, made to see the media: each completion has its own copy of the prompt and of its media in every pass, and all
  completions of a step are drawn in one batch;
- `one_at_a_time`: HumanSense's: as `trl`, with one sequence drawn at a time and the logits of all positions.

Towers are frozen in all of them; HumanSense trains its towers, which costs more than what is measured here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trl import GRPOConfig
from trl.models import unwrap_model_for_generation
from trl.models.utils import disable_gradient_checkpointing

from omnistage.data import synth
from omnistage.data.media import MediaLimits
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record
from omnistage.data.synth.encode import write_clip
from omnistage.rl import policy, tiny
from omnistage.rl.encoding import Encoded, Encoder, MediaShape, left_padded
from omnistage.rl.grpo_trainer import OmniGRPOTrainer
from omnistage.rl.policy import thinker_of
from omnistage.rl.rollout import until_end
from omnistage.rl.sampler import Pool
from omnistage.rl.towers import Towers, raw_media

GENERATED = 64
SIZE = tiny.TinySize(hidden=256, layers=4, heads=8, kv_heads=2, tower_hidden=64, tower_layers=2)
TOKEN_PIXELS = tiny.MERGED_PATCH**2
GRIDS = 8
SOUND_TOKENS_PER_S = 25


class EachRow(Towers):
    """Towers that keep nothing: every row's media are encoded in every pass."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model)
        self._hashes = {}


class Trl(OmniGRPOTrainer):
    """TRL's way: rows are independent, and each brings its own media."""

    def towers(self, model: torch.nn.Module) -> Towers:
        return EachRow(model)

    def _sample(self, heads: Sequence[Encoded], num_generations: int) -> list[list[int]]:
        rows = [row for row in heads for _ in range(num_generations)]
        return self._sample_rows(rows)

    def _sample_rows(self, rows: Sequence[Encoded]) -> list[list[int]]:
        device = thinker_of(self.model).device
        ids, mask, _ = (tensor.to(device) for tensor in left_padded(rows, self._tokenizer.pad_token_id))
        media = raw_media(rows, device)
        if rows[0].second_per_grid is not None:
            media["video_second_per_grid"] = torch.cat([row.second_per_grid for row in rows if row.second_per_grid is not None])
        # Without activation checkpointing, which would take the cache away.
        with torch.no_grad(), unwrap_model_for_generation(self.model, self.accelerator) as model:
            out = thinker_of(model).generate(
                input_ids=ids,
                attention_mask=mask,
                use_audio_in_video=rows[0].audio_in_video,
                generation_config=self.generation_config,
                **media,
            )
        return until_end(out[:, ids.shape[1] :], self.eos_token_ids)


class OneAtATime(Trl):
    """HumanSense's way: one sequence at a time, and logits of the prompt, too."""

    def _sample(self, heads: Sequence[Encoded], num_generations: int) -> list[list[int]]:
        return [self._sample_rows([row])[0] for row in heads for _ in range(num_generations)]

    def _plain(
        self, model: torch.nn.Module, rows: Sequence[Encoded], ids: Tensor, mask: Tensor, width: int, entropy: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        positions = torch.cat([whole_positions(row, width)[:, None] for row in rows], 1).to(ids.device)
        media = self.towers(model).media(rows, ids.device)
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions, **media).logits
        log_probs = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        return log_probs[:, -width:], None


def whole_positions(row: Encoded, width: int) -> Tensor:
    """Positions [3, P + width] of one prompt and a completion behind it."""
    after = len(row.ids) + row.delta
    return torch.cat([row.positions, torch.arange(after, after + width).expand(3, -1)], 1)


WAYS: dict[str, tuple[type[OmniGRPOTrainer], str]] = {
    "shared": (OmniGRPOTrainer, "auto"),
    "off": (OmniGRPOTrainer, "off"),
    "trl": (Trl, "off"),
    "one_at_a_time": (OneAtATime, "off"),
}


def write_media(folder: Path, modality: str, tokens: int, prompts: int = 1) -> tuple[list[Record], MediaShape]:
    """Records of clips that were really encoded, whose prompts have about `tokens` media tokens each, and how they are shown."""
    seen = {"video": tokens, "audio": 0, "audio_video": tokens // 2}[modality]
    seconds = max(2.0, (tokens - seen) / SOUND_TOKENS_PER_S)
    side = max(2, round((seen / GRIDS) ** 0.5))
    records = []
    for seed in range(prompts):
        rng = np.random.default_rng(seed)
        frames = None
        if seen:
            still = rng.integers(0, 255, (side * tiny.MERGED_PATCH, side * tiny.MERGED_PATCH, 3), dtype=np.uint8)
            frames = np.stack([np.roll(still, step * 7, axis=1) for step in range(int(seconds * 8))])
        sound = None
        if modality != "video":
            sound = (0.3 * np.sin(np.arange(int(seconds * 16000)) * (0.05 + 0.01 * seed) * np.pi)).astype(np.float32)
        path = folder / f"{modality}-{tokens}-{seed}.{'wav' if frames is None else 'mp4'}"
        write_clip(path, frames, sound)
        ref = (
            MediaRef("audio", str(path)) if frames is None else MediaRef("video", str(path), sound=str(path) if sound is not None else None)
        )
        records.append(Record(path.stem, Modality(modality), "benchmark", AnswerKind.NUMBER, "how many are there ?", "3", (ref,)))
    pixels = side * side * TOKEN_PIXELS
    shape = MediaShape(MediaLimits(fps=8.0, max_frames=2 * GRIDS, max_sound_s=3600), min_pixels=pixels, max_pixels=pixels)
    return records, shape


def trainer_of(
    kind: type[OmniGRPOTrainer],
    sharing: Any,
    model: Any,
    processor: Any,
    media: tuple[Sequence[Record], MediaShape],
    group: int,
    out: Path,
) -> OmniGRPOTrainer:
    """A trainer of its own kind that scores in its own way; it takes the model over, and freezes its towers."""
    records, shape = media
    policy.freeze(model, ("vision", "audio"))
    args = GRPOConfig(
        str(out),
        per_device_train_batch_size=group,
        num_generations=group,
        max_steps=1,
        bf16=model.dtype == torch.bfloat16,
        use_cpu=model.device.type == "cpu",
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    trainer = kind(
        model,
        [lambda completions, **columns: [0.0] * len(completions)],
        args=args,
        # Two rows at least, or TRL would not shuffle one.
        records=[*records, replace(records[0], id="other")],
        pools=[Pool((0, 1), 1.0)],
        encoder=Encoder(processor, model.config, shape=shape, template="short"),
        shared_prefix=sharing,
    )
    # Completions of the same length, whatever is drawn.
    trainer.generation_config.suppress_tokens = [*trainer.generation_config.suppress_tokens, *trainer.eos_token_ids]
    return trainer


class Case:
    """One way with the prompts of a step, ready to be timed. Single passes are made over the first prompt's group, the whole step over all.

    `completions` [G, C] are those of a single pass. `checkpointing` switches activation checkpointing on as transformers' Trainer does:
    gradients of all input embeddings come with it, a tower's too, so that a frozen tower which is run with gradients keeps a graph.
    """

    def __init__(self, trainer: OmniGRPOTrainer, records: Sequence[Record], completions: Tensor, *, checkpointing: bool = False) -> None:
        self.trainer = trainer
        self.records = list(records)
        self.rows = [trainer.encoder(record) for record in records]
        self.group, self.width = completions.shape
        # TRL reads and processes a prompt's clip for each completion, once for the rollout and once for the loss.
        self.readings = 2 * self.group if type(trainer) is Trl else 1
        self.ids, self.mask = self.with_prompts(self.rows[:1], completions)
        self.weights = torch.randn(self.group, generator=torch.Generator().manual_seed(5)).to(self.ids.device)
        trainer.model.train()
        if checkpointing:
            trainer.model.activation_checkpointing_enable(trainer.args.gradient_checkpointing_kwargs)

    @property
    def text_config(self) -> Any:
        """The language model's configuration."""
        return thinker_of(self.trainer.model).config.get_text_config()

    def with_prompts(self, rows: Sequence[Encoded], completions: Tensor) -> tuple[Tensor, Tensor]:
        """Ids [N * G, P + C] and mask of the completions [N * G, C] of N prompts, padded on the left."""
        device = thinker_of(self.trainer.model).device
        ids, mask, _ = left_padded(rows, self.trainer._tokenizer.pad_token_id)
        ids, mask = (prompts.repeat_interleave(self.group, 0) for prompts in (ids, mask))
        return torch.cat([ids, completions], 1).to(device), torch.cat([mask, torch.ones_like(completions)], 1).to(device)

    def score(self, rows: Sequence[Encoded], ids: Tensor, mask: Tensor) -> Tensor:
        """Log-probs [N * G, C], a group at a time."""
        self.trainer._rows = [row for row in rows for _ in range(self.group)]
        found, _, _ = self.trainer._get_per_token_logps_and_entropies(self.trainer.model, ids, mask, self.width, batch_size=self.group)
        return found

    def log_probs(self) -> Tensor:
        """Log-probs [G, C] of the first group."""
        return self.score(self.rows[:1], self.ids, self.mask)

    def policy(self) -> None:
        """Forward and backward over the first group."""
        self.trainer.model.zero_grad(set_to_none=True)
        (self.log_probs() * self.weights[:, None]).sum().backward()

    def scoring(self) -> None:
        """The first group's log-probs as of a reference: without gradients and, as TRL does it, without checkpointing."""
        with torch.no_grad(), disable_gradient_checkpointing(self.trainer.model, self.trainer.args.gradient_checkpointing_kwargs):
            self.log_probs()

    def generation(self, tokens: int = GENERATED) -> None:
        """The first prompt's completions, `tokens` long."""
        self.drawn(self.rows[:1], tokens)

    def drawn(self, rows: Sequence[Encoded], tokens: int) -> Tensor:
        """Completions [N * G, tokens] of N prompts."""
        self.trainer.generation_config.max_new_tokens = tokens
        torch.manual_seed(0)
        with torch.no_grad():
            completions = self.trainer._sample(rows, self.group)
        assert {len(ids) for ids in completions} == {tokens}
        return torch.tensor(completions)

    def step(self) -> dict[str, float]:
        """A step with new prompts; CPU seconds of its parts.

        Clips are read and encoded, completions drawn for all prompts, scored by a reference, and trained on; policy and scoring passes
        take a group at a time, and gradients add up over the groups.
        """
        taken = {}
        start = time.process_time()

        def lap(part: str) -> None:
            nonlocal start
            now = time.process_time()
            taken[part], start = now - start, now

        for _ in range(self.readings):
            rows = [self.trainer.encoder.encode(record) for record in self.records]
        lap("reading")
        ids, mask = self.with_prompts(rows, self.drawn(rows, self.width))
        lap("generation")
        # A reference is another model than the one whose log-probs were noted.
        self.trainer._noted = None
        with torch.no_grad(), disable_gradient_checkpointing(self.trainer.model, self.trainer.args.gradient_checkpointing_kwargs):
            self.score(rows, ids, mask)
        lap("scoring")
        self.trainer.model.zero_grad(set_to_none=True)
        for at, row in enumerate(rows):
            part = slice(at * self.group, (at + 1) * self.group)
            (self.score([row], ids[part], mask[part]) * self.weights[:, None]).sum().backward()
        lap("policy")
        return taken | {"step": sum(taken.values())}

    def saved(self) -> int:
        """Bytes that autograd keeps for the backward of the policy pass, each storage once."""
        own = {p.untyped_storage().data_ptr() for p in self.trainer.model.parameters()}
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            log_probs = self.log_probs()
        del log_probs
        return sum(kept.values())

    def encodings(self) -> float:
        """Times that a prompt's media go through a tower in one step."""
        thinker = thinker_of(self.trainer.model)
        counted = {"vision": 0, "audio": 0}

        def count(name: str, sizes: str) -> Callable[..., None]:
            def noted(module: torch.nn.Module, arguments: tuple[Any, ...], settings: dict[str, Any]) -> None:
                counted[name] += len(settings[sizes] if sizes in settings else arguments[1])

            return noted

        hooks = [
            thinker.model.visual.register_forward_pre_hook(count("vision", "grid_thw"), with_kwargs=True),
            thinker.model.audio_tower.register_forward_pre_hook(count("audio", "feature_lens"), with_kwargs=True),
        ]
        self.step()
        for hook in hooks:
            hook.remove()
        return max(counted.values()) / len(self.records)


def cases(
    folder: Path, modality: str, tokens: int, width: int, group: int, prompts: int, ways: Sequence[tuple[str, bool]]
) -> dict[tuple[str, bool], Case]:
    """A case with a model of its own for each way, with or without activation checkpointing; all of them score alike."""
    checkpoint = folder / "checkpoint"
    if not checkpoint.exists():
        tiny.build(checkpoint, synth.corpus(), size=SIZE, seed=0)
    media = write_media(folder, modality, tokens, prompts)
    processor = policy.load_processor(str(checkpoint))
    completions = torch.randint(20, 200, (group, width), generator=torch.Generator().manual_seed(1))
    made = {}
    for way, checkpointing in ways:
        model = policy.load(str(checkpoint), dtype="float32")
        trainer = trainer_of(*WAYS[way], model, processor, media, group, folder / "out")
        made[way, checkpointing] = Case(trainer, media[0], completions, checkpointing=checkpointing)
    found = {key: case.log_probs().detach() for key, case in made.items()}
    first = next(iter(found.values()))
    for key, log_probs in found.items():
        assert (log_probs - first).abs().max() < 1e-4, f"{key} scores otherwise"
    return made


def operations(config: Any, prompt: int, width: int, group: int, *, copies: bool) -> tuple[float, float]:
    """Floating-point operations of a forward of the language model over a group, with a copy of the prompt for each completion or with one.

    Those that grow with the tokens (2 N a token for the N weights of the layers, 2 x hidden x vocabulary a token that is predicted), and
    those of attention (4 x layers x heads x head size a pair of query and key).
    """
    size = config.hidden_size // config.num_attention_heads
    heads, kept = config.num_attention_heads, config.num_key_value_heads
    weights = config.num_hidden_layers * (
        config.hidden_size * size * (2 * heads + 2 * kept) + 3 * config.hidden_size * config.intermediate_size
    )
    if copies:
        tokens, pairs = group * (prompt + width), group * (prompt + width) ** 2 / 2
    else:
        tokens, pairs = prompt + group * width, prompt**2 / 2 + group * width * prompt + group * width**2 / 2
    predicted = 2 * config.hidden_size * config.vocab_size * group * width
    return 2 * weights * tokens + predicted, 4 * config.num_hidden_layers * heads * size * pairs
