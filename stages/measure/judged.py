"""Which figure of a benchmark a stage is judged by: its gate, and the choice among its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

from omnistage.data.errors import RecipeError, unknown_name
from omnistage.data.records import Record
from omnistage.stages.benchmarks import items, registry
from omnistage.stages.benchmarks.figures import Figure
from omnistage.stages.benchmarks.items import Prediction
from omnistage.stages.recipe.schema import GrpoStage, Training


def figure_of(stage: Training, name: str | None, benchmark: str, records: Sequence[Record], where: str) -> Figure:
    """The figure of these records that is named; None: for a GRPO stage that of its own modality, where there is one, else the headline.

    Raises:
        RecipeError: the benchmark makes no such figure of them, or only a judge could, whom a run does not ask; opens with `where`.
    """
    figures = {figure.name: figure for figure in registry.of(benchmark).figures(records)}
    if name is None:
        own = f"modality {stage.modality}" if isinstance(stage, GrpoStage) else ""
        name = own if own in figures else next(iter(figures))
    if name not in figures:
        raise RecipeError(f"{where}: {unknown_name(f'figure of benchmark {benchmark!r}', name, figures)}")
    if _needs_a_judge(figures[name], benchmark, records):
        raise RecipeError(f"{where}: figure {name!r} of benchmark {benchmark!r} is made by a judge, whom a run does not ask; take another")
    return figures[name]


def _needs_a_judge(figure: Figure, benchmark: str, records: Sequence[Record]) -> bool:
    given = registry.of(benchmark)
    if given.rubric is None:
        return False
    asked = [records[place] for place in figure.items]
    # No answer at all is wrong without a judge.
    return any(given.score(record, Prediction(record.id, items.GREEDY, "an answer", "ok"), False).value is None for record in asked)
