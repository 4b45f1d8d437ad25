"""The rendered clips, read back as any user's clips are: what is seen and heard in them must give the answers that the lists hold."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import clip_senses as senses
from omnistage.data.errors import InputError
from omnistage.data.formats import read
from omnistage.data.media import Clip, MediaLimits, decode
from omnistage.data.records import Modality, Record
from omnistage.data.synth import TASKS, corpus, majority, render
from omnistage.data.synth.cases import Case
from omnistage.data.synth.plan import deal

BOTH_SENSES = sorted(name for name, task in TASKS.items() if task.modality == Modality.AUDIO_VIDEO)
MODALITIES = (Modality.VIDEO, Modality.AUDIO, Modality.AUDIO_VIDEO)
SPLITS = ("cold_start", "train", "held_out")


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """192 held-out clips of each modality: every class several times."""
    return render(tmp_path_factory.mktemp("clips"), seed=3, cold_start=48, train=48, held_out=192)


def _records(lists: dict[str, Path], split: str, modality: Modality) -> list[Record]:
    return list(read("humansense", lists[f"{split}_{modality}"], modality=modality))


def _clip(record: Record) -> Clip:
    return decode(record.media[0], MediaLimits())


def _content(record: Record) -> str:
    """A hash of what is decoded, whatever the file is called."""
    clip = _clip(record)
    parts = [part.tobytes() for part in (clip.frames, clip.sound) if part is not None]
    return hashlib.sha256(b"|".join(parts)).hexdigest()


def _yes_no(yes: bool) -> str:
    return "yes" if yes else "no"


def _letters(record: Record, chosen: set[str]) -> str:
    assert chosen <= set(record.options)
    return ",".join("ABCD"[place] for place, option in enumerate(record.options) if option in chosen)


def _colour_at_beep(record: Record, frames: senses.Frames, sound: senses.Sound) -> str:
    ((start_s, end_s),) = senses.bursts(sound)
    assert int(start_s * 2) == int(end_s * 2), "a beep across a change of colour has no answer"
    return _letters(record, senses.colours(frames[int(start_s * 2)]))


def _walk(record: Record, frames: senses.Frames, sound: senses.Sound) -> str:
    clockwise = ("upper left", "upper right", "lower right", "lower left")
    return _letters(record, {clockwise[(clockwise.index(senses.corner(frames[0])) + len(senses.bursts(sound))) % 4]})


def _lamps(record: Record, frames: senses.Frames, sound: senses.Sound) -> str:
    switched = {{"low": "left", "high": "right"}[name] for name in senses.tones(sound)}
    return _letters(record, set(senses.lit_sides(frames[-1])) ^ switched or {"none"})


# From what is decoded to the answer, by the words of the question alone.
SEEN: dict[str, Callable[[Record, senses.Frames], str]] = {
    "colour": lambda record, frames: _letters(record, senses.colours(frames[1])),
    "direction": lambda record, frames: _letters(record, {senses.motion(frames)}),
    "count": lambda record, frames: str(senses.quarters_filled(frames[0])),
    "shape": lambda record, frames: _letters(record, {senses.shape(frames[0])}),
    "is_red": lambda record, frames: _yes_no(senses.colours(frames[0]) == {"red"}),
    "which_colours": lambda record, frames: _letters(record, senses.colours(frames[0])),
}
HEARD: dict[str, Callable[[Record, senses.Sound], str]] = {
    "beeps": lambda record, sound: str(len(senses.bursts(sound))),
    "rises": lambda record, sound: _yes_no(senses.sweep(sound) == "rises"),
    "sound": lambda record, sound: _letters(record, {senses.timbre(sound)}),
    "which_tones": lambda record, sound: _letters(record, senses.tones(sound)),
}
SEEN_AND_HEARD: dict[str, Callable[[Record, senses.Frames, senses.Sound], str]] = {
    "colour_at_beep": _colour_at_beep,
    "dial": lambda record, frames, sound: "123"[(senses.quarters_filled(frames[0]) - 1 + len(senses.bursts(sound))) % 3],
    "lamps": _lamps,
    "walk": _walk,
}


def _perceived_answer(record: Record) -> str:
    clip = _clip(record)
    if record.task in SEEN:
        assert clip.frames is not None
        assert clip.sound is None
        return SEEN[record.task](record, clip.frames)
    assert clip.sound is not None
    if record.task in HEARD:
        assert clip.frames is None
        return HEARD[record.task](record, clip.sound)
    assert clip.frames is not None
    return SEEN_AND_HEARD[record.task](record, clip.frames, clip.sound)


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_clip_says_what_its_answer_says(lists: dict[str, Path], modality: Modality) -> None:
    held_out = _records(lists, "held_out", modality)
    wrong = [(record.id, record.task, record.target) for record in held_out if _perceived_answer(record) != record.target]
    assert wrong == []
    assert {record.task for record in held_out} == {name for name, task in TASKS.items() if task.modality == modality}


def test_clips_have_the_promised_shape(lists: dict[str, Path]) -> None:
    """4 frames of 56x56 at 2 fps; 2 s of sound, in an mp4 31 whole AAC frames of 1024 samples, never more than the picture's 2 s."""
    video, audio, both = (_clip(_records(lists, "train", modality)[0]) for modality in MODALITIES)
    for clip in (video, both):
        assert clip.frames is not None
        assert (clip.frames.shape, clip.fps) == ((4, 56, 56, 3), 2.0)
    assert audio.sound is not None
    assert both.sound is not None
    assert (audio.sound.shape, both.sound.shape) == ((32_000,), (31 * 1024,))


@pytest.mark.parametrize("modality", MODALITIES)
def test_answers_are_exactly_balanced(lists: dict[str, Path], modality: Modality) -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for record in _records(lists, "held_out", modality):
        answers[record.task][record.target] += 1
    for name, counted in answers.items():
        asked = counted.total()
        # 192 clips in turns of 6 (video) or 4 tasks; a count that is not a multiple of the answers leaves one row cut short.
        assert set(counted.values()) <= {asked // len(TASKS[name].answers), -(-asked // len(TASKS[name].answers))}, name
        assert set(counted) == set(TASKS[name].answers), name


@pytest.mark.parametrize("name", TASKS)
def test_dealing_balances_rows_and_rounds(name: str) -> None:
    task = TASKS[name]
    answers, table = len(task.answers), len(task.cases)
    dealt = list(islice(deal(task, np.random.default_rng(5)), 3 * table))
    rows = [dealt[start : start + answers] for start in range(0, len(dealt), answers)]
    assert all({case.answer for case in row} == set(task.answers) for row in rows)
    for start in range(0, len(dealt), table):
        assert Counter(dealt[start : start + table]) == Counter(task.cases)


def _best_guess(name: str, known: Callable[[Case], Hashable]) -> float:
    """How often the best guess is right for someone who knows only `known` of a clip (and the table of classes)."""
    groups: dict[Hashable, Counter[str]] = defaultdict(Counter)
    for case in TASKS[name].cases:
        groups[known(case)][case.answer] += 1
    return sum(max(counted.values()) for counted in groups.values()) / len(TASKS[name].cases)


@pytest.mark.parametrize(("name", "chance"), [("colour_at_beep", 1 / 4), ("walk", 1 / 4), ("dial", 1 / 3), ("lamps", 1 / 4)])
def test_one_sense_alone_gives_exactly_chance(name: str, chance: float) -> None:
    assert majority(name) == chance
    assert _best_guess(name, lambda case: (case.seen, case.options)) == chance
    assert _best_guess(name, lambda case: (case.heard, case.options)) == chance
    assert _best_guess(name, lambda case: (case.seen, case.heard, case.options)) == 1.0


def test_all_tasks_of_both_senses_are_held_to_chance() -> None:
    assert BOTH_SENSES == ["colour_at_beep", "dial", "lamps", "walk"]


@pytest.mark.parametrize("name", TASKS)
def test_no_constant_answer_beats_an_equal_share(name: str) -> None:
    assert majority(name) == pytest.approx(1 / len(TASKS[name].answers))
    assert _best_guess(name, lambda case: (case.seen, case.heard, case.options)) == 1.0


def test_majority_names_an_unknown_task() -> None:
    with pytest.raises(InputError, match="unknown task 'lampz'; did you mean 'lamps'"):
        majority("lampz")


def test_sets_share_no_clip_even_with_one_seed(tmp_path: Path) -> None:
    made = render(tmp_path, seed=9, held_out_seed=9, cold_start=24, train=24, held_out=24)
    contents = [_content(record) for split in SPLITS for modality in MODALITIES for record in _records(made, split, modality)]
    assert len(contents) == len(set(contents)) == 3 * 3 * 24


def test_same_arguments_give_the_same_lists_and_clips(lists: dict[str, Path], tmp_path: Path) -> None:
    """Twice in different folders; a shorter set is the beginning of a longer one."""
    again = render(tmp_path / "again", seed=3, cold_start=48, train=48, held_out=24)
    other = render(tmp_path / "other", seed=4, cold_start=0, train=24, held_out=24)
    for modality in MODALITIES:
        before, after = _records(lists, "held_out", modality)[:24], _records(again, "held_out", modality)
        assert [(r.id, r.question, r.options, r.target) for r in before] == [(r.id, r.question, r.options, r.target) for r in after]
        assert [_content(record) for record in before] == [_content(record) for record in after]
        train = f"train_{modality}"
        assert lists[train].read_bytes() == again[train].read_bytes()
        # Another training seed leaves the held-out clips as they are and changes every training clip.
        assert [_content(r) for r in _records(other, "held_out", modality)] == [_content(r) for r in after]
        trained = {_content(r) for r in _records(again, "train", modality)}
        assert trained.isdisjoint(_content(r) for r in _records(other, "train", modality))


def test_corpus_holds_all_that_is_asked_and_said(lists: dict[str, Path]) -> None:
    lines = corpus()
    assert len(lines) == len(set(lines))
    for modality in MODALITIES:
        for row in json.loads(lists[f"cold_start_{modality}"].read_text()):
            questions = row["questions"]
            said = [questions["question"], questions["answer"], questions["response"], *questions.get("options", [])]
            assert set(said) <= set(lines)


def test_demonstrations_mention_the_evidence(lists: dict[str, Path]) -> None:
    for modality, named in {"video": {"sight"}, "audio": {"sound"}, "audio_video": {"sight", "sound"}}.items():
        for row in json.loads(lists[f"cold_start_{modality}"].read_text()):
            evidence, response = row["questions"]["evidence"], row["questions"]["response"]
            assert named == {sense for sense, texts in evidence.items() if texts} or row["questions"]["task_type"] == "lamps"
            assert all(text in response for texts in evidence.values() for text in texts)


def test_rows_are_in_the_published_layout(lists: dict[str, Path]) -> None:
    rows = json.loads(lists["train_video"].read_text())
    assert rows[0] == {
        "id": "train_video_00000",
        "video_path": "clips/train_video_00000.mp4",
        "questions": {
            "task_type": "colour",
            "question_pattern": "Multiple-choice question (select one answer choice)",
            "question": "what colour is it ?",
            "options": ["A.red", "B.green", "C.blue", "D.yellow"],
            "answer": (answer := rows[0]["questions"]["answer"]),
            "evidence": {"sight": [["red", "green", "blue", "yellow"]["ABCD".index(answer)]], "sound": []},
        },
    }
    assert list(rows[2]["questions"]) == ["task_type", "question_pattern", "question", "answer", "evidence"]
    assert json.loads(lists["train_audio"].read_text())[0]["video_path"] == "clips/train_audio_00000.wav"
