"""What a GRPO step costs with one copy of the prompt, beside TRL's way and HumanSense's, in one run on one CPU thread.

    python benchmarks/grpo_step.py [--json FILE] [--rounds 3] [--modality video ...] [--prompt 1000] [--completion 96] [--group 8]
    python benchmarks/grpo_step.py --sweep [--json FILE]

Variants, of the same tiny model on the same clips and completions, called in turn:

- `shared`: as this package trains by default;
- `off`: with `shared_prefix: off`: each completion has its own copy of the prompt, media are encoded once;
- `trl`: TRL's own way, made to see the media: each completion has its own copy of the prompt and of its media in every pass;
- `one_at_a_time`: HumanSense's: as `trl`, with one sequence generated at a time and the logits of all positions.

Times are CPU seconds, medians over the rounds; their ratio to `shared` is what counts. A step holds the reading of the clip and the
processor: 2 G times in TRL (`_tokenize_prompts`, and again for the loss), else once. Saved memory is what autograd keeps for the backward,
parameters not counted. `bound` is what the floating-point operations of the language model alone predict for the policy pass.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trl import GRPOConfig
from trl.models import unwrap_model_for_generation

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

MODALITIES = ("video", "audio", "audio_video")
GENERATED = 64
SIZE = tiny.TinySize(hidden=256, layers=4, heads=8, kv_heads=2, tower_hidden=64, tower_layers=2)
TOKEN_PIXELS = tiny.MERGED_PATCH**2
GRIDS = 8
SOUND_TOKENS_PER_S = 25
PASSES = ("policy", "scoring", "generation", "step")


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


VARIANTS: dict[str, tuple[type[OmniGRPOTrainer], str]] = {
    "shared": (OmniGRPOTrainer, "auto"),
    "off": (OmniGRPOTrainer, "off"),
    "trl": (Trl, "off"),
    "one_at_a_time": (OneAtATime, "off"),
}


def write_media(folder: Path, modality: str, tokens: int) -> tuple[Record, MediaShape]:
    """A clip that was really encoded and whose prompt has about `tokens` media tokens, and how it is shown."""
    seen = {"video": tokens, "audio": 0, "audio_video": tokens // 2}[modality]
    seconds = max(2.0, (tokens - seen) / SOUND_TOKENS_PER_S)
    rng = np.random.default_rng(0)
    side = max(2, round((seen / GRIDS) ** 0.5))
    frames = None
    if seen:
        still = rng.integers(0, 255, (side * tiny.MERGED_PATCH, side * tiny.MERGED_PATCH, 3), dtype=np.uint8)
        frames = np.stack([np.roll(still, step * 7, axis=1) for step in range(int(seconds * 8))])
    sound = None
    if modality != "video":
        sound = (0.3 * np.sin(np.arange(int(seconds * 16000)) * 0.05 * np.pi)).astype(np.float32)
    path = folder / f"{modality}-{tokens}.{'wav' if frames is None else 'mp4'}"
    write_clip(path, frames, sound)
    ref = MediaRef("audio", str(path)) if frames is None else MediaRef("video", str(path), sound=str(path) if sound is not None else None)
    record = Record(path.stem, Modality(modality), "benchmark", AnswerKind.NUMBER, "how many are there ?", "3", (ref,))
    pixels = side * side * TOKEN_PIXELS
    shape = MediaShape(MediaLimits(fps=8.0, max_frames=2 * GRIDS, max_sound_s=3600), min_pixels=pixels, max_pixels=pixels)
    return record, shape


def trainer_of(
    kind: type[OmniGRPOTrainer], sharing: Any, model: Any, processor: Any, clip: tuple[Record, MediaShape], group: int, out: Path
) -> OmniGRPOTrainer:
    """A trainer of its own kind that scores in its own way; it takes the model over, and freezes its towers."""
    record, shape = clip
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
        # Two rows, or TRL would not shuffle one.
        records=[record, replace(record, id="other")],
        pools=[Pool((0, 1), 1.0)],
        encoder=Encoder(processor, model.config, shape=shape, template="short"),
        shared_prefix=sharing,
    )
    # Completions of the same length, whatever is drawn.
    trainer.generation_config.suppress_tokens = [*trainer.generation_config.suppress_tokens, *trainer.eos_token_ids]
    return trainer


class Case:
    """One variant with one prompt and its completions, ready to be timed."""

    def __init__(self, trainer: OmniGRPOTrainer, record: Record, completions: Tensor) -> None:
        self.trainer = trainer
        self.record = record
        self.row = trainer.encoder(record)
        self.group, self.width = completions.shape
        # TRL reads and processes a prompt's clip for each completion, once for the rollout and once for the loss.
        self.readings = 2 * self.group if type(trainer) is Trl else 1
        device = thinker_of(trainer.model).device
        self.ids = torch.cat([torch.tensor([self.row.ids]).expand(self.group, -1), completions], 1).to(device)
        self.mask = torch.ones_like(self.ids)
        self.weights = torch.randn(self.group, generator=torch.Generator().manual_seed(5)).to(device)

    def log_probs(self) -> Tensor:
        self.trainer._rows = [self.row] * self.group
        found, _, _ = self.trainer._get_per_token_logps_and_entropies(self.trainer.model, self.ids, self.mask, self.width)
        return found

    def policy(self) -> None:
        self.trainer.model.zero_grad(set_to_none=True)
        (self.log_probs() * self.weights[:, None]).sum().backward()

    def scoring(self) -> None:
        with torch.no_grad():
            self.log_probs()

    def generation(self, tokens: int = GENERATED) -> None:
        config = self.trainer.generation_config
        config.max_new_tokens = tokens
        torch.manual_seed(0)
        with torch.no_grad():
            drawn = self.trainer._sample([self.row], self.group)
        assert {len(ids) for ids in drawn} == {tokens}

    def step(self) -> None:
        """A new prompt: file read, media encoded, completions drawn, scored by a reference, and trained on."""
        for _ in range(self.readings):
            self.row = self.trainer.encoder.encode(self.record)
        self.generation(self.width)
        self.scoring()
        self.policy()

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
        """Times that the prompt's media go through a tower in one step."""
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
        return max(counted.values())


def bound(prompt: int, width: int, group: int, vocabulary: int) -> float:
    """Floating-point operations of the language model, a copy of the prompt for each completion over one copy for all.

    2 N a token for the N weights of the layers, 4 x layers x heads x head size a pair of query and key, 2 x hidden x vocabulary a token
    that is predicted.
    """
    head = SIZE.hidden // SIZE.heads
    attention = SIZE.hidden * (SIZE.heads + 2 * (SIZE.kv_heads or SIZE.heads) + SIZE.heads) * head
    weights = SIZE.layers * (attention + 3 * SIZE.hidden * text_width())
    pair = 4 * SIZE.layers * SIZE.heads * head
    predicted = 2 * SIZE.hidden * vocabulary * group * width
    whole = prompt + width
    copies = 2 * weights * group * whole + pair * group * whole**2 / 2 + predicted
    once = 2 * weights * (prompt + group * width) + pair * (prompt**2 / 2 + group * width * prompt + group * width**2 / 2) + predicted
    return copies / once


def text_width() -> int:
    """Width of the tiny model's feed-forward layers."""
    processor = tiny.build_processor(synth.corpus(), SIZE)
    return int(tiny.build_config(processor, SIZE).text_config.intermediate_size)


def timed(call: Callable[[], None]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(folder: Path, modality: str, tokens: int, width: int, group: int, rounds: int, variants: Sequence[str]) -> dict[str, Any]:
    """Median CPU seconds of each pass and variant, their ratios, and what the policy pass keeps."""
    checkpoint = folder / "checkpoint"
    if not checkpoint.exists():
        tiny.build(checkpoint, synth.corpus(), size=SIZE, seed=0)
    clip = write_media(folder, modality, tokens)
    processor = policy.load_processor(str(checkpoint))
    completions = torch.randint(20, 200, (group, width), generator=torch.Generator().manual_seed(1))
    cases = {}
    for name in variants:
        model = policy.load(str(checkpoint), dtype="float32")
        trainer = trainer_of(*VARIANTS[name], model, processor, clip, group, folder / "out")
        cases[name] = Case(trainer, clip[0], completions)
    found = {name: case.log_probs().detach() for name, case in cases.items()}
    for name in variants:
        assert (found[name] - found[variants[0]]).abs().max() < 1e-4, f"{name} scores otherwise"
    seconds: dict[str, dict[str, list[float]]] = {name: {each: [] for each in PASSES} for name in variants}
    for turn in range(rounds + 1):
        for name, case in cases.items():
            for each in PASSES:
                took = timed(getattr(case, each))
                if turn:
                    seconds[name][each].append(took)
    medians = {name: {each: statistics.median(times) for each, times in of.items()} for name, of in seconds.items()}
    ours = medians["shared"]
    saved = {name: case.saved() for name, case in cases.items()}
    prompt = len(cases["shared"].row.ids)
    result: dict[str, Any] = {
        "prompt": prompt,
        "completion": width,
        "group": group,
        "seconds": medians,
        "spread": {name: {each: max(times) - min(times) for each, times in of.items()} for name, of in seconds.items()},
        "times": {name: {each: medians[name][each] / ours[each] for each in PASSES} for name in variants},
        "saved_bytes": saved,
        "encodings_per_prompt": {name: case.encodings() for name, case in cases.items()},
        "bound": bound(prompt, width, group, cases["shared"].trainer.model.config.text_config.vocab_size),
    }
    if {"trl", "one_at_a_time"} <= set(variants):
        result["ratios"] = {each: result["times"]["trl"][each] for each in PASSES[:3]}
        result["ratios"] |= {
            "step_vs_plain": result["times"]["trl"]["step"],
            "step_vs_one_at_a_time": result["times"]["one_at_a_time"]["step"],
            "saved_memory": saved["trl"] / saved["shared"],
        }
    return result


def shown(modality: str, result: dict[str, Any]) -> str:
    """For people: a line a variant."""
    head = f"{modality}: prompt {result['prompt']} tokens, completions {result['completion']}, group {result['group']}"
    lines = [
        f"{head}; operations predict {result['bound']:.2f}x for the policy pass",
        f"  {'':14}" + "".join(f"{each:>22}" for each in PASSES) + f"{'kept MiB':>12}{'encodings':>11}",
    ]
    for name, of in result["seconds"].items():
        cells = "".join(f"{of[each]:12.3f} s {result['times'][name][each]:6.2f}x" for each in PASSES)
        lines.append(f"  {name:14}{cells}{result['saved_bytes'][name] / 2**20:12.1f}{result['encodings_per_prompt'][name]:11.0f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds (3)")
    parser.add_argument("--modality", nargs="+", choices=MODALITIES, default=list(MODALITIES))
    parser.add_argument("--prompt", type=int, default=960, help="media tokens of the prompt (960)")
    parser.add_argument("--completion", type=int, default=96, help="tokens of a completion (96)")
    parser.add_argument("--group", type=int, default=8, help="completions of a prompt (8)")
    parser.add_argument("--sweep", action="store_true", help="how the step grows with the group and with the prompt")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.sweep:
            results = sweep(folder, arguments.rounds)
        else:
            for modality in arguments.modality:
                results[modality] = measure(
                    folder, modality, arguments.prompt, arguments.completion, arguments.group, arguments.rounds, list(VARIANTS)
                )
                print(shown(modality, results[modality]), flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def sweep(folder: Path, rounds: int) -> dict[str, Any]:
    """Step times of `shared` and `trl` against the group, and against the prompt."""
    results: dict[str, Any] = {"group": [], "prompt": [], "completion": []}
    points = [("group", 960, 96, group) for group in (2, 4, 8, 16, 32)]
    points += [("prompt", tokens, 96, 8) for tokens in (200, 450, 968, 1922, 3872, 7688)]
    points += [("completion", 960, width, 8) for width in (32, 256, 512)]
    for axis, tokens, width, group in points:
        # TRL's copies of long prompts would take the machine's memory.
        variants = ["shared", "trl"] if tokens * group <= 16_000 else ["shared"]
        result = measure(folder, "video", tokens, width, group, rounds, variants)
        results[axis].append(result)
        print(f"{axis}: {shown('video', result)}", flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main())
