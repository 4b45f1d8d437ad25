"""Cut files are told from whole ones, in every container that says how long it is; whole files, however odd, are not taken for cut ones."""

from __future__ import annotations

import re
import struct
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from clip_files import GREY_STEP, tone, write_wav
from omnistage.data.container_size import cut_short, stated_bytes
from omnistage.data.errors import MediaError
from omnistage.data.media import MediaLimits, decode
from omnistage.data.records import MediaRef

LIMITS = MediaLimits()
SECONDS, FPS, RATE = 6, 10, 48_000
X264, MP3 = ("libx264", "aac"), (None, "libmp3lame")
# The name of a file to its codecs of picture and sound, and the options of its container.
KINDS: dict[str, tuple[tuple[str | None, str], dict[str, str]]] = {
    "plain.mp4": (X264, {}),
    "front.mp4": (X264, {"movflags": "faststart"}),
    "front.mov": (("mpeg4", "pcm_s16le"), {"movflags": "faststart"}),
    "fragments.mp4": (X264, {"movflags": "frag_keyframe+empty_moov"}),
    "indexed.mp4": (X264, {"movflags": "dash+frag_keyframe+global_sidx"}),
    "front.m4a": ((None, "aac"), {"movflags": "faststart"}),
    "a.mkv": (X264, {}),
    "a.webm": (("libvpx", "libopus"), {}),
    "a.avi": (("mpeg4", "libmp3lame"), {}),
    "a.flv": (X264, {}),
    "a.wmv": (("wmv2", "wmav2"), {}),
    "a.mxf": (("mpeg2video", "pcm_s16le"), {}),
    "a.ogg": ((None, "libopus"), {}),
    "a.mp3": (MP3, {}),
    "tagged.mp3": (MP3, {"id3v2_version": "3", "metadata": "t" * 9000}),
    "a.flac": ((None, "flac"), {}),
    "a.aiff": ((None, "pcm_s16be"), {}),
    "a.au": ((None, "pcm_s16be"), {}),
    "a.caf": ((None, "pcm_s16le"), {}),
    "a.w64": ((None, "pcm_s16le"), {}),
    "a.wav": ((None, "pcm_s16le"), {}),
    "big.wav": ((None, "pcm_s16le"), {"rf64": "always"}),
    "a.wv": ((None, "wavpack"), {}),
    "a.tta": ((None, "tta"), {}),
}
# Nothing in these tells how long they should be.
SILENT_ABOUT_IT = {
    "a.ts": (X264, {}),
    "live.mkv": (X264, {"live": "1"}),
    "bare.mp3": (MP3, {"write_xing": "0"}),
}


def write(path: Path, codecs: tuple[str | None, str], options: dict[str, str]) -> Path:
    """Six seconds of noise to be seen and heard, picture and sound side by side as they would be recorded."""
    generator = np.random.default_rng(0)
    options = dict(options)
    title = options.pop("metadata", "")
    with av.open(str(path), "w", options=options) as container:
        container.metadata["title"] = title
        picture: Any = container.add_stream(codecs[0], rate=25 if path.suffix == ".mxf" else FPS) if codecs[0] else None
        if picture is not None:
            picture.width, picture.height, picture.pix_fmt, picture.codec_context.gop_size = 64, 64, "yuv420p", 5
        sound: Any = container.add_stream(codecs[1], rate=RATE, layout="mono")
        sound.codec_context.bit_rate = 64_000
        encoder, rate = sound.codec_context, int(picture.codec_context.rate) if picture else FPS
        resampler = av.AudioResampler(format=encoder.format, rate=RATE, layout="mono", frame_size=encoder.frame_size)
        for index in range(SECONDS * rate):
            if picture is not None:
                image = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            samples = generator.uniform(-0.5, 0.5, (1, RATE // rate)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, index * (RATE // rate), Fraction(1, RATE)
            for part in resampler.resample(frame):
                container.mux(sound.encode(part))
        for part in resampler.resample(None):
            container.mux(sound.encode(part))
        if picture is not None:
            container.mux(picture.encode())
        container.mux(sound.encode())
    return path


def senses(path: Path, codecs: tuple[str | None, str]) -> list[MediaRef]:
    return [MediaRef("video", str(path)), MediaRef("audio", str(path))][0 if codecs[0] else 1 :]


@pytest.mark.parametrize("name", KINDS)
def test_cut_clips_are_refused_and_whole_ones_are_not(tmp_path: Path, name: str) -> None:
    codecs, options = KINDS[name]
    path = write(tmp_path / name, codecs, options)
    content = path.read_bytes()
    for ref in senses(path, codecs):
        clip = decode(ref, LIMITS)
        assert abs((clip.sound.size / 16_000 if clip.sound is not None else len(clip.frames) / clip.fps) - SECONDS) < 0.3  # type: ignore[arg-type,operator]
    for share in (0.3, 0.5, 0.8):
        path.write_bytes(content[: int(share * len(content))])
        for ref in senses(path, codecs):
            with pytest.raises(MediaError, match="is cut short: ") as caught:
                decode(ref, LIMITS)
            assert (caught.value.code, str(path) in str(caught.value)) == ("truncated", True)


@pytest.mark.parametrize("name", SILENT_ABOUT_IT)
def test_where_nothing_tells_a_cut_clip_is_a_shorter_one(tmp_path: Path, name: str) -> None:
    """What the docs say of them; at a cut in the middle of a frame a decoder may refuse the clip."""
    codecs, options = SILENT_ABOUT_IT[name]
    path = write(tmp_path / name, codecs, options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert (stated_bytes(str(path)), cut_short(str(path))) == (None, None)


def test_fragments_are_missed_where_an_index_lists_them(tmp_path: Path) -> None:
    """Without one in front, a file that breaks off in a fragment may lack any number of them."""
    for name, half, most in (
        ("indexed.mp4", r"[45][0-9]% of its bytes", None),
        ("fragments.mp4", "inside a fragment", "inside a fragment"),
    ):
        path = write(tmp_path / name, *KINDS[name])
        content = path.read_bytes()
        for share, told in ((0.5, half), (0.95, most)):
            path.write_bytes(content[: int(share * len(content))])
            reason = cut_short(str(path))
            assert reason is None if told is None else re.search(told, str(reason)), (name, share, reason)


def test_seeking_behind_the_end_is_no_error(tmp_path: Path) -> None:
    """NUT has its index at its end, and a cut one leads to places that are not there."""
    path = write(tmp_path / "a.nut", ("mpeg4", "pcm_s16le"), {})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for ref in senses(path, X264):
        assert decode(ref, LIMITS)


def test_clips_with_odd_ends_are_whole(tmp_path: Path) -> None:
    """A sound that starts late, ends early or goes on alone, and bytes that phones and taggers put behind the end."""
    source = write(tmp_path / "source.mp4", X264, {})
    for suffix in ("mp4", "mkv", "flv", "mov"):
        for name, picture, sound in (("early", (0, 6), (0, 2)), ("late", (0, 6), (4, 6)), ("alone", (0, 2), (0, 6))):
            path = select(source, tmp_path / f"{name}.{suffix}", {"video": picture, "audio": sound})
            for ref in senses(path, X264):
                assert decode(ref, LIMITS)
    for name in ("front.mp4", "plain.mp4", "fragments.mp4", "indexed.mp4", "a.ogg", "a.mp3", "a.flac", "a.wav", "a.mkv"):
        path = write(tmp_path / name, *KINDS[name])
        path.write_bytes(path.read_bytes() + b"\x7f\xff\xff\xffSEFT" + bytes(range(256)) * 4)
        assert cut_short(str(path), 0.0) is None


def select(source: Path, target: Path, parts: dict[str, tuple[float, float]]) -> Path:
    """The packets of each stream that lie in a part of the clip, at their times."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            start, end = parts[packet.stream.type]
            if packet.dts is not None and packet.pts is not None and start <= packet.pts * packet.time_base < end:
                packet.stream = streams[packet.stream_index]
                new.mux(packet)
    return target


def write_trimmed(path: Path, start_s: int) -> Path:
    """Greys of which an edit list shows those from `start_s` on, as a phone trims a clip: the frames before it are still in the file."""
    source = path.with_name("source.mp4")
    with av.open(str(source), "w") as container:
        picture = container.add_stream("libx264", rate=10)
        picture.width, picture.height, picture.pix_fmt, picture.codec_context.gop_size = 64, 48, "yuv420p", 8
        for index in range(40):
            image = np.full((48, 64, 3), GREY_STEP * index, np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode())
    with av.open(str(source)) as old, av.open(str(path), "w", options={"movflags": "faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None and packet.pts is not None:
                shift = round(start_s / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                new.mux(packet)
    return path


@pytest.mark.parametrize("with_decord", [True, False])
def test_trimmed_clip_is_whole_and_shows_what_is_left(tmp_path: Path, with_decord: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 greys at 10 fps, from second 3 on: 10 frames, of which 2 fps take the first and the last."""
    if not with_decord:
        monkeypatch.setitem(sys.modules, "decord", None)
    path = write_trimmed(tmp_path / "a.mp4", 3)
    clip = decode(MediaRef("video", str(path)), LIMITS)
    assert clip.frames is not None
    assert [round(float(frame.mean()) / GREY_STEP) for frame in clip.frames] == [30, 39]
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(MediaError, match="is cut short: "):
        decode(MediaRef("video", str(path)), LIMITS)


def test_frames_that_an_avi_only_counts_are_no_lost_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A screen recording: a frame is held only where the picture changes."""
    monkeypatch.setitem(sys.modules, "decord", None)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        picture = container.add_stream("mpeg4", rate=30)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        for index in range(0, 90, 9):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 30)
            container.mux(picture.encode(frame))
        container.mux(picture.encode())
    assert decode(MediaRef("video", str(tmp_path / "a.avi")), LIMITS).frames is not None


@pytest.mark.parametrize("placeholder", [0, 0x7FFFF024, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF])
def test_sizes_that_stand_for_unknown(tmp_path: Path, placeholder: int) -> None:
    """0x7ffff024 is what SoX 14.4 writes to a pipe, 0xffffffff is FFmpeg's; both leave one like it in the data chunk."""
    path = tmp_path / "a.wav"
    content = bytearray(Path(write_wav(path, [tone(1.0)])).read_bytes())
    content[4:8] = struct.pack("<I", placeholder)
    content[40:44] = struct.pack("<I", max(0, placeholder - 36) or 0xFFFFFFFF)
    path.write_bytes(content)
    sound = decode(MediaRef("audio", str(path)), LIMITS).sound
    assert sound is not None
    assert sound.size == 16_000


def test_avi_goes_on_behind_its_first_gigabyte(tmp_path: Path) -> None:
    """A further chunk of 5,000 bytes, of which 1,000 are there."""
    path = write(tmp_path / "a.avi", *KINDS["a.avi"])
    first = path.stat().st_size
    path.write_bytes(path.read_bytes() + bytes(first % 2) + b"RIFF" + struct.pack("<I", 5000) + b"AVIX" + bytes(996))
    assert stated_bytes(str(path)) == first + first % 2 + 5008
    assert cut_short(str(path), 0.0) is not None


def test_small_losses_are_let_through(tmp_path: Path) -> None:
    path = Path(write_wav(tmp_path / "a.wav", [tone(2.0)]))
    content = path.read_bytes()
    path.write_bytes(content[: int(0.95 * len(content))])
    assert cut_short(str(path)) is None
    assert cut_short(str(path), 0.0) == "5% of its bytes are not there"
    assert decode(MediaRef("audio", str(path)), LIMITS).sound is not None


def test_index_that_is_cut_off_by_a_hair_is_named(tmp_path: Path) -> None:
    """An MP4 whose index is last and lacks its last bytes may open, with no stream or with one of them."""
    path = write(tmp_path / "a.mp4", *KINDS["plain.mp4"])
    content = path.read_bytes()
    index = len(content) - content.rindex(b"moov")
    for lost in (index // 10, index // 2, 9 * index // 10):
        path.write_bytes(content[:-lost])
        with pytest.raises(MediaError, match="is cut short: ") as caught:
            decode(MediaRef("audio", str(path)), LIMITS)
        assert caught.value.code == "truncated"
