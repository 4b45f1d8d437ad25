from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from clip_files import write_clip, write_image
from omnistage.data.errors import MediaError, RecordError
from omnistage.data.formats import read
from omnistage.data.formats.instit_dataset import WORDINGS
from omnistage.data.media import MediaLimits, decode
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record


@pytest.fixture
def root(tmp_path: Path) -> Path:
    frames = tmp_path / "videos" / "7"
    frames.mkdir(parents=True)
    for index in (1, 2, 3):
        write_image(frames / f"frame_{index}.png", seed=index)
    write_image(tmp_path / "9.png", seed=9)
    write_clip(tmp_path / "clip.mp4", 4, 2)
    return tmp_path


FRAMES: list[dict[str, Any]] = [
    {
        "timestamp": 1,
        "frame_name": "frame_1.png",
        "instance_level": {"1": "A man in a red coat.", "2": "A woman who sits."},
        "image_level": "[1] stands beside [2].",
        "temporal_change": "",
    },
    {
        "timestamp": 2,
        "frame_name": "frame_2.png",
        "instance_level": {"1": "He bends down.", "2": None},
        "image_level": "[1] bends towards [2].",
        "temporal_change": "[1] has bent down.",
    },
]
PAIRS = [{"question": "What does [1] wear at <1>?", "answer": "A red coat."}, {"question": "Who sits?", "answer": "[2]."}]


def video(**fields: Any) -> dict[str, Any]:
    entry = {
        "video_id": 7,
        "frame_level_caption": FRAMES,
        "question_answer_pairs": PAIRS,
        "video_level_caption": "[1] bends down to [2], who sits.",
        "video_path": "videos/7",
    }
    return {name: value for name, value in (entry | fields).items() if value is not ...}


def image(**fields: Any) -> dict[str, Any]:
    entry = {
        "image_id": 9,
        "instance_level_caption": {"1": "A brown dog.", "2": "A ball."},
        "image_level_caption": "[1] sleeps beside [2].",
        "image_path": "9.png",
    }
    return {name: value for name, value in (entry | fields).items() if value is not ...}


def frame(**fields: Any) -> dict[str, Any]:
    """A clip whose second frame has other fields."""
    changed = {name: value for name, value in (FRAMES[1] | fields).items() if value is not ...}
    return video(frame_level_caption=[FRAMES[0], changed])


def load(root: Path, content: Any, name: str = "train.json", **arguments: Any) -> list[Record]:
    path = root / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return list(read("instit_dataset", path, **arguments))


def test_a_clip_gives_all_its_instructions(root: Path) -> None:
    records = load(root, [video(note="x")])
    media = (MediaRef("video", str((root / "videos" / "7").resolve())),)
    parts = [
        ("frame_instance", "frame-1-1", "What can be seen of [1] at <1>?", "A man in a red coat.", (1, "1")),
        ("frame_instance", "frame-1-2", "Describe [2] as it is at <1>.", "A woman who sits.", (1, "2")),
        (
            "frame",
            "frame-1",
            "Describe everything that is seen at <1>, with the numbered things in it.",
            "[1] stands beside [2].",
            (1, None),
        ),
        ("frame_instance", "frame-2-1", "At <2>, what is [1], and what is it doing?", "He bends down.", (2, "1")),
        ("frame", "frame-2", "What happens in the frame at <2>?", "[1] bends towards [2].", (2, None)),
        ("temporal_change", "change-2", "What changes from <1> to <2>?", "[1] has bent down.", (2, None)),
        (
            "video",
            "video",
            "Describe the whole video, with what each numbered thing does and when.",
            "[1] bends down to [2], who sits.",
            None,
        ),
        ("question_answer", "qa-0", "What does [1] wear at <1>?", "A red coat.", None),
        ("question_answer", "qa-1", "Who sits?", "[2].", None),
    ]
    for record, (task, part, question, answer, place) in zip(records, parts, strict=True):
        extra: dict[str, Any] = {"video_id": "7", "note": "x"}
        if place is not None:
            time, thing = place
            extra |= {"timestamp": time, "frame_name": f"frame_{time}.png"} | ({"instance": thing} if thing else {})
        assert record == Record(
            id=f"train-0-{part}",
            modality=Modality.VIDEO,
            task=task,
            kind=AnswerKind.OPEN,
            question=question,
            target=answer,
            media=media,
            response=answer,
            source="train.json: record 0",
            extra=extra,
        )


def test_an_image_gives_all_its_instructions(root: Path) -> None:
    records = load(root, [image()])
    assert [(r.id, r.task, r.target, r.response, r.extra) for r in records] == [
        ("train-0-instance-1", "image_instance", "A brown dog.", "A brown dog.", {"image_id": "9", "instance": "1"}),
        ("train-0-instance-2", "image_instance", "A ball.", "A ball.", {"image_id": "9", "instance": "2"}),
        ("train-0-image", "image", "[1] sleeps beside [2].", "[1] sleeps beside [2].", {"image_id": "9"}),
    ]
    path = str((root / "9.png").resolve())
    assert {(r.modality, r.kind, r.media, r.source) for r in records} == {
        (Modality.IMAGE, AnswerKind.OPEN, (MediaRef("image", path),), "train.json: record 0")
    }
    assert "[2]" in records[1].question


def test_wordings_are_all_used_and_always_the_same(root: Path) -> None:
    entries = [entry for _ in range(30) for entry in (video(), image())]
    first = load(root, entries)
    assert load(root, entries) == first
    assert len({record.id for record in first}) == len(first)
    asked: dict[str, set[str]] = {}
    for record in first:
        plain = re.sub(r"\[\d\]", "[{thing}]", record.question)
        asked.setdefault(record.task, set()).add(plain)
    assert asked.pop("question_answer")
    assert {task: len(questions) for task, questions in asked.items() if task in ("video", "image", "image_instance")} == dict.fromkeys(
        ("video", "image", "image_instance"), 3
    )
    assert asked.keys() == WORDINGS.keys()


def test_clips_decode(root: Path) -> None:
    folder = load(root, [video(fps=5)])[0]
    file = load(root, [video(video_path="clip.mp4")])[0]
    assert folder.extra["fps"] == 5
    clip = decode(folder.media[0], MediaLimits())
    assert clip.frames is not None
    assert (clip.frames.shape, clip.fps) == ((4, 56, 84, 3), 5.0)
    assert decode(file.media[0], MediaLimits()).fps == 2.0


def test_what_is_empty_gives_no_record(root: Path) -> None:
    bare = {"timestamp": "<1>", "instance_level": None, "image_level": " ", "temporal_change": None}
    entries = [
        video(frame_level_caption=[bare], question_answer_pairs=[], video_level_caption=None),
        video(frame_level_caption=[FRAMES[1]], question_answer_pairs=[], video_level_caption=...),
        image(instance_level_caption=..., image_level_caption=...),
    ]
    assert [record.id for record in load(root, entries)] == ["train-1-frame-2-1", "train-1-frame-2"]


def test_modality_is_as_asked(root: Path) -> None:
    assert {(r.modality, r.media) for r in load(root, [video(), image()], modality=Modality.TEXT)} == {(Modality.TEXT, ())}
    with pytest.raises(RecordError, match="record 0: modality 'audio_video' is asked for; allowed: video, text"):
        load(root, [video()], modality=Modality.AUDIO_VIDEO)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("x", 'it is the string "x"; allowed: an object with video_path or image_path, and captions'),
        (video(video_path=...), "video_path: missing, and so is image_path; allowed: one of video_path, image_path"),
        (video(image_path="9.png"), "video_path: given beside image_path; allowed: one of video_path, image_path"),
        (video(video_id=...), "video_id: missing; allowed: a string or a whole number"),
        (image(image_id=None), "image_id: missing; allowed: a string or a whole number"),
        (video(frame_level_caption=...), "frame_level_caption: missing; allowed: a list of objects"),
        (video(frame_level_caption={}), "frame_level_caption: got an object; allowed: a list of objects"),
        (video(frame_level_caption=["x"]), 'frame_level_caption[0]: got the string "x"; allowed: an object'),
        (frame(timestamp=...), "frame_level_caption[1].timestamp: missing; allowed: a string or a whole number"),
        (frame(timestamp="two"), 'frame_level_caption[1].timestamp: got the string "two"; allowed: a whole number, such as 4'),
        (frame(timestamp="1" * 5000), 'frame_level_caption[1].timestamp: got the string "1111'),
        (frame(timestamp=1), "frame_level_caption[1].timestamp: 1 is that of another frame too; allowed: a timestamp of its own"),
        (frame(frame_name=3), "frame_level_caption[1].frame_name: got the number 3; allowed: a string that is not empty"),
        (frame(instance_level=["x"]), "frame_level_caption[1].instance_level: got a list; allowed: one object"),
        (frame(instance_level={"one": "x"}), "frame_level_caption[1].instance_level.one: is no number of a thing; allowed: a whole number"),
        (frame(instance_level={"1": 3}), "frame_level_caption[1].instance_level.1: got the number 3; allowed: text, or null"),
        (frame(image_level=[]), "frame_level_caption[1].image_level: got a list; allowed: text, or null"),
        (frame(temporal_change=True), "frame_level_caption[1].temporal_change: got the truth value true; allowed: text, or null"),
        (video(video_level_caption=["x"]), "video_level_caption: got a list; allowed: text, or null"),
        (video(question_answer_pairs=None), "question_answer_pairs: missing; allowed: a list of objects"),
        (video(question_answer_pairs=[{"question": "Who?"}]), "question_answer_pairs[0].answer: missing; allowed: a string"),
        (video(question_answer_pairs=[{"question": "", "answer": "x"}]), 'question_answer_pairs[0].question: got the string ""; allowed:'),
        (image(instance_level_caption="x"), 'instance_level_caption: got the string "x"; allowed: one object'),
        (image(image_level_caption=1), "image_level_caption: got the number 1; allowed: text, or null"),
        (video(fps=-1), "fps: got the number -1; allowed: frames a second, a positive number"),
    ],
)
def test_malformed_rows_name_file_record_field_and_what_is_allowed(root: Path, entry: Any, message: str) -> None:
    with pytest.raises(RecordError, match="^" + re.escape(f"train.json: record 1: {message}")) as caught:
        load(root, [video(), entry])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (video(video_path="videos/8"), "video_path: 'videos/8' is no file or folder under"),
        (video(video_path="videos"), "video_path: '.*videos' is a folder without frames"),
        (video(video_path="/"), "video_path: '/' leaves the media root"),
        (image(image_path="8.png"), "image_path: '8.png' is no file under"),
        (image(image_path="videos"), "image_path: 'videos' is no file under"),
    ],
)
def test_media_must_be_there(root: Path, entry: dict[str, Any], reason: str) -> None:
    with pytest.raises(MediaError, match="^" + ".*".join(map(re.escape, f"train.json: record 1: {reason}".split(".*")))):
        load(root, [video(), entry])


def test_rows_are_read_as_they_are_drawn(root: Path) -> None:
    path = root / "train.json"
    path.write_text("[" + ",".join([json.dumps(video())] * 20_000) + ", broken")
    tracemalloc.start()
    try:
        drawn = [record.id for record in read("instit_dataset", path, limit=11)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert drawn[-2:] == ["train-1-frame-1-1", "train-1-frame-1-2"]
    assert peak < path.stat().st_size / 8
