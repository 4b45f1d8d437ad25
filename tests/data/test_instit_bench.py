from __future__ import annotations

import hashlib
import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clip_files import write_clip, write_image
from omnistage.data.checks import rows
from omnistage.data.errors import MediaError, RecordError
from omnistage.data.formats import media_root, read
from omnistage.data.media import MediaLimits, decode, frame_files
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record

CHOICES = {"choice_a": "[5] sits down.", "choice_b": "[5] leaves.", "choice_c": "[5] waits.", "choice_d": "[5] lifts [6]."}
QUESTION = "How does the role of [5] change from <4> to <5>?"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of twelve frames, `videos_vpt/001`, a clip in a file, and an image."""
    frames = tmp_path / "videos_vpt" / "001"
    frames.mkdir(parents=True)
    for index in range(12):
        write_image(frames / f"{index}.png", seed=index)
    write_clip(tmp_path / "clip.mp4", 4, 2)
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images" / "9.png", seed=9)
    return tmp_path


def video(**fields: Any) -> dict[str, Any]:
    entry = {"question_id": "001-02", "question": QUESTION, **CHOICES, "answer": "D", "video_path": "videos_vpt/001"}
    return {name: value for name, value in (entry | fields).items() if value is not ...}


def image(**fields: Any) -> dict[str, Any]:
    entry = {"question_id": "9-1", "question": "What does [1] hold?", "answer": "A red cup.", "image": "images/9.png"}
    return {name: value for name, value in (entry | fields).items() if value is not ...}


def open_ended(entry: dict[str, Any], answer: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in CHOICES} | {"answer": answer}


def write(root: Path, entries: list[Any], name: str = "bench.json") -> Path:
    path = root / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(entries), path)
    else:
        lines = [json.dumps(entry) for entry in entries]
        path.write_text("\n".join(lines) if path.suffix == ".jsonl" else f"[{','.join(lines)}]")
    return path


def load(root: Path, entries: list[Any], name: str = "bench.json", **arguments: Any) -> list[Record]:
    return list(read("instit_bench", write(root, entries, name), media_root=root, **arguments))


def expected(root: Path, task: str, source: str) -> Record:
    """The record of one question in one of the four splits."""
    is_image, is_choice = task.startswith("image"), task.endswith("multi_choice")
    path = str((root / ("images/9.png" if is_image else "videos_vpt/001")).resolve())
    return Record(
        id=f"{task}-{'9-1' if is_image else '001-02'}",
        modality=Modality.IMAGE if is_image else Modality.VIDEO,
        task=task,
        kind=AnswerKind.SINGLE_CHOICE if is_choice else AnswerKind.OPEN,
        question="What does [1] hold?" if is_image else QUESTION,
        target=("B" if is_image else "D") if is_choice else "A red cup." if is_image else "[5] now holds [3].",
        media=(MediaRef("image" if is_image else "video", path),),
        options=tuple(CHOICES.values()) if is_choice else (),
        source=source,
        extra={"question_id": "9-1" if is_image else "001-02"},
    )


SPLITS = {
    "image_multi_choice": image(**CHOICES, answer="B"),
    "image_open_ended": image(),
    "video_multi_choice": video(),
    "video_open_ended": open_ended(video(), "[5] now holds [3]."),
}


@pytest.mark.parametrize("task", SPLITS)
@pytest.mark.parametrize(("name", "place"), [("b.json", "record 0"), ("b.jsonl", "line 1"), ("b.parquet", "record 0")])
def test_all_splits_in_all_kinds_of_file(root: Path, task: str, name: str, place: str) -> None:
    assert load(root, [SPLITS[task]], name) == [expected(root, task, f"{name}: {place}")]


def test_splits_in_one_file_and_other_fields(root: Path) -> None:
    entries = [*SPLITS.values(), video(question_id=7, answer=" a ", fps=5, note={"x": 1}, image=None)]
    *records, last = load(root, entries)
    assert records == [expected(root, task, f"bench.json: record {row}") for row, task in enumerate(SPLITS)]
    assert (last.id, last.target, last.extra) == ("video_multi_choice-7", "A", {"question_id": 7, "fps": 5, "note": {"x": 1}})


def test_folder_of_frames_and_file_decode(root: Path) -> None:
    folder, file = load(root, [video(), video(question_id="x", video_path="clip.mp4")])
    clip = decode(folder.media[0], MediaLimits(max_frames=16))
    assert clip.frames is not None
    assert (clip.frames.shape, clip.fps) == ((12, 56, 84, 3), 1.0)
    assert decode(file.media[0], MediaLimits()).fps == 2.0


def test_bytes_in_parquet_are_written_once(root: Path) -> None:
    """The way of the Hugging Face hub: a struct of the bytes of the file and its name."""
    content = (root / "images" / "9.png").read_bytes()
    other = (root / "videos_vpt" / "001" / "3.png").read_bytes()
    contents = [content, other, content]
    entries = [image(question_id=str(row), image={"bytes": value, "path": "9.png"}) for row, value in enumerate(contents)]
    cache = root.resolve() / ".omnistage" / "images"
    paths = [str(cache / f"{hashlib.sha256(value).hexdigest()}.png") for value in contents]
    assert [record.media for record in load(root, entries, "b.parquet")] == [(MediaRef("image", path),) for path in paths]
    assert sorted(map(str, cache.iterdir())) == sorted(set(paths))
    assert [Path(path).read_bytes() for path in paths] == contents
    before = Path(paths[0]).stat().st_mtime_ns
    (first, *_) = load(root, entries, "again.parquet")
    assert Path(paths[0]).stat().st_mtime_ns == before
    clip = decode(first.media[0], MediaLimits())
    assert clip.frames is not None
    assert clip.frames.shape == (1, 56, 84, 3)


def test_struct_without_bytes_names_a_file(root: Path) -> None:
    entries = [image(image={"bytes": None, "path": "images/9.png"})]
    assert load(root, entries, "b.parquet") == [expected(root, "image_open_ended", "b.parquet: record 0")]
    assert load(root, entries) == [expected(root, "image_open_ended", "bench.json: record 0")]
    assert not (root / ".omnistage").exists()


def test_cache_stays_in_the_media_root(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (root / ".omnistage").symlink_to(elsewhere)
    entries = [image(image={"bytes": (root / "images" / "9.png").read_bytes(), "path": None})]
    with pytest.raises(MediaError, match=r"^b\.parquet: record 0: image\.bytes: .* leaves the media root"):
        load(root, entries, "b.parquet")
    assert not any(elsewhere.iterdir())


def test_cache_that_cannot_be_written_is_named(root: Path) -> None:
    (root / ".omnistage").write_text("in the way")
    entries = [image(image={"bytes": (root / "images" / "9.png").read_bytes(), "path": None})]
    with pytest.raises(
        MediaError, match=r"^b\.parquet: record 0: image\.bytes: cannot be kept in \.omnistage/images \(.*\); allowed: a media"
    ):
        load(root, entries, "b.parquet")


def test_modality_is_as_asked(root: Path) -> None:
    assert [(r.modality, r.media) for r in load(root, list(SPLITS.values()), modality=Modality.TEXT)] == [(Modality.TEXT, ())] * 4
    with pytest.raises(RecordError, match="record 0: modality 'audio' is asked for; allowed: image, text"):
        load(root, [image()], modality=Modality.AUDIO)
    with pytest.raises(RecordError, match="record 0: modality 'image' is asked for; allowed: video, text"):
        load(root, [video()], modality=Modality.IMAGE)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], "it is a list; allowed: an object with question_id, question and answer"),
        (video(question_id=...), "question_id: missing; allowed: a string or a whole number"),
        (video(question_id=1.5), "question_id: got the number 1.5; allowed: a string or a whole number"),
        (video(question_id="first"), "question_id: 'video_multi_choice-first' is the id of .* 0 too; allowed: an id of its own"),
        (video(question=""), 'question: got the string ""; allowed: a string that is not empty'),
        (video(choice_c=...), "choice_c: missing; allowed: the text of this choice, or none of the four"),
        (video(choice_d=" "), 'choice_d: got the string " "; allowed: the text of this choice'),
        (video(answer=...), "answer: missing; allowed: one of A, B, C, D"),
        (video(answer="E"), 'answer: got the string "E"; allowed: one of A, B, C, D'),
        (video(answer=2), "answer: got the number 2; allowed: one of A, B, C, D"),
        (image(answer=...), "answer: missing; allowed: a string that is not empty"),
        (image(answer=["A"]), "answer: got a list; allowed: a string that is not empty"),
        (image(image=...), "image: missing, and so is video_path; allowed: one of image, video_path"),
        (image(video_path="clip.mp4"), "image: given beside video_path; allowed: one of image, video_path"),
        (image(image=3), "image: got the number 3; allowed: a path, or in parquet a struct of bytes and path"),
        (image(image={"url": "x"}), "image: got an object; allowed: a path, or in parquet a struct of bytes and path"),
        (image(image={"bytes": "iVBORw", "path": None}), 'image.bytes: got the string "iVBORw"; allowed: the bytes of an image file'),
        (image(image={"bytes": None, "path": None}), "image.path: missing; allowed: the path of a clip under the media root"),
        (video(video_path=["001"]), "video_path: got a list; allowed: the path of a clip under the media root"),
        (video(fps=0), "fps: got the number 0; allowed: frames a second, a positive number"),
        (video(fps="25"), 'fps: got the string "25"; allowed: frames a second, a positive number'),
    ],
)
@pytest.mark.parametrize("name", ["bench.json", "bench.jsonl"])
def test_malformed_rows_name_file_record_field_and_what_is_allowed(root: Path, entry: Any, message: str, name: str) -> None:
    place = "record 1" if name.endswith(".json") else "line 2"
    message = message.replace("id of .* 0", "id of record 0" if name.endswith(".json") else "id of line 1")
    with pytest.raises(RecordError, match="^" + re.escape(f"{name}: {place}: {message}")) as caught:
        load(root, [video(question_id="first"), entry], name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (video(video_path="gone"), "video_path: 'gone' is no file or folder under"),
        (video(video_path="../x"), "video_path: '../x' leaves the media root"),
        (video(video_path="empty"), "video_path: '.*empty' is a folder without frames; allowed: a clip, or a folder of images"),
        (video(video_path="linked"), "video_path: '.*1.png' leaves the media root"),
        (image(image="images"), "image: 'images' is no file under"),
        (image(image="/etc/passwd"), "image: '/etc/passwd' leaves the media root"),
        (image(image={"bytes": b"GIF89a..", "path": "x.gif"}), "image.bytes: 8 bytes that begin with b'GIF89a..'; allowed: a PNG, JPEG"),
        (image(image={"bytes": b"", "path": "x.png"}), "image.bytes: 0 bytes that begin with b''; allowed: a PNG, JPEG"),
    ],
)
def test_media_must_be_there(root: Path, entry: dict[str, Any], reason: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    (root / "empty").mkdir()
    (root / "linked").mkdir()
    (root / "linked" / "1.png").symlink_to(write_image(tmp_path_factory.mktemp("elsewhere") / "1.png"))
    name = "bench.parquet" if isinstance(entry.get("image"), dict) else "bench.json"
    first = {} if name.endswith(".parquet") else video(question_id="first")
    entries = [first, entry] if first else [entry]
    with pytest.raises(MediaError, match=".*".join(map(re.escape, f"{name}: record {len(entries) - 1}: {reason}".split(".*")))) as caught:
        load(root, entries, name)
    assert "\n" not in str(caught.value)


def test_a_rate_that_no_float_holds_is_refused(root: Path) -> None:
    (root / "rows.jsonl").write_text(json.dumps(video(fps=10**400)))
    with pytest.raises(
        RecordError, match=r"^rows\.jsonl: line 1: fps: got the number 1000.*; allowed: frames a second, a positive number$"
    ):
        list(read("instit_bench", root / "rows.jsonl"))


def test_behind_a_bad_line_the_others_are_read(root: Path) -> None:
    lines = [json.dumps(video(question_id=1)), "{", json.dumps(video(question_id=2, answer="E")), json.dumps(video(question_id=3))]
    (root / "rows.jsonl").write_text("\n".join(lines))
    found = rows.read("instit_bench", str(root / "rows.jsonl"))
    assert [record.id for record in found.records] == ["video_multi_choice-1", "video_multi_choice-3"]
    places = [(str(row.place), row.code) for row in found.refused]
    assert places == [("rows.jsonl: line 2", "unreadable_row"), ("rows.jsonl: line 3", "bad_answer")]


def test_every_folder_is_looked_into_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def files(folder: str) -> list[str]:
        looked.append(folder)
        return frame_files(folder)

    monkeypatch.setattr(media_root, "frame_files", files)
    load(root, [video(question_id=row) for row in range(5)])
    assert looked == [str((root / "videos_vpt" / "001").resolve())]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.json", b"{}", "the top level is an object; allowed: one JSON list of objects in UTF-8"),
        ("b.json", b'{"a": 1}\n{"a": 1}', "the file holds one object a line; allowed: one JSON list of objects in UTF-8"),
        ("b.jsonl", b"[\n", "line 1: .*; allowed: one JSON object a line in UTF-8"),
        ("b.parquet", b"PAR1 no parquet", "the file cannot be read: .*; allowed: a whole parquet file"),
        ("b.parquet", b"", "the file cannot be read: .*; allowed: a whole parquet file"),
        ("b.csv", b"a,b", "the file ends in '.csv'; allowed: .json, .jsonl, .parquet"),
    ],
)
def test_the_file_must_be_of_its_kind(root: Path, name: str, content: bytes, message: str) -> None:
    (root / name).write_bytes(content)
    with pytest.raises(RecordError, match="^" + ".*".join(map(re.escape, f"{name}: {message}".split(".*")))) as caught:
        list(read("instit_bench", root / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["bench.json", "bench.jsonl"])
def test_rows_are_read_as_they_are_drawn(root: Path, name: str) -> None:
    path = write(root, [video(question_id=row) for row in range(20_000)], name)
    with path.open("rb+") as file:
        file.seek(-1, 2)
        file.write(b"#")
    tracemalloc.start()
    try:
        drawn = [record.id for record in read("instit_bench", path, limit=3)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert drawn == [f"video_multi_choice-{row}" for row in range(3)]
    assert peak < path.stat().st_size / 8


def test_parquet_is_read_as_it_is_drawn(root: Path) -> None:
    """20 MB of images; the bytes of the last rows are overwritten: reading breaks there, and not before."""
    path, noise = root / "bench.parquet", np.random.default_rng(0)
    entries = [
        image(question_id=str(row), image={"bytes": b"\xff\xd8\xff" + noise.bytes(100_000), "path": f"{row}.jpg"}) for row in range(200)
    ]
    pq.write_table(pa.Table.from_pylist(entries), path, row_group_size=10)
    last = pq.ParquetFile(path).metadata.row_group(19).column(0)
    with path.open("rb+") as file:
        file.seek(last.dictionary_page_offset or last.data_page_offset)
        file.write(b"\xff" * 200)
    del entries
    held = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        records = read("instit_bench", path)
        drawn = [next(records).id for _ in range(3)]
        peak = tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes() - held
    finally:
        tracemalloc.stop()
    assert drawn == [f"image_open_ended-{row}" for row in range(3)]
    assert peak < path.stat().st_size / 3
    with pytest.raises(RecordError, match=r"^bench\.parquet: the file cannot be read: .*; allowed: a whole parquet file"):
        list(records)
