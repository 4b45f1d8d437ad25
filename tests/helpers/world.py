"""A tiny model of the real architecture and a few clips that were really rendered and encoded, shared by the tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from clip_files import write_image
from omnistage.data import formats, synth
from omnistage.data.media import MediaLimits
from omnistage.data.records import MediaRef, Modality, Record
from omnistage.rl import policy, tiny
from omnistage.rl.encoding import Encoded, Encoder, MediaShape

SHAPE = MediaShape(MediaLimits(fps=2.0, max_frames=16), min_pixels=28 * 28, max_pixels=16 * 28 * 28)


@dataclass(frozen=True)
class World:
    """A rendered data set in `data` and a tiny checkpoint in `checkpoint`."""

    data: Path
    checkpoint: Path

    def records(self, modality: str, split: str = "train") -> list[Record]:
        path = self.data / f"{split}_{modality}.json"
        return list(formats.read("humansense", path, media_root=self.data, modality=Modality(modality)))

    def mixed(self) -> list[Record]:
        """Two records of each modality, taken in turn, a clip with a sound track whose sound is not heard, and an image."""
        rows = [self.records(m)[i] for i in range(2) for m in ("video", "audio", "audio_video")]
        heard = self.records("audio_video")[2]
        silent = heard.with_media(tuple(type(ref)(ref.kind, ref.path) for ref in heard.media))
        picture = replace(rows[0], id="image", modality=Modality.IMAGE, media=(MediaRef("image", str(self.data / "image.png")),))
        return [*rows, silent, picture]

    def model(self) -> Qwen2_5OmniThinkerForConditionalGeneration:
        return policy.load(str(self.checkpoint), dtype="float32")

    def encoder(self, model: Qwen2_5OmniThinkerForConditionalGeneration) -> Encoder:
        return Encoder(policy.load_processor(str(self.checkpoint)), model.config, shape=SHAPE, template="short")


def build(folder: Path) -> World:
    """Render 8 clips per modality and split, and build the tiny model, both into `folder`."""
    data, checkpoint = folder / "data", folder / "checkpoint"
    synth.render(data, seed=1, cold_start=8, train=8, held_out=8, wrong={}, workers=1)
    tiny.build(checkpoint, synth.corpus(), size=tiny.TinySize(layers=2, kv_heads=2, windows=True), seed=0)
    write_image(data / "image.png")
    return World(data, checkpoint)


def reference_log_probs(
    model: Qwen2_5OmniThinkerForConditionalGeneration, row: Encoded, completion: list[int], temperature: float = 1.0
) -> torch.Tensor:
    """Log-probs [C] of one completion the plainest way: one unpadded row, raw media, the model's own positions, whole logits."""
    ids = torch.tensor([row.ids + completion])
    inputs: dict[str, object] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if row.pictures is not None:
        inputs |= {"pixel_values_videos": row.pictures, "video_grid_thw": row.grid, "video_second_per_grid": row.second_per_grid}
    if row.stills is not None:
        inputs |= {"pixel_values": row.stills, "image_grid_thw": row.still_grid}
    if row.mels:
        (mel,) = row.mels
        inputs |= {"input_features": mel[None], "feature_attention_mask": torch.ones(1, mel.shape[-1], dtype=torch.long)}
    if row.audio_in_video:
        inputs["use_audio_in_video"] = True
    with torch.no_grad():
        logits = model(**inputs).logits[0, :-1].float() / temperature
    scored: torch.Tensor = logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    return scored[-len(completion) :]
