"""What a file is, is told by its content: never by its name, and never by following it to another file."""

from __future__ import annotations

import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clip_files import GREY_STEP, tone, write_clip, write_image, write_wav
from omnistage.data import clip_file, media
from omnistage.data.errors import MediaError, MediaFault
from omnistage.data.media import Clip, MediaLimits, decode, resolve
from omnistage.data.records import MediaRef

LIMITS = MediaLimits()


@pytest.fixture(params=["decord", "pyav"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pyav":
        monkeypatch.setitem(sys.modules, "decord", None)
    else:
        pytest.importorskip("decord")
    return str(request.param)


def greys(clip: Clip) -> list[int]:
    assert clip.frames is not None
    return [round(float(frame.mean()) / GREY_STEP) for frame in clip.frames]


@pytest.mark.parametrize("pattern", ["x%d.png", "x%01d.png", "x*.png", "x?.png", "x{0,1}.png"])
def test_name_of_an_image_is_no_pattern(tmp_path: Path, pattern: str) -> None:
    """FFmpeg takes such names for a numbered series, and shows its first image."""
    for number in range(3):
        write_image(tmp_path / f"x{number}.png", seed=number)
    path = write_image(tmp_path / pattern, seed=7)
    frames = decode(MediaRef("image", path), LIMITS).frames
    assert frames is not None
    np.testing.assert_array_equal(frames[0], np.asarray(Image.open(path)))


@pytest.mark.usefixtures("backend")
def test_name_of_a_clip_is_no_pattern(tmp_path: Path) -> None:
    for number in range(6):
        write_image(tmp_path / f"x{number}.png", seed=number)
    path = Path(write_clip(tmp_path / "a.mp4", 4, 2)).rename(tmp_path / "x%d.png")
    assert greys(decode(MediaRef("video", str(path)), LIMITS)) == [0, 1, 2, 3]


def playlists(target: Path) -> dict[str, str]:
    """Files of text that name another one, by their suffix."""
    described = '<SegmentTemplate media="a.ts"/></AdaptationSet></Period>'
    return {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile '{target}'\n",
        "mpd": f'<?xml version="1.0"?><MPD profiles="urn:mpeg:dash:profile:isoff-live:2011"><Period><AdaptationSet>{described}</MPD>',
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "txt": "a note of what is seen\n" * 40,
        "srt": "1\n00:00:00,000 --> 00:00:02,000\nhallo\n\n",
        "json": '{"path": "a.ts"}',
    }


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("kind", ["video", "audio", "image"])
@pytest.mark.parametrize("suffix", ["m3u8", "ffconcat", "mpd", "sdp", "txt", "srt", "json"])
@pytest.mark.parametrize("named", ["as it is", "mp4"])
def test_playlists_and_texts_are_no_clips(tmp_path: Path, kind: Any, suffix: str, named: str) -> None:
    """What they name lies outside the media root, and could be decoded."""
    target = tmp_path / "outside.ts"
    write_clip(target, 8, 4, sound_s=2.0)
    path = tmp_path / "root" / f"list.{suffix if named == 'as it is' else named}"
    path.parent.mkdir()
    path.write_text(playlists(target)[suffix])
    with pytest.raises(
        MediaError, match="cannot be read as a clip: it is a text, such as a playlist; allowed: a file that holds"
    ) as caught:
        decode(MediaRef(kind, str(path)), LIMITS)
    assert caught.value.code == "unreadable"


@pytest.mark.usefixtures("backend")
def test_clip_that_begins_as_a_playlist_is_itself(tmp_path: Path) -> None:
    """A black MPEG-TS behind the lines of a playlist: PyAV finds the one, decord would follow the other to a white one."""
    other, black = (write_stream(tmp_path / name, grey) for name, grey in (("white.ts", 255), ("black.ts", 0)))
    listed = playlists(other)["m3u8"].encode()
    path = tmp_path / "both.ts"
    path.write_bytes(listed + b"\n" * (188 - len(listed) % 188) + black.read_bytes())
    assert set(greys(decode(MediaRef("video", str(path)), LIMITS))) == {0}


def write_stream(path: Path, grey: int) -> Path:
    with av.open(str(path), "w") as container:
        picture: Any = container.add_stream("mpeg2video", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        picture.codec_context.gop_size = 8
        for _ in range(50):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), grey, np.uint8), format="rgb24")))
        container.mux(picture.encode())
    return path


@pytest.mark.parametrize("name", ["a.raw", "a.yuv", "a.s16le", "a.pcm", "a.dat"])
def test_bytes_without_a_header_are_no_clip(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes((tone(2.0) * 32767).astype("<i2").tobytes())
    for kind in ("video", "audio", "image"):
        with pytest.raises(MediaError, match="cannot be read as a clip"):
            decode(MediaRef(kind, str(tmp_path / name)), LIMITS)


def test_format_that_is_not_listed_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_wav(tmp_path / "a.wav", [tone(1.0)])
    monkeypatch.setitem(clip_file._OPTIONS, "format_whitelist", "flac")
    with pytest.raises(MediaError, match="its format is none that is read, or its header is broken"):
        decode(MediaRef("audio", path), LIMITS)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "gif", "tiff", "ppm", "jp2"])
@pytest.mark.parametrize("name", ["image.{}", "image", "image.txt", "image.mp4", "image %d.{}"])
def test_images_are_read_under_any_name(tmp_path: Path, suffix: str, name: str) -> None:
    blocks = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4) * 15, np.ones((8, 8), np.uint8))
    Image.fromarray(np.stack([blocks] * 3, -1)).save(tmp_path / f"a.{suffix}")
    path = (tmp_path / f"a.{suffix}").rename(tmp_path / name.format(suffix))
    frames = decode(MediaRef("image", str(path)), LIMITS).frames
    assert frames is not None
    assert frames.shape == (1, 32, 32, 3)
    assert np.abs(frames[0, ..., 0].astype(int) - blocks).mean() < 3


SOUNDS = {
    "wav": "pcm_s16le",
    "w64": "pcm_s16le",
    "aiff": "pcm_s16be",
    "au": "pcm_s16be",
    "caf": "pcm_s16le",
    "flac": "flac",
    "mp3": "libmp3lame",
    "aac": "aac",
    "ac3": "ac3",
    "m4a": "aac",
    "mov": "pcm_s16le",
    "mka": "libopus",
    "ogg": "libopus",
    "wv": "wavpack",
    "tta": "tta",
    "avi": "libmp3lame",
    "flv": "aac",
    "ts": "aac",
    "mpg": "mp2",
}


@pytest.mark.parametrize("suffix", SOUNDS)
@pytest.mark.parametrize("name", ["sound", "sound.txt"])
def test_sounds_are_read_under_any_name(tmp_path: Path, suffix: str, name: str) -> None:
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(SOUNDS[suffix], rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(2.0, 48_000)[None], format="fltp", layout="mono")
        frame.sample_rate = 48_000
        encoder = stream.codec_context
        resampler = av.AudioResampler(format=encoder.format, rate=48_000, layout="mono", frame_size=encoder.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode())
    sound = decode(MediaRef("audio", str(path.rename(tmp_path / name))), LIMITS).sound
    assert sound is not None
    assert abs(sound.size - 32_000) < 3000
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(0.5 / 2**0.5, rel=0.1)


@pytest.mark.usefixtures("backend")
def test_frames_are_found_where_a_container_has_no_times(tmp_path: Path) -> None:
    """An AVI with frames that are stored out of their order has none, and decord seeks by them to others."""
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        picture: Any = container.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        picture.codec_context.gop_size, picture.codec_context.max_b_frames = 6, 2
        picture.codec_context.qmin = picture.codec_context.qmax = 2
        for index in range(40):
            image = np.full((48, 64, 3), GREY_STEP * index, np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode())
    clip = decode(MediaRef("video", str(tmp_path / "a.avi")), MediaLimits(max_frames=8))
    assert greys(clip) == [0, 6, 11, 17, 22, 28, 33, 39]


def write_floats(path: Path, samples: NDArray[np.float32]) -> str:
    content = samples.astype("<f4").tobytes()
    header = struct.pack("<IHHIIHH", 16, 3, 1, 16_000, 64_000, 4, 32)
    size = struct.pack("<I", 36 + len(content))
    path.write_bytes(b"RIFF" + size + b"WAVEfmt " + header + b"data" + struct.pack("<I", len(content)) + content)
    return str(path)


@pytest.mark.parametrize(("value", "told"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "inf"), (5e29, "5e"), (-32768.0, "32")])
def test_samples_that_are_no_sound_are_refused(tmp_path: Path, value: float, told: str) -> None:
    """One sample that no recording has; the last value is one of a file of floats that was not scaled."""
    samples = tone(1.0)
    samples[5000:5100] = value
    path = write_floats(tmp_path / "a.wav", samples)
    with pytest.raises(MediaError, match=rf"a\.wav' is broken: its sound has a sample of {told}.*; allowed: finite numbers") as caught:
        decode(MediaRef("audio", path), LIMITS)
    assert caught.value.code == "unreadable"


def test_loud_floats_are_sound(tmp_path: Path) -> None:
    """30 dB above full scale, as field recorders write it."""
    sound = decode(MediaRef("audio", write_floats(tmp_path / "a.wav", np.float32(60) * tone(1.0))), LIMITS).sound
    assert sound is not None
    assert float(sound.max()) == pytest.approx(30, rel=0.01)


@pytest.mark.parametrize("path", ["\ud800.wav", "a\0b", "a/\udfff/b"])
def test_what_cannot_be_a_name_is_no_path(tmp_path: Path, path: str) -> None:
    with pytest.raises(MediaError, match="is no path"):
        resolve(path, tmp_path)


def test_names_that_are_no_utf8_are_paths(tmp_path: Path) -> None:
    path = resolve("\udcff.wav", tmp_path)
    write_wav(Path(path), [tone(1.0)])
    assert decode(MediaRef("audio", path), LIMITS).sound is not None
    assert media.has_sound(path)


def test_code_of_an_error_survives_a_process() -> None:
    codes: tuple[MediaFault, ...] = ("missing", "truncated")
    for code in codes:
        error = pickle.loads(pickle.dumps(MediaError("a.mp4: why", code)))
        assert (str(error), error.code) == ("a.mp4: why", code)
    assert MediaError("x").code == "unreadable"
