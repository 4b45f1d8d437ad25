"""What features of frozen towers cost from the tower, and from the cache on disk, side by side in one run on one CPU thread.

    python benchmarks/features.py [--size small] [--tokens 1000] [--rounds 5] [--modality video audio]

`small` has the towers of the other benchmarks (2 layers, 64 wide), `medium` larger ones (8 layers, 512 wide), `real` those of the 7B model
(32 layers, 1,280 wide; 3 GB of random weights in float32, minutes a round). For each modality: CPU seconds of the tower for one clip that
was really encoded, of the tower and the cache that it fills, and of finding its features on disk (most of which is the digest of what the
tower would be given); medians of rounds in turn. The files are in the system's memory when they are read: a disk takes its time on top.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from grpo_ways import SIZE, write_media
from transformers import Qwen2_5OmniThinkerForConditionalGeneration
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniAudioEncoderConfig, Qwen2_5OmniVisionEncoderConfig

from omnistage.data import synth
from omnistage.rl import policy, tiny
from omnistage.rl.encoding import Encoded, Encoder
from omnistage.rl.feature_cache import FeatureCache, key_of
from omnistage.rl.towers import Towers

CPU = torch.device("cpu")
HIDDEN = 3584
SIZES = {
    "small": SIZE,
    "medium": replace(SIZE, tower_hidden=512, tower_layers=8),
    # As wide as the 7B model, whose towers take the place of the small ones; language is one layer that is never run.
    "real": replace(SIZE, hidden=HIDDEN, layers=1, mel_bins=128),
}


def model_of(size: str, modality: str) -> tuple[Any, Any]:
    """A thinker with random weights and frozen towers, and its processor; of real towers it has the one that the modality needs."""
    processor = tiny.build_processor(synth.corpus(), SIZES[size])
    config = tiny.build_config(processor, SIZES[size])
    if size == "real" and modality == "video":
        # transformers' own default is as wide as the language model, which no checkpoint is.
        config.vision_config = Qwen2_5OmniVisionEncoderConfig(hidden_size=1280, out_hidden_size=HIDDEN)
    elif size == "real":
        config.audio_config = Qwen2_5OmniAudioEncoderConfig(output_dim=HIDDEN)
    torch.manual_seed(0)
    model = Qwen2_5OmniThinkerForConditionalGeneration._from_config(config, dtype=torch.float32)
    policy.freeze(model, policy.PARTS)
    return model, processor


def seconds(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(model: Any, row: Encoded, folder: Path, rounds: int) -> dict[str, float]:
    """Median CPU seconds of each way, and the bytes of the features."""
    plain = Towers(model)
    filling, finding = (Towers(model, FeatureCache(folder / "cache", 10**10)) for _ in range(2))
    taken: dict[str, list[float]] = {"tower": [], "filling": [], "disk": [], "digest": []}
    (sense,) = (sense for sense in ("video", "audio") if row.has(sense))
    given = [row.pictures, row.grid] if sense == "video" else row.mels
    for turn in range(rounds):
        # Another prompt with another clip, for what the cache holds of the last turn.
        fresh = replace(
            row, features={}, mels=[mel + turn for mel in row.mels], pictures=None if row.pictures is None else row.pictures + turn
        )
        ways = {"tower": plain, "filling": filling, "disk": finding}
        for name, towers in ways.items():
            fresh.features.clear()
            taken[name].append(seconds(lambda towers=towers, fresh=fresh: towers.media([fresh], CPU)))
        taken["digest"].append(seconds(lambda: key_of(given, sense, "")))
    found = {name: statistics.median(values) for name, values in taken.items()}
    assert (filling.origins["encoded"], finding.origins["disk"]) == (rounds, rounds)
    return found | {"bytes": sum(features.nbytes for features in fresh.features.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--tokens", type=int, default=1000, help="media tokens of the clip (1000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--modality", nargs="+", choices=("video", "audio"), default=["video", "audio"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"towers: {arguments.size}")
    for modality in arguments.modality:
        model, processor = model_of(arguments.size, modality)
        with tempfile.TemporaryDirectory() as name:
            [record, *_], shape = write_media(Path(name), modality, arguments.tokens)
            row = Encoder(processor, model.config, shape=shape, template="short").encode(record)
            found = measure(model, row, Path(name), arguments.rounds)
        print(
            f"  {modality}, prompt of {len(row.ids)} tokens, features of {found['bytes'] / 1e6:.1f} MB: tower {found['tower']:.3f} s, "
            f"tower and cache {found['filling']:.3f} s, from disk {found['disk']:.4f} s (digest {found['digest']:.4f} s): "
            f"{found['tower'] / found['disk']:.1f} times less"
        )


if __name__ == "__main__":
    main()
