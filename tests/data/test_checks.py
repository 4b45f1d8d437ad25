"""The doctor finds each fault in clips that really have it, tells the same content in other files, and outlives what kills a decoder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from broken_clips import AGED_NS, copy, remux, row, write_faults, write_rows
from clip_files import tone, write_clip, write_image, write_wav
from killing_probe import probe_or_die, slow_or_dead
from omnistage.data.checks import doctor, findings, fingerprint, rows, workers
from omnistage.data.checks.doctor import Report
from omnistage.data.checks.index import Index
from omnistage.data.checks.probe import Facts, Job, probe, stamp
from omnistage.data.checks.rows import Rows
from omnistage.data.errors import InputError
from omnistage.data.media import MediaLimits
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record

LIMITS = MediaLimits(fps=2.0, max_frames=8, max_sound_s=5.0)
SENSES = {"silent": "sound", "too_short": "sound", "no_sound": "sound"}


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Report]:
    """The doctor with an index of its own and one worker."""

    def checked(*files: str, **settings: Any) -> Report:
        given = {"format": "humansense", "limits": LIMITS, "count": 1, "index": tmp_path / "index.sqlite", **settings}
        return doctor.check(files, **given)

    return checked


def codes(report: Report) -> dict[str, list[str]]:
    """The ids of the records that each finding touches."""
    out: dict[str, list[str]] = {}
    for finding in report.findings:
        out.setdefault(finding.code, []).extend(record.id for _, record in finding.rows)
    return out


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("faults")
    return folder, write_faults(folder)


@pytest.mark.parametrize(
    "fault", ["ok", "unreadable", "truncated", "no_sound", "silent", "too_short", "no_picture", "no_frames", "over_limits"]
)
def test_each_fault_of_a_clip_is_named(fault: str, faults: tuple[Path, dict[str, str]]) -> None:
    folder, names = faults
    path = str(folder / names[fault])
    facts = probe(Job(path, ("sound",) if fault in SENSES else ("picture",), LIMITS))
    found = [code for code, _ in facts.faults.values()]
    notes = [code for code, _ in facts.notes.values()]
    assert (found, notes) == ([], {"ok": [], "over_limits": ["over_limits"]}[fault]) if fault in ("ok", "over_limits") else ([fault], [])
    assert all(path in message for _, message in [*facts.faults.values(), *facts.notes.values()])
    assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.avi", "a.flac", "a.wav"])
@pytest.mark.parametrize("front", [False, True])
def test_truncated_in_other_containers(tmp_path: Path, name: str, front: bool) -> None:
    """An MP4 has its index behind the frames, or in front of them."""
    path = tmp_path / name
    if name in ("a.flac", "a.wav"):
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, 160_000).astype(np.float32)
        write_wav(tmp_path / "b.wav", [noise])
        with av.open(str(path), "w") as container:
            sound = container.add_stream("flac" if path.suffix == ".flac" else "pcm_s16le", rate=16_000, layout="mono")
            with av.open(str(tmp_path / "b.wav")) as given:
                for frame in given.decode(audio=0):
                    container.mux(sound.encode(frame))
            container.mux(sound.encode())
    else:
        source = Path(write_clip(tmp_path / "b.mp4", 40, 5, sound_s=8.0))
        if path.suffix == ".avi":
            write_avi(path)
        elif front and path.suffix in (".mp4", ".mov"):
            with av.open(str(path), "w", options={"movflags": "faststart"}) as new, av.open(str(source)) as old:
                stream = new.add_stream_from_template(old.streams.video[0])
                for packet in old.demux(old.streams.video[0]):
                    if packet.dts is not None:
                        packet.stream = stream
                        new.mux(packet)
        else:
            remux(source, path)
    sense: Any = "sound" if name in ("a.flac", "a.wav") else "picture"
    assert probe(Job(str(path), (sense,), LIMITS)).faults == {}
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert probe(Job(str(path), (sense,), LIMITS)).faults[sense][0] == "truncated"


def write_avi(path: Path) -> None:
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        generator = np.random.default_rng(0)
        for _ in range(80):
            image = generator.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode())


def test_sound_beyond_the_limit_is_a_note(faults: tuple[Path, dict[str, str]]) -> None:
    path = str(faults[0] / "long.mkv")
    facts = probe(Job(path, ("sound",), LIMITS))
    assert facts.notes["sound"] == ("over_limits", f"{path!r} has {facts.seconds['sound']:.1f} s of sound; 5 s are kept")
    assert facts.seconds["sound"] == pytest.approx(8.0, abs=0.2)


def test_records_are_named_with_the_faults_of_what_they_use(check: Callable[..., Report], faults: tuple[Path, dict[str, str]]) -> None:
    """`mute.mp4` is right where it is only seen."""
    folder, names = faults
    gone = folder / "gone.mp4"
    seen = [row(names[name], id=name) for name in ("ok", "truncated", "no_frames", "no_picture", "unreadable", "over_limits")]
    seen += [row("mute.mp4", id="only_seen"), row("gone.mp4", id="missing")]
    heard = [row(names[name], id=name) for name in ("ok", "no_sound", "silent", "too_short")]
    files = [write_rows(folder / "seen.json", seen), write_rows(folder / "heard.json", heard)]
    gone.write_bytes((folder / "ok.mp4").read_bytes())
    held = rows.read("humansense", files[0], modality=Modality.VIDEO)
    gone.unlink()
    report = check(files[1], modality=Modality.AUDIO)
    assert codes(report) == {"no_sound": ["no_sound"], "silent": ["silent"], "too_short": ["too_short"]}
    jobs = doctor._jobs([held], LIMITS, False, None)
    known = {job.path: probe(job) if stamp(job.path) else Facts(failure=("missing", "gone")) for job in jobs}
    found = {(finding.code, record.id) for finding in findings.of([held], known) for _, record in finding.rows}
    assert found == {(name, name) for name in ("missing", "truncated", "no_frames", "no_picture", "unreadable", "over_limits")}


def test_every_missing_clip_is_found(check: Callable[..., Report], faults: tuple[Path, Any]) -> None:
    file = write_rows(faults[0] / "missing.json", [row("ok.mp4"), row("gone.mp4", "x?"), row("ok.mp4", "y?"), row("lost.mp4", "z?")])
    report = check(file, modality=Modality.VIDEO)
    assert [finding.code for finding in report.faults] == ["missing"] * 2
    told = sorted(finding.message for finding in report.faults)
    assert told[0].startswith("missing.json: record 1: video_path: 'gone.mp4' is no file")
    assert told[1].startswith("missing.json: record 3: video_path: 'lost.mp4' is no file")
    assert (len(report.files[0].records), report.files[0].whole) == (2, True)


def test_a_file_that_breaks_off_is_not_read_to_its_end(check: Callable[..., Report], faults: tuple[Path, Any]) -> None:
    file = Path(write_rows(faults[0] / "cut.json", [row("ok.mp4"), row("ok.mp4", "y?")]))
    file.write_text(file.read_text()[:-20])
    report = check(str(file), modality=Modality.VIDEO)
    (finding,) = report.faults
    assert finding.code == "unreadable_row"
    assert finding.message.endswith("the rows behind it were not read: mend it and check again")
    assert (len(report.files[0].records), report.files[0].whole) == (1, False)
    assert "NOT READ TO ITS END" in report.table()


READER = """
from omnistage.data.errors import RecordError
from omnistage.data.records import AnswerKind, Modality, Record

class Rows:
    def __init__(self):
        self.left = list({rows!r})
    def __iter__(self):
        return self
    def __next__(self):
        if not self.left:
            raise StopIteration
        row = self.left.pop(0)
        if row is None:
            raise RecordError("bad row")
        return Record(**row, modality=Modality.TEXT, task="t", options=("one", "two"), source=f"f: {{row['id']}}")

def read(path, *, media_root, modality=None):
    return Rows()
"""


def test_reader_that_goes_on_is_read_to_its_end_and_answers_are_checked(tmp_path: Path, check: Callable[..., Report]) -> None:
    kinds = {"a": ("single_choice", "A"), "b": ("single_choice", "C"), "c": ("multi_select", "A,D"), "d": ("yes_no", "maybe")}
    kinds |= {"e": ("number", "ten"), "f": ("level", "fine"), "g": ("open", "anything"), "h": ("level", "good"), "i": ("number", "10")}
    made: list[Any] = [{"id": name, "kind": kind, "target": target, "question": name} for name, (kind, target) in kinds.items()]
    made[1:1] = [None]
    made.insert(4, None)
    (tmp_path / "reader.py").write_text(READER.format(rows=made))
    (tmp_path / "rows.json").touch()
    report = check(str(tmp_path / "rows.json"), format=f"{tmp_path / 'reader.py'}:read")
    assert codes(report) == {"unreadable_row": [], "bad_answer": ["b", "c", "d", "e", "f"]}
    assert [finding.message for finding in report.findings[:3]] == ["bad row", "bad row", "f: b: answer 'C'; allowed: one of A, B"]
    assert report.files[0].whole


def test_answer_outside_the_options_of_a_reader_that_refuses_it(check: Callable[..., Report], faults: tuple[Path, Any]) -> None:
    report = check(write_rows(faults[0] / "answer.json", [row("ok.mp4", answer="E")]))
    assert report.findings[0].code == "bad_answer"
    assert 'questions.answer: got the string "E"; allowed: one letter of A to B' in report.findings[0].message


def test_rows_that_repeat(tmp_path: Path, check: Callable[..., Report]) -> None:
    clip = Path(write_clip(tmp_path / "a.mp4", 8, 4))
    copy(clip, tmp_path / "copy.mp4")
    given = [
        row("a.mp4", "first?", id="a"),
        row("a.mp4", "first?", id="b"),
        row("copy.mp4", "first?", id="c"),
        row("a.mp4", "other?", id="d"),
        row("a.mp4", "split?", "A", id="e"),
        row("copy.mp4", "split?", "B", id="f"),
    ]
    report = check(write_rows(tmp_path / "rows.json", given))
    assert codes(report) == {"duplicate_row": ["b", "c"], "contradiction": ["e", "f"], "same_media": ["a", "b", "d", "e", "c", "f"]}
    assert {finding.code for finding in report.faults} == {"duplicate_row", "contradiction"}


def test_several_ratings_of_one_clip_are_no_contradiction() -> None:
    def record(name: str, target: str) -> Record:
        return Record(name, Modality.TEXT, "t", AnswerKind.SCALAR, "how good?", target, values=(float(target),), source=name)

    file = Rows("f", [record("a", "3"), record("b", "4"), record("c", "3")])
    assert [(finding.code, [r.id for _, r in finding.rows]) for finding in findings.of([file], {})] == [("duplicate_row", ["c"])]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip with noise for its picture and its sound, its copies, and clips that are not."""
    folder = tmp_path_factory.mktemp("family")
    write_noise(folder / "a.mp4", 1)
    write_noise(folder / "stranger.mp4", 2)
    write_noise(folder / "other_sound.mp4", 1, sound_seed=3)
    copy(folder / "a.mp4", folder / "renamed.mp4")
    for suffix in ("mkv", "mov", "ts"):
        remux(folder / "a.mp4", folder / f"remuxed.{suffix}")
    with av.open(str(folder / "a.mp4")) as old, av.open(str(folder / "sound.m4a"), "w", format="mp4") as new:
        stream = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(old.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return folder


def write_noise(path: Path, seed: int, sound_seed: int | None = None) -> None:
    generator = np.random.default_rng(seed)
    heard = np.random.default_rng(seed if sound_seed is None else sound_seed)
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=48_000, layout="stereo")
        for _ in range(75):
            image = np.kron(generator.integers(0, 255, (6, 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
            container.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(picture.encode())
        noise = (heard.normal(0, 0.05, (2, 144_000)) * (1 + np.sin(np.arange(144_000) / 9000))).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="stereo")
        frame.sample_rate = 48_000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())


@pytest.mark.parametrize("name", ["renamed.mp4", "remuxed.mkv", "remuxed.mov", "remuxed.ts"])
def test_content_is_known_again_in_a_copy(family: Path, name: str) -> None:
    first, other = str(family / "a.mp4"), str(family / name)
    pictures = [fingerprint.of_picture(MediaRef("video", path)) for path in (first, other)]
    sounds = [fingerprint.of_sound(path) for path in (first, other)]
    assert pictures[0] is not None
    assert pictures[1] is not None
    assert pictures[0].same(pictures[1]) or name == "remuxed.ts"
    assert sounds[0] is not None
    assert sounds[1] is not None
    assert sounds[0].same(sounds[1])


def test_content_of_strangers_differs_and_nothing_has_no_content(family: Path, tmp_path: Path) -> None:
    prints = {fingerprint.of_picture(MediaRef("video", str(family / name))) for name in ("a.mp4", "stranger.mp4")}
    assert len(prints) == 2
    assert len({fingerprint.of_sound(str(family / name)) for name in ("a.mp4", "stranger.mp4", "other_sound.mp4")}) == 3
    assert fingerprint.of_sound(write_wav(tmp_path / "a.wav", [0 * tone(2.0)])) is None
    with av.open(str(tmp_path / "grey.mp4"), "w") as container:
        picture = container.add_stream("libx264", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        for _ in range(20):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")))
        container.mux(picture.encode())
    assert fingerprint.of_picture(MediaRef("video", str(tmp_path / "grey.mp4"))) is None


def test_thumbnail_is_the_mean_of_each_block() -> None:
    """A 16 x 16 frame of 2 x 2 blocks: block (i, j) is grey 8 i + j, so that the thumbnail counts from 0 to 63."""
    blocks = np.arange(64, dtype=np.uint8).reshape(8, 8)
    frame = np.repeat(np.repeat(blocks, 2, 0), 2, 1)[..., None].repeat(3, -1)
    np.testing.assert_array_equal(fingerprint._thumbnail(frame), blocks)
    assert fingerprint._thumbnail(frame[:5, :3]).shape == (8, 8)


def test_media_shared_with_the_evaluation(family: Path, check: Callable[..., Report]) -> None:
    held_out = write_rows(family / "held_out.json", [row("a.mp4", id="e")])
    names = ["renamed.mp4", "remuxed.mkv", "stranger.mp4", "a.mp4"]
    train = write_rows(family / "train.json", [row(name, "another question?", id=name) for name in names])
    report = check(train, against=[held_out])
    assert codes(report)["shared_media"] == ["renamed.mp4", "remuxed.mkv", "a.mp4"]
    told = {finding.rows[0][1].id: finding.message for finding in report.faults if finding.code == "shared_media"}
    assert told["remuxed.mkv"] == f"the picture of '{family / 'remuxed.mkv'}' is in {held_out} as '{family / 'a.mp4'}'"
    assert told["a.mp4"] == f"'{family / 'a.mp4'}' is in {held_out}"


def test_sound_alone_that_is_shared_is_found(family: Path, check: Callable[..., Report]) -> None:
    held_out = write_rows(family / "held_out.json", [row("a.mp4", id="e")])
    train = write_rows(family / "train.json", [row("sound.m4a", id="taken_out"), row("other_sound.mp4", id="dubbed")])
    report = check(train, against=[held_out], modality=Modality.AUDIO)
    assert codes(report) == {"shared_media": ["taken_out"]}
    assert report.faults[0].message.startswith("the sound of ")


def test_unreadable_clip_of_the_evaluation_is_said(family: Path, faults: tuple[Path, Any], check: Callable[..., Report]) -> None:
    held_out = write_rows(faults[0] / "held_out.json", [row("unreadable.mp4")])
    report = check(write_rows(family / "train.json", [row("a.mp4")]), against=[held_out], modality=Modality.VIDEO)
    assert [finding.code for finding in report.findings] == ["not_compared"]
    assert report.faults == []


def test_workers_outlive_what_kills_one() -> None:
    items = ["a", "hangs", "b", "dies", "c", "leaves", "d", "raises", "e"]
    start = time.monotonic()
    outcomes = dict(workers.run(slow_or_dead, items, workers=2, limit_s=1.5))
    assert time.monotonic() - start < 30
    assert {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, str)} == {name: name.upper() for name in "abcde"}
    assert outcomes["hangs"] == workers.Failed("hung", "took over 1.5 s and was given up")
    assert outcomes["dies"] == workers.Failed("crashed", "ended its process (signal 11, SIGSEGV)")
    assert outcomes["leaves"] == workers.Failed("crashed", "ended its process (exit code 3)")
    assert outcomes["raises"] == workers.Failed("crashed", "raised KeyError: 'x'")


def test_hung_and_crashed_clips_are_named(check: Callable[..., Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("hangs", "dies", "fine"):
        write_clip(tmp_path / f"{name}.mp4", 4, 2)
    monkeypatch.setattr(doctor, "probe", probe_or_die)
    report = check(write_rows(tmp_path / "rows.json", [row(f"{n}.mp4", f"{n}?", id=n) for n in ("hangs", "dies", "fine")]), limit_s=2.0)
    assert {code: ids for code, ids in codes(report).items() if code != "same_media"} == {"hung": ["hangs"], "crashed": ["dies"]}


def test_index_knows_what_has_not_changed(tmp_path: Path, check: Callable[..., Report]) -> None:
    for name in ("a", "b", "c"):
        os.utime(write_clip(tmp_path / f"{name}.mp4", 4 + ord(name) % 7, 2), ns=(AGED_NS, AGED_NS))
    file = write_rows(tmp_path / "rows.json", [row(f"{name}.mp4") for name in ("a", "b", "c")])
    first, second = check(file), check(file)
    assert [(r.probed, r.remembered) for r in (first, second)] == [(3, 0), (0, 3)]
    assert second.known == first.known
    os.utime(tmp_path / "b.mp4")
    assert check(file).probed == 1
    assert check(file, limits=MediaLimits(fps=1.0)).probed == 3
    assert check(file, fresh=True).probed == 3
    assert check(file, against=[file]).probed == 3


def test_folder_of_frames_is_known_by_its_images(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(4):
        write_image(folder / f"{number}.png", seed=number)
    job = Job(str(folder), ("picture",), LIMITS)
    before, facts = stamp(job.path), probe(job)
    assert (facts.faults, facts.sha256 is not None) == ({}, True)
    write_image(folder / "3.png", seed=9)
    assert (stamp(job.path) == before, probe(job).sha256 == facts.sha256) == (False, False)


@pytest.mark.parametrize("kind", ["text", "folder"])
def test_index_that_is_something_else_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "index"
    if kind == "text":
        path.write_text("not a database " * 100)
    else:
        path.mkdir()
    with pytest.raises(InputError, match="cannot be used"):
        Index(path)


def test_cache_is_filled_for_the_run(tmp_path: Path, check: Callable[..., Report]) -> None:
    write_clip(tmp_path / "a.mp4", 8, 4)
    check(write_rows(tmp_path / "rows.json", [row("a.mp4")]), cache=(str(tmp_path / "cache"), 10**8))
    assert len([path for path in (tmp_path / "cache" / "entries").rglob("*") if path.is_file()]) == 1
