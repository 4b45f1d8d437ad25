"""What sharing the prompt gains on a GPU: the real architecture with random weights, real shapes, bfloat16.

    python benchmarks/gpu.py [--size 7b] [--rounds 3] [--out benchmarks/results]
    python benchmarks/gpu.py --size tiny --device cpu --rounds 1 --shape short          # does the script run?

For each shape (video of 16 frames, video of 4,096 tokens, 30 s of sound) and each way of scoring (`cat`, `cascade`, `flex`, `off`, and
`trl`, where each completion brings its own media): seconds of the policy pass with activation checkpointing, of scoring, of 64 generated
tokens and of a whole step; the share of the device's measured matrix rate that policy and scoring reach (floating-point operations of the
language model alone); peak memory of the policy pass; and tokens a second with 8 prompts decoded together. A way that fails says so and is
left out. Decoding is measured with its steps captured as a CUDA graph, and without. Writes `OUT/DEVICE-SIZE.json`.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from grpo_ways import SIZE, Case, Trl, operations, trainer_of, write_media
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from omnistage.data import synth
from omnistage.rl import published, tiny
from omnistage.rl.grpo_trainer import OmniGRPOTrainer

# Media tokens and completion tokens.
SHAPES = {
    "16 frames": ("video", 1300, 512),
    "4096 tokens": ("video", 4096, 512),
    "30 s of sound": ("audio", 750, 512),
    "short": ("video", 72, 8),
}
WAYS = ("cat", "cascade", "flex", "off", "trl")
GROUP, TOGETHER, GENERATED = 8, 8, 64
CHECKPOINTS = {"3b": "Qwen/Qwen2.5-Omni-3B", "7b": "Qwen/Qwen2.5-Omni-7B"}


def model_of(size: str, device: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """A thinker with random weights and a processor whose ids it knows."""
    plan = replace(SIZE, mel_bins=128) if size != "tiny" else SIZE
    processor = tiny.build_processor(synth.corpus(), plan)
    small = tiny.build_config(processor, plan)
    config = small
    if size != "tiny":
        ids = {name: value for name, value in small.to_dict().items() if name.endswith(("_token_id", "_token_index"))}
        config = published.config_of(CHECKPOINTS[size], **ids)
        config.text_config.pad_token_id = small.text_config.pad_token_id
        config.text_config.eos_token_id = small.text_config.eos_token_id
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2_5OmniThinkerForConditionalGeneration._from_config(config, dtype=dtype)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = (
        small.text_config.eos_token_id,
        small.text_config.pad_token_id,
    )
    return model, processor


def seconds(call: Callable[[], Any], rounds: int, device: str) -> float:
    """Median wall seconds, the first call not counted."""
    taken = []
    for turn in range(rounds + 1):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        if turn:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large product on this device."""
    size = 8192 if device == "cuda" else 512
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / seconds(lambda: left @ right, 5, device)


def measure(way: str, size: str, shape_name: str, device: str, rounds: int, rate: float, folder: Path) -> dict[str, Any]:
    """All figures of one way and shape."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    modality, tokens, width = SHAPES[shape_name]
    model, processor = model_of(size, device, dtype)
    media = write_media(folder, modality, tokens)
    kind, sharing = (Trl, "off") if way == "trl" else (OmniGRPOTrainer, way)
    trainer = trainer_of(kind, sharing, model, processor, media, GROUP, folder / "out")
    case = Case(trainer, media[0], torch.randint(20, 200, (GROUP, width), generator=torch.Generator().manual_seed(1)))
    found: dict[str, Any] = {"prompt": len(case.rows[0].ids), "completion": width, "group": GROUP}
    found["generation_s"] = seconds(lambda: case.generation(GENERATED), rounds, device)
    found["scoring_s"] = seconds(case.scoring, rounds, device)
    found |= decoded_together(trainer, case, rounds, device)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found["policy_s"] = seconds(case.policy, rounds, device)
    found["peak_bytes"] = torch.cuda.max_memory_allocated() if device == "cuda" else None
    found["step_s"] = seconds(case.step, rounds, device)
    once = sum(operations(case.text_config, found["prompt"], width, GROUP, copies=way in ("off", "trl")))
    found["scoring_share_of_rate"] = once / found["scoring_s"] / rate
    found["policy_share_of_rate"] = 3 * once / found["policy_s"] / rate
    # None: the self-check found that this way scores otherwise, and it was measured plainly.
    found["scored_by"] = trainer.sharing.mode
    return found


def decoded_together(trainer: OmniGRPOTrainer, case: Case, rounds: int, device: str) -> dict[str, Any]:
    """Tokens a second of several prompts: as it is, and with steps not captured as a CUDA graph (`graph`: whether they were)."""

    def rate() -> float:
        return TOGETHER * GROUP * GENERATED / seconds(lambda: trainer._sample(case.rows * TOGETHER, GROUP), rounds, device)

    found: dict[str, Any] = {"tokens_per_s_together": rate()}
    if trainer.sharing.mode is not None:
        found["graph"] = captured = device == "cuda" and trainer.graphs.wanted
        trainer.graphs.wanted = False
        found["tokens_per_s_without_graph"] = rate()
        trainer.graphs.wanted = captured
        with_graph = f"{found['tokens_per_s_together']:.0f}" if captured else "not captured"
        print(f"tokens a second: graph yes {with_graph}, graph no {found['tokens_per_s_without_graph']:.0f}", flush=True)
    return found


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=("3b", "7b", "tiny"), default="7b")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", nargs="+", choices=list(SHAPES), default=list(SHAPES)[:3])
    parser.add_argument("--way", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    dtype = torch.bfloat16 if arguments.device == "cuda" else torch.float32
    rate = matrix_rate(arguments.device, dtype)
    results: dict[str, Any] = {"device": name, "size": arguments.size, "matrix_rate": rate, "shapes": {}}
    print(f"{name}: {rate / 1e12:.3f} TFLOP/s in a large {dtype} product", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for shape in arguments.shape:
            of_shape = results["shapes"].setdefault(shape, {})
            for way in arguments.way:
                try:
                    of_shape[way] = measure(way, arguments.size, shape, arguments.device, arguments.rounds, rate, Path(folder))
                except (RuntimeError, NotImplementedError) as error:
                    of_shape[way] = {"failed": " ".join(str(error).split())[:300]}
                print(f"{shape}, {way}: {json.dumps(of_shape[way])}", flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}-{arguments.size}.json"
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
