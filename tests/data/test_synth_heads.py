"""What heads learn from, read back by the readers of the published layouts: scores follow the formula, poses are what is drawn and said."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnistage.data import formats
from omnistage.data.body.skeleton import joints_m, skeleton
from omnistage.data.errors import InputError
from omnistage.data.formats.gen3dhf import BOUNDS, level_of
from omnistage.data.media import MediaLimits, decode
from omnistage.data.records import LEVELS, AnswerKind, Modality, Record
from omnistage.data.rotations import Floats, axis_angle_to_matrices, geodesic_deg
from omnistage.data.synth import heads_corpus, job, render_heads
from omnistage.data.synth.heads import opinions, poses
from omnistage.data.synth.heads.distortions import DISTORTIONS, spoiled
from omnistage.data.synth.heads.faces import moving_face
from omnistage.data.synth.heads.figures import figure

SMALL: dict[str, Any] = {"seed": 1, "quality": (6, 4), "pose": (6, 4)}
# How a body stands that faces a camera whose y points down and whose z points away.
FACING = np.diag([1.0, -1.0, -1.0])


Lists = dict[str, Path]


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Lists:
    return render_heads(tmp_path_factory.mktemp("heads"), seed=3, quality=(60, 40), pose=(100, 40))


def _read(lists: Lists, name: str) -> list[Record]:
    """The records of a list, with the media root two folders above it (Gen3DHF, PoseScript) or beside it (images)."""
    path = lists[name]
    root = path.parent if "image" in name else path.parent.parent
    return list(formats.read("gen3dhf" if "quality" in name else "chatpose", path, media_root=root))


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _times(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def _ranks(values: list[float]) -> Floats:
    order: Floats = np.argsort(np.argsort(values)).astype(float)
    return order


# Opinions.


def test_scores_and_levels_are_read_as_gen3dhf_s(lists: Lists) -> None:
    scores, words = _read(lists, "held_out_quality"), _read(lists, "held_out_quality_levels")
    assert [len(scores), len(words), len(_read(lists, "train_quality"))] == [40, 40, 60]
    for score, word in zip(scores, words, strict=True):
        assert (score.kind, word.kind, score.modality) == (AnswerKind.SCALAR, AnswerKind.LEVEL, Modality.VIDEO)
        assert (score.task, score.question, score.response) == ("quality", opinions.QUESTION, None)
        assert score.media == word.media
        assert score.extra["level"] == word.target
        assert word.response == f"The quality of the human face in this video is {word.target}."
        assert score.values == (np.mean(score.extra["ratings"]),)


def test_the_level_rule_gives_every_label_and_the_lowest_clip_is_bad(lists: Lists) -> None:
    records = [record for split in ("train", "held_out") for record in _read(lists, f"{split}_quality")]
    assert [level_of(r.values[0], *BOUNDS["quality"]) for r in records] == [r.extra["level"] for r in records]
    assert min(records, key=lambda record: record.values[0]).extra["level"] == "bad"
    assert {record.extra["level"] for record in records} == set(LEVELS)
    assert all("label" not in record.extra for record in records), "the published slip, a level 'None', is not imitated"


def test_scores_follow_the_formula_but_for_the_raters() -> None:
    """Of 1000 clips. Eight ratings that err by 7 have a mean that errs by 7 / sqrt(8) = 2.47; how strict they are cancels out."""
    weights = {"blur": 0.75, "blocks": 0.65, "noise": 0.65, "drops": 0.5, "jitter": 0.5}
    clips = opinions.rated((3, 1, 3), "train", 1000)
    said = []
    for clip in clips:
        good = 1.0
        for name, strength in clip.strengths.items():
            good *= 1 - weights[name] * strength
        said.append(6.3619 + (65.7502 - 6.3619) * good)
    given = [clip.mos for clip in clips]
    errors = np.subtract(given, said)
    assert abs(errors.mean()) < 4 * 2.47 / 1000**0.5
    assert errors.std() == pytest.approx(2.47, rel=0.1)
    assert np.corrcoef(_ranks(given), _ranks(said))[0, 1] > 0.97
    # The strictest of the raters and the mildest are 12 points apart.
    ratings = np.array([clip.ratings for clip in clips])
    assert (ratings[:, 7] - ratings[:, 0]).mean() == pytest.approx(12, abs=4 * 7 * (2 / 1000) ** 0.5)
    ways = Counter(len(clip.strengths) for clip in clips)
    assert [ways[count] / 1000 for count in range(4)] == pytest.approx([0.1, 0.35, 0.35, 0.2], abs=0.06)


def test_what_is_shown_says_nothing_of_the_score(lists: Lists) -> None:
    """The same clip, drawn for any strengths; and the mean colour of what is drawn has nothing to do with the score."""
    made = opinions.rated((7, 1, 3), "train", 150)
    colours = [moving_face(np.random.default_rng(clip.stream)).mean((0, 1, 2)) for clip in made]
    mos = [clip.mos for clip in made]
    for channel in np.transpose(colours):
        assert abs(np.corrcoef(_ranks(list(channel)), _ranks(mos))[0, 1]) < 0.25
    assert len({record.question for record in _read(lists, "train_quality")}) == 1


@pytest.mark.parametrize("name", DISTORTIONS)
def test_a_stronger_distortion_spoils_more(name: str) -> None:
    """Mean distance of a decoded-size picture from the unspoiled one, over ten clips, at rising strengths."""
    harm = []
    for strength in (0.5, 1.0):
        each = []
        for seed in range(10):
            frames = moving_face(np.random.default_rng([seed, 0, 0, 0]))
            made = spoiled(np.random.default_rng([seed, 1, 0, 0]), frames, {name: strength})
            assert made.shape == frames.shape == (4, 56, 56, 3)
            each.append(np.abs(made.astype(float) - frames).mean())
        harm.append(np.mean(each))
    assert 1 < harm[0] < harm[1]
    frames = moving_face(np.random.default_rng(1))
    assert (spoiled(np.random.default_rng(2), frames, {name: 0.0}) == frames).all()


def test_distortions_are_seen_in_the_decoded_clip(lists: Lists) -> None:
    """Frames that are black are counted, and blur takes detail: the mean step between neighbouring pixels falls with its strength."""
    blurred = []
    for record in [*_read(lists, "train_quality"), *_read(lists, "held_out_quality")]:
        strengths = record.extra["strengths"]
        clip = decode(record.media[0], MediaLimits())
        assert clip.frames is not None
        assert (clip.frames.shape, clip.fps) == ((4, 56, 56, 3), 2.0)
        if "noise" in strengths:
            continue
        seen = [frame.astype(float) for frame in clip.frames if frame.mean() > 8]
        assert len(seen) == 4 - round(2 * strengths.get("drops", 0)), record.id
        if "blocks" not in strengths:
            steps = [np.abs(np.diff(frame, axis=axis)).mean() for frame in seen for axis in (0, 1)]
            blurred.append((strengths.get("blur", 0.0), float(np.mean(steps))))
    assert len(blurred) > 30
    assert np.corrcoef(np.transpose(blurred))[0, 1] < -0.7


# Poses.


def _choice(sentence: str) -> poses.Choice:
    """The states that a description names, by its words alone."""
    phrases = sentence.removesuffix(" .").split(" , ")
    assert len(phrases) == 5
    found = []
    for phrase, (part, states) in zip(phrases, poses.PARTS.items(), strict=True):
        told = phrase.removeprefix("the ").removeprefix(f"{part} ")
        found.append([told in (state.sentence, state.short) for state in states].index(True))
    return tuple(found)


def _matrices(record: Record) -> Floats:
    return np.array(record.values).reshape(24, 3, 3)


@pytest.mark.parametrize("kind", ["text_to_pose", "image_to_pose"])
def test_rotations_come_back_from_the_files(lists: Lists, kind: str) -> None:
    """What the reader gives are the states that the description names, but for the spread (0.03 radians an axis) and the yaw."""
    records = [*_read(lists, f"train_{kind}"), *_read(lists, f"held_out_{kind}")]
    assert len(records) == 140
    for record in records:
        assert (record.kind, record.task) == (AnswerKind.POSE, kind)
        read = _matrices(record)
        expected = axis_angle_to_matrices(poses.plain(_choice(record.target)))
        assert geodesic_deg(read[1:], expected[1:]).max() < np.degrees(0.03) * 6
        still = [joint for joint in range(1, 24) if joint not in poses.FREE]
        assert np.abs(read[still] - np.eye(3)).max() < 1e-9
        yaw = geodesic_deg(read[0], FACING)
        assert yaw < (1e-4 if kind == "text_to_pose" else np.degrees(0.25) + 1e-6)
        # Upright in the frame of the camera: up is -y.
        assert read[0] @ [0, 1, 0] == pytest.approx([0, -1, 0], abs=1e-9)


def test_held_out_combinations_are_new_and_every_state_is_learned(lists: Lists) -> None:
    for kind in ("text_to_pose", "image_to_pose"):
        sets = {split: [_choice(record.target) for record in _read(lists, f"{split}_{kind}")] for split in ("train", "held_out")}
        assert not set(sets["train"]) & set(sets["held_out"])
        for part, states in enumerate(poses.PARTS.values()):
            assert {choice[part] for choice in sets["train"]} == set(range(len(states)))
        assert all(sum(choice) % 4 == 0 for choice in sets["held_out"])


def test_both_kinds_of_captions_are_read(lists: Lists) -> None:
    records = _read(lists, "train_text_to_pose")
    assert {record.extra["caption"] for record in records} == {"automatic_A", "automatic_B"}
    assert all(record.question == f"{record.target} Give the SMPL pose." for record in records)
    folder = lists["train_text_to_pose"].parent
    told = [json.loads((folder / f"automatic_{letter}.json").read_text()) for letter in "AB"]
    assert told[0].keys() == told[1].keys()
    assert all(_choice(told[0][key]) == _choice(told[1][key]) for key in told[0])
    everything = list(formats.read("chatpose", folder, media_root=folder.parent))
    assert len(everything) == 140


# Where a joint should be, against another, for a body that faces the reader's camera: x to the right of the picture, y down, z away.
@pytest.mark.parametrize(
    ("part", "state", "joint", "other", "axis", "sign"),
    [
        ("left arm", "is raised", "L_Wrist", "Head", 1, -1),
        ("right arm", "is raised", "R_Wrist", "Head", 1, -1),
        ("left arm", "points to the side", "L_Wrist", "L_Shoulder", 0, +1),
        ("right arm", "points to the side", "R_Wrist", "R_Shoulder", 0, -1),
        ("left arm", "points forward", "L_Wrist", "L_Shoulder", 2, -1),
        ("right arm", "points forward", "R_Wrist", "R_Shoulder", 2, -1),
        ("left arm", "rests on the hip", "L_Wrist", "L_Elbow", 0, -1),
        ("right arm", "rests on the hip", "R_Wrist", "R_Elbow", 0, +1),
        ("left arm", "is bent upward", "L_Wrist", "L_Elbow", 1, -1),
        ("left leg", "is raised with a bent knee", "L_Knee", "L_Hip", 2, -1),
        ("right leg", "kicks forward", "R_Ankle", "R_Hip", 2, -1),
        ("left leg", "is spread to the side", "L_Ankle", "L_Hip", 0, +1),
        ("right leg", "is spread to the side", "R_Ankle", "R_Hip", 0, -1),
        ("left leg", "is bent back", "L_Ankle", "L_Knee", 2, +1),
        ("body", "leans forward", "Neck", "Pelvis", 2, -1),
        ("body", "leans to the left", "Neck", "Pelvis", 0, +1),
        ("body", "leans to the right", "Neck", "Pelvis", 0, -1),
        ("body", "is turned to the left", "L_Shoulder", "R_Shoulder", 2, +1),
        ("body", "is turned to the right", "L_Shoulder", "R_Shoulder", 2, -1),
    ],
)
def test_a_body_does_what_the_words_say(part: str, state: str, joint: str, other: str, axis: int, sign: int) -> None:
    choice = tuple(
        next(place for place, known in enumerate(states) if known.sentence == state) if name == part else 0
        for name, states in poses.PARTS.items()
    )
    turns = poses.plain(choice)
    matrices = axis_angle_to_matrices(turns)
    matrices[0] = FACING
    joints = joints_m(matrices)
    names = skeleton().names
    assert sign * (joints[names.index(joint)] - joints[names.index(other)])[axis] > 0.1


def _side_of(picture: np.ndarray[Any, Any], *, blue: bool) -> float:
    """The mean x, from -1 to 1, of what is clearly blue (left limbs) or clearly red (right ones)."""
    red_less_blue = picture[..., 0].astype(int) - picture[..., 2]
    found = np.argwhere(red_less_blue < -90 if blue else red_less_blue > 90)
    return float(found[:, 1].mean() / 28 - 1)


def test_left_and_right_are_the_right_way_round_in_pictures(lists: Lists) -> None:
    """A body that faces the camera has its left on the picture's right, and raising one arm moves the colour of that side alone."""
    for record in _read(lists, "held_out_image_to_pose")[:30]:
        clip = decode(record.media[0], MediaLimits())
        assert clip.frames is not None
        assert clip.frames.shape == (1, 56, 56, 3)
        assert _side_of(clip.frames[0], blue=True) > _side_of(clip.frames[0], blue=False), record.id
    drawn = {}
    for arm in ("left", "right"):
        turns = poses.plain(tuple(1 if part == f"{arm} arm" else 0 for part in poses.PARTS))
        turns[0] = (np.pi, 0, 0)
        drawn[arm] = np.asarray(figure(np.random.default_rng(0), turns)).astype(int)
    above = {arm: picture[:18] for arm, picture in drawn.items()}
    blue = {arm: int(((part[..., 2] - part[..., 0]) > 60).sum()) for arm, part in above.items()}
    red = {arm: int(((part[..., 0] - part[..., 2]) > 110).sum()) for arm, part in above.items()}
    assert blue["left"] > blue["right"] + 15
    assert red["right"] > red["left"] + 15


def test_any_two_states_of_a_part_look_different() -> None:
    """With all else the same: colours, place, and what the other parts do."""
    for part, states in poses.PARTS.items():
        pictures = []
        for place in range(len(states)):
            turns = poses.plain(tuple(place if name == part else 0 for name in poses.PARTS))
            turns[0] = (np.pi, 0, 0)
            pictures.append(np.asarray(figure(np.random.default_rng(0), turns)).astype(int))
        for first in range(len(pictures)):
            for second in range(first):
                changed = (np.abs(pictures[first] - pictures[second]).max(-1) > 40).sum()
                assert changed > 25, (part, states[first].sentence, states[second].sentence)


# Rendering as a job.


def test_training_and_held_out_files_share_nothing(tmp_path: Path) -> None:
    """With one seed for both, too: clips, pictures and poses are still others."""
    render_heads(tmp_path, seed=5, held_out_seed=5, quality=(6, 6), pose=(6, 6))
    for kind in ("*.mp4", "*.png"):
        found = {path: path.read_bytes() for path in tmp_path.rglob(kind)}
        assert len(found) == 12
        assert len(set(found.values())) == 12


def test_the_second_call_touches_nothing_and_a_lost_file_is_made_again(tmp_path: Path) -> None:
    made = render_heads(tmp_path, **SMALL)
    times, files = _times(tmp_path), _files(tmp_path)
    assert render_heads(tmp_path, **SMALL) == made
    assert _times(tmp_path) == times
    lost = ["quality/video_RGB/train_00001.mp4", "pose/images/held_out/00002.png", "pose/posescript/AMASS/Rendered/train/00000_poses.npz"]
    for name in lost:
        (tmp_path / name).unlink()
    render_heads(tmp_path, **SMALL)
    assert _files(tmp_path) == files


def test_other_arguments_are_refused_with_both(tmp_path: Path) -> None:
    render_heads(tmp_path, **SMALL)
    with pytest.raises(
        InputError, match=r"render_heads\.json' was rendered with {'pose': {'train': 6, 'held_out': 4}}, but {'pose': .* 5}} is asked"
    ):
        render_heads(tmp_path, **{**SMALL, "pose": (6, 5)})
    with pytest.raises(InputError, match=re.escape("was rendered with {'seed': 1}, but {'seed': 2} is asked for")):
        render_heads(tmp_path, **{**SMALL, "seed": 2})


def test_an_interrupted_call_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render_heads(tmp_path / "whole", **SMALL)
    made = 0

    def interrupted(rng: np.random.Generator, axis_angles: Floats) -> Any:
        nonlocal made
        if made == 3:
            raise KeyboardInterrupt
        made += 1
        return figure(rng, axis_angles)

    with monkeypatch.context() as patch:
        patch.setattr("omnistage.data.synth.heads.pairs.figure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            render_heads(tmp_path / "cut", **SMALL)
    before = {name: time for name, time in _times(tmp_path / "cut").items() if name.endswith((".mp4", ".png", ".npz"))}
    assert sum(name.endswith(".png") for name in before) == 3
    assert not (tmp_path / "cut" / "render_heads.json").exists()
    with pytest.raises(InputError, match=r"render_heads\.started\.json' was rendered with"):
        render_heads(tmp_path / "cut", **{**SMALL, "seed": 9})
    render_heads(tmp_path / "cut", **SMALL)
    after = _times(tmp_path / "cut")
    assert {name: after[name] for name in before} == before
    assert _files(tmp_path / "cut") == _files(tmp_path / "whole")


def test_a_pool_makes_what_one_process_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render_heads(tmp_path / "one", **SMALL, workers=1)
    monkeypatch.setattr(job, "WORTH_A_POOL", 2)
    render_heads(tmp_path / "two", **SMALL, workers=2)
    assert _files(tmp_path / "two") == _files(tmp_path / "one")


def test_only_what_is_asked_for_is_made(tmp_path: Path) -> None:
    assert set(render_heads(tmp_path / "q", seed=1, quality=(2, 0))) == {
        f"{split}_quality{what}" for split in ("train", "held_out") for what in ("", "_levels")
    }
    assert not (tmp_path / "q" / "pose").exists()
    assert set(render_heads(tmp_path / "p", seed=1, pose=(2, 1))) == {
        f"{split}_{what}_to_pose" for split in ("train", "held_out") for what in ("text", "image")
    }
    assert not (tmp_path / "p" / "quality").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quality": (-1, 4)}, r"render: quality \(train\) must lie in 0\.\.4294967295, got -1"),
        ({"pose": (6, 2**32)}, r"render: pose \(held_out\) must lie in 0\.\.4294967295, got 4294967296"),
        ({"held_out_seed": -5}, r"render: held_out_seed must lie in 0\.\.4294967295, got -5"),
        ({"workers": 0}, "render: workers must be at least 1, got 0"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        render_heads(tmp_path / "out", **{**SMALL, **change})
    assert not (tmp_path / "out").exists()


def test_files_of_unknown_origin_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pose").mkdir()
    (tmp_path / "pose" / "mine.json").write_text("[]")
    with pytest.raises(InputError, match=r"pose' holds .*render_heads\.json' is not there to say which; give an empty folder"):
        render_heads(tmp_path, **SMALL)


def test_the_corpus_holds_every_word_that_is_read_or_answered(lists: Lists) -> None:
    known = {word for line in heads_corpus() for word in line.split()}
    for name in ("train_quality", "held_out_quality_levels", "train_text_to_pose", "train_image_to_pose"):
        for record in _read(lists, name):
            said = f"{record.question} {record.response or ''} {record.target if record.kind is AnswerKind.LEVEL else ''}"
            assert set(said.split()) <= known, record.id
