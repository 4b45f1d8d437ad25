"""The questions that can be asked about a rendered clip.

Single frames do say where a moving square stands, so `direction` can be told without motion; that is kept, as a tiny model learns it
sooner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from omnistage.data.errors import InputError, unknown_name
from omnistage.data.records import AnswerKind, Modality
from omnistage.data.synth import cases, picture, sound
from omnistage.data.synth.cases import Case, lettered


@dataclass(frozen=True, slots=True)
class Task:
    """One question, the table of its classes, and the functions that draw and play one."""

    name: str
    modality: Modality
    kind: AnswerKind
    question: str
    cases: tuple[Case, ...]
    draw: Callable[..., picture.Frames] | None = None
    play: Callable[..., sound.Sound] | None = None

    @property
    def answers(self) -> tuple[str, ...]:
        """All that can be right, in the order of the alphabet."""
        return tuple(sorted({case.answer for case in self.cases}))

    def wrong_answer(self, case: Case) -> str:
        """The answer that follows the right one in `answers`, taken as a circle: never the right one."""
        return self.answers[(self.answers.index(case.answer) + 1) % len(self.answers)]

    def render(self, case: Case, rng: np.random.Generator) -> tuple[picture.Frames | None, sound.Sound | None]:
        """The frames [F, H, W, 3] and the sound [N] of one clip of this class."""
        frames = self.draw(rng, *case.seen) if self.draw is not None and case.seen is not None else None
        heard = self.play(rng, *case.heard) if self.play is not None and case.heard is not None else None
        return frames, heard


def majority(task: str) -> float:
    """How often the most frequent answer of a task is right, 0..1: what a constant answer scores. `InputError` for an unknown task."""
    if task not in TASKS:
        raise InputError(unknown_name("task", task, TASKS))
    cases = TASKS[task].cases
    return max(Counter(case.answer for case in cases).values()) / len(cases)


def of_modality(modality: Modality) -> list[Task]:
    """The tasks of a modality, in the order in which their questions take turns."""
    return [task for task in TASKS.values() if task.modality == modality]


def corpus() -> list[str]:
    """Every question, option, thought and answer that can occur, each line once, in a fixed order: text to train a tokenizer on."""
    lines: list[str] = []
    for task in TASKS.values():
        lines.append(task.question)
        for case in task.cases:
            lines += [*lettered(case.options), case.think, case.answer, demonstration(case.think, case.answer)]
    return list(dict.fromkeys(lines))


def demonstration(think: str, answer: str) -> str:
    """A whole response in the form that is trained."""
    return f"<think>{think}</think><answer>{answer}</answer>"


_VIDEO, _AUDIO, _BOTH = Modality.VIDEO, Modality.AUDIO, Modality.AUDIO_VIDEO
_SINGLE, _MULTI, _NUMBER, _YES_NO = AnswerKind.SINGLE_CHOICE, AnswerKind.MULTI_SELECT, AnswerKind.NUMBER, AnswerKind.YES_NO

_DIAL = "a dial of 3 starts at the squares and steps once per beep : where is it ?"
_WALK = "the square goes one corner clockwise per beep : where does it end ?"
_LAMPS = "a low tone switches the left lamp , a high tone the right : which lamps are lit at the end ?"


def _seen(name: str, kind: AnswerKind, question: str, table: tuple[Case, ...], draw: Callable[..., picture.Frames]) -> Task:
    return Task(name, _VIDEO, kind, question, table, draw=draw)


def _heard(name: str, kind: AnswerKind, question: str, table: tuple[Case, ...], play: Callable[..., sound.Sound]) -> Task:
    return Task(name, _AUDIO, kind, question, table, play=play)


_ALL = (
    _seen("colour", _SINGLE, "what colour is it ?", cases.colours(), picture.coloured_moving_square),
    _seen("direction", _SINGLE, "which way does it move ?", cases.directions(), picture.moving_square),
    _seen("count", _NUMBER, "how many squares are there ?", cases.squares(), picture.counted_squares),
    _seen("shape", _SINGLE, "which shape is it ?", cases.shapes(), picture.shape),
    _seen("is_red", _YES_NO, "is it red ?", cases.is_red(), picture.coloured_square),
    _seen("which_colours", _MULTI, "which colours are there ?", cases.which_colours(), picture.coloured_squares),
    _heard("beeps", _NUMBER, "how many beeps are there ?", cases.beeps(), sound.beeps),
    _heard("rises", _YES_NO, "does the tone rise ?", cases.rises(), sound.sweep),
    _heard("sound", _SINGLE, "which sound is it ?", cases.timbres(), sound.timbre),
    _heard("which_tones", _MULTI, "which tones are there ?", cases.which_tones(), sound.tones),
    Task(
        "colour_at_beep", _BOTH, _SINGLE, "what colour is it at the beep ?", cases.colour_at_beep(), picture.changing_square, sound.beep_in
    ),
    Task("walk", _BOTH, _SINGLE, _WALK, cases.walk(), picture.square_in_corner, sound.beeps),
    Task("dial", _BOTH, _NUMBER, _DIAL, cases.dial(), picture.counted_squares, sound.beeps),
    Task("lamps", _BOTH, _MULTI, _LAMPS, cases.lamps(), picture.lamps, sound.tones),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
