"""Swapped and blanked media: what changes, what stays, and that answers play no part in the choice of a donor."""

from __future__ import annotations

from dataclasses import replace

import pytest

from omnistage.data.errors import InputError
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record
from omnistage.stages.measure import controls
from omnistage.stages.recipe.choices import Control


def record(index: int, task: str = "t", modality: Modality = Modality.AUDIO_VIDEO) -> Record:
    path = f"{index}.mp4"
    return Record(f"r{index}", modality, task, AnswerKind.NUMBER, "?", str(index % 2), (MediaRef("video", path, path),))


ROWS = [record(i, task="a" if i % 3 else "b") for i in range(12)]


def test_every_record_gets_another_of_its_task() -> None:
    donors = controls.donors(ROWS, seed=3)
    assert all(own.id != donor.id and own.task == donor.task for own, donor in zip(ROWS, donors, strict=True))
    assert sorted(d.id for d in donors) == sorted(r.id for r in ROWS)
    assert controls.donors(ROWS, seed=3) == donors != controls.donors(ROWS, seed=4)


def test_a_donor_may_have_the_same_answer() -> None:
    """Swapping to a clip of another answer on purpose would score below chance."""
    rows = [record(i) for i in range(200)]
    same = sum(own.target == donor.target for own, donor in zip(rows, controls.donors(rows, seed=0), strict=True))
    assert 70 <= same <= 130


def test_senses_are_swapped_one_by_one() -> None:
    donors = controls.donors(ROWS, seed=0)
    names: tuple[Control, ...] = ("swapped", "swapped_sound", "swapped_picture")
    for name in names:
        for own, donor, shown in zip(ROWS, donors, controls.apply(name, ROWS, seed=0), strict=True):
            (mine,), (other,), (ref,) = own.media, donor.media, shown.media
            assert (shown.question, shown.target, shown.id) == (own.question, own.target, own.id)
            assert ref.path == (mine.path if name == "swapped_sound" else other.path)
            assert ref.sound == (mine.sound if name == "swapped_picture" else other.sound)


def test_blank_keeps_the_clip_and_empties_it() -> None:
    (shown,) = controls.apply("blank", ROWS[:1], seed=0)
    assert shown.media[0].path == ROWS[0].media[0].path
    assert shown.media[0].blank == {"picture", "sound"}


def test_one_sense_is_taken_away_or_the_frames_are_shuffled() -> None:
    for name, sense in (("muted", "sound"), ("blank_picture", "picture")):
        (shown,) = controls.apply(name, ROWS[:1], seed=0)  # type: ignore[arg-type]
        assert shown.media[0].blank == {sense}
        assert [controls.applies(name, modality) for modality in (Modality.VIDEO, Modality.AUDIO)] == [False, False]  # type: ignore[arg-type]
        assert controls.applies(name, Modality.AUDIO_VIDEO)  # type: ignore[arg-type]
    orders = [[r.media[0].shuffle for r in controls.apply("shuffled", ROWS, seed=seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert len(set(orders[0])) == len(ROWS)
    assert controls.applies("shuffled", Modality.VIDEO)
    assert not controls.applies("shuffled", Modality.IMAGE)


def test_the_donor_shows_another_clip() -> None:
    """Four questions a clip, as benchmarks have them: no question keeps its own clip, in any of 20 orders."""
    rows = [replace(record(i), media=record(i // 4).media) for i in range(40)]
    for seed in range(20):
        donors = controls.donors(rows, seed)
        assert all(own.media != donor.media for own, donor in zip(rows, donors, strict=True))
        assert sorted(d.id for d in donors) == sorted(r.id for r in rows)


def test_the_donor_is_of_the_same_modality() -> None:
    """One task asked of sound and of video: nobody gets the other's kind of clip."""
    heard = [replace(record(i, modality=Modality.AUDIO), media=(MediaRef("audio", f"{i}.wav"),)) for i in range(20, 26)]
    rows = [record(i) for i in range(6)] + heard
    for own, donor in zip(rows, controls.donors(rows, seed=1), strict=True):
        assert own.modality is donor.modality
        assert own.media[0].kind == donor.media[0].kind


def test_too_few_clips_cannot_be_swapped() -> None:
    rows = [replace(record(i), media=record(min(i, 1)).media) for i in range(5)]
    with pytest.raises(InputError, match="task 't', modality 'audio_video': 4 of its 5 held-out records have the same clip"):
        controls.donors(rows, seed=0)
    with pytest.raises(InputError, match="1 of its 1 held-out records"):
        controls.donors([record(0)], seed=0)


def test_one_sense_is_swapped_only_where_there_are_two() -> None:
    assert controls.applies("swapped", Modality.VIDEO)
    assert not controls.applies("swapped_sound", Modality.AUDIO)
    assert not controls.applies("blank", Modality.TEXT)
    assert controls.applies("swapped_picture", Modality.AUDIO_VIDEO)
