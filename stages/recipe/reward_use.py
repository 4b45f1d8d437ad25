"""One reward of a GRPO stage, as a recipe names it. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from omnistage.data.errors import unknown_name
from omnistage.data.records import AnswerKind, Modality
from omnistage.data.section import Number, Positive, Section, Text
from omnistage.rewards import registry
from omnistage.rewards.base import Segment
from omnistage.rewards.calls import OnError


class Only(Section):
    """Which rows a reward scores: those with one of the values in each column named; others count as not scored."""

    modality: list[Modality] | None = Field(None, min_length=1, description="modalities")
    task: list[Text] | None = Field(None, min_length=1, description="tasks, as the annotation file names them")
    kind: list[AnswerKind] | None = Field(None, min_length=1, description="kinds of answer")

    @field_validator("modality", "task", "kind", mode="before")
    @classmethod
    def one_is_a_list_of_one(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given

    @model_validator(mode="after")
    def something_is_named(self) -> Self:
        if not self.columns():
            raise ValueError("names no column; give modality, task or kind, or leave it out")
        return self

    def columns(self) -> dict[str, frozenset[str]]:
        """The values allowed in each column that is named."""
        named = {"modality": self.modality, "task": self.task, "kind": self.kind}
        return {name: frozenset(map(str, values)) for name, values in named.items() if values is not None}


class RewardUse(Section):
    """One reward function of a stage."""

    name: Text = Field(description="a known reward, package.module:function, or path/file.py:function")
    weight: Number = Field(1.0, description="factor of its value in the sum")
    config: dict[str, Any] = Field(default={}, description="the reward's own settings")
    only: Only | None = Field(None, description="rows that it scores; null: all")
    segment: Segment | None = Field(None, description="the part whose tokens its advantage reaches; null: as the reward says, else all")
    on_error: OnError = Field("stop", description="stop: a failure ends the run; mask: the completions it fails on are not scored")
    timeout_s: Annotated[Positive, Field(le=86_400)] | None = Field(
        None, description="a call that takes longer fails, as on_error says; null: no limit"
    )
    label: str | None = Field(None, pattern=r"^[\w.-]+$", description="name in the metrics; null: the reward's own")

    @field_validator("name")
    @classmethod
    def name_is_known(cls, name: str) -> str:
        """The user's own code is not run for this; the run loads it before the first stage."""
        place, colon, function = name.rpartition(":")
        if (colon and not (place and function)) or (not colon and name not in registry.known()):
            own = "your own: package.module:function or path/file.py:function"
            raise ValueError(f"{unknown_name('reward', name, registry.known())}; {own}")
        return name

    @model_validator(mode="after")
    def built_in_takes_its_settings(self) -> Self:
        if self.name in registry.BUILT_IN:
            registry.check_settings(self.spec())
        return self

    def spec(self) -> registry.RewardSpec:
        """The reward as the registry loads it."""
        only = self.only.columns() if self.only else {}
        return registry.RewardSpec(self.name, self.weight, self.config, only, self.on_error, self.label, self.segment, self.timeout_s)
