"""What the check says of single clips, what it remembers of them, and what it leaves in the cache for the run."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from broken_clips import row, write_faults, write_rows
from clip_files import tone, write_clip, write_image, write_wav
from killing_probe import probe_or_die
from omnistage.data import media, media_cache
from omnistage.data.checks import doctor
from omnistage.data.checks.doctor import Report
from omnistage.data.checks.index import Index
from omnistage.data.checks.probe import Facts, Job, probe, stamp
from omnistage.data.errors import InputError
from omnistage.data.media import MediaLimits
from omnistage.data.media_cache import MediaCache
from omnistage.data.records import MediaRef

LIMITS = MediaLimits(fps=2.0, max_frames=8, max_sound_s=5.0)
GB = 10**9


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Report]:
    def checked(*files: str, **settings: Any) -> Report:
        given = {"format": "humansense", "limits": LIMITS, "count": 1, "index": tmp_path / "index.sqlite", **settings}
        return doctor.check(files, **given)

    return checked


@pytest.mark.parametrize("word", ["cut short", "audio token", "no picture stream", "nothing to be read"])
def test_words_in_a_path_name_no_fault(tmp_path: Path, word: str) -> None:
    folder = tmp_path / word
    folder.mkdir()
    names = write_faults(folder)
    wanted = {"unreadable": "picture", "truncated": "picture", "no_picture": "picture", "no_frames": "picture", "too_short": "sound"}
    for code, sense in wanted.items():
        facts = probe(Job(str(folder / names[code]), (sense,), LIMITS))  # type: ignore[arg-type]
        assert facts.faults[sense][0] == code


@pytest.mark.parametrize("sense", ["picture", "sound"])
def test_clip_whose_data_are_damaged_is_unreadable_and_not_cut(tmp_path: Path, sense: Any) -> None:
    path = tmp_path / "a.mp4"
    generator = np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        picture = container.add_stream("libx264", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 64, "yuv420p"
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        for _ in range(30):
            image = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode())
        frame = av.AudioFrame.from_ndarray(generator.uniform(-0.5, 0.5, (1, 48_000)).astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    content = path.read_bytes()
    start = content.index(b"mdat") + 4
    path.write_bytes(content[:start] + bytes(len(content) - start))
    assert probe(Job(str(path), (sense,), LIMITS)).faults[sense][0] == "unreadable"
    path.write_bytes(content[: len(content) // 2])
    assert probe(Job(str(path), (sense,), LIMITS)).faults[sense][0] == "truncated"


def test_hung_and_crashed_clips_are_probed_again(check: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded machine or a short limit makes good clips hang."""
    for name in ("hangs", "dies", "fine"):
        write_clip(tmp_path / f"{name}.mp4", 4, 2)
    file = write_rows(tmp_path / "rows.json", [row(f"{name}.mp4", f"{name}?", id=name) for name in ("hangs", "dies", "fine")])
    with monkeypatch.context() as patched:
        patched.setattr(doctor, "probe", probe_or_die)
        first = check(file, limit_s=2.0)
    assert {finding.code for finding in first.faults} == {"hung", "crashed"}
    second = check(file)
    assert (second.probed, second.remembered, second.faults) == (2, 1, [])


def test_replaced_clip_of_the_same_size_and_time_is_probed_again(tmp_path: Path, check: Callable[..., Report]) -> None:
    write_wav(tmp_path / "a.wav", [tone(1.0)])
    os.utime(tmp_path / "a.wav", (1.7e9, 1.7e9))
    file = write_rows(tmp_path / "rows.json", [row("a.wav")])
    assert check(file).faults == []
    time.sleep(0.02)
    write_wav(tmp_path / "silent.wav", [0 * tone(1.0)])
    os.utime(tmp_path / "silent.wav", (1.7e9, 1.7e9))
    (tmp_path / "silent.wav").replace(tmp_path / "a.wav")
    assert [finding.code for finding in check(file).faults] == ["silent"]


def test_stamp_tells_names_and_files_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(3):
        write_image(folder / f"{number}.png", seed=number)
        os.utime(folder / f"{number}.png", (1.7e9, 1.7e9))
    seen = {stamp(str(folder))}
    (folder / "2.png").rename(folder / "9.png")
    seen.add(stamp(str(folder)))
    shutil.copy2(folder / "0.png", folder / "copy.png")
    (folder / "copy.png").replace(folder / "0.png")
    seen.add(stamp(str(folder)))
    assert len(seen) == 3
    (folder / "notes.txt").write_text("no frame")
    assert stamp(str(folder)) in seen
    assert None not in seen
    os.mkfifo(tmp_path / "pipe")
    assert [stamp(str(tmp_path / name)) for name in ("pipe", "gone")] == [None, None]


def test_cache_is_filled_after_a_check_without_one(tmp_path: Path, check: Callable[..., Report]) -> None:
    """But for the silent clip, which must not be used."""
    write_clip(tmp_path / "a.mp4", 8, 4, sound_s=2.0)
    write_wav(tmp_path / "b.wav", [tone(1.0)])
    write_wav(tmp_path / "silent.wav", [0 * tone(1.0)])
    file, folder = write_rows(tmp_path / "rows.json", [row("a.mp4"), row("b.wav"), row("silent.wav")]), tmp_path / "cache"
    reports = [check(file), *(check(file, cache=(str(folder), GB)) for _ in range(2))]
    assert [(report.probed, report.remembered) for report in reports] == [(3, 0), (2, 1), (0, 3)]
    assert reports[0].known == reports[1].known == reports[2].known
    run = MediaCache(folder, GB)
    for record in reports[0].files[0].records[:2]:
        for ref in record.media:
            run.decode(ref, LIMITS)
    assert (run.misses, run.hits > 0) == (0, True)
    next(path for path in (folder / "entries").rglob("*") if path.is_file()).unlink()
    assert check(file, cache=(str(folder), GB)).probed == 1


def test_clip_that_cannot_be_decoded_is_not_missed_in_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("no clip " * 100)
    job = Job(str(path), ("picture", "sound"), LIMITS, cache=(str(tmp_path / "cache"), GB))
    index, now = Index(tmp_path / "index"), stamp(job.path)
    assert now is not None
    facts = probe(job)
    index.put(job, now, facts)
    assert index.get(job, now) == facts


def test_folder_of_frames_in_the_cache_serves_every_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_cache, "_YOUNG_S", 0.0)
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(12):
        write_image(folder / f"{number}.png", seed=number)
    job = Job(str(folder), ("picture",), LIMITS, cache=(str(tmp_path / "cache"), GB))
    facts = probe(job)
    run = MediaCache(tmp_path / "cache", GB)
    assert facts.sha256 == run.digest(job.path)
    ref = MediaRef("video", job.path, fps=4.0)
    kept, fresh = run.decode(ref, LIMITS), media.decode(ref, LIMITS)
    assert (run.hits, kept.fps) == (1, fresh.fps)
    np.testing.assert_array_equal(kept.frames, fresh.frames)


@pytest.mark.parametrize(
    "table", ["key TEXT, found TEXT", "key TEXT, path TEXT, facts TEXT", "id INTEGER PRIMARY KEY, path TEXT, facts TEXT"]
)
def test_index_of_another_kind_is_refused(tmp_path: Path, table: str) -> None:
    path = tmp_path / "index.sqlite"
    with sqlite3.connect(path) as base:
        base.execute(f"CREATE TABLE probes ({table})")
    base.close()
    with pytest.raises(InputError, match=r"index '.*index\.sqlite' cannot be used: it is a database of something else"):
        Index(path)


def test_index_that_is_lost_while_it_is_used_is_said(tmp_path: Path) -> None:
    index = Index(tmp_path / "index.sqlite")
    job = Job(write_wav(tmp_path / "a.wav", [tone(1.0)]), ("sound",), LIMITS)
    now = stamp(job.path)
    assert now is not None
    with sqlite3.connect(tmp_path / "index.sqlite") as base:
        base.execute("DROP TABLE probes")
    base.close()
    with pytest.raises(InputError, match=r"index .* cannot be read: no such table"):
        index.get(job, now)
    with pytest.raises(InputError, match=r"index .* cannot be written: no such table"):
        index.put(job, now, Facts())


def test_clips_with_names_that_are_no_text_are_remembered(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav")
    write_wav(Path(path), [tone(1.0)])
    index, job, now = Index(tmp_path / "index"), Job(path, ("sound",), LIMITS), stamp(path)
    assert now is not None
    index.put(job, now, Facts(sha256="0"))
    assert index.get(job, now) == Facts(sha256="0")


def test_another_way_of_decoding_is_probed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, job = Index(tmp_path / "index"), Job(write_wav(tmp_path / "a.wav", [tone(1.0)]), ("sound",), LIMITS)
    now = stamp(job.path)
    assert now is not None
    index.put(job, now, probe(job))
    assert index.get(job, now) is not None
    monkeypatch.setattr(media, "VERSION", media.VERSION + 1)
    assert index.get(job, now) is None
