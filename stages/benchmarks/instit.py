"""Inst-It Bench (arXiv 2412.03565): single, numbered things in images and in clips, asked with choices and openly.

The paper's four figures, out of 100: open-ended answers by the judge, choices by the grader of training; an answer that cannot be read is
wrong. The figures of splits that are not there are left out. A file of the benchmark holds one split: give all four for all four.
"""

from __future__ import annotations

from collections.abc import Sequence

from omnistage.data.records import AnswerKind, Record
from omnistage.stages.benchmarks.base import Benchmark, graded
from omnistage.stages.benchmarks.figures import Figure, by
from omnistage.stages.benchmarks.items import Prediction, Score
from omnistage.stages.benchmarks.judging import answered, rubric
from omnistage.stages.benchmarks.upstream import instit as upstream

SPLITS = {
    "image_open_ended": "image, open-ended",
    "image_multi_choice": "image, multiple choice",
    "video_open_ended": "video, open-ended",
    "video_multi_choice": "video, multiple choice",
}
RULES = """Things in the picture carry numbers: [5] is the thing with the number 5. <4> is the fourth frame, and <4>-<6> is the time from
the fourth to the sixth.

Mark how much of what the reference answer says is said by the answer of the model too, with the same meaning in whatever words: 1 for all
of it, 0 for nothing of it or for the opposite, and steps of 0.1 between. Look at each number in brackets: what is said of another thing
than in the reference is wrong. Look in the same way at each time that is named. What the model says beyond the reference does not count,
unless it contradicts it. Length and style do not count."""
RUBRIC = rubric("instit_0_1", RULES, [tenth / 10 for tenth in range(11)])


def figures(records: Sequence[Record]) -> list[Figure]:
    """One for each split that is there, in the paper's order, then one for each other task."""
    places = by([record.task for record in records])
    names = [*(split for split in SPLITS if split in places), *(task for task in places if task not in SPLITS)]
    return [Figure(SPLITS.get(name, f"{name} (no split of the paper)"), (places[name],)) for name in names]


def remarks(records: Sequence[Record]) -> list[str]:
    """The splits that are missing and the tasks that are none."""
    places = by([record.task for record in records])
    out = [
        f"task {task!r} ({len(at)} items) is no split of the paper: reported by itself" for task, at in places.items() if task not in SPLITS
    ]
    missing = [split for split in SPLITS if split not in places]
    return [*out, f"splits without an item here: {', '.join(missing)}"] if missing else out


def score(record: Record, prediction: Prediction, tagged: bool) -> Score:
    """Right or wrong for a choice; an open answer waits for the judge."""
    return answered(record, prediction, tagged) if record.kind is AnswerKind.OPEN else graded(record, prediction, tagged)


BENCHMARK = Benchmark(
    name="instit",
    title="Inst-It Bench: single things in images and clips",
    formats=("instit_bench",),
    prompts=("direct", "think_answer", "context_think_answer"),
    figures=figures,
    score=score,
    rubric=RUBRIC,
    upstream=upstream.report,
    kinds=frozenset({AnswerKind.SINGLE_CHOICE, AnswerKind.OPEN}),
    notes="Open-ended figures depend on the judge: compare those of one judge and one prompt only (`judge` in scores.jsonl).",
    remarks=remarks,
)
