"""Which file a clip of a rollout is: what the policy saw and heard, wherever the run lies now, and no other file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omnistage.data.records import MediaRef
from omnistage.rewards import rollouts
from omnistage.stages import files
from omnistage.stages.report import media
from omnistage.stages.report.live import Live
from omnistage.stages.report.places import MISSING, OUTSIDE, Places
from omnistage.stages.report.view import view
from report_run import completion, recorded
from trainers import trainer_for
from world import World


def test_the_sound_that_was_heard_is_recorded(world: World, tmp_path: Path) -> None:
    """A real step on a video that is heard by another's sound, and on one that is not heard."""
    swapped, plain = world.records("audio_video")[:2]
    other = world.records("audio")[0].media[0].path
    heard = swapped.with_media((replace(swapped.media[0], sound=other),))
    mute = plain.with_media((replace(plain.media[0], sound=None),))
    rows: list[dict[str, Any]] = []

    def record(step: int, given: Any) -> None:
        rollouts.write(tmp_path / "rollouts", step, given)

    trainer_for(world, [heard, mute], tmp_path, recorder=record).train()
    (rows,) = rollouts.read(tmp_path / "rollouts")
    found = {row["record_id"]: media.refs_of(row) for row in rows}
    assert found == {heard.id: list(heard.media), mute.id: list(mute.media)}


def test_older_recordings_say_no_sound(tmp_path: Path) -> None:
    rollouts.write(tmp_path, 1, [completion("a", 0, "x", 1.0, media=["a.mp4"], modality="audio_video")])
    ((row,),) = rollouts.read(tmp_path)
    own = [MediaRef("video", "a.mp4", sound="a.mp4")]
    assert media.refs_of(row) == own
    assert rollouts.SOUND not in row
    assert media.refs_of(row | {"modality": "video"}) == [MediaRef("video", "a.mp4")]
    assert media.refs_of(row | {"sound": ["b.wav"]}) == [MediaRef("video", "a.mp4", sound="b.wav")]


def placed(folder: Path, *names: str) -> list[str]:
    """Files of these names in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return [str(folder / name) for name in names]


def wrong_with(places: Places, *paths: str) -> list[str | None]:
    return [places.of(MediaRef("video", path))[1] for path in paths]


def test_clips_lie_under_what_the_recipe_names(tmp_path: Path) -> None:
    """A media root, an annotation file's folder where there is none, rendered clips, and the run; links do not lead out of them."""
    run = tmp_path / "runs" / "run"
    inside = [
        *placed(tmp_path / "root" / "deep", "a.mp4"),
        *placed(tmp_path / "beside", "b.mp4", "rows.json"),
        *placed(tmp_path / "rendered", "c.mp4"),
        *placed(run / "data", "d.mp4"),
    ]
    outside = placed(tmp_path / "root2", "e.mp4")
    (tmp_path / "root" / "link.mp4").symlink_to(outside[0])
    (tmp_path / "alias").symlink_to(tmp_path / "root")
    recipe = {
        "run_dir": str(run),
        "synth": {"path": str(tmp_path / "rendered")},
        "stages": [{"name": "a", "data": [{"path": "/elsewhere/rows.json", "media_root": str(tmp_path / "alias")}]}],
        "evaluation": {"data": [{"path": str(tmp_path / "beside" / "rows.json"), "media_root": None}]},
    }
    places = Places(run, recipe)
    assert wrong_with(places, *inside) == [None] * len(inside)
    up = f"{tmp_path}/root/../root2/e.mp4"
    assert wrong_with(places, *outside, str(tmp_path / "root" / "link.mp4"), up, "/etc/hostname") == [OUTSIDE] * 4
    assert wrong_with(places, str(tmp_path / "root" / "gone.mp4"), "a\0b") == [MISSING] * 2
    assert places.of(MediaRef("video", inside[0], sound=outside[0]))[1] == OUTSIDE


def test_relative_roots_are_of_where_the_run_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at from another folder; and a moved run shows its own clips."""
    began = tmp_path / "began"
    (clip,) = placed(began / "media", "a.mp4")
    (own,) = placed(began / "out" / "run" / "data", "b.mp4")
    recipe = {"run_dir": "out/run", "stages": [{"data": [{"path": "rows.json", "media_root": "media"}]}]}
    monkeypatch.chdir(tmp_path)
    assert wrong_with(Places(began / "out" / "run", recipe), clip, own) == [None, None]
    shutil.move(began / "out" / "run", tmp_path / "moved")
    found, wrong = Places(tmp_path / "moved", recipe).of(MediaRef("video", own, sound=own))
    moved = str(tmp_path / "moved" / "data" / "b.mp4")
    assert (found.path, found.sound, wrong) == (moved, moved, None)


def test_no_other_file_is_in_a_page(world: World, tmp_path: Path) -> None:
    """A real clip that the run's recipe does not have, then does."""
    record = world.records("audio_video")[0]
    rows = [completion("a", 0, "x", 1.0, media=[record.media[0].path], sound=[record.media[0].path])]
    run = recorded(tmp_path / "run", {1: rows})
    (clip,) = (part for key, part in view(run, room=10**7).parts.items() if key.startswith("clip-"))
    assert clip == {"name": Path(record.media[0].path).name, "kind": "video", "error": OUTSIDE}
    served = Live(run)
    answer = served.answer()
    served.close()
    assert answer is not None
    ((key, told),) = ((key, part) for key, part in json.loads(answer.body)["parts"].items() if key.startswith("clip-"))
    assert told["error"] == OUTSIDE
    assert served.clip(key.removeprefix("clip-")) is None
    recorded(run, {1: rows}, data=[{"path": "rows.json", "media_root": str(world.data)}])
    (clip,) = (part for key, part in view(run, room=10**7).parts.items() if key.startswith("clip-"))
    assert {"strip", "video", "wave"} <= clip.keys()


def test_a_real_run_shows_its_clips(run: Path) -> None:
    """Its recipe holds every media root."""
    places = Places(run, files.read_json(run / "run.json")["recipe"])
    noted = [path for rows in rollouts.read(run / "02-video" / "rollouts") for row in rows for path in row["media"]]
    assert noted
    assert set(wrong_with(places, *noted)) == {None}
