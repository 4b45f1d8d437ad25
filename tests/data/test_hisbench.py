from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clip_files import write_clip
from omnistage.data.checks import rows
from omnistage.data.errors import MediaError, RecordError
from omnistage.data.formats import read
from omnistage.data.media import MediaLimits, decode
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record

CLIPS = (
    "PROX/motions/MPH11_00034_01/video_render.mp4",
    "PROX/motions/MPH11_00034_01/video_rgb.mp4",
    "GIMO/motions/room/walk/video_rgb.mp4",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("his")
    for name in (*CLIPS, "motions/000123/video_render.mp4", "000124.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_clip(root / name, frames=4, fps=2)
    return root


def qa(*turns: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"question": question, "answer": answer} for question, answer in turns]


def row(**fields: Any) -> dict[str, Any]:
    """A row for models that see a rendering; a field that is `...` is left out."""
    whole = {
        "task": "dialogue",
        "source": "PROX",
        "scene": "MPH11",
        "motion": "MPH11_00034_01",
        "start": 12.0,
        "end": 16,
        "qa": qa(("Where is she?", "On the sofa."), ("And then?", "She stands up.")),
    } | fields
    return {name: value for name, value in whole.items() if value is not ...}


def native(**fields: Any) -> dict[str, Any]:
    one = qa(("What is it?", "A chair."))
    return {"task": "hoi-object", "data_id": "d1", "scene_id": "scene0001", "motion_id": "000123", "qa": one} | fields


def load(root: Path, content: Any, **arguments: Any) -> list[Record]:
    path = root / "dialogue.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return list(read("hisbench", path, **arguments))


def test_each_turn_becomes_a_record_that_knows_the_turns_before_it(root: Path) -> None:
    media = (MediaRef("video", str((root / CLIPS[0]).resolve())),)
    extra = {"source": "PROX", "scene": "MPH11", "motion": "MPH11_00034_01", "start": 12.0, "end": 16}
    shared: dict[str, Any] = {"modality": Modality.VIDEO, "task": "dialogue", "kind": AnswerKind.OPEN, "media": media}
    shared |= {"source": "dialogue.json: record 0"}
    first, second = load(root, [row()])
    assert first == Record("dialogue-0-0", question="Where is she?", target="On the sofa.", extra=extra | {"turn": 0}, **shared)
    assert second == Record(
        "dialogue-0-1",
        question="And then?",
        target="She stands up.",
        history=(("Where is she?", "On the sofa."),),
        extra=extra | {"turn": 1},
        **shared,
    )
    frames = decode(first.media[0], MediaLimits()).frames
    assert frames is not None
    assert len(frames) == 4


def test_the_rgb_clip_where_there_is_no_rendering(root: Path) -> None:
    (record,) = load(root, [row(source="GIMO", motion="room/walk", start=None, end=..., qa=qa(("?", "!")))])
    assert record.media == (MediaRef("video", str((root / CLIPS[2]).resolve())),)
    assert record.extra["start"] is None


@pytest.mark.parametrize(("motion", "clip"), [("000123", "motions/000123/video_render.mp4"), ("000124", "000124.mp4")])
def test_a_native_row_has_the_clip_that_lies_where_it_must(root: Path, motion: str, clip: str) -> None:
    (record,) = load(root, [native(motion_id=motion, obj_id=3)])
    assert record == Record(
        id="dialogue-0-0",
        modality=Modality.VIDEO,
        task="hoi-object",
        kind=AnswerKind.OPEN,
        question="What is it?",
        target="A chair.",
        media=(MediaRef("video", str((root / clip).resolve())),),
        source="dialogue.json: record 0",
        extra={"data_id": "d1", "scene_id": "scene0001", "motion_id": motion, "obj_id": 3, "turn": 0},
    )


def test_text_leaves_the_clip_out_only_when_it_is_asked_for(root: Path) -> None:
    (record,) = load(root, [native(motion_id="none")], modality=Modality.TEXT)
    assert (record.modality, record.media) == (Modality.TEXT, ())


@pytest.mark.parametrize("modality", [Modality.AUDIO, Modality.AUDIO_VIDEO, Modality.IMAGE])
def test_the_clips_have_no_sound(root: Path, modality: Modality) -> None:
    with pytest.raises(RecordError, match=r"^dialogue\.json: modality .* is asked for; allowed: video, text"):
        load(root, [row()], modality=modality)


def test_a_folder_of_tasks(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "output"
    folder.mkdir()
    (folder / "b.json").write_text(json.dumps([native()]))
    (folder / "a.json").write_text(json.dumps([row()]))
    records = list(read("hisbench", folder, media_root=root))
    assert [record.id for record in records] == ["a-0-0", "a-0-1", "b-0-0"]
    assert [record.source for record in records] == ["a.json: record 0", "a.json: record 0", "b.json: record 0"]
    assert len(list(read("hisbench", folder, media_root=root, limit=1))) == 1


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match=r"^empty: the folder holds no \.json file; allowed: one JSON list for each task$"):
        list(read("hisbench", tmp_path / "empty"))


def test_behind_a_bad_row_and_a_broken_file_the_others_are_read(root: Path, tmp_path: Path) -> None:
    """A row that is no object costs itself; a file that breaks off costs what stands behind, and not the next file."""
    folder = tmp_path / "output"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps([native(), 3, native(), native(motion_id="gone"), native()]))
    whole = rows.read("hisbench", str(folder), media_root=str(root))
    assert [record.id for record in whole.records] == ["a-0-0", "a-2-0", "a-4-0"]
    assert [(str(row.place), row.code) for row in whole.refused] == [
        ("a.json: record 1", "unreadable_row"),
        ("a.json: record 3", "missing"),
    ]
    assert whole.whole
    (folder / "b.json").write_text(json.dumps([native(), native()])[:-20])
    (folder / "c.json").write_text(json.dumps([3, native()]))
    broken = rows.read("hisbench", str(folder), media_root=str(root))
    assert [record.id for record in broken.records] == ["a-0-0", "a-2-0", "a-4-0", "b-0-0", "c-1-0"]
    assert [str(row.place) for row in broken.refused[2:]] == ["None", "c.json: record 0"]
    assert broken.refused[2].message.startswith("b.json: from record 1 on: ")
    assert not broken.whole


def test_rows_are_read_one_at_a_time(root: Path) -> None:
    path = root / "dialogue.json"
    path.write_text(json.dumps([native()])[:-1] + ", broken")
    assert [record.id for record in read("hisbench", path, limit=1)] == ["dialogue-0-0"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("text", 'it is the string "text"; allowed: an object with task, qa'),
        (row(task=...), "task: missing; allowed: a string that is not empty"),
        (row(task=3), "task: got the number 3; allowed: a string"),
        (row(motion=...), "motion: missing; allowed: a string; in the native layout motion_id"),
        (row(source=...), "source: missing; allowed: a string that is not empty"),
        (row(source=["PROX"]), "source: got a list; allowed: a string"),
        (row(start="12"), 'start: got the string "12"; allowed: a number that is not negative, or null'),
        (row(start=True), "start: got the truth value true; allowed: a number"),
        (row(start=-1), "start: got the number -1; allowed: a number that is not negative"),
        (row(end=12), "end: got 12, and start is 12.0; allowed: a number above start"),
        (row(qa=...), "qa: missing; allowed: a list of objects with question and answer"),
        (row(qa=[]), "qa: got an empty list; allowed: a list of objects with question and answer"),
        (row(qa={"question": "a", "answer": "b"}), "qa: got an object; allowed: a list"),
        (row(qa=["a"]), 'qa[0]: got the string "a"; allowed: an object with question and answer'),
        (row(qa=qa(("", "b"))), 'qa[0].question: got the string ""; allowed: a string that is not empty'),
        (row(qa=[*qa(("a", "b")), {"question": "c"}]), "qa[1].answer: missing; allowed: a string"),
        (native(motion_id=7), "motion_id: got the number 7; allowed: a string"),
    ],
)
def test_malformed_rows_name_file_record_field_and_what_is_allowed(root: Path, entry: Any, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        load(root, [native(), entry])
    assert str(caught.value).startswith(f"dialogue.json: record 1: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            native(motion_id="gone"),
            "motion_id: 'gone' has no clip (the native layout names no clip); allowed: one of motions/gone/video_render",
        ),
        (
            row(motion="gone"),
            "motion: 'gone' has no clip (the rendering of the motion); allowed: one of PROX/motions/gone/video_render.mp4",
        ),
        (row(source="../.."), "motion: '../../motions/MPH11_00034_01/video_render.mp4' leaves the media root"),
        (native(motion_id="/x"), "motion_id: '/x.mp4' leaves the media root"),
    ],
)
def test_a_clip_must_lie_under_the_root(root: Path, entry: Any, message: str) -> None:
    with pytest.raises(MediaError) as caught:
        load(root, [native(), entry])
    assert str(caught.value).startswith(f"dialogue.json: record 1: {message}")
    assert "\n" not in str(caught.value)
