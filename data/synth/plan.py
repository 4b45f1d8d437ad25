"""Decides what each set asks: which task, which class and which random stream each of its items has.

Tasks take turns, and within a task classes are dealt like cards: each answer comes once in every row and each class as often as its table
says in every round, in an order shuffled by the seed. So sets are balanced, but no place in the list, and no class left out at the end of
a short list, says anything about the answer in another set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from omnistage.data.records import AnswerKind, Modality
from omnistage.data.synth.cases import SLOTS, Case, Scene, lettered
from omnistage.data.synth.tasks import Task, demonstration, of_modality

# The first entry of each random stream, after the seed: sets never share a stream, even if they share a seed.
SPLITS = {"cold_start": 0, "train": 1, "held_out": 2}
MODALITIES = {Modality.VIDEO: 0, Modality.AUDIO: 1, Modality.AUDIO_VIDEO: 2}
PATTERNS = {
    AnswerKind.NUMBER: "Question and answer (Arabic numerals)",
    AnswerKind.SINGLE_CHOICE: "Multiple-choice question (select one answer choice)",
    AnswerKind.MULTI_SELECT: "Multiple-choice question (select one or more answer choices)",
    AnswerKind.YES_NO: "Judgment question (Yes or No)",
}
# Of k answers chance gets (k - 1) / k wrong. Demonstrations stay below that, or they would say nothing, or the opposite, of the truth.
MOST_WRONG = 0.9


@dataclass(frozen=True, slots=True)
class Item:
    """One clip and its question. `stream` seeds what is drawn and played; `row` is the entry of the list."""

    id: str
    task: str
    case: Case
    stream: tuple[int, ...]
    clip: str
    row: Mapping[str, Any]


def items(split: str, modality: Modality, *, seed: int, count: int, wrong: float = 0.0) -> list[Item]:
    """The items of one set, in its order. `wrong` (0..1) is the share of demonstrations whose answer is wrong on purpose.

    Of k possible answers never more than 0.9 (k - 1) / k are wrong: chance gets (k - 1) / k wrong, and demonstrations as bad as that
    would say nothing about the truth.
    """
    tasks = of_modality(modality)
    number = (seed, SPLITS[split], MODALITIES[modality])
    # Streams of clips are four numbers long and these are five, so the two never meet.
    dealt = [deal(task, np.random.default_rng([*number, turn, 0])) for turn, task in enumerate(tasks)]
    luck = np.random.default_rng([*number, 0, 1]).random(count)
    made = []
    for index in range(count):
        task, case = tasks[index % len(tasks)], next(dealt[index % len(tasks)])
        name = f"{split}_{modality}_{index:05d}"
        clip = f"clips/{name}.{'wav' if modality == Modality.AUDIO else 'mp4'}"
        row = _row(name, clip, task, case)
        if split == "cold_start":
            mistaken = luck[index] < min(wrong, MOST_WRONG * (1 - 1 / len(task.answers)))
            _demonstrate(row, task, case, mistaken=bool(mistaken))
        made.append(Item(name, task.name, case, (*number, index), clip, row))
    return made


def deal(task: Task, rng: np.random.Generator) -> Iterator[Case]:
    """Classes without end. Every `len(task.answers)` in a row hold each answer once; every `len(task.cases)` hold the whole table."""
    by_answer = [[case for case in task.cases if case.answer == answer] for answer in task.answers]
    while True:
        decks = [[cases[place] for place in rng.permutation(len(cases))] for cases in by_answer]
        for row in zip(*decks, strict=True):
            yield from (row[place] for place in rng.permutation(len(row)))


def _row(name: str, clip: str, task: Task, case: Case) -> dict[str, Any]:
    """An entry as HumanSense publishes it, with an `id`."""
    questions: dict[str, Any] = {"task_type": task.name, "question_pattern": PATTERNS[task.kind], "question": task.question}
    if case.options:
        questions["options"] = lettered(case.options)
    questions["answer"] = case.answer
    questions["evidence"] = {"sight": _worded(case.seen, case.think), "sound": _worded(case.heard, case.think)}
    return {"id": name, "video_path": clip, "questions": questions}


def _worded(scene: Scene | None, think: str) -> list[str]:
    """What is perceived of a sense, as far as the demonstration words it: names as they are, places and counts as words or digits."""
    said = think.split()
    texts = [[str(part), SLOTS[part]] if isinstance(part, int) and part < len(SLOTS) else [str(part)] for part in scene or ()]
    return list(dict.fromkeys(text for forms in texts for text in forms[::-1] if set(text.split()) <= set(said)))


def _demonstrate(row: dict[str, Any], task: Task, case: Case, *, mistaken: bool) -> None:
    """Adds a whole response. A mistaken one perceives rightly and answers wrongly, on purpose: `wrong_on_purpose` says so."""
    answer = task.wrong_answer(case) if mistaken else case.answer
    row["questions"]["response"] = demonstration(case.think, answer)
    row["wrong_on_purpose"] = mistaken
