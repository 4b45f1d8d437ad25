"""A record becomes what the model reads: token ids, their three-axis positions, and media tensors. Once per distinct prompt.

Positions travel with the record. The model would compute them for a whole batch under one audio-in-video flag, which is silently wrong for
a clip without sound beside one with sound; computed row by row they are right in any mixture, and they are computed once.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniThinkerModel

from omnistage.data import media, prompts
from omnistage.data.errors import BlindBatchError, InputError
from omnistage.data.records import MediaRef, Record
from omnistage.rl.feature_cache import FeatureCache

Sense = Literal["image", "video", "audio"]
WINDOW = 400


@dataclass(frozen=True, slots=True)
class MediaShape:
    """How clips are sampled and how large a frame may become (pixels per frame; None leaves it to the processor)."""

    limits: media.MediaLimits = field(default_factory=media.MediaLimits)
    min_pixels: int | None = None
    max_pixels: int | None = None


@dataclass(eq=False, slots=True)
class Encoded:
    """One prompt as the model reads it.

    `ids` has T token ids; `positions` is [3, T]. `pictures` are the vision patches of all videos [patches, patch values] with `grid`
    [videos, 3], `stills` and `still_grid` those of all images; `mels` holds one [mel bins, frames] tensor per sound, without padding.
    `features` keeps what frozen towers made of them, by sense and by the hash of the tower's weights.
    """

    ids: list[int]
    positions: Tensor
    pictures: Tensor | None = None
    grid: Tensor | None = None
    stills: Tensor | None = None
    still_grid: Tensor | None = None
    second_per_grid: Tensor | None = None
    mels: list[Tensor] = field(default_factory=list)
    audio_in_video: bool = False
    features: dict[str, Tensor] = field(default_factory=dict)

    @property
    def delta(self) -> int:
        """What is added to a later token's index to get its position (all three axes)."""
        return int(self.positions.max()) + 1 - len(self.ids)

    @property
    def size(self) -> int:
        """Bytes of the tensors, features left out."""
        tensors = [self.positions, *self.mels] + [t for t in (self.pictures, self.grid, self.stills, self.still_grid) if t is not None]
        return sum(t.numel() * t.element_size() for t in tensors)

    def has(self, sense: Sense) -> bool:
        """Whether the prompt shows or sounds anything to a sense."""
        return {"image": self.stills is not None, "video": self.pictures is not None, "audio": bool(self.mels)}[sense]


class Encoder:
    """Makes an `Encoded` of a `Record`; keeps the latest ones (by bytes), so that a prompt is decoded and processed once.

    `feature_cache` goes along to whatever runs frozen towers on the prompts (`omnistage.rl.towers`). Several threads may call it: of those
    that want the same prompt one makes it and the others wait. `workers` says how many threads `Prefetch` may give it to. `hits` counts
    prompts that were there or on their way, `misses` those that were begun.

    Raises:
        MediaError: a clip cannot be decoded as asked.
    """

    def __init__(
        self,
        processor: Qwen2_5OmniProcessor,
        config: Qwen2_5OmniThinkerConfig,
        *,
        shape: MediaShape | None = None,
        template: str = "think_answer",
        system: str | None = None,
        cache_bytes: int = 2**30,
        decode: Callable[[MediaRef, media.MediaLimits], media.Clip] = media.decode,
        feature_cache: FeatureCache | None = None,
        workers: int = 0,
    ) -> None:
        self.processor = processor
        self.shape = shape or MediaShape()
        self.template = template
        self.system = system
        self.decode = decode
        self.feature_cache = feature_cache
        self.workers = workers
        self.cache_bytes = cache_bytes
        # Positions need the model's methods and none of its weights.
        with torch.device("meta"):
            self._rope = Qwen2_5OmniThinkerModel(config)
        self._hidden = int(config.text_config.hidden_size)
        self._media_ids = {config.image_token_id, config.video_token_id, config.audio_token_id}
        self._cache: OrderedDict[Hashable, Encoded] = OrderedDict()
        self._held = 0
        # What is being made; `None` comes out where that failed.
        self._making: dict[Hashable, Future[Encoded | None]] = {}
        self._lock = threading.Lock()
        self._home = threading.get_ident()
        self._spare: list[Qwen2_5OmniProcessor] = []
        self.hits = 0
        self.misses = 0

    def key(self, record: Record) -> Hashable:
        """What a prompt is known by: records with one key are read as the same."""
        system = prompts.system_of(record, self.system)
        return (record.media, record.history, record.question, record.options, record.kind, system)

    def forget(self) -> None:
        """Let go of all prompts that are kept, and of the threads' processors: the tokenizer reads texts otherwise from now on."""
        with self._lock:
            self._cache.clear()
            self._spare.clear()
            self._held = 0

    @property
    def feature_bytes(self) -> int:
        """Bytes of the features that frozen towers made of the prompts that are kept."""
        with self._lock:
            rows = list(self._cache.values())
        return sum(features.nbytes for row in rows for features in row.features.values())

    def __call__(self, record: Record) -> Encoded:
        key = self.key(record)
        while True:
            with self._lock:
                if key in self._cache:
                    self._cache.move_to_end(key)
                    self.hits += 1
                    return self._cache[key]
                begun = self._making.get(key)
                if begun is None:
                    self.misses += 1
                    mine = self._making[key] = Future()
                    break
            found = begun.result()
            if found is not None:
                with self._lock:
                    self.hits += 1
                return found
            # The other thread's error names its own record: make it again, to name this one.
        encoded: Encoded | None = None
        try:
            encoded = self.encode(record)
            return encoded
        finally:
            with self._lock:
                del self._making[key]
                if encoded is not None:
                    self._keep(key, encoded)
            mine.set_result(encoded)

    def _keep(self, key: Hashable, row: Encoded) -> None:
        self._cache[key] = row
        self._held += self.bytes_of(row)
        while self._held > self.cache_bytes and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._held -= self.bytes_of(dropped)

    def bytes_of(self, row: Encoded) -> int:
        """What a prompt holds once frozen towers have encoded it: its tensors, and a float32 vector for each media token."""
        return row.size + 4 * self._hidden * sum(i in self._media_ids for i in row.ids)

    def encode(self, record: Record) -> Encoded:
        """Decode and process without looking into the cache."""
        try:
            return self._encode(record)
        except InputError as error:
            raise type(error)(f"{record.source or record.id}: {error}") from error
        except ValueError as error:
            raise InputError(f"{record.source or record.id}: the processor refuses it: {error}") from error

    @contextmanager
    def _own_processor(self) -> Iterator[Qwen2_5OmniProcessor]:
        """The processor, or in another thread than the encoder's own a copy: a tokenizer refuses to be changed while it is in use, and
        which padding it uses is such a change."""
        if threading.get_ident() == self._home:
            yield self.processor
            return
        with self._lock:
            spare = self._spare.pop() if self._spare else None
        if spare is None:
            spare = copy.deepcopy(self.processor)
        try:
            yield spare
        finally:
            with self._lock:
                self._spare.append(spare)

    def _encode(self, record: Record) -> Encoded:
        with self._own_processor() as processor:
            return self._processed(record, processor)

    def _processed(self, record: Record, processor: Qwen2_5OmniProcessor) -> Encoded:
        clips = self.clips_of(record)
        messages = prompts.render(record, self.template, self.system)
        text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        slots = self._slots(clips)
        in_video = any(slot is not None for slot in slots)
        arguments: dict[str, Any] = {"text": [text], "return_tensors": "pt", **self.media_arguments(clips)}
        if in_video:
            arguments |= {"load_audio_from_video": True, "audio_from_video_indices": slots}
        batch = processor(**arguments)
        return self._encoded(batch, in_video)

    def clips_of(self, record: Record) -> list[media.Clip]:
        """The record's clips as they are decoded for the model."""
        return [self.decode(ref, self.shape.limits) for ref in record.media]

    def media_arguments(self, clips: Sequence[media.Clip]) -> dict[str, Any]:
        """What the processor gets for these clips: `videos`, `images` and `audio`, and its settings for each of them."""
        frames = [(clip, torch.from_numpy(clip.frames).permute(0, 3, 1, 2)) for clip in clips if clip.frames is not None]
        videos = [pictures for clip, pictures in frames if clip.fps is not None]
        stills = [pictures[0] for clip, pictures in frames if clip.fps is None]
        sounds = [clip.sound for clip in clips if clip.sound is not None]
        arguments: dict[str, Any] = {}
        if videos:
            arguments |= {"videos": videos, "videos_kwargs": self._video_settings(clips)}
        if stills:
            arguments |= {"images": stills, "images_kwargs": self._pixels(self.processor.image_processor.size)}
        if sounds:
            longest = max(len(sound) for sound in sounds)
            # Silence for one analysis window behind the end gives the same frames as padding to the extractor's full window.
            arguments |= {"audio": sounds, "audio_kwargs": {"max_length": longest + WINDOW, "truncation": False}}
        return arguments

    @staticmethod
    def _slots(clips: Sequence[media.Clip]) -> list[int | None]:
        """For each sound the index of the video that it belongs to, None for a sound of its own."""
        slots: list[int | None] = []
        video = -1
        for clip in clips:
            if clip.fps is not None:
                video += 1
            if clip.sound is not None:
                slots.append(video if clip.fps is not None else None)
        return slots

    def _video_settings(self, clips: Sequence[media.Clip]) -> dict[str, Any]:
        rates = {clip.fps for clip in clips if clip.fps is not None}
        if len(rates) > 1:
            raise InputError(f"its clips are sampled at different rates {sorted(rates, key=str)}; one rate is allowed")
        settings: dict[str, Any] = {"fps": rates.pop(), "do_sample_frames": False, "cap_pixels_per_frame": True}
        return settings | self._pixels(self.processor.videos_kwargs["size"])

    def _pixels(self, default: Mapping[str, int]) -> dict[str, Any]:
        """The limits of a frame's pixels as a part of the processor takes them; nothing where they are its own."""
        if not (self.shape.min_pixels or self.shape.max_pixels):
            return {}
        least, most = self.shape.min_pixels or default["shortest_edge"], self.shape.max_pixels or default["longest_edge"]
        return {"size": {"shortest_edge": least, "longest_edge": most}}

    def _encoded(self, batch: Any, in_video: bool) -> Encoded:
        ids = batch["input_ids"]
        mels: list[Tensor] = []
        lengths = None
        if "input_features" in batch:
            masks = batch["feature_attention_mask"].bool()
            # A copy, so that the padded window is not kept alive by its slice.
            mels = [mel[:, mask].clone() for mel, mask in zip(batch["input_features"], masks, strict=True)]
            lengths = masks.sum(-1)
        seconds = batch.get("video_second_per_grid")
        seconds = None if seconds is None else torch.as_tensor(np.asarray(seconds), dtype=torch.float32)
        positions, _ = self._rope.get_rope_index(
            ids, batch.get("image_grid_thw"), batch.get("video_grid_thw"), torch.ones_like(ids), in_video, lengths, seconds
        )
        return Encoded(
            ids=ids[0].tolist(),
            positions=positions[:, 0].long(),
            pictures=batch.get("pixel_values_videos"),
            grid=batch.get("video_grid_thw"),
            stills=batch.get("pixel_values"),
            still_grid=batch.get("image_grid_thw"),
            second_per_grid=seconds,
            mels=mels,
            audio_in_video=in_video,
        )  # fmt: skip


def check_not_blind(thinker: Qwen2_5OmniThinkerForConditionalGeneration, ids: Tensor, rows: Sequence[Encoded]) -> None:
    """Every media placeholder in `ids` [B, T] needs its tower's features.

    Raises:
        BlindBatchError: a row has placeholders and no media, so that its loss would be computed without having seen or heard the clip.
    """
    config = thinker.config
    tokens: dict[Sense, int] = {"image": config.image_token_id, "video": config.video_token_id, "audio": config.audio_token_id}
    for sense, token in tokens.items():
        for index, (present, row) in enumerate(zip((ids == token).any(1).tolist(), rows, strict=True)):
            if present and not row.has(sense):
                raise BlindBatchError(f"row {index} has {sense} placeholders and no {sense} features: it would train blind")


def left_padded(rows: Sequence[Encoded], pad_id: int, width: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts padded on the left: ids [B, P], mask [B, P], positions [3, B, P] (0 under padding)."""
    width = width or max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    positions = torch.zeros(3, len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        length = len(row.ids)
        ids[index, width - length :] = torch.tensor(row.ids)
        mask[index, width - length :] = 1
        positions[:, index, width - length :] = row.positions
    return ids, mask, positions


def positions_with_completions(rows: Sequence[Encoded], prompt_width: int, completion_width: int) -> Tensor:
    """Positions [3, B, P + C] of left-padded prompts followed by completions."""
    _, _, prompt = left_padded(rows, 0, prompt_width)
    start = torch.tensor([len(row.ids) + row.delta for row in rows])
    completion = start[:, None] + torch.arange(completion_width)
    return torch.cat([prompt, completion.expand(3, -1, -1)], dim=2)
