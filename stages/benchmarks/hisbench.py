"""HIS-Bench (arXiv 2503.12955): what a person does in a 3D scene, as open questions that a judge marks with 0, 0.5, 1 or 2.

The figure of a sub-task is the mean mark as a share of the best one, out of 100; the headline is the mean over sub-tasks, each with the
same weight. Every turn of a dialogue is an item, asked after the turns before it with their right answers.
"""

from __future__ import annotations

from collections.abc import Sequence

from omnistage.data.records import AnswerKind, Record
from omnistage.stages.benchmarks.base import Benchmark
from omnistage.stages.benchmarks.figures import Figure, by
from omnistage.stages.benchmarks.judging import answered, rubric
from omnistage.stages.benchmarks.upstream import hisbench as upstream

SUB_TASKS = 16
RULES = """The question is about a person in a scene: what the person does, where, with which thing, why, or what comes next.

Mark the answer of the model by the reference answer:
2 if it says what the reference says, in whatever words;
1 if it says nearly that: the point is right and a detail is wrong or missing;
0.5 if only a part of the point is right;
0 if it is wrong, says nothing that can be checked, or gives no answer.
A vague answer that would fit many scenes earns no more than 0.5. Length and style do not count."""
RUBRIC = rubric("his_0_2", RULES, (0.0, 0.5, 1.0, 2.0))


def figures(records: Sequence[Record]) -> list[Figure]:
    """The average over sub-tasks, then each of them."""
    places = by([record.task for record in records])
    average = Figure("average", tuple(places.values()))
    return [average, *(Figure(task, (at,)) for task, at in places.items())]


def remarks(records: Sequence[Record]) -> list[str]:
    """How far what is there is from the paper's 16 sub-tasks, whose names are not all published."""
    tasks = {record.task for record in records}
    return [] if len(tasks) == SUB_TASKS else [f"{len(tasks)} sub-tasks here, {SUB_TASKS} in the paper: the averages are not comparable"]


BENCHMARK = Benchmark(
    name="hisbench",
    title="HIS-Bench: a person in a scene, as open questions",
    formats=("hisbench",),
    prompts=("direct", "think_answer", "context_think_answer"),
    figures=figures,
    score=answered,
    rubric=RUBRIC,
    upstream=upstream.report,
    kinds=frozenset({AnswerKind.OPEN}),
    notes="All figures depend on the judge: compare those of one judge and one prompt only (`judge` in scores.jsonl).",
    remarks=remarks,
)
