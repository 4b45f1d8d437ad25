"""The cache gives what decoding gives, bit for bit, to several processes, within its bound, whatever is cut, killed or damaged."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clip_files import tone, write_clip, write_image, write_wav
from omnistage.data import bounded_folder, media, media_cache
from omnistage.data.errors import InputError, MediaError
from omnistage.data.media import Clip, MediaLimits
from omnistage.data.media_cache import MediaCache
from omnistage.data.records import MediaRef

LIMITS = MediaLimits(fps=2.0, max_frames=8)
GB = 10**9


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests of new files are remembered too: their times on this disk are fine enough."""
    monkeypatch.setattr(media_cache, "_YOUNG_S", 0.0)


def equal(a: Clip, b: Clip) -> bool:
    def same(x: NDArray[Any] | None, y: NDArray[Any] | None) -> bool:
        if x is None or y is None:
            return x is y
        return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()

    return same(a.frames, b.frames) and same(a.sound, b.sound) and a.fps == b.fps


def entries(cache: MediaCache) -> list[Path]:
    return sorted(path for path in (cache.folder / "entries").rglob("*") if path.is_file())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[MediaRef]:
    """What is decoded, in order."""
    seen: list[MediaRef] = []
    real: Callable[[MediaRef, MediaLimits], Clip] = media.decode

    def counting(ref: MediaRef, limits: MediaLimits) -> Clip:
        seen.append(ref)
        return real(ref, limits)

    monkeypatch.setattr(media, "decode", counting)
    return seen


def test_hit_equals_decode(tmp_path: Path, decoded: list[MediaRef]) -> None:
    video, other = write_clip(tmp_path / "a.mp4", 12, 4, sound_s=3.0), write_wav(tmp_path / "b.wav", [tone(1.0)])
    both: frozenset[str] = frozenset({"picture", "sound"})
    refs = [
        MediaRef("video", video),
        MediaRef("video", video, sound=video),
        MediaRef("video", video, sound=other),
        MediaRef("audio", video),
        MediaRef("image", write_image(tmp_path / "c.png")),
        MediaRef("video", video, sound=video, blank=both),  # type: ignore[arg-type]
        MediaRef("audio", video, blank=frozenset({"sound"})),
    ]
    expected = [media.decode(ref, LIMITS) for ref in refs]
    decoded.clear()
    cache = MediaCache(tmp_path / "cache", GB)
    assert all(equal(cache.decode(ref, LIMITS), clip) for ref, clip in zip(refs, expected, strict=True))
    # one picture, two sounds and one image, each once
    assert (len(decoded), cache.misses, len(entries(cache))) == (4, 4, 4)
    again = MediaCache(tmp_path / "cache", GB)
    assert all(equal(again.decode(ref, LIMITS), clip) for ref, clip in zip(refs, expected, strict=True))
    assert (len(decoded), again.misses, again.hits) == (4, 0, 10)
    kept = again.decode(refs[0], LIMITS).frames
    assert kept is not None
    assert kept.flags.writeable


def test_other_limits_are_other_entries(tmp_path: Path, decoded: list[MediaRef]) -> None:
    cache, ref = MediaCache(tmp_path / "cache", GB), MediaRef("video", write_clip(tmp_path / "a.mp4", 12, 4, sound_s=3.0))
    for limits in (LIMITS, MediaLimits(fps=1.0, max_frames=8), MediaLimits(fps=2.0, max_frames=4), LIMITS):
        assert equal(cache.decode(ref, limits), media.decode(ref, limits))
    assert len([one for one in decoded if one is not ref]) == 3
    assert cache.hits == 1


def test_another_decoder_is_another_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("decord")
    cache, ref = MediaCache(tmp_path / "cache", GB), MediaRef("video", write_clip(tmp_path / "a.mp4", 12, 4))
    cache.decode(ref, LIMITS)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "decord", None)
        # Which decoders there are is looked up once a process.
        media_cache._decoders.cache_clear()
        cache.decode(ref, LIMITS)
    media_cache._decoders.cache_clear()
    assert (cache.hits, cache.misses) == (0, 2)


@pytest.mark.parametrize("old", [True, False])
def test_changed_content_under_the_same_name_is_decoded_again(tmp_path: Path, old: bool) -> None:
    """The second content has the size of the first; a young file may even have its time."""
    path = tmp_path / "a.wav"
    cache, ref = MediaCache(tmp_path / "cache", GB), MediaRef("audio", str(path))
    for position, factor in enumerate((1.0, 0.5)):
        write_wav(path, [np.float32(factor) * tone(1.0)])
        if old:
            os.utime(path, (1.7e9 + position, 1.7e9 + position))
        else:
            now = time.time_ns() // 10**9 * 10**9
            os.utime(path, ns=(now, now))
        assert equal(cache.decode(ref, LIMITS), media.decode(ref, LIMITS))
    assert cache.misses == 2


def test_same_content_under_other_names_is_one_entry(tmp_path: Path, decoded: list[MediaRef]) -> None:
    cache, first = MediaCache(tmp_path / "cache", GB), write_clip(tmp_path / "a.mp4", 12, 4)
    (tmp_path / "b.mp4").write_bytes(Path(first).read_bytes())
    clips = [cache.decode(MediaRef("video", str(tmp_path / name)), LIMITS) for name in ("a.mp4", "b.mp4")]
    assert equal(*clips)
    assert (len(decoded), len(entries(cache))) == (1, 1)


@pytest.mark.usefixtures("settled")
def test_digest_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_wav(tmp_path / "a.wav", [tone(1.0)]), write_frames(tmp_path / "frames", 3)]
    first = [MediaCache(tmp_path / "cache", GB).digest(path) for path in paths]
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert [MediaCache(tmp_path / "cache", GB).digest(path) for path in paths] == first
    assert None not in first


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("way", ["renamed over it", "written into it"])
def test_replaced_file_of_the_same_size_and_time_is_decoded_again(tmp_path: Path, way: str) -> None:
    """As `tar`, `unzip` and `rsync -t` replace files."""
    path = Path(write_wav(tmp_path / "a.wav", [tone(1.0)]))
    os.utime(path, (1.7e9, 1.7e9))
    cache, ref = MediaCache(tmp_path / "cache", GB), MediaRef("audio", str(path))
    cache.decode(ref, LIMITS)
    time.sleep(0.02)  # a tick of the clock that file systems tell time by
    other = Path(write_wav(tmp_path / "b.wav", [np.float32(0.5) * tone(1.0)]))
    if way == "renamed over it":
        other.replace(path)
    else:
        path.write_bytes(other.read_bytes())
    os.utime(path, (1.7e9, 1.7e9))
    assert equal(cache.decode(ref, LIMITS), media.decode(ref, LIMITS))
    assert (cache.hits, cache.misses) == (0, 2)


def write_frames(folder: Path, count: int) -> str:
    folder.mkdir()
    for number in range(count):
        write_image(folder / f"{number}.png", seed=number)
    return str(folder)


@pytest.mark.usefixtures("settled")
def test_folder_of_frames_is_kept_at_any_rate(tmp_path: Path, decoded: list[MediaRef]) -> None:
    """Fifteen frames, of which these limits take eight: a rate changes how long they last and not which they are."""
    folder = write_frames(tmp_path / "frames", 15)
    cache = MediaCache(tmp_path / "cache", GB)
    for fps in (None, 3.0, 0.7, None):
        ref = MediaRef("video", folder, fps=fps)
        assert equal(cache.decode(ref, LIMITS), media.decode(ref, LIMITS))
    assert (cache.misses, cache.hits, len(entries(cache))) == (1, 3, 1)
    with pytest.raises(InputError, match="positive number, got -1"):
        cache.decode(MediaRef("video", folder, fps=-1.0), LIMITS)
    decoded.clear()
    other = tmp_path / "other"
    other.mkdir()
    for number in range(15):
        (other / f"frame_{number + 5}.png").write_bytes((tmp_path / "frames" / f"{number}.png").read_bytes())
    assert equal(cache.decode(MediaRef("video", str(other)), LIMITS), media.decode(MediaRef("video", folder), LIMITS))
    assert len(decoded) == 1


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("change", ["an image", "a name", "one more", "one less"])
def test_changed_folder_of_frames_is_decoded_again(tmp_path: Path, change: str) -> None:
    folder = Path(write_frames(tmp_path / "frames", 3))
    cache, ref = MediaCache(tmp_path / "cache", GB), MediaRef("video", str(folder))
    before = cache.decode(ref, LIMITS)
    time.sleep(0.02)
    if change == "an image":
        write_image(folder / "1.png", seed=9)
    elif change == "a name":
        (folder / "0.png").rename(folder / "7.png")
    elif change == "one more":
        write_image(folder / "3.png", seed=3)
    else:
        (folder / "2.png").unlink()
    assert equal(cache.decode(ref, LIMITS), media.decode(ref, LIMITS))
    assert not equal(cache.decode(ref, LIMITS), before)
    assert (cache.hits, cache.misses) == (1, 2)


def test_one_image_is_another_clip_than_a_folder_that_holds_it(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "frames", 1)
    cache = MediaCache(tmp_path / "cache", GB)
    for ref in (MediaRef("video", folder), MediaRef("video", f"{folder}/0.png"), MediaRef("image", f"{folder}/0.png")):
        assert equal(cache.decode(ref, LIMITS), media.decode(ref, LIMITS))
    assert cache.misses == 3


def test_the_bound_holds_and_the_oldest_use_goes_first(tmp_path: Path) -> None:
    """An entry of a second of sound is 64,000 bytes and a header; four fit."""
    paths = [write_wav(tmp_path / f"{i}.wav", [np.float32(0.1 + i / 20) * tone(1.0)]) for i in range(9)]
    size = 64_000 + media_cache._HEADER.size
    cache = MediaCache(tmp_path / "cache", int(4.5 * size))
    for position, path in enumerate(paths):
        cache.decode(MediaRef("audio", path), LIMITS)
        time.sleep(0.01)
        cache.decode(MediaRef("audio", paths[0]), LIMITS)
        time.sleep(0.01)
        assert sum(entry.stat().st_size for entry in entries(cache)) <= cache.max_bytes, position
    misses = cache.misses
    cache.decode(MediaRef("audio", paths[0]), LIMITS)
    cache.decode(MediaRef("audio", paths[-1]), LIMITS)
    assert cache.misses == misses == 9
    cache.decode(MediaRef("audio", paths[1]), LIMITS)
    assert cache.misses == misses + 1


def test_what_does_not_fit_is_not_kept(tmp_path: Path) -> None:
    cache, ref = MediaCache(tmp_path / "cache", 1000), MediaRef("audio", write_wav(tmp_path / "a.wav", [tone(1.0)]))
    assert equal(cache.decode(ref, LIMITS), media.decode(ref, LIMITS))
    assert entries(cache) == []


def damage_body(content: bytearray) -> bytes:
    content[-100] ^= 1
    return bytes(content)


def damage_rate(content: bytearray) -> bytes:
    content[18] ^= 64
    return bytes(content)


@pytest.mark.parametrize(
    "damage", [damage_body, damage_rate, lambda content: bytes(content[:-7]), lambda content: b"", lambda content: bytes(len(content))]
)
def test_damaged_entry_is_decoded_again(tmp_path: Path, damage: Callable[[bytearray], bytes]) -> None:
    cache, ref = MediaCache(tmp_path / "cache", GB), MediaRef("video", write_clip(tmp_path / "a.mp4", 12, 4))
    clip = cache.decode(ref, LIMITS)
    (entry,) = entries(cache)
    whole = entry.read_bytes()
    entry.write_bytes(damage(bytearray(whole)))
    assert equal(cache.decode(ref, LIMITS), clip)
    assert (cache.hits, cache.misses) == (0, 2)
    assert entry.read_bytes() == whole


def test_errors_are_those_of_decode_and_are_not_kept(tmp_path: Path) -> None:
    cache, path = MediaCache(tmp_path / "cache", GB), tmp_path / "a.mp4"
    for ref in (MediaRef("video", str(path)), MediaRef("audio", str(path))):
        with pytest.raises(MediaError, match=r"a\.mp4' does not exist"):
            cache.decode(ref, LIMITS)
    write_clip(path, 12, 4)
    assert cache.decode(MediaRef("video", str(path)), LIMITS).fps == 2.0
    with pytest.raises(MediaError, match="no sound stream"):
        cache.decode(MediaRef("video", str(path), sound=str(path)), LIMITS)


def test_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        MediaCache(tmp_path / "file", GB)
    with pytest.raises(InputError, match="max_bytes must be positive"):
        MediaCache(tmp_path / "cache", 0)


@pytest.mark.usefixtures("settled")
def test_way_of_decoding_is_part_of_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, ref = MediaCache(tmp_path / "cache", GB), MediaRef("audio", write_wav(tmp_path / "a.wav", [tone(1.0)]))
    cache.decode(ref, LIMITS)
    monkeypatch.setattr(media, "VERSION", media.VERSION + 1)
    cache.decode(ref, LIMITS)
    assert (cache.hits, cache.misses) == (0, 2)


DECODER = """
import sys, time
from omnistage.data import media
from omnistage.data.media import MediaLimits
from omnistage.data.media_cache import MediaCache
from omnistage.data.records import MediaRef
folder, path, seconds = sys.argv[1:]
real = media.decode

def slow(ref, limits):
    print("decodes", flush=True)
    time.sleep(float(seconds))
    return real(ref, limits)

media.decode = slow
cache = MediaCache(folder, 10**9)
print("ready", flush=True)
sys.stdin.readline()
found = cache.decode(MediaRef("video", path), MediaLimits(fps=2.0, max_frames=8)).frames
print(found.sum(), cache.hits, cache.misses, flush=True)
"""


def decoder(folder: Path, path: str, seconds: float) -> subprocess.Popen[str]:
    """A process that is ready to take `seconds` over a clip, as soon as it gets a line."""
    command = [sys.executable, "-c", DECODER, str(folder), path, str(seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_processes_that_want_one_clip_decode_it_once(tmp_path: Path, kind: str) -> None:
    path = write_clip(tmp_path / "a.mp4", 12, 4) if kind == "file" else write_frames(tmp_path / "frames", 3)
    running = [decoder(tmp_path / "cache", path, 1.0) for _ in range(4)]
    for process in running:
        go(process)
    outputs = [process.communicate(timeout=60) for process in running]
    assert [err for _, err in outputs] == [""] * 4
    assert sum("decodes" in out for out, _ in outputs) == 1
    frames = media.decode(MediaRef("video", path), LIMITS).frames
    assert frames is not None
    told = sorted(out.splitlines()[-1] for out, _ in outputs)
    assert told == [f"{frames.sum()} 0 1", *[f"{frames.sum()} 1 0"] * 3]
    assert [path for path in (tmp_path / "cache" / "locks").rglob("*") if path.is_file()] == []


def test_killed_decoder_lets_the_next_one_decode(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 12, 4)
    first, second = (decoder(tmp_path / "cache", path, seconds) for seconds in (300.0, 0.0))
    go(first)
    assert first.stdout is not None
    assert first.stdout.readline() == "decodes\n"
    go(second)
    time.sleep(0.3)
    assert second.poll() is None
    first.kill()
    first.communicate(timeout=60)
    out, err = second.communicate(timeout=60)
    assert (out.splitlines()[0], out.split()[-2:], err) == ("decodes", ["0", "1"], "")
    # What the killed one left is no lock any more, and goes with its next use.
    assert [path for path in (tmp_path / "cache" / "locks").rglob("*") if path.is_file()] == []


def test_lock_that_was_let_go_is_no_lock(tmp_path: Path) -> None:
    """Who waited for it gets it from its holder together with its end, and waits for whoever has the new one."""
    lock, order = tmp_path / "xx" / "lock", []

    def hold(name: str, seconds: float) -> None:
        with bounded_folder.alone(lock):
            order.append(f"{name} in")
            time.sleep(seconds)
            order.append(f"{name} out")

    first = bounded_folder.locked_file(lock)
    assert first is not None
    waiting = threading.Thread(target=hold, args=("waiting", 0.0))
    waiting.start()
    time.sleep(0.2)
    lock.unlink()
    latest = threading.Thread(target=hold, args=("latest", 0.5))
    latest.start()
    time.sleep(0.2)
    os.close(first)
    waiting.join()
    latest.join()
    assert order == ["latest in", "latest out", "waiting in", "waiting out"]


def test_clips_are_decoded_where_locks_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, ref = MediaCache(tmp_path / "cache", GB), MediaRef("audio", write_wav(tmp_path / "a.wav", [tone(1.0)]))
    expected = media.decode(ref, LIMITS)

    def refuses(*args: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("omnistage.data.bounded_folder.fcntl.flock", refuses)
    with pytest.warns(UserWarning, match="nothing more is kept"):
        assert equal(cache.decode(ref, LIMITS), expected)


HAMMER = """
import os, random, sys
from omnistage.data import media
from omnistage.data.media import MediaLimits
from omnistage.data.media_cache import MediaCache
from omnistage.data.records import MediaRef
folder, most, seed, *paths = sys.argv[1:]
limits, generator = MediaLimits(fps=2.0, max_frames=8), random.Random(int(seed))
cache = MediaCache(folder, int(most))
expected = {path: media.decode(MediaRef("video", path), limits).frames.tobytes() for path in paths}
print("ready", flush=True)
while True:
    path = generator.choice(paths)
    assert cache.decode(MediaRef("video", path), limits).frames.tobytes() == expected[path]
    with cache._locked():  # nothing is written or removed while it is counted
        print(sum(os.path.getsize(entry) for entry in (cache.folder / "entries").glob("*/*")), flush=True)
    if cache.hits + cache.misses == 120:
        print("done", cache.hits, cache.misses, flush=True)
        break
"""


def hammer(folder: Path, most: int, seed: int, paths: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HAMMER, str(folder), str(most), str(seed), *paths]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_four_processes_share_clips_of_which_half_fit(tmp_path: Path) -> None:
    paths = [write_clip(tmp_path / f"{i}.mp4", 8 + i, 4) for i in range(6)]
    most = 3 * (6 * 48 * 64 * 3)
    running = [hammer(tmp_path / "cache", most, seed, paths) for seed in range(4)]
    for process in running:
        out, err = process.communicate(timeout=120)
        lines = out.splitlines()
        assert process.returncode == 0, err
        assert err == ""
        assert max(int(line) for line in lines[1:-1]) <= most
        hits, misses = map(int, lines[-1].split()[1:])
        assert hits > 0
        assert misses > 0
    cache = MediaCache(tmp_path / "cache", most)
    assert [path for path in entries(cache) if path.name.startswith(".")] == []


def test_killed_writer_leaves_nothing_wrong(tmp_path: Path) -> None:
    paths = [write_clip(tmp_path / f"{i}.mp4", 8 + i, 4) for i in range(6)]
    most = 3 * (6 * 48 * 64 * 3)
    for seed in range(6):
        process = hammer(tmp_path / "cache", most, seed, paths)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.01 * seed)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    cache = MediaCache(tmp_path / "cache", most)
    (cache.folder / "entries" / "00").mkdir(exist_ok=True)
    (cache.folder / "entries" / "00" / ".half.1").write_bytes(bytes(most // 2))
    for path in [*paths, *paths]:
        ref = MediaRef("video", path)
        assert equal(cache.decode(ref, LIMITS), media.decode(ref, LIMITS))
        assert sum(entry.stat().st_size for entry in entries(cache)) <= most + most // 2
    assert sum(entry.stat().st_size for entry in entries(cache)) <= most
    assert not (cache.folder / "entries" / "00" / ".half.1").exists()
