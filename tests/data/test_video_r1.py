from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clip_files import tone, write_clip, write_image, write_wav
from omnistage.data.errors import MediaError, RecordError
from omnistage.data.formats import read
from omnistage.data.formats.video_r1 import KINDS
from omnistage.data.media import MediaLimits, decode
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("video_r1")
    write_clip(root / "a.mp4", frames=4, fps=2, sound_s=1.0)
    write_image(root / "a.png")
    write_wav(root / "a.wav", [tone(0.5)])
    return root


def row(problem_type: Any = "multiple choice", answer: str = "B", **fields: Any) -> dict[str, Any]:
    """A published row; a field that is `...` is left out."""
    options = ["A. She waves.", "B. She leaves."] if problem_type in ("multiple choice", "emer_ov_mc") else []
    whole = {
        "problem": "What next?",
        "data_type": "video",
        "path": "a.mp4",
        "problem_type": problem_type,
        "options": options,
        "solution": f"<answer>{answer}</answer>",
    } | fields
    return {name: value for name, value in whole.items() if value is not ...}


def load(root: Path, rows: list[Any], **arguments: Any) -> list[Record]:
    path = root / "train.json"
    path.write_text(json.dumps(rows))
    return list(read("video_r1", path, **arguments))


def test_a_row_becomes_a_record(root: Path) -> None:
    (record,) = load(root, [row(problem_id=7, data_source="STAR")])
    assert record == Record(
        id="7",
        modality=Modality.VIDEO,
        task="multiple choice",
        kind=AnswerKind.SINGLE_CHOICE,
        question="What next?",
        target="B",
        media=(MediaRef("video", str((root / "a.mp4").resolve())),),
        options=("She waves.", "She leaves."),
        source="train.json: record 0",
        extra={"data_source": "STAR"},
    )


@pytest.mark.parametrize(
    ("problem_type", "answer", "kind", "target"),
    [
        ("multiple choice", "b", AnswerKind.SINGLE_CHOICE, "B"),
        ("multiple choice", "B. She leaves.", AnswerKind.SINGLE_CHOICE, "B"),
        ("multiple choice", "she waves.", AnswerKind.SINGLE_CHOICE, "A"),
        ("emer_ov_mc", "B,A", AnswerKind.MULTI_SELECT, "A,B"),
        ("emer_ov_mc", "A", AnswerKind.MULTI_SELECT, "A"),
        ("numerical", "42", AnswerKind.NUMBER, "42"),
        ("numerical", "1,234.50", AnswerKind.NUMBER, "1234.5"),
        ("regression", "-3.14", AnswerKind.SCALAR, "-3.14"),
        ("judge", "Yes", AnswerKind.YES_NO, "yes"),
        ("free-form", " a small cat ", AnswerKind.OPEN, "a small cat"),
        ("OCR", "STOP", AnswerKind.OPEN, "STOP"),
        ("emer_ov", "sad, angry", AnswerKind.OPEN, "sad, angry"),
    ],
)
def test_each_problem_type_has_its_kind(root: Path, problem_type: str, answer: str, kind: AnswerKind, target: str) -> None:
    (record,) = load(root, [row(problem_type, answer)])
    assert (record.kind, record.target, record.task) == (kind, target, problem_type)
    assert record.values == ((float(target),) if kind is AnswerKind.SCALAR else ())


def test_every_problem_type_is_described() -> None:
    from omnistage.data.formats import video_r1

    assert video_r1.__doc__ is not None
    assert all(name in video_r1.__doc__ and kind in video_r1.__doc__ for name, kind in KINDS.items())


@pytest.mark.parametrize(
    ("fields", "response"),
    [
        ({}, None),
        ({"process": "<think>t</think>"}, "<think>t</think>\n<answer>B</answer>"),
        ({"process": ""}, None),
        (
            {"solution": "<context>c</context><think>t</think><answer>B</answer>"},
            "<context>c</context><think>t</think><answer>B</answer>",
        ),
        ({"solution": "B"}, None),
        (
            {"solution": "<answer>A</answer> or <think>t</think><answer>\nB </answer></answer>"},
            "<answer>A</answer> or <think>t</think><answer>\nB </answer></answer>",
        ),
    ],
)
def test_a_solution_that_reasons_is_a_demonstration(root: Path, fields: dict[str, Any], response: str | None) -> None:
    (record,) = load(root, [row(**fields)])
    assert (record.response, record.target) == (response, "B")


@pytest.mark.parametrize(
    ("fields", "given", "modality", "media"),
    [
        ({}, None, Modality.VIDEO, [("video", "a.mp4", None)]),
        ({}, Modality.AUDIO_VIDEO, Modality.AUDIO_VIDEO, [("video", "a.mp4", "a.mp4")]),
        ({}, Modality.AUDIO, Modality.AUDIO, [("audio", "a.mp4", None)]),
        ({}, Modality.TEXT, Modality.TEXT, []),
        ({"path": ..., "video": "a.mp4"}, None, Modality.VIDEO, [("video", "a.mp4", None)]),
        ({"data_type": "image", "path": "a.png"}, None, Modality.IMAGE, [("image", "a.png", None)]),
        ({"data_type": "audio", "path": "a.wav"}, None, Modality.AUDIO, [("audio", "a.wav", None)]),
        (
            {"path": {"image": "a.png", "audio": "a.wav"}, "data_type": ...},
            None,
            Modality.AUDIO_VIDEO,
            [("image", "a.png", None), ("audio", "a.wav", None)],
        ),
        ({"path": {"image": "a.png", "audio": "a.wav"}}, Modality.IMAGE, Modality.IMAGE, [("image", "a.png", None)]),
        ({"path": {"video": "a.mp4", "audio": "a.wav"}}, None, Modality.AUDIO_VIDEO, [("video", "a.mp4", "a.wav")]),
        ({"path": {"video": "a.mp4", "audio": "a.wav"}}, Modality.VIDEO, Modality.VIDEO, [("video", "a.mp4", None)]),
    ],
)
def test_what_is_seen_and_heard(
    root: Path, fields: dict[str, Any], given: Modality | None, modality: Modality, media: list[tuple[Any, str, str | None]]
) -> None:
    (record,) = load(root, [row(**fields)], modality=given)
    full = root.resolve()
    expected = tuple(MediaRef(kind, f"{full}/{path}", sound=f"{full}/{sound}" if sound else None) for kind, path, sound in media)
    assert (record.modality, record.media) == (modality, expected)
    for ref in record.media:
        decode(ref, MediaLimits())


def test_one_object_a_line(root: Path) -> None:
    path = root / "train.jsonl"
    path.write_text(json.dumps(row()) + "\n\n" + json.dumps(row(id="x")) + "\nbroken")
    records = list(read("video_r1", path, limit=2))
    assert [(record.id, record.source) for record in records] == [("train-0", "train.jsonl: line 1"), ("x", "train.jsonl: line 3")]
    with pytest.raises(RecordError, match=r"^train\.jsonl: line 4: .*allowed: one JSON object a line"):
        list(read("video_r1", path))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "it is the number 3; allowed: an object with problem, problem_type, path and solution"),
        (row(problem=...), "problem: missing; allowed: a string"),
        (row(problem=["a"]), "problem: got a list; allowed: a string"),
        (row(problem_type=...), "problem_type: missing; allowed: multiple choice | "),
        (
            row(problem_type="multiple choise"),
            "problem_type: unknown problem type 'multiple choise'; did you mean 'multiple choice'? known: OCR, ",
        ),
        (row(data_type=...), "data_type: missing; allowed: video | image | audio"),
        (row(data_type="vidoe"), "data_type: unknown data type 'vidoe'; did you mean 'video'? known: audio, image, video"),
        (row(path=...), "path: missing; allowed: the path of a file, or an object with image and audio"),
        (row(path=["a.mp4"]), "path: got a list; allowed: the path of a clip"),
        (row(path={"image": "a.png"}), "path: it names image; allowed: image and audio, or video and audio"),
        (row(path={"image": "a.png", "audio": 3}), "path.audio: got the number 3; allowed: the path"),
        (row(options=...), "options: missing; allowed: a list of 2 to 26 strings"),
        (row(options=[]), "options: got 0; allowed: a list of 2 to 26 strings"),
        (row(options=["A. x", 2]), "options[1]: got the number 2; allowed: a string that is not empty"),
        (row(options=["A. x", "C. y"]), "options[1]: got the string \"C. y\"; allowed: the letter 'B' first, or no letters on any option"),
        (row(options=["A. x", "B. "]), "options[1]: has a letter and no text; allowed: a letter and a text"),
        (row(solution=...), "solution: missing; allowed: a string, or a number"),
        (row(solution=["B"]), "solution: got a list; allowed: a string, or a number"),
        (row(solution="<answer>B"), 'solution: got the string "<answer>B"; allowed: a text, or one with <answer>...</answer>'),
        (row(answer="C"), 'solution: got the string "C"; allowed: one letter of A to B, or the text of one option'),
        (row("emer_ov_mc", "A,C"), "solution: got the string \"A,C\"; allowed: letters of A to B, such as 'A,B'"),
        (row("numerical", "three"), "solution: got the string \"three\"; allowed: a number in digits, such as '10' or '2.5'"),
        (row("regression", "9" * 400), 'solution: got the string "9999'),
        (row("numerical", "9" * 400), 'solution: got the string "9999'),
        (row("regression", "nan"), "solution: got the string \"nan\"; allowed: a number in digits, such as '10' or '2.5'"),
        (row("judge", "maybe"), 'solution: got the string "maybe"; allowed: yes or no'),
        (row(process=3), "process: got the number 3; allowed: a string"),
        (row(problem_id=[1]), "problem_id: got a list; allowed: a string or a whole number"),
        (row(problem_id=1), "id: '1' is the id of record 0 too; allowed: an id of its own"),
    ],
)
def test_malformed_rows_name_file_record_field_and_what_is_allowed(root: Path, entry: Any, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        load(root, [row(problem_id=1), entry])
    assert str(caught.value).startswith(f"train.json: record 1: {message}")
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_file_of_rows(root: Path) -> None:
    with pytest.raises(RecordError, match=r"^video_r10: it is a folder; allowed: a file with a JSON list, or with one JSON object a line$"):
        list(read("video_r1", root))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "gone.mp4"}, "path: 'gone.mp4' is no file under "),
        ({"path": "../a.mp4"}, "path: '../a.mp4' leaves the media root"),
        ({"path": {"image": "a.png", "audio": "/etc/passwd"}}, "path.audio: '/etc/passwd' leaves the media root"),
    ],
)
def test_media_must_lie_under_the_root(root: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(MediaError) as caught:
        load(root, [row(**fields)])
    assert str(caught.value).startswith(f"train.json: record 0: {message}")


def test_a_modality_that_the_media_do_not_have(root: Path) -> None:
    with pytest.raises(
        RecordError, match=r"^train\.json: record 0: modality: 'video' is asked for and the row has image; allowed: image or text$"
    ):
        load(root, [row(data_type="image", path="a.png")], modality=Modality.VIDEO)
