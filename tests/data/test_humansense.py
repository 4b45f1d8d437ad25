from __future__ import annotations

import copy
import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from clip_files import tone, write_clip, write_wav
from omnistage.data.errors import InputError, MediaError, RecordError
from omnistage.data.formats import READERS, humansense, read
from omnistage.data.media import MediaLimits, decode, streams
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record

NUMBER = "Question and answer (Arabic numerals)"
SINGLE = "Multiple-choice question (select one answer choice)"
MULTI = "Multiple-choice question (select one or more answer choices)"
YES_NO = "Judgment question (Yes or No)"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with `videos/a.mp4` (picture only, 2 s) and `audios/a.wav`."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "audios").mkdir()
    write_clip(tmp_path / "videos" / "a.mp4", 4, 2)
    write_wav(tmp_path / "audios" / "a.wav", [tone(1.0)])
    return tmp_path


def row(pattern: str = SINGLE, answer: Any = "A", options: Any = ("A.red", "B.blue", "C.green"), **questions: Any) -> dict[str, Any]:
    fields = {"task_type": "Colour", "question_pattern": pattern, "question": "Which?", "options": options, "answer": answer}
    return {"video_path": "videos/a.mp4", "questions": fields | questions}


def load(root: Path, content: Any, **arguments: Any) -> list[Record]:
    path = root / "train.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return list(read("humansense", path, **arguments))


def one(root: Path, entry: dict[str, Any], **arguments: Any) -> Record:
    (record,) = load(root, [entry], **arguments)
    return record


def test_a_row_becomes_a_record(root: Path) -> None:
    entry = row(answer="B", asr_en="hello", fps=25, full_frame_number=50, note={"x": 1}, response="<think>t</think><answer>B</answer>")
    path = str((root / "videos" / "a.mp4").resolve())
    assert one(root, entry) == Record(
        id="train-0",
        modality=Modality.VIDEO,
        task="Colour",
        kind=AnswerKind.SINGLE_CHOICE,
        question="Which?",
        target="B",
        media=(MediaRef("video", path),),
        options=("red", "blue", "green"),
        response="<think>t</think><answer>B</answer>",
        source="train.json: record 0",
        extra={"asr_en": "hello", "fps": 25, "full_frame_number": 50, "note": {"x": 1}},
    )


@pytest.mark.parametrize(
    ("pattern", "answer", "kind", "target"),
    [
        (SINGLE, "C", AnswerKind.SINGLE_CHOICE, "C"),
        (SINGLE, "c", AnswerKind.SINGLE_CHOICE, "C"),
        (SINGLE, "C. green", AnswerKind.SINGLE_CHOICE, "C"),
        (SINGLE, "(c) Green", AnswerKind.SINGLE_CHOICE, "C"),
        (SINGLE, "Blue", AnswerKind.SINGLE_CHOICE, "B"),
        (MULTI, "A,C", AnswerKind.MULTI_SELECT, "A,C"),
        (MULTI, "CA", AnswerKind.MULTI_SELECT, "A,C"),
        (MULTI, "c. a\uff0cB", AnswerKind.MULTI_SELECT, "A,B,C"),
        (MULTI, "B ", AnswerKind.MULTI_SELECT, "B"),
        (NUMBER, "10", AnswerKind.NUMBER, "10"),
        (NUMBER, 4, AnswerKind.NUMBER, "4"),
        (NUMBER, "007", AnswerKind.NUMBER, "7"),
        (NUMBER, "2.50", AnswerKind.NUMBER, "2.5"),
        (NUMBER, "10.0", AnswerKind.NUMBER, "10"),
        (NUMBER, "-0", AnswerKind.NUMBER, "0"),
        (NUMBER, "-3.", AnswerKind.NUMBER, "-3"),
        (NUMBER, "1,234", AnswerKind.NUMBER, "1234"),
        (YES_NO, "Yes", AnswerKind.YES_NO, "yes"),
        (YES_NO, "NO.", AnswerKind.YES_NO, "no"),
    ],
)
def test_answers_get_their_normal_form(root: Path, pattern: str, answer: Any, kind: AnswerKind, target: str) -> None:
    record = one(root, row(pattern, answer))
    assert (record.kind, record.target) == (kind, target)
    assert record.options == (("red", "blue", "green") if pattern in (SINGLE, MULTI) else ())


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["A.son", "B.daughter"], ("son", "daughter")),
        (["A. son", "B. daughter"], ("son", "daughter")),
        (["A) son", "(B) daughter"], ("son", "daughter")),
        (["A\uff0eson", "B\u3001daughter"], ("son", "daughter")),
        (["son", "daughter"], ("son", "daughter")),
        (["U.S. citizen", "E.U. citizen"], ("U.S. citizen", "E.U. citizen")),
        ([f"{letter}. {letter * 2}" for letter in "ABCDEFGHIJ"], tuple(letter * 2 for letter in "ABCDEFGHIJ")),
        ([f"{letter}) {letter * 2}" for letter in "ABCDEFGHIJKL"], tuple(letter * 2 for letter in "ABCDEFGHIJKL")),
        (["a. son", "b. daughter"], ("son", "daughter")),
    ],
)
def test_letters_are_stripped_from_options(root: Path, options: list[str], texts: tuple[str, ...]) -> None:
    assert one(root, row(options=options)).options == texts


@pytest.mark.parametrize(
    ("path", "task", "given", "modality"),
    [
        ("videos/a.mp4", "Colour", None, Modality.VIDEO),
        ("videos/a.mp4", "Relation_Recognition", None, Modality.VIDEO),
        ("videos/a.mp4", "Psychological_Chat", None, Modality.VIDEO),
        ("videos/heard.mp4", "Colour", None, Modality.VIDEO),
        ("videos/heard.mp4", "Relation_Recognition", None, Modality.AUDIO_VIDEO),
        ("videos/heard.mp4", "Psychological_Chat", None, Modality.AUDIO),
        ("audios/a.wav", "Colour", None, Modality.AUDIO),
        ("audios/sound.mp4", "Relation_Recognition", None, Modality.AUDIO),
        ("videos/a.mp4", "Psychological_Chat", Modality.AUDIO_VIDEO, Modality.AUDIO_VIDEO),
        ("videos/a.mp4", "Relation_Recognition", Modality.VIDEO, Modality.VIDEO),
        ("videos/a.mp4", "Colour", Modality.TEXT, Modality.TEXT),
    ],
)
def test_modality_from_argument_then_file_then_task(root: Path, path: str, task: str, given: Modality | None, modality: Modality) -> None:
    """A clip with picture and sound does not tell which the question is about; only then the task's name does."""
    write_clip(root / "videos" / "heard.mp4", 4, 2, sound_s=1.0)
    (root / "audios" / "sound.mp4").write_bytes((root / "audios" / "a.wav").read_bytes())
    record = one(root, row(task_type=task) | {"video_path": path}, modality=given)
    full = str((root / path).resolve())
    media = {
        Modality.TEXT: (),
        Modality.VIDEO: (MediaRef("video", full),),
        Modality.AUDIO: (MediaRef("audio", full),),
        Modality.AUDIO_VIDEO: (MediaRef("video", full, sound=full),),
    }
    assert (record.modality, record.media) == (modality, media[modality])


def test_records_decode(root: Path) -> None:
    clip = decode(one(root, row()).media[0], MediaLimits())
    assert clip.frames is not None
    assert (clip.frames.shape, clip.fps) == ((4, 48, 64, 3), 2.0)


def test_ids_are_kept_or_made(root: Path) -> None:
    assert [record.id for record in load(root, [row(), row() | {"id": "x"}, row() | {"id": 7}])] == ["train-0", "x", "7"]


@pytest.mark.parametrize("twice", [[row() | {"id": "x"}, row() | {"id": "x"}], [row() | {"id": "train-1"}, row()]])
def test_ids_must_differ(root: Path, twice: list[Any]) -> None:
    with pytest.raises(RecordError, match=r"^train\.json: record 1: id: '.*' is the id of record 0 too"):
        load(root, twice)


def test_media_root_and_limit(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("annotations")
    path = elsewhere / "train.json"
    path.write_text(json.dumps([row(), row(), "broken"]))
    assert [record.id for record in read("humansense", path, media_root=root, limit=2)] == ["train-0", "train-1"]
    with pytest.raises(MediaError, match=r"train\.json: record 0: video_path: 'videos/a\.mp4' is no file under"):
        list(read("humansense", path))


def changed(entry: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The row with fields of `questions` replaced, or left out where the value is `...`."""
    entry = copy.deepcopy(entry)
    entry["questions"] = {name: value for name, value in (entry["questions"] | fields).items() if value is not ...}
    return entry


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("text", 'it is the string "text"; allowed: an object with video_path and questions'),
        (None, "it is null; allowed: an object"),
        ({"questions": row()["questions"]}, "video_path: missing; allowed: the path of a clip"),
        (row() | {"video_path": 3}, "video_path: got the number 3; allowed: the path of a clip"),
        ({"video_path": "videos/a.mp4"}, "questions: missing; allowed: one object"),
        (row() | {"questions": [row()["questions"]]}, "questions: got a list; allowed: one object"),
        (row() | {"id": []}, "id: got a list; allowed: a string or a whole number"),
        (changed(row(), task_type=...), "questions.task_type: missing"),
        (changed(row(), question=" "), 'questions.question: got the string " "; allowed: a string that is not empty'),
        (changed(row(), question_pattern=...), f"questions.question_pattern: missing; allowed: {NUMBER} | {SINGLE}"),
        (
            changed(row(), question_pattern="Judgement question (Yes or No)"),
            f"questions.question_pattern: unknown question pattern .*did you mean '{YES_NO}'",
        ),
        (row(options=None), "questions.options: missing; allowed: a list of 2 to 26 strings"),
        (row(options="A.red B.blue"), "questions.options: got the string .*; allowed: a list of 2 to 26 strings"),
        (row(options=["A.red"]), "questions.options: got 1; allowed: a list of 2 to 26 strings"),
        (row(options=[str(i) for i in range(27)]), "questions.options: got 27; allowed: a list of 2 to 26 strings"),
        (row(options=["A.red", 2]), "questions.options[1]: got the number 2; allowed: a string that is not empty"),
        (row(options=["A.red", "B."]), "questions.options[1]: has a letter and no text"),
        (row(options=["A.red", "C.blue"]), "questions.options[1]: got the string \"C.blue\"; allowed: the letter 'B' first, or no letters"),
        (row(options=["B.red", "A.blue"]), "questions.options[0]: got the string \"B.red\"; allowed: the letter 'A' first, or no letters"),
        (row(options=["A.red", "blue"]), "questions.options[1]: got the string \"blue\"; allowed: the letter 'B' first, or no letters"),
        (changed(row(), answer=...), "questions.answer: missing; allowed: one letter of A to C"),
        (row(answer="D"), 'questions.answer: got the string "D"; allowed: one letter of A to C, or the text of one option'),
        (row(answer="A,C"), 'questions.answer: got the string "A,C"; allowed: one letter of A to C'),
        (row(answer=["A"]), "questions.answer: got a list; allowed: one letter of A to C"),
        (row(answer="yellow"), 'questions.answer: got the string "yellow"; allowed: one letter of A to C'),
        (row(MULTI, "A,D"), "questions.answer: got the string \"A,D\"; allowed: letters of A to C, such as 'A,C'"),
        (row(MULTI, ","), "questions.answer: got the string \",\"; allowed: letters of A to C, such as 'A,C'"),
        (row(NUMBER, "three"), "questions.answer: got the string \"three\"; allowed: a number in digits, such as '10' or '2.5'"),
        (row(NUMBER, "3 people"), 'questions.answer: got the string "3 people"; allowed: a number in digits'),
        (row(NUMBER, "9" * 400), "questions.answer: got the string .*; allowed: a number in digits"),
        (row(NUMBER, "\u0663"), "questions.answer: got the string .*; allowed: a number in digits"),
        (row(YES_NO, "maybe"), 'questions.answer: got the string "maybe"; allowed: yes or no'),
        (row(YES_NO, True), "questions.answer: got the truth value true; allowed: yes or no"),
        (row(response=""), 'questions.response: got the string ""; allowed: a string that is not empty'),
    ],
)
def test_malformed_rows_name_file_record_field_and_what_is_allowed(root: Path, entry: Any, message: str) -> None:
    pattern = "^" + r"train\.json: record 1: " + ".*".join(map(re.escape, message.split(".*")))
    with pytest.raises(RecordError, match=pattern) as caught:
        load(root, [row(), entry])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("videos/gone.mp4", "'videos/gone.mp4' is no file under"),
        ("videos", "'videos' is no file under"),
        ("../a.mp4", "'../a.mp4' leaves the media root"),
        ("/a.mp4", "'/a.mp4' leaves the media root"),
        ("train.json", "cannot be read as a clip"),
        ("empty.mp4", "cannot be read as a clip"),
    ],
)
def test_media_must_be_there_and_readable(root: Path, path: str, reason: str) -> None:
    (root / "empty.mp4").touch()
    with pytest.raises(MediaError, match=rf"^train\.json: record 1: video_path: .*{reason}"):
        load(root, [row(), row() | {"video_path": path}])


def test_a_clip_without_picture_and_sound_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(humansense, "streams", lambda path: (False, False))
    with pytest.raises(MediaError, match=r"^train\.json: record 0: video_path: .* has neither a picture nor a sound stream$"):
        load(root, [row()])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "the top level is an object; allowed: one JSON list of objects in UTF-8"),
        ('{"a":\n 1}', "the top level is an object; allowed: one JSON list of objects in UTF-8"),
        ('\n{"a": 1}\n{"a": 2}', "the file holds one object a line; allowed: one JSON list of objects in UTF-8"),
        ("null", "the file begins with 'n', not with '['; allowed: one JSON list of objects in UTF-8"),
        (" \n", "the file is empty; allowed: one JSON list of objects in UTF-8"),
        ("[ROW,", "from record 1 on: parse error: premature EOF; allowed: one JSON list of objects in UTF-8"),
        ("[ROW ROW]", "from record 1 on: parse error: after array element, I expect ',' or ']', near '.*'; allowed: one JSON list"),
        ("[ROW] [ROW]", "from record 1 on: parse error: trailing garbage, near '.*'; allowed: one JSON list"),
        ("[ROW, ROW, NaN]", "from record 2 on: lexical error: invalid char in json text, near '.*NaN]'; allowed: one JSON list"),
    ],
)
def test_the_file_must_be_one_json_list(root: Path, content: str, message: str) -> None:
    pattern = ".*".join(map(re.escape, f"train.json: {message}".split(".*")))
    with pytest.raises(RecordError, match=f"^{pattern}") as caught:
        load(root, content.replace("ROW", json.dumps(row())))
    assert "\n" not in str(caught.value)


def test_the_file_must_be_utf8(root: Path) -> None:
    (root / "latin.json").write_bytes(b'["\xe9"]')
    with pytest.raises(RecordError, match=r"^latin\.json: from record 0 on: .*UTF8.*; allowed: one JSON list of objects in UTF-8$"):
        list(read("humansense", root / "latin.json"))


def test_a_byte_order_mark_is_no_error(root: Path) -> None:
    (root / "marked.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([row()]).encode())
    assert [record.id for record in read("humansense", root / "marked.json")] == ["marked-0"]


def test_rows_are_read_as_they_are_drawn(root: Path) -> None:
    path = root / "train.json"
    path.write_text("[" + ",".join([json.dumps(row())] * 20_000) + ", broken")
    tracemalloc.start()
    try:
        drawn = [record.id for record in read("humansense", path, limit=3)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert drawn == ["train-0", "train-1", "train-2"]
    assert peak < path.stat().st_size / 8


def test_a_clip_is_opened_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(root / "videos" / "b.mp4", 4, 2)
    opened: list[str] = []

    def probe(path: str) -> tuple[bool, bool]:
        opened.append(Path(path).name)
        return streams(path)

    monkeypatch.setattr(humansense, "streams", probe)
    load(root, [row(), row() | {"video_path": "videos/b.mp4"}, row(), row(), row() | {"video_path": "videos/b.mp4"}])
    assert opened == ["a.mp4", "b.mp4"]


def test_a_benchmark_row_keeps_the_answers_of_models(root: Path) -> None:
    entry = row(answer="B", full_frame_number=50, fps=25, asr_en="hello", some_model="B. blue")
    record = one(root, entry)
    assert (record.target, record.response) == ("B", None)
    assert record.extra == {"full_frame_number": 50, "fps": 25, "asr_en": "hello", "some_model": "B. blue"}


def test_registry_refuses_before_anything_is_read(root: Path) -> None:
    (root / "train.json").write_text("[]")
    assert "humansense" in READERS
    assert list(read("humansense", root / "train.json")) == []
    with pytest.raises(InputError, match=r"unknown format 'humansens'; did you mean 'humansense'\?"):
        read("humansens", root / "train.json")
    with pytest.raises(InputError, match=r"annotation file '.*gone\.json' does not exist"):
        read("humansense", root / "gone.json")
    with pytest.raises(InputError, match=r"media root '.*gone' does not exist"):
        read("humansense", root / "train.json", media_root=root / "gone")
    with pytest.raises(InputError, match="limit must not be negative, got -1"):
        read("humansense", root / "train.json", limit=-1)
