"""Which of a stage's checkpoints stay on disk. Imports no torch."""

from __future__ import annotations

from pydantic import Field

from omnistage.data.section import Count, CountOrZero, Section, Text


class Keep(Section):
    """How many checkpoints stay, by age and by a figure that the stage logs."""

    newest: Count = Field(2, description="newest checkpoints that stay; a run goes on from the newest that is whole")
    best: CountOrZero = Field(
        0, description="checkpoints that stay beside them for their figure; with choose, which has no others to choose from"
    )
    by: Text = Field(
        "reward", description="logged figure (metrics.jsonl) of which the highest are best: its mean since the checkpoint before"
    )
    lowest: bool = Field(False, strict=True, description="the lowest are best, as of a loss")
