"""Where the rows of a stage or of a measurement come from. Imports no torch."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from omnistage.data import formats
from omnistage.data.errors import unknown_name
from omnistage.data.records import Modality
from omnistage.data.section import Count, Positive, Section, Share, Text


class PassRate(Section):
    """Which records are kept by how often a model answered them (`omnistage data passrate`)."""

    file: Text = Field(description="file of `omnistage data passrate`; it must know every record of the source")
    at_least: Share | None = Field(None, description="least share of right answers, 0 to 1; null: more than 0")
    at_most: Share | None = Field(None, description="largest share of right answers, 0 to 1; null: less than 1")

    @model_validator(mode="after")
    def bounds_are_in_order(self) -> Self:
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least is {self.at_least:g} and at_most is {self.at_most:g}; at_least must not be larger")
        return self

    def keeps(self, share: float) -> bool:
        """Whether a record with this share of right answers is kept."""
        low = share > 0 if self.at_least is None else share >= self.at_least
        high = share < 1 if self.at_most is None else share <= self.at_most
        return low and high

    @property
    def bounds(self) -> str:
        """The range in words."""
        low = "more than 0" if self.at_least is None else f"at least {self.at_least:g}"
        high = "less than 1" if self.at_most is None else f"at most {self.at_most:g}"
        return f"{low} and {high}"


class Source(Section):
    """One annotation file and what is drawn from it."""

    format: Text = Field("humansense", description="name of the reader")
    path: Text = Field(description="annotation file, relative to the working directory")
    media_root: str | None = Field(None, description="folder that media paths are relative to; null: the annotation file's folder")
    modality: Modality | None = Field(None, description="how every record of the file is perceived; null: as the format says")
    weight: Positive = Field(1.0, description="share of the steps that draw from this source, against the stage's other sources")
    limit: Count | None = Field(None, description="use only the first records of the file")
    quarantine: Text | None = Field(None, description="file of `omnistage data check --quarantine`; its records are left out")
    pass_rate: PassRate | None = Field(None, description="keep only records that a model answers sometimes; null: all")

    @field_validator("format")
    @classmethod
    def format_has_a_reader(cls, name: str) -> str:
        """The user's own code is not run for this; the run loads it before the first stage."""
        if ":" not in name and name not in formats.known():
            raise ValueError(f"{unknown_name('format', name, formats.known())}; your own: package.module:function or path/file.py:function")
        return name
