"""Two benchmarks for questions of your own, in any layout that can be read: `choice`, where an answer is right or wrong, and `open`, where
a judge says how much of the reference it holds.
"""

from __future__ import annotations

from collections.abc import Sequence

from omnistage.data.formats import READERS
from omnistage.data.records import AnswerKind, Record
from omnistage.stages.benchmarks.base import Benchmark, graded, majority
from omnistage.stages.benchmarks.figures import Figure, by
from omnistage.stages.benchmarks.judging import answered, rubric

FORMATS = ("humansense", *sorted(READERS.keys() - {"humansense"}))
RULES = """Mark how right the answer of the model is by the reference answer, whatever the words:
1 if it says what the reference says;
0.75 if the point is right and a detail is missing;
0.5 if about half of what matters is right and nothing contradicts the reference;
0.25 if a small part is right;
0 if it is wrong, contradicts the reference, or gives no answer.
Length and style do not count."""
RUBRIC = rubric("open_0_1", RULES, (0.0, 0.25, 0.5, 0.75, 1.0))


def figures(records: Sequence[Record]) -> list[Figure]:
    """All items, each modality, each task; every item with one weight."""
    whole = Figure("all items", (tuple(range(len(records))),))
    modalities = by([str(record.modality) for record in records])
    tasks = by([record.task for record in records])
    return [
        whole,
        *(Figure(f"modality {name}", (at,)) for name, at in modalities.items()),
        *(Figure(f"task {name}", (at,)) for name, at in tasks.items()),
    ]


CHOICE = Benchmark(
    name="choice",
    title="your own questions whose answers are right or wrong",
    formats=FORMATS,
    prompts=("direct", "think_answer", "context_think_answer", "plain", "short"),
    figures=figures,
    score=graded,
    kinds=frozenset({AnswerKind.SINGLE_CHOICE, AnswerKind.MULTI_SELECT, AnswerKind.NUMBER, AnswerKind.YES_NO, AnswerKind.LEVEL}),
    baseline=("majority class", majority),
)
OPEN = Benchmark(
    name="open",
    title="your own questions with open answers, marked by a judge",
    formats=FORMATS,
    prompts=("direct", "think_answer", "context_think_answer", "plain", "short"),
    figures=figures,
    score=answered,
    rubric=RUBRIC,
    kinds=frozenset({AnswerKind.OPEN}),
    notes="All figures depend on the judge: compare those of one judge and one prompt only (`judge` in scores.jsonl).",
)
