"""Real media, cut, flipped and mislabelled: no crash, no hang, no wrong clip. What is not decoded is refused with `MediaError`.

Every example is decoded in a child process with ten seconds to do it. Examples are the same in every run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from clip_files import GREY_STEP, tone, write_wav
from decode_child import CODECS, FRAMES, LIMITS, Child, Decoded, write_media
from omnistage.data.checks.workers import Failed
from omnistage.data.media import MIN_SOUND_SAMPLES, SOUND_RATE_HZ
from omnistage.data.records import MediaRef

PICTURES = [name for name, (picture, _, _) in CODECS.items() if picture]
# No shrinking: a failing example is a file on disk, and shrinking it would decode for minutes.
FUZZ = settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
HEADS = [b"", b"RIFF", b"\x1aE\xdf\xa3", b"\0\0\0\x20ftypisom", b"OggS", b"fLaC", b"ID3"]
Outcome = Decoded | str | Failed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fuzz")
    for name in CODECS:
        write_media(place / f"whole.{name}")
    return place


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    one = Child()
    yield one
    one.close()


def ask(child: Child, path: Path, sense: str) -> Outcome:
    kind: Literal["video", "audio"] = "video" if sense == "picture" else "audio"
    return child.decode(MediaRef(kind, str(path)))


def senses(name: str) -> list[str]:
    return ["picture", "sound"] if name in PICTURES else ["sound"]


def is_a_clip(outcome: Decoded, sense: str) -> bool:
    """Whether it has the counts that any clip has under these limits."""
    if sense == "sound":
        return MIN_SOUND_SAMPLES <= outcome.samples <= LIMITS.max_sound_s * SOUND_RATE_HZ and math.isfinite(outcome.power)
    rate = outcome.fps is not None and math.isfinite(outcome.fps) and outcome.fps > 0
    return rate and outcome.frames % 2 == 0 and 2 <= outcome.frames <= LIMITS.max_frames and len(outcome.size) == 3 and outcome.size[2] == 3


def is_the_clip(outcome: Outcome, sense: str) -> bool:
    """Whether it is the clip that was written: 8 of its 40 frames from the first to the last, or four seconds of its tone."""
    if not isinstance(outcome, Decoded):
        return False
    if sense == "sound":
        return abs(outcome.samples - 64_000) <= 3000 and abs(outcome.power - 0.5 / math.sqrt(2)) < 0.02
    expected = [GREY_STEP * round(index * (FRAMES - 1) / 7) for index in range(8)]
    return len(outcome.greys) == 8 and all(abs(grey - want) < 4 for grey, want in zip(outcome.greys, expected, strict=True))


@pytest.mark.parametrize("name", CODECS)
def test_whole_media_are_decoded(name: str, folder: Path, child: Child) -> None:
    for sense in senses(name):
        outcome = ask(child, folder / f"whole.{name}", sense)
        assert is_the_clip(outcome, sense), (name, sense, outcome)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("label", ["mp4", "wav", "avi", "txt", "m3u8", "jpg"])
def test_mislabelled_media_are_themselves_or_refused(name: str, label: str, folder: Path, child: Child) -> None:
    path = folder / f"{name}.{label}"
    path.write_bytes((folder / f"whole.{name}").read_bytes())
    for sense in senses(name):
        outcome = ask(child, path, sense)
        assert isinstance(outcome, str) or is_the_clip(outcome, sense), (name, label, sense, outcome)


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.1, 0.3, 0.5, 0.7, 0.85, 0.95, 0.999])
def test_cut_media_are_whole_enough_or_refused(name: str, share: float, folder: Path, child: Child) -> None:
    """What lacks more than a tenth must be refused; Ogg does not say how long it is, so that its cuts are shorter sounds."""
    content = (folder / f"whole.{name}").read_bytes()
    path = folder / f"cut.{name}"
    path.write_bytes(content[: int(share * len(content))])
    for sense in senses(name):
        outcome = ask(child, path, sense)
        assert not isinstance(outcome, Failed), (name, share, sense, outcome)
        if isinstance(outcome, Decoded):
            assert is_a_clip(outcome, sense), (name, share, sense, outcome)
            assert share > 0.9 or name == "ogg", (name, share, sense, outcome)


def test_headers_that_would_hang_or_crash_are_refused(folder: Path, child: Child) -> None:
    """A rate of 3.1 GHz makes a resampler's filter of minutes; room for 4 thousand million frames ends decord's process."""
    content = bytearray((folder / "whole.wav").read_bytes())
    content[27] = 185
    (folder / "rate.wav").write_bytes(content)
    outcome = ask(child, folder / "rate.wav", "sound")
    assert isinstance(outcome, str)
    content = bytearray((folder / "whole.avi").read_bytes())
    place = content.index(b"strh") + 40
    content[place : place + 4] = b"\xfe\xff\xff\xfd"
    (folder / "frames.avi").write_bytes(content)
    outcome = ask(child, folder / "frames.avi", "picture")
    assert isinstance(outcome, str)
    assert "frames in" in outcome


@pytest.mark.parametrize("channels", [1, 2, 6, 8, 16])
def test_sound_of_many_channels_is_their_mean(channels: int, folder: Path, child: Child) -> None:
    """All silent but the first: the mean of a tone of amplitude 0.5 has the power 0.5 / sqrt(2) / channels."""
    given = [tone(2.0), *[np.zeros(32_000, np.float32)] * (channels - 1)]
    outcome = child.decode(MediaRef("audio", write_wav(folder / "channels.wav", given)))
    assert isinstance(outcome, Decoded)
    assert outcome.samples == 32_000
    assert outcome.power == pytest.approx(0.5 / math.sqrt(2) / channels, rel=1e-3)


@pytest.mark.parametrize("name", CODECS)
@FUZZ
@given(data=st.data())
def test_flipped_media_are_a_clip_or_refused(name: str, folder: Path, child: Child, data: st.DataObject) -> None:
    """Up to 40 bytes are changed, half of the time in the header alone, or a stretch is zeroed or left out."""
    content = bytearray((folder / f"whole.{name}").read_bytes())
    end = data.draw(st.sampled_from([len(content), min(len(content), 600)]))
    way = data.draw(st.sampled_from(["flip", "zero", "leave out", "repeat"]))
    if way == "flip":
        for place, value in data.draw(st.lists(st.tuples(st.integers(0, end - 1), st.integers(1, 255)), min_size=1, max_size=40)):
            content[place] ^= value
    else:
        start = data.draw(st.integers(0, end - 1))
        stop = start + data.draw(st.integers(1, 1000))
        content[start:stop] = {"zero": bytes(len(content[start:stop])), "leave out": b"", "repeat": content[start:stop] * 2}[way]
    path = folder / f"changed.{name}"
    path.write_bytes(content)
    sense = data.draw(st.sampled_from(senses(name)))
    outcome = ask(child, path, sense)
    assert not isinstance(outcome, Failed), (way, sense, outcome)
    assert isinstance(outcome, str) or is_a_clip(outcome, sense), (way, sense, outcome)


@FUZZ
@given(content=st.binary(max_size=4000), head=st.sampled_from(HEADS))
def test_noise_is_refused(content: bytes, head: bytes, folder: Path, child: Child) -> None:
    path = folder / "noise.mp4"
    path.write_bytes(head + content)
    for sense in ("picture", "sound"):
        outcome = ask(child, path, sense)
        assert not isinstance(outcome, Failed), outcome
        assert isinstance(outcome, str) or is_a_clip(outcome, sense), outcome
