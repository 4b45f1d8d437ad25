"""What judges a training stage: the bar that its model must pass, and the data by which one of its checkpoints is chosen.

Both use a figure of the run's own benchmark, so that what stops a run, what chooses a checkpoint and what is reported are one number.
Imports no torch.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator

from omnistage.data.section import Section, Text

START = "start"
FIGURE = "figure of the benchmark; null: for a grpo stage that of its own modality, where the benchmark has it, else the headline"


class Gate(Section):
    """What the evaluation after a stage must show for the run to go on."""

    figure: Text | None = Field(None, description=FIGURE)
    at_least: Literal["start"] | float = Field(
        "start",
        description="start: not surely worse than the model that the stage started from (paired, 95 %); or a value, shares as 0 to 1 "
        "(where lower is better: at most this)",
    )
    otherwise: Literal["stop", "say"] = Field("stop", description="stop: a failed gate ends the run before the next stage; say: it is told")

    @field_validator("at_least", mode="before")
    @classmethod
    def at_least_is_start_or_a_number(cls, given: Any) -> Any:
        # A fault in a union would be told once for each of its members.
        if given == START or (isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given)):
            return given if given == START else float(given)
        raise ValueError(f"is {given!r}; allowed: start, or a number")


class Place(NamedTuple):
    """What the checks of a stage's gate must know of the stages before it: how a fault opens, and what the stage starts from (a stage's
    name; None: the run's first model) with whether that is measured."""

    where: str
    start: str | None
    start_is_measured: bool


def check(gate: Gate, place: Place, *, has_evaluation: bool, evaluate: bool) -> None:
    """Raises `ValueError` where what a gate needs is not measured in the run."""
    if not has_evaluation:
        raise ValueError(f"{place.where}: gate is given and evaluation is null; a gate judges by the run's evaluation")
    if not evaluate:
        raise ValueError(f"{place.where}: gate is given and evaluate is false; a gate judges by the evaluation after its stage")
    if gate.at_least == START and not place.start_is_measured:
        lacks = "evaluation.before is false" if place.start is None else f"stage {place.start!r}, which it starts from, has evaluate: false"
        raise ValueError(f"{place.where}: gate.at_least is 'start' and {lacks}; measure it, or give a number")
