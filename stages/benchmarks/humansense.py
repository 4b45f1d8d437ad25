"""HumanSense (arXiv 2508.10576): 15 tasks about people in four tiers, from what is seen to what should be said.

The headline is the paper's average: the mean of the tasks' means over the 13 tasks that have a picture, each with the same weight. An
answer that is missing or unreadable is wrong; of several right options, some and no wrong one are worth a half, as published.

Not all names that the data gives its tasks are published. A name is told by its letters alone, whatever its case and separators; one that
is not known is reported by itself, outside the tiers and the headline, and the remarks say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from omnistage.data.records import AnswerKind, Record
from omnistage.stages.benchmarks.base import Benchmark, graded, majority
from omnistage.stages.benchmarks.figures import Figure, by
from omnistage.stages.benchmarks.items import Prediction, Score
from omnistage.stages.benchmarks.upstream import humansense as upstream


class Task(NamedTuple):
    """A task as the paper has it: its code, tier and name, how many items it has there, and the `task_type` values that mean it."""

    code: str
    tier: int
    name: str
    items: int
    types: tuple[str, ...]


TASKS = (
    Task("AR", 1, "Action Recognition", 300, ("Action_Recognition",)),
    Task("ER", 1, "Emotion Recognition", 300, ("Emotion_Recognition",)),
    Task("GR", 1, "Gesture Recognition", 300, ("Gesture_Recognition",)),
    Task("PA", 1, "Person Appearance", 300, ("Person_Appearance", "Person_Appearance_Recognition")),
    Task("AC", 2, "Abnormal Classification", 100, ("Abnormal_Classification",)),
    Task("CM", 2, "Complex Motion", 281, ("Complex_Motion", "Complex_Motion_Recognition")),
    Task("HC", 2, "Human Counting with ReID", 360, ("Human_Counting", "Human_Counting_with_ReID", "Human_Counting_ReID")),
    Task("TR", 2, "Talking Person Recognition", 300, ("Talkingperson_Recognition",)),
    Task("FR1", 3, "Familiarity Recognition", 200, ("Familiarity_Recognition",)),
    Task("FR2", 3, "Fraud Recognition", 300, ("Fraud_Recognition",)),
    Task("LD", 3, "Lie Detection", 200, ("Lie_Detection",)),
    Task("RR1", 3, "Rapport Recognition", 150, ("Rapport_Recognition",)),
    Task("RR2", 3, "Relation Recognition", 200, ("Relation_Recognition",)),
    Task("ES", 4, "Emotion Strategy", 300, ("Emo_Strategy", "Emotion_Strategy")),
    Task("PC", 4, "Psychological Chat", 291, ("Psychological_Chat",)),
)
# The items of the paper's second file, which are only heard.
HEARD = frozenset({"FR2", "PC"})

GUIDE = """Before you answer, work out three things from what you see and hear:
1. Key characteristics: how the people look, move, speak and feel, as far as the question turns on it.
2. What is said: who says what, and in which tone.
3. Events: what happens, in which order, and what leads to what.
Then answer the question from these three."""


def task_of(task_type: str) -> Task | None:
    """The paper's task that a `task_type` means; None for a name that is not known."""
    return _KNOWN.get(_letters(task_type))


def figures(records: Sequence[Record]) -> list[Figure]:
    """The paper's average, tiers, the two audio tasks, all items with one weight each, and each task."""
    places = by([_code(record) for record in records])
    seen = [task for task in TASKS if task.code in places and task.code not in HEARD]
    heard = [task for task in TASKS if task.code in places and task.code in HEARD]
    out = []
    if seen:
        out.append(Figure("average", tuple(places[task.code] for task in seen)))
    out.append(Figure("all items", (tuple(range(len(records))),)))
    for tier in sorted({task.tier for task in (*seen, *heard)}):
        out.append(Figure(f"tier {tier}", tuple(places[task.code] for task in TASKS if task.tier == tier and task.code in places)))
    if heard:
        out.append(Figure("audio tasks", tuple(places[task.code] for task in heard)))
    out += [Figure(f"{task.code} {task.name}", (places[task.code],)) for task in TASKS if task.code in places]
    return out + [Figure(f"{name} (no task of the paper)", (places[name],)) for name in _unknown(records)]


def remarks(records: Sequence[Record]) -> list[str]:
    """Tasks that the paper does not have, tasks that are missing, and tasks with another number of items than in the paper."""
    counts = {name: len(places) for name, places in by([_code(record) for record in records]).items()}
    out = [
        f"task_type {name!r} ({counts[name]} items) is no task of the paper that is known here: reported by itself, in 'all items', in no "
        "tier and not in the average"
        for name in _unknown(records)
    ]
    pictured = [task for task in TASKS if task.code not in HEARD]
    seen = [task for task in pictured if task.code in counts]
    if seen and len(seen) < len(pictured):
        out.append(f"the average is over {len(seen)} of the paper's {len(pictured)} tasks")
    if missing := [task.code for task in TASKS if task.code not in counts]:
        out.append(f"tasks without an item here: {', '.join(missing)}")
    other = [f"{task.code} {counts[task.code]} of {task.items}" for task in TASKS if counts.get(task.code, task.items) != task.items]
    if other:
        out.append(f"tasks with another number of items than in the paper: {', '.join(other)}")
    return out


def score(record: Record, prediction: Prediction, tagged: bool) -> Score:
    """As in training, but for the half that an incomplete selection is worth."""
    return graded(record, prediction, tagged, partial=True)


def with_transcript(record: Record) -> Record:
    """The record with what is said in its clip (`asr_en` of the benchmark's file) before the question; as it is where there is none."""
    said = record.extra.get("asr_en")
    if not isinstance(said, str) or not said.strip():
        return record
    return replace(record, question=f"What is said in the clip, as a speech recogniser wrote it down:\n{said.strip()}\n\n{record.question}")


def guided(record: Record) -> Record:
    """The record with a request before its question to look first at people, then at words, then at events."""
    return replace(record, question=f"{GUIDE}\n\n{record.question}")


def _letters(task_type: str) -> str:
    return "".join(character for character in task_type.casefold() if character.isalnum())


_KNOWN = {_letters(name): task for task in TASKS for name in (task.code, *task.types)}


def _code(record: Record) -> str:
    task = task_of(record.task)
    return record.task if task is None else task.code


def _unknown(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(record.task for record in records if task_of(record.task) is None))


BENCHMARK = Benchmark(
    name="humansense",
    title="HumanSense: perceiving, understanding and answering people (15 tasks)",
    formats=("humansense",),
    prompts=("direct", "think_answer", "context_think_answer"),
    figures=figures,
    score=score,
    options={"asr": with_transcript, "guided": guided},
    upstream=upstream.report,
    kinds=frozenset({AnswerKind.SINGLE_CHOICE, AnswerKind.MULTI_SELECT, AnswerKind.NUMBER, AnswerKind.YES_NO}),
    notes="An incomplete selection is worth 0.5. Scores of checkpoints that were trained with these clips or questions say nothing.",
    remarks=remarks,
    baseline=("majority class", majority),
)
