"""What stages stand in: how clips are decoded, what is rendered first, and how many processes run. Imports no torch."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from omnistage.data.records import Modality
from omnistage.data.section import Count, CountOrZero, Positive, Section, Share, Text
from omnistage.data.synth import HELD_OUT_SEED
from omnistage.stages.recipe.choices import Engine


class Media(Section):
    """How clips are shown to the model; it travels with the model."""

    fps: Positive = Field(2.0, description="frames sampled per second of video")
    max_frames: Count = Field(16, description="most frames of a clip; a longer clip is sampled at a lower rate")
    max_sound_s: Positive = Field(300.0, description="seconds of sound that are kept")
    min_pixels: Count | None = Field(None, description="least pixels of a frame after resizing; null: the processor's own")
    max_pixels: Count | None = Field(None, description="most pixels of a frame after resizing; null: the processor's own")

    @model_validator(mode="after")
    def pixels_are_in_order(self) -> Self:
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels is {self.min_pixels} and max_pixels is {self.max_pixels}; min_pixels must not be larger")
        return self


class Cache(Section):
    """What is made of clips, kept on disk for ranks, stages and runs of one machine."""

    path: Text = Field(description="folder of the cache; several runs may share it")
    max_gb: Positive = Field(description="most that its entries take, in GB (1e9 bytes); those used longest ago are removed first")

    @property
    def max_bytes(self) -> int:
        return int(self.max_gb * 1e9)


class RunMedia(Media):
    """How this run decodes clips; what is not in `Media` does not travel with the model."""

    cache: Cache | None = Field(None, description="keep decoded clips on disk; null: decode them again in every run")
    feature_cache: Cache | None = Field(
        None, description="keep what frozen towers make of clips on disk; null: run those towers again in every run"
    )
    workers: CountOrZero = Field(1, description="threads of a process that prepare the next step's clips while this one trains; 0: none")

    @model_validator(mode="after")
    def caches_lie_apart(self) -> Self:
        if self.cache is not None and self.feature_cache is not None and self.cache.path == self.feature_cache.path:
            raise ValueError(f"cache.path and feature_cache.path are both {self.cache.path!r}; each needs a folder of its own")
        return self

    def shown(self) -> Media:
        """What travels with the model."""
        return Media(**self.model_dump(include=set(Media.model_fields)))


class Rendered(Section):
    """How much is rendered for a head to learn from, and to be measured on."""

    train: CountOrZero = Field(description="to learn from")
    held_out: CountOrZero = Field(description="to be measured on")


class Synth(Section):
    """Clips that are rendered and encoded before the first stage, with known answers. Counts are clips per modality."""

    path: Text = Field(description="folder that the clips and annotation files are written to")
    seed: CountOrZero = Field(0, description="seed of the clips that are trained on")
    held_out_seed: CountOrZero = Field(HELD_OUT_SEED, description="seed of the held-out clips, the same for every seed of the others")
    cold_start: CountOrZero = Field(description="clips per modality with a whole demonstration (cold_start_*.json)")
    train: CountOrZero = Field(description="clips per modality for reinforcement learning (train_*.json)")
    held_out: CountOrZero = Field(description="clips per modality for evaluation (held_out_*.json)")
    wrong_answers: dict[Modality, Share] = Field(
        default={}, description="share of the demonstrations of a modality whose answer is wrong on purpose, 0 to 1"
    )

    quality: Rendered | None = Field(None, description="clips with opinion scores, in Gen3DHF's layout (PATH/quality)")
    pose: Rendered | None = Field(None, description="poses with a description, and again with a picture (PATH/pose)")

    @field_validator("wrong_answers")
    @classmethod
    def wrong_answers_are_of_clips(cls, shares: dict[Modality, float]) -> dict[Modality, float]:
        if Modality.TEXT in shares:
            raise ValueError("names 'text', which has no clips; allowed: video, audio, audio_video")
        return shares


class Launch(Section):
    """How many processes run, and which engine joins them."""

    engine: Engine = Field(
        "single",
        description="single: one process; ddp: replicas; fsdp2: PyTorch's sharded weights and optimizer; zero2, zero3: DeepSpeed's; "
        "zero3_offload: in the CPU's memory",
    )
    processes: Count = Field(1, description="processes on each machine, one per accelerator")
    nodes: Count = Field(1, description="machines; the same command is started on each of them (docs/clusters.md)")
    threads: Count | None = Field(None, description="torch threads per process; null: torch's own choice")
    wait_min: Positive = Field(
        60.0,
        le=30 * 24 * 60,
        description="minutes that a process waits for the others (while one scores, or asks a judge) before the run ends with an error",
    )
    restart: bool = Field(
        True,
        strict=True,
        description="new processes for each stage, so that what one held is free; false: the same ones (saves their start)",
    )

    @model_validator(mode="after")
    def single_is_one_process(self) -> Self:
        if self.engine == "single" and self.processes != 1:
            raise ValueError(
                f"engine is 'single' and processes is {self.processes}; 'single' runs one process (or take ddp, fsdp2, zero2, zero3)"
            )
        if self.engine == "single" and self.nodes != 1:
            raise ValueError(f"engine is 'single' and nodes is {self.nodes}; 'single' runs one process (or take ddp, fsdp2, zero2, zero3)")
        return self

    @property
    def world(self) -> int:
        """Processes on all machines together."""
        return self.nodes * self.processes

    @property
    def world_name(self) -> str:
        """What messages call it."""
        return "launch.processes" if self.nodes == 1 else "launch.processes x launch.nodes"
