"""Clips are really encoded: frame i of a clip is one flat grey, so that a decoded frame tells its own index."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from clip_files import GREY_STEP, tone, write_clip, write_image, write_wav
from omnistage.data import media
from omnistage.data.errors import InputError, MediaError
from omnistage.data.media import Clip, MediaLimits, decode, frame_count, frame_files, has_picture, has_sound, resolve
from omnistage.data.records import MediaRef


def indices(clip: Clip) -> list[int]:
    assert clip.frames is not None
    return [round(float(frame.mean()) / GREY_STEP) for frame in clip.frames]


@pytest.fixture(params=["decord", "pyav"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each picture test runs on both decoders; `None` in `sys.modules` is how Python marks a package that cannot be imported."""
    if request.param == "pyav":
        monkeypatch.setitem(sys.modules, "decord", None)
    else:
        pytest.importorskip("decord")

        def forbidden(path: str, limits: MediaLimits) -> None:
            raise AssertionError(f"decord could not read {path}")

        monkeypatch.setattr(media, "_frames_pyav", forbidden)
    return str(request.param)


@pytest.mark.usefixtures("backend")
def test_two_seconds_at_two_fps_give_all_four_frames(tmp_path: Path) -> None:
    clip = decode(MediaRef("video", write_clip(tmp_path / "a.mp4", 4, 2)), MediaLimits(fps=2.0))
    assert (indices(clip), clip.fps, clip.sound) == ([0, 1, 2, 3], 2.0, None)
    assert clip.frames is not None
    assert clip.frames.shape == (4, 48, 64, 3)
    assert clip.frames.dtype == np.uint8


@pytest.mark.usefixtures("backend")
def test_long_clip_is_covered_to_its_end_at_a_lower_rate(tmp_path: Path) -> None:
    """40 frames at 4 fps are 10 s; 8 frames of them are 0.8 fps; 39 / 7 = 5.57 apart."""
    clip = decode(MediaRef("video", write_clip(tmp_path / "a.mp4", 40, 4)), MediaLimits(fps=2.0, max_frames=9))
    assert indices(clip) == [0, 6, 11, 17, 22, 28, 33, 39]
    assert clip.fps == pytest.approx(0.8)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(("frames", "expected", "fps"), [(1, [0, 0], 20.0), (3, [0, 2], 20 / 3), (15, [0, 14], 20 / 15)])
def test_short_clips_give_an_even_count_of_at_least_two(tmp_path: Path, frames: int, expected: list[int], fps: float) -> None:
    """At 10 fps these last 0.1, 0.3 and 1.5 s; two frames are 2 / 0.1 = 20, 2 / 0.3 and 2 / 1.5 fps."""
    clip = decode(MediaRef("video", write_clip(tmp_path / "a.mp4", frames, 10)), MediaLimits())
    assert indices(clip) == expected
    assert clip.fps == pytest.approx(fps)


@pytest.mark.parametrize("turn", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)], ids=["90", "180", "270"])
def test_both_decoders_turn_a_clip_alike(tmp_path: Path, turn: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("decord")
    path = tmp_path / "a.mp4"
    write_corner_clip(path)
    turn_clip(path, turn)
    with_decord = decode(MediaRef("video", str(path)), MediaLimits())
    monkeypatch.setitem(sys.modules, "decord", None)
    with_pyav = decode(MediaRef("video", str(path)), MediaLimits())
    assert with_decord.frames is not None
    assert with_pyav.frames is not None
    assert with_decord.frames.shape[1:3] == ((64, 96) if turn[0] else (96, 64))
    assert with_decord.fps == with_pyav.fps == 2.0
    assert np.abs(with_decord.frames.astype(int) - with_pyav.frames.astype(int)).mean() < 2


def write_corner_clip(path: Path) -> None:
    """A clip with one white corner on black, 64 x 96: any wrong turn shows."""
    image = np.zeros((64, 96, 3), np.uint8)
    image[:32, :32] = 255
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=10)
        picture.width, picture.height, picture.pix_fmt = 96, 64, "yuv420p"
        for _ in range(20):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode())


def turn_clip(path: Path, turn: tuple[int, ...]) -> None:
    """Writes a display matrix (ISO 14496-12, tkhd) as phones do: 16.16 numbers a b u c d v x y w."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in turn)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def test_clip_that_decord_refuses_is_read_by_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decord = pytest.importorskip("decord")

    def refuses(*args: object, **kwargs: object) -> None:
        raise RuntimeError("Error reading")

    monkeypatch.setattr(decord, "VideoReader", refuses)
    assert indices(decode(MediaRef("video", write_clip(tmp_path / "a.mp4", 4, 2)), MediaLimits())) == [0, 1, 2, 3]


def test_frame_count_is_that_of_the_models_own_preprocessing() -> None:
    smart_nframes = pytest.importorskip("qwen_omni_utils.v2_5.vision_process").smart_nframes
    for total in (2, 3, 4, 7, 30, 89, 250, 7500):
        for source_fps in (2.0, 10.0, 25.0, 30000 / 1001):
            for limits in (MediaLimits(), MediaLimits(fps=1.0, max_frames=24), MediaLimits(fps=4.0, max_frames=768)):
                element = {"fps": limits.fps, "min_frames": 2, "max_frames": limits.max_frames}
                assert frame_count(total, source_fps, limits) == smart_nframes(element, total, source_fps), (total, source_fps, limits)


def test_sound_of_16_khz_mono_is_kept_as_it_is_and_cut(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", [tone(2.0)])
    clip = decode(MediaRef("audio", path), MediaLimits(max_sound_s=1.5))
    assert clip.frames is None
    assert clip.fps is None
    assert clip.sound is not None
    assert clip.sound.shape == (24_000,)
    assert clip.sound.dtype == np.float32
    np.testing.assert_allclose(clip.sound, tone(1.5), atol=1e-4)


def test_stereo_at_another_rate_is_averaged_and_resampled(tmp_path: Path) -> None:
    """The tone on the left and nothing on the right: the mean is half the tone. The ends ring from the filter, the inside does not."""
    path = write_wav(tmp_path / "a.wav", [tone(1.0, 48_000), 0 * tone(1.0, 48_000)], rate=48_000)
    sound = decode(MediaRef("audio", path), MediaLimits()).sound
    assert sound is not None
    assert abs(sound.size - 16_000) <= 16
    np.testing.assert_allclose(sound[200:15_000], 0.5 * tone(1.0)[200:15_000], atol=2e-3)


def test_video_is_heard_only_when_its_sound_is_named(tmp_path: Path) -> None:
    """The encoder of AAC fills up whole frames of 1024 samples."""
    path = write_clip(tmp_path / "a.mp4", 6, 2, sound_s=3.0)
    other = write_wav(tmp_path / "other.wav", [tone(1.0)])
    assert decode(MediaRef("video", path), MediaLimits()).sound is None
    own = decode(MediaRef("video", path, sound=path), MediaLimits())
    assert own.sound is not None
    assert abs(own.sound.size - 48_000) <= 2 * 1024
    assert np.sqrt(np.mean(own.sound**2)) == pytest.approx(0.5 / 2**0.5, rel=0.05)
    swapped = decode(MediaRef("video", path, sound=other), MediaLimits())
    assert swapped.sound is not None
    assert swapped.sound.size == 16_000
    assert indices(swapped) == indices(own)


def test_blank_replaces_values_and_keeps_sizes(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 6, 2, sound_s=3.0)
    seen = decode(MediaRef("video", path, sound=path), MediaLimits())
    no_picture = decode(MediaRef("video", path, sound=path, blank=frozenset({"picture"})), MediaLimits())
    no_sound = decode(MediaRef("video", path, sound=path, blank=frozenset({"sound"})), MediaLimits())
    assert seen.frames is not None
    assert seen.sound is not None
    np.testing.assert_array_equal(no_picture.frames, np.zeros_like(seen.frames))
    np.testing.assert_array_equal(no_picture.sound, seen.sound)
    np.testing.assert_array_equal(no_sound.frames, seen.frames)
    np.testing.assert_array_equal(no_sound.sound, np.zeros_like(seen.sound))
    assert no_picture.fps == no_sound.fps == seen.fps == 2.0


def test_streams_are_probed(tmp_path: Path) -> None:
    silent = write_clip(tmp_path / "silent.mp4", 4, 2)
    heard = write_clip(tmp_path / "heard.mp4", 4, 2, sound_s=2.0)
    sound = write_wav(tmp_path / "a.wav", [tone(1.0)])
    assert [(has_picture(path), has_sound(path)) for path in (silent, heard, sound)] == [(True, False), (True, True), (False, True)]


def test_cover_of_a_song_is_no_picture(tmp_path: Path) -> None:
    path = write_song_with_cover(tmp_path)
    with av.open(path) as container:
        assert len(container.streams.video) == 1
    assert not has_picture(path)
    with pytest.raises(MediaError, match="no picture stream"):
        decode(MediaRef("video", path), MediaLimits())


def write_song_with_cover(folder: Path) -> str:
    """An mp3 with an ID3v2.3 tag whose APIC frame holds a PNG."""
    with av.open(str(folder / "bare.mp3"), "w", options={"write_xing": "0", "id3v2_version": "0"}) as container:
        stream = container.add_stream("libmp3lame", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(1.0)[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    image = np.full((32, 32, 3), 128, np.uint8)
    with av.open(str(folder / "cover.png"), "w", format="image2", options={"update": "1"}) as container:
        picture = container.add_stream("png", rate=1)
        picture.width = picture.height = 32
        picture.pix_fmt = "rgb24"
        container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode())
    body = b"\0image/png\0\x03\0" + (folder / "cover.png").read_bytes()
    apic = b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
    size = bytes((len(apic) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    path = folder / "song.mp3"
    path.write_bytes(b"ID3\x03\0\0" + size + apic + (folder / "bare.mp3").read_bytes())
    return str(path)


def write_frames(folder: Path, count: int) -> str:
    """Flat greys as in `write_clip`, named so that their order as text is another than that of their numbers."""
    folder.mkdir()
    for index in range(count):
        Image.new("RGB", (64, 48), (GREY_STEP * index,) * 3).save(folder / f"frame_{index + 1}.png")
    return str(folder)


@pytest.mark.parametrize(
    ("count", "max_frames", "expected", "fps"),
    [
        (1, 16, [0, 0], 1.0),
        (4, 16, [0, 1, 2, 3], 1.0),
        (7, 16, [0, 1, 2, 3, 4, 5, 6, 6], 1.0),
        (12, 13, list(range(12)), 1.0),
        (7, 7, [0, 1, 2, 4, 5, 6], 6 / 7),
        (12, 4, [0, 4, 7, 11], 4 / 12),
    ],
)
def test_folder_of_frames_is_a_clip(tmp_path: Path, count: int, max_frames: int, expected: list[int], fps: float) -> None:
    folder = write_frames(tmp_path / "frames", count)
    (tmp_path / "frames" / "notes.txt").write_text("no frame")
    (tmp_path / "frames" / ".hidden.png").touch()
    clip = decode(MediaRef("video", folder), MediaLimits(fps=0.5, max_frames=max_frames))
    assert (indices(clip), clip.sound) == (expected, None)
    assert clip.fps == pytest.approx(fps)
    assert (has_picture(folder), has_sound(folder)) == (True, False)


def test_folder_of_frames_has_the_rate_it_is_given(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", 4)
    assert decode(MediaRef("video", folder, fps=5.0), MediaLimits()).fps == 5.0
    blank = decode(MediaRef("video", folder, blank=frozenset({"picture"}), fps=5.0), MediaLimits())
    assert (indices(blank), blank.fps) == ([0, 0, 0, 0], 5.0)
    with pytest.raises(InputError, match="positive number, got 0"):
        decode(MediaRef("video", folder, fps=0.0), MediaLimits())


def test_folder_of_frames_that_is_no_clip(tmp_path: Path) -> None:
    limits = MediaLimits()
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match=r"empty' is a folder without frames; allowed: .*\.png"):
        decode(MediaRef("video", str(tmp_path / "empty")), limits)
    assert not has_picture(str(tmp_path / "empty"))
    with pytest.raises(MediaError, match=r"gone.* cannot be read as a folder of frames"):
        frame_files(str(tmp_path / "gone"))
    mixed = write_frames(tmp_path / "mixed", 3)
    write_image(Path(mixed) / "frame_10.png", width=84, height=56)
    with pytest.raises(MediaError, match=r"frame_10\.png' is 84x56 and the first frame is 64x48; allowed: frames of one size"):
        decode(MediaRef("video", mixed), limits)
    broken = write_frames(tmp_path / "broken", 2)
    (Path(broken) / "frame_2.png").write_text("no image")
    with pytest.raises(MediaError, match=r"frame_2\.png' cannot be read"):
        decode(MediaRef("video", broken), limits)
    with pytest.raises(MediaError, match="is a folder, not a clip"):
        decode(MediaRef("audio", mixed), limits)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone.mp4", "does not exist"),
        (".", "is a folder"),
        ("empty.mp4", "cannot be read as a clip"),
        ("text.mp4", "cannot be read as a clip"),
        ("headless.mp4", "cut short: it ends inside its index"),
        ("half.mp4", r"cut short: its picture ends after 1\.[0-9] of 3\.0 s"),
        ("damaged.mp4", "cannot be read as a clip"),
        ("sound.wav", "no picture stream"),
    ],
)
@pytest.mark.parametrize("with_decord", [True, False])
def test_unusable_picture_names_path_and_reason(
    tmp_path: Path, name: str, reason: str, with_decord: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if not with_decord:
        monkeypatch.setitem(sys.modules, "decord", None)
    write_broken_clips(tmp_path)
    with pytest.raises(MediaError, match=reason) as caught:
        decode(MediaRef("video", str(tmp_path / name)), MediaLimits())
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def write_broken_clips(folder: Path) -> None:
    """`half` ends in the middle, `damaged` has zeros for its middle third, `headless` only the first bytes; their headers are whole."""
    whole = folder / "whole.mp4"
    generator = np.random.default_rng(0)
    with av.open(str(whole), "w", options={"movflags": "faststart"}) as container:
        picture = container.add_stream("libx264", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        for _ in range(30):
            image = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode())
    content = whole.read_bytes()
    third = len(content) // 3
    (folder / "half.mp4").write_bytes(content[: len(content) // 2])
    (folder / "damaged.mp4").write_bytes(content[:third] + bytes(third) + content[2 * third :])
    (folder / "headless.mp4").write_bytes(content[:60])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no clip\n" * 100)
    write_wav(folder / "sound.wav", [tone(1.0)])


def test_sound_that_is_asked_for_and_not_there_is_an_error(tmp_path: Path) -> None:
    silent = write_clip(tmp_path / "silent.mp4", 4, 2)
    for ref in (MediaRef("video", silent, sound=silent), MediaRef("audio", silent)):
        with pytest.raises(MediaError, match=r"silent\.mp4' has no sound stream"):
            decode(ref, MediaLimits())


@pytest.mark.parametrize(("samples", "enough"), [(0, False), (399, False), (400, True)])
def test_sound_needs_25_ms(tmp_path: Path, samples: int, enough: bool) -> None:
    ref = MediaRef("audio", write_wav(tmp_path / "a.wav", [tone(samples / 16_000)]))
    if enough:
        sound = decode(ref, MediaLimits()).sound
        assert sound is not None
        assert sound.size == samples
    else:
        with pytest.raises(MediaError, match=rf"a\.wav' has {samples / 16:.1f} ms of sound; it takes 25 ms"):
            decode(ref, MediaLimits())


def test_playlist_fetches_nothing(tmp_path: Path) -> None:
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError):
        decode(MediaRef("video", str(playlist)), MediaLimits())


@pytest.mark.parametrize("wrong", [{"fps": 0.0}, {"fps": float("nan")}, {"max_frames": 1}, {"max_sound_s": 0.01}])
def test_limits_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        MediaLimits(**wrong)  # type: ignore[arg-type]


def test_resolve_joins_to_the_root_and_stays_in_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "videos").mkdir(parents=True)
    assert resolve("./videos/../videos/a.mp4", root) == str((root / "videos" / "a.mp4").resolve())
    assert resolve(str(root.resolve() / "a.mp4"), root) == str((root / "a.mp4").resolve())


@pytest.mark.parametrize("outside", ["../a.mp4", "videos/../../a.mp4", "/a.mp4", "link/a.mp4", "../root2/a.mp4"])
def test_resolve_refuses_what_leaves_the_root(tmp_path: Path, outside: str) -> None:
    root = tmp_path / "root"
    (root / "videos").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MediaError, match="leaves the media root") as caught:
        resolve(outside, root)
    assert repr(outside) in str(caught.value)


@pytest.mark.parametrize("no_path", ["", "  ", "a\0b"])
def test_resolve_refuses_what_is_no_path(tmp_path: Path, no_path: str) -> None:
    with pytest.raises(MediaError, match="is no path"):
        resolve(no_path, tmp_path)


def test_data_is_imported_without_torch() -> None:
    modules = "omnistage.data.media, omnistage.data.formats, omnistage.data.prompts"
    code = f"import sys, {modules}; print('torch' in sys.modules, 'decord' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
