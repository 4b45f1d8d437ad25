"""A tiny model of the real architecture: the Qwen2.5-Omni thinker with its full processor, built from nothing in about a second.

It has every part of the real checkpoint (vision tower, audio tower, multimodal rotary positions, chat template, audio and video
processors) at a
size that a CPU trains in minutes, with random weights and a small tokenizer of its own. It is saved and loaded like any checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2Tokenizer,
    WhisperFeatureExtractor,
)
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import (
    Qwen2_5OmniAudioEncoderConfig,
    Qwen2_5OmniTextConfig,
    Qwen2_5OmniVisionEncoderConfig,
)
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

PATCH = 14
MERGED_PATCH = 2 * PATCH
END_OF_TEXT, END_OF_TURN = "<|endoftext|>", "<|im_end|>"
SPECIAL_TOKENS = {
    "im_start_token": "<|im_start|>",
    "vision_pad_token": "<|vision_pad|>",
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
ANSWER_TAGS = ["<think>", "</think>", "<answer>", "</answer>"]

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{- '<|vision_bos|><|IMAGE|><|vision_eos|>' -}}"
    "{%- elif part['type'] == 'audio' -%}{{- '<|audio_bos|><|AUDIO|><|audio_eos|>' -}}"
    "{%- elif part['type'] == 'video' -%}{{- '<|vision_bos|><|VIDEO|><|vision_eos|>' -}}"
    "{%- elif part['type'] == 'text' -%}{{- part['text'] -}}"
    "{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


@dataclass(frozen=True, slots=True)
class TinySize:
    """Sizes of the tiny model; both towers are as wide as `tower_hidden`.

    With `windows`, all vision layers but the last attend inside windows of 2 x 2 merged patches, as most of the real model's do; `kv_heads`
    below `heads` groups the queries, as the real model does.
    """

    hidden: int = 64
    layers: int = 3
    heads: int = 4
    tower_hidden: int = 64
    tower_layers: int = 2
    mel_bins: int = 32
    kv_heads: int | None = None
    windows: bool = False


def build_tokenizer(corpus: Iterable[str]) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer in which every word of `corpus` is one token, with Qwen2.5-Omni's special tokens.

    Any other text still has an encoding, byte by byte.
    """
    words = sorted({word for line in corpus for word in line.split()})
    lines = [text for word in words for text in (word, f" {word}")] + ["user\n", "assistant\n", "system\n"]
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=4096, min_frequency=1, initial_alphabet=alphabet, show_progress=False))
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
    # A list of additional special tokens beside this dictionary is dropped without a word by transformers 5, so all of them stand here.
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=merges,
        unk_token=END_OF_TEXT,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        extra_special_tokens=SPECIAL_TOKENS,
        model_max_length=4096,
    )
    tokenizer.add_tokens(ANSWER_TAGS)
    return tokenizer


def build_processor(corpus: Iterable[str], size: TinySize) -> Qwen2_5OmniProcessor:
    """The whole processor: tokenizer, chat template, image, video and audio parts."""
    pixels = {"shortest_edge": MERGED_PATCH**2, "longest_edge": 16 * MERGED_PATCH**2}
    patches = {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2, "size": pixels}
    return Qwen2_5OmniProcessor(
        image_processor=Qwen2VLImageProcessor(**patches),
        video_processor=Qwen2VLVideoProcessor(**patches),
        feature_extractor=WhisperFeatureExtractor(
            feature_size=size.mel_bins, sampling_rate=16000, hop_length=160, chunk_length=30, n_fft=400,
            padding_side="right", return_attention_mask=True, dither=0.0,
        ),
        tokenizer=build_tokenizer(corpus),
        chat_template=CHAT_TEMPLATE,
    )  # fmt: skip


def rope_sections(head_dim: int) -> list[int]:
    """Split half of a head over time, height and width (real model: 16, 24, 24 of 64; here as near to that as the size allows)."""
    half = head_dim // 2
    side = 3 * half // 8
    return [half - 2 * side, side, side]


def build_config(processor: Qwen2_5OmniProcessor, size: TinySize) -> Qwen2_5OmniThinkerConfig:
    """The thinker's configuration with every token id that its forward and its positions read."""
    tokenizer = processor.tokenizer
    token = tokenizer.convert_tokens_to_ids
    spread = 0.05
    text = Qwen2_5OmniTextConfig(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=size.hidden,
        intermediate_size=2 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads or size.heads,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": rope_sections(size.hidden // size.heads)},
        pad_token_id=token(END_OF_TEXT),
        eos_token_id=token(END_OF_TURN),
        tie_word_embeddings=False,
        initializer_range=spread,
    )
    vision = Qwen2_5OmniVisionEncoderConfig(
        depth=size.tower_layers,
        hidden_size=size.tower_hidden,
        intermediate_size=2 * size.tower_hidden,
        num_heads=4,
        out_hidden_size=size.hidden,
        window_size=2 * MERGED_PATCH if size.windows else 4 * MERGED_PATCH,
        fullatt_block_indexes=[size.tower_layers - 1] if size.windows else list(range(size.tower_layers)),
        initializer_range=spread,
    )
    audio = Qwen2_5OmniAudioEncoderConfig(
        num_mel_bins=size.mel_bins,
        encoder_layers=size.tower_layers,
        encoder_attention_heads=4,
        encoder_ffn_dim=2 * size.tower_hidden,
        d_model=size.tower_hidden,
        output_dim=size.hidden,
        n_window=100,
        initializer_range=spread,
    )
    # The vision brackets are no fields of this configuration, but the positions are computed from them.
    return Qwen2_5OmniThinkerConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        audio_config=audio.to_dict(),
        audio_token_index=token("<|AUDIO|>"),
        image_token_index=token("<|IMAGE|>"),
        video_token_index=token("<|VIDEO|>"),
        audio_start_token_id=token("<|audio_bos|>"),
        audio_end_token_id=token("<|audio_eos|>"),
        vision_start_token_id=token("<|vision_bos|>"),
        vision_end_token_id=token("<|vision_eos|>"),
        user_token_id=token("user"),
        tie_word_embeddings=False,
        initializer_range=spread,
    )


def build(folder: Path, corpus: Iterable[str], *, size: TinySize | None = None, seed: int = 0) -> None:
    """Write a tiny thinker and its processor to `folder`, ready for `policy.load`.

    `corpus` holds the text that the tokenizer should know well; `seed` decides the weights.
    """
    size = size or TinySize()
    processor = build_processor(corpus, size)
    torch.manual_seed(seed)
    model = Qwen2_5OmniThinkerForConditionalGeneration(build_config(processor, size))
    token = processor.tokenizer.convert_tokens_to_ids
    model.generation_config = GenerationConfig(eos_token_id=token(END_OF_TURN), pad_token_id=token(END_OF_TEXT))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
