"""Which file a clip of a rollout is: what the policy saw and heard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from omnistage.data.records import MediaRef
from omnistage.rewards import rollouts
from omnistage.stages.report import media
from report_run import completion
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
