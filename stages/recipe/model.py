"""Which policy is trained, and with which adapters. Imports no torch."""

from __future__ import annotations

import re
from typing import Self

from pydantic import Field, field_validator, model_validator

from omnistage.data.section import Count, Positive, Section, ShareBelowOne, Text
from omnistage.stages.recipe.choices import Attention, Dtype, Part

LANGUAGE_ATTENTION = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj)"


class Tiny(Section):
    """A small model of the real architecture with random weights, for tests and the demo."""

    hidden: Count = Field(64, description="width of the language model; a multiple of heads")
    layers: Count = Field(3, description="layers of the language model")
    heads: Count = Field(4, description="attention heads of the language model and of the towers")
    tower_hidden: Count = Field(64, description="width of the vision and of the audio tower; a multiple of heads")
    tower_layers: Count = Field(2, description="layers of each tower")
    mel_bins: Count = Field(32, description="mel bins of the sound features")

    @model_validator(mode="after")
    def heads_divide_widths(self) -> Self:
        for name in ("hidden", "tower_hidden"):
            if getattr(self, name) % self.heads:
                raise ValueError(f"{name} is {getattr(self, name)} and heads is {self.heads}; {name} must be a multiple of heads")
        return self


class Lora(Section):
    """Low-rank adapters (arXiv 2106.09685) in place of training all weights."""

    rank: Count = Field(16, description="rank of the update")
    alpha: Positive = Field(32, description="scale of the update: alpha / rank")
    dropout: ShareBelowOne = Field(0.0, description="dropout on the adapter's input")
    targets: Text | list[Text] = Field(LANGUAGE_ATTENTION, description="modules with an adapter: a regular expression or a list of names")

    @field_validator("targets")
    @classmethod
    def targets_can_match(cls, targets: str | list[str]) -> str | list[str]:
        if not targets:
            raise ValueError("names no module")
        if isinstance(targets, str):
            try:
                re.compile(targets)
            except re.error as error:
                raise ValueError(f"is {targets!r}, which is no regular expression: {error}") from error
        return targets


class Model(Section):
    """Which policy is trained, and how it is loaded."""

    path: Text | None = Field(None, description="Hugging Face id or folder of the model; give this or tiny")
    tiny: Tiny | None = Field(None, description="build a small random model of the real architecture; give this or path")
    attention: Attention = Field("auto", description="attention kernel")
    dtype: Dtype = Field("auto", description="type of the weights")
    freeze: list[Part] = Field(default=[], description="parts whose weights do not change")
    lora: Lora | None = Field(None, description="train adapters in place of all weights")
    system_prompt: str | None = Field(None, description="text of the system turn; null: the model's own")

    @model_validator(mode="after")
    def path_or_tiny(self) -> Self:
        if self.path is None and self.tiny is None:
            raise ValueError("has neither path nor tiny; give exactly one")
        if self.path is not None and self.tiny is not None:
            raise ValueError(f"path is {self.path!r} and tiny is given too; give exactly one")
        return self

    @model_validator(mode="after")
    def flash_attention_needs_half_precision(self) -> Self:
        if self.attention == "flash_attention_2" and self.dtype == "float32":
            raise ValueError("attention is 'flash_attention_2' and dtype is 'float32'; flash attention needs 'bfloat16' or 'float16'")
        return self
