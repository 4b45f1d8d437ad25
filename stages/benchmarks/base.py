"""What a benchmark is: how its questions are shown, what one answer is worth, and which figures the answers make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from omnistage.data.records import AnswerKind, Record
from omnistage.rewards.grade import grade_completion
from omnistage.stages.benchmarks.figures import Figure
from omnistage.stages.benchmarks.items import Prediction, Score


class Scored(NamedTuple):
    """One item of one run; `prediction` is None where the run has no line for it, which counts as unanswered."""

    record: Record
    prediction: Prediction | None
    score: Score


# What the published scorer says of the items of one run, as plain data for `scores.json`; the flag is that of `Scorer`.
Upstream = Callable[[Sequence[Scored], bool], dict[str, Any]]
# The scores of one run again, with what only all of them together say (a rank among them) in their `numbers`.
Together = Callable[[Sequence[Scored]], list[Score]]
# Grades an answer without a judge; the flag says whether the answer was asked for in tags.
Scorer = Callable[[Record, Prediction, bool], Score]


def nothing_to_remark(_records: Sequence[Record]) -> list[str]:
    """For benchmarks whose figures speak for themselves."""
    return []


@dataclass(frozen=True)
class Rubric:
    """How a judge marks an open answer: its prompt, with the fields {question}, {history}, {reference} and {answer}, and the marks that it
    may give, worst first."""

    name: str
    prompt: str
    marks: tuple[float, ...]

    @property
    def best(self) -> float:
        """The mark of a wholly right answer; values are shares of it."""
        return self.marks[-1]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    `formats` are the readers of its published files, the usual one first. `prompts` are the templates of `data.prompts` that its questions
    may be shown in, the usual one first; `options` the names of further ways to ask (`guided`, `asr`), each with what it does to a record.
    `score` grades an answer without a judge; None of a value there means that the `rubric` decides. `figures` names what is reported of
    these items, the headline first, and `remarks` what a reader of them must know of these items, a sentence each.
    `upstream` is the published scorer's own rule, faults included, for `--compat upstream`. `baseline` scores of the same items what is
    best answered without looking, under its name.
    """

    name: str
    title: str
    formats: tuple[str, ...]
    prompts: tuple[str, ...]
    figures: Callable[[Sequence[Record]], list[Figure]]
    score: Scorer
    options: Mapping[str, Callable[[Record], Record]] = field(default_factory=dict)
    rubric: Rubric | None = None
    upstream: Upstream | None = None
    together: Together | None = None
    kinds: frozenset[AnswerKind] | None = None
    notes: str = ""
    remarks: Callable[[Sequence[Record]], list[str]] = nothing_to_remark
    baseline: tuple[str, Callable[[Sequence[Record]], list[Score]]] | None = None


def graded(record: Record, prediction: Prediction, tagged: bool, *, partial: bool = False) -> Score:
    """What the grader of training says of an answer.

    Where the policy was asked for tags, `tagged` has an answer outside them count as none. Raises `InputError` for a target that nobody
    could reach.
    """
    grade = grade_completion(
        prediction.raw or "", target=record.target, kind=record.kind, options=record.options, tagged=tagged, partial=partial
    )
    valid = grade.answer is not None
    reason = prediction.error or grade.reason if prediction.status == "error" else grade.reason
    return Score(record.id, prediction.run, "grade", grade.score, valid, grade.answer, reason)


def majority(records: Sequence[Record]) -> list[Score]:
    """What whoever gives each task's most frequent right answer to all of its questions, without looking, would score."""
    targets: dict[str, Counter[str]] = {}
    for record in records:
        targets.setdefault(record.task, Counter())[record.target] += 1
    best = {task: counts.most_common(1)[0][0] for task, counts in targets.items()}
    right = [record.target == best[record.task] for record in records]
    return [
        Score(record.id, "majority", "majority", float(hit), True, best[record.task], "the task's most frequent right answer")
        for record, hit in zip(records, right, strict=True)
    ]


def clip_of(record: Record) -> str:
    """The name of what is drawn together in a bootstrap: the record's clips, or its text where it has none."""
    if record.media:
        return "|".join(f"{ref.path}+{ref.sound}" if ref.sound not in (None, ref.path) else ref.path for ref in record.media)
    return str(record.extra.get("clip") or record.source or record.id)
