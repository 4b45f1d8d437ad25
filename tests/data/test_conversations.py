from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip_files import tone, write_clip, write_image, write_wav
from omnistage.data.errors import InputError, MediaError, RecordError
from omnistage.data.formats import read
from omnistage.data.formats.conversations import write
from omnistage.data.media import MediaLimits, decode
from omnistage.data.prompts import render
from omnistage.data.records import LEVELS, AnswerKind, MediaRef, Modality, Record

VIDEO, IMAGE, SOUND = "clips/a.mp4", "a.png", "a.wav"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("conversations").resolve()
    (root / "clips").mkdir()
    write_clip(root / VIDEO, frames=4, fps=2, sound_s=1.0)
    write_clip(root / "b.mp4", frames=4, fps=2)
    (root / "frames").mkdir()
    write_image(root / "frames" / "1.png")
    write_image(root / IMAGE)
    write_wav(root / SOUND, [tone(0.5)])
    return root


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def user(content: Any = "Is she sad?") -> dict[str, Any]:
    return {"role": "user", "content": content}


def says(content: Any = "yes") -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def row(*messages: Any, **columns: Any) -> dict[str, Any]:
    return {"messages": list(messages) or [user(), says()]} | columns


def load(root: Path, *rows: Any, **arguments: Any) -> list[Record]:
    path = root / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read("conversations", path, **arguments))


def one(root: Path, entry: Any, **arguments: Any) -> Record:
    (record,) = load(root, entry, **arguments)
    return record


def refs(root: Path, *media: tuple[Any, str, str | None]) -> tuple[MediaRef, ...]:
    return tuple(MediaRef(kind, f"{root}/{path}", sound=f"{root}/{sound}" if sound else None) for kind, path, sound in media)


def test_messages_with_media_parts_become_a_record(root: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        user([{"type": "video", "video": VIDEO}, {"type": "audio", "audio": SOUND}, text("Who is it?")]),
        says([text("A woman.")]),
        user([text("Is she "), text("sad?")]),
        says("<think>t</think><answer>Yes</answer>"),
    ]
    record = one(root, row(*messages, kind="yes_no", task="emotion", id=3, age=[40]))
    assert record == Record(
        id="3",
        modality=Modality.AUDIO_VIDEO,
        task="emotion",
        kind=AnswerKind.YES_NO,
        question="Is she sad?",
        target="yes",
        media=refs(root, ("video", VIDEO, None), ("audio", SOUND, None)),
        history=(("Who is it?", "A woman."),),
        response="<think>t</think><answer>Yes</answer>",
        source="train.jsonl: line 1",
        extra={"system": "Be brief.", "age": [40]},
    )


@pytest.mark.parametrize(
    "entry",
    [
        {"prompt": [user()], "completion": [says()]},
        {"prompt": "Is she sad?", "completion": "yes"},
        {"prompt": [user()], "completion": says()["content"]},
        {"messages": [user(), says()], "prompt": None, "images": None},
    ],
)
def test_prompt_and_completion_as_in_trl(root: Path, entry: dict[str, Any]) -> None:
    record = one(root, entry)
    expected = Record("train-0", Modality.TEXT, "conversation", AnswerKind.OPEN, "Is she sad?", "yes", response="yes")
    assert record == replace(expected, source="train.jsonl: line 1")


def test_a_prompt_with_a_solution_and_an_image_of_a_column(root: Path) -> None:
    entry = {
        "prompt": [user([{"type": "image"}, text("What?")])],
        "image": IMAGE,
        "solution": "<answer>B</answer>",
        "options": ["cat", "dog"],
    }
    record = one(root, entry)
    assert (record.modality, record.media) == (Modality.IMAGE, refs(root, ("image", IMAGE, None)))
    assert (record.kind, record.target, record.options, record.response) == (AnswerKind.SINGLE_CHOICE, "B", ("cat", "dog"), None)


@pytest.mark.parametrize(
    ("content", "columns", "question", "media"),
    [
        ("<video>Is she sad?", {"videos": VIDEO}, "Is she sad?", [("video", VIDEO, None)]),
        ("<video>\nIs she sad?", {"videos": [VIDEO]}, "Is she sad?", [("video", VIDEO, None)]),
        ("Is she sad?", {"videos": [VIDEO]}, "Is she sad?", [("video", VIDEO, None)]),
        ("<audio>What?", {"audios": [SOUND]}, "What?", [("audio", SOUND, None)]),
        ("<image><image>Same?", {"images": [IMAGE, IMAGE]}, "Same?", [("image", IMAGE, None)] * 2),
        (
            "A <video> and <image>?",
            {"images": [IMAGE], "videos": ["b.mp4"]},
            "A  and ?",
            [("video", "b.mp4", None), ("image", IMAGE, None)],
        ),
        ("<audio>?", {"audios": [SOUND], "videos": VIDEO}, "?", [("video", VIDEO, None), ("audio", SOUND, None)]),
        ("What?", {"videos": ["frames"]}, "What?", [("video", "frames", None)]),
        ("<video>?", {"videos": VIDEO, "sound": True}, "?", [("video", VIDEO, VIDEO)]),
        ("<video>?", {"videos": VIDEO, "sound": SOUND}, "?", [("video", VIDEO, SOUND)]),
        ("<video>?", {"videos": VIDEO, "modality": "audio_video"}, "?", [("video", VIDEO, VIDEO)]),
        ("<video>?", {"videos": VIDEO, "modality": "audio_video", "sound": False}, "?", [("video", VIDEO, None)]),
        ("<video>?", {"videos": VIDEO, "audios": SOUND, "modality": "audio_video"}, "?", [("audio", SOUND, None), ("video", VIDEO, None)]),
    ],
)
def test_rows_of_ms_swift(root: Path, content: str, columns: dict[str, Any], question: str, media: list[Any]) -> None:
    record = one(root, row(user(content), says(), **columns))
    assert (record.question, record.media, record.extra) == (question, refs(root, *media), {})


@pytest.mark.parametrize(
    ("part", "sound"),
    [({}, None), ({"sound": None}, None), ({"sound": False}, None), ({"sound": True}, VIDEO), ({"sound": SOUND}, SOUND)],
)
def test_a_video_part_says_what_is_heard(root: Path, part: dict[str, Any], sound: str | None) -> None:
    record = one(root, row(user([{"type": "video", "video": VIDEO} | part, text("?")]), says()))
    assert record.media == refs(root, ("video", VIDEO, sound))
    assert record.modality is (Modality.AUDIO_VIDEO if sound else Modality.VIDEO)
    assert (decode(record.media[0], MediaLimits()).sound is not None) is bool(sound)


@pytest.mark.parametrize(
    ("modality", "media"),
    [
        (Modality.TEXT, []),
        (Modality.VIDEO, [("video", VIDEO, None)]),
        (Modality.AUDIO, [("audio", SOUND, None)]),
        (Modality.AUDIO_VIDEO, [("video", VIDEO, SOUND)]),
    ],
)
def test_the_callers_modality_is_stronger(root: Path, modality: Modality, media: list[Any]) -> None:
    record = one(root, row(user([{"type": "video", "video": VIDEO, "sound": SOUND}, text("?")]), says()), modality=modality)
    assert (record.modality, record.media) == (modality, refs(root, *media))


@pytest.mark.parametrize(
    ("columns", "kind", "target", "values"),
    [
        ({}, AnswerKind.OPEN, "maybe B", ()),
        ({"target": "<answer>B</answer>"}, AnswerKind.OPEN, "<answer>B</answer>", ()),
        ({"solution": "<answer> B </answer>"}, AnswerKind.OPEN, "B", ()),
        ({"solution": "b", "options": ["A. x", "B. y"]}, AnswerKind.SINGLE_CHOICE, "B", ()),
        ({"solution": "b", "kind": "single_choice"}, AnswerKind.SINGLE_CHOICE, "B", ()),
        ({"target": "ca", "kind": "multi_select", "options": ["x", "y", "z"]}, AnswerKind.MULTI_SELECT, "A,C", ()),
        ({"target": 4, "kind": "number"}, AnswerKind.NUMBER, "4", ()),
        ({"target": 51.8686560031219, "kind": "scalar"}, AnswerKind.SCALAR, "51.8686560031219", (51.8686560031219,)),
        ({"target": "2", "kind": "scalar", "values": [2.25]}, AnswerKind.SCALAR, "2", (2.25,)),
        ({"target": "Good.", "kind": "level"}, AnswerKind.LEVEL, "good", ()),
    ],
)
def test_answers(root: Path, columns: dict[str, Any], kind: AnswerKind, target: str, values: tuple[float, ...]) -> None:
    record = one(root, row(user(), says("maybe B"), **columns))
    assert (record.kind, record.target, record.values, record.response) == (kind, target, values, "maybe B")


def test_what_is_not_used_is_kept(root: Path) -> None:
    assert one(root, row(target="a", solution="b", extra={"n": 1}, label=2)).extra == {"n": 1, "solution": "b", "label": 2}


def test_a_json_list_is_read_too(root: Path) -> None:
    path = root / "train.json"
    path.write_text(json.dumps([row(), row(id="x")]))
    records = list(read("conversations", path))
    assert [(r.id, r.source) for r in records] == [("train-0", "train.json: record 0"), ("x", "train.json: record 1")]


def test_lines_are_read_one_at_a_time(root: Path) -> None:
    path = root / "train.jsonl"
    path.write_text(json.dumps(row()) + "\n\n{broken\n")
    assert [record.id for record in read("conversations", path, limit=1)] == ["train-0"]
    with pytest.raises(RecordError, match=r"^train\.jsonl: line 3: .*; allowed: one JSON object a line in UTF-8"):
        list(read("conversations", path))


BLANK = {"type": "video", "video": VIDEO, "blank": ["sight"]}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("text", 'it is the string "text"; allowed: an object with messages, or prompt and completion'),
        ({}, "messages: missing; allowed: a list of messages, or prompt and completion"),
        (row(prompt="a"), "prompt: it stands beside messages; allowed: one of the two"),
        ({"messages": "Is she sad?"}, 'messages: got the string "Is she sad?"; allowed: a list of objects with role and content'),
        ({"messages": []}, "messages: got an empty list; allowed: a list of objects with role and content"),
        ({"prompt": 3}, "prompt: got the number 3; allowed: a list of objects with role and content, or a string"),
        (row("a"), 'messages[0]: got the string "a"; allowed: an object with role and content'),
        (row({"role": "system", "content": "a"}), "messages: holds no user message; allowed: a question"),
        (row(says()), 'messages[0].role: got the string "assistant"; allowed: user, for user and assistant take turns'),
        (row(user(), user()), 'messages[1].role: got the string "user"; allowed: assistant, for user'),
        (row({"content": "a"}), "messages[0].role: missing; allowed: user"),
        (row(user(), {"role": "tool", "content": "a"}), 'messages[1].role: got the string "tool"; allowed: assistant'),
        (row(user(None)), "messages[0].content: missing; allowed: a string, or a list of parts"),
        (row(user(3)), "messages[0].content: got the number 3; allowed: a string, or a list of parts"),
        (row(user(" ")), "messages[0].content: holds no text; allowed: a text that is not empty"),
        (
            row(user([{"type": "film"}])),
            'messages[0].content[0].type: got the string "film"; allowed: a part of type text, image, video, audio',
        ),
        (row(user(["a"])), 'messages[0].content[0]: got the string "a"; allowed: a part of type text'),
        (row(user([{"type": "text"}])), "messages[0].content[0].text: got null; allowed: a string"),
        (
            row(user([{"type": "video"}, text("a")])),
            "messages[0].content[0].video: no file is left for <video>; allowed: a path, or one file in videos",
        ),
        (row(user([{"type": "video", "video": 3}])), "messages[0].content[0].video: got the number 3; allowed: the path"),
        (
            row(user([{"type": "video", "video": VIDEO, "sound": 3}])),
            "messages[0].content[0].sound: got the number 3; allowed: a path, true, false",
        ),
        (row(user([BLANK, text("a")])), "messages[0].content[0].blank: got a list; allowed: a list of 'picture' and 'sound'"),
        (
            row(user(), says(), user([{"type": "image", "image": IMAGE}])),
            "messages[2].content[0].image: it names image media; allowed: media in the",
        ),
        (
            row(user("<video>a"), says()),
            "messages[0].content: no file is left for <video>; allowed: a path, or one file in videos for each <video>",
        ),
        (
            row(user("<video>a"), says(), videos=[VIDEO, VIDEO]),
            "videos: 1 of its files have no <video>; allowed: one for each, or none at all",
        ),
        (row(videos={"a": 1}), "videos: got an object; allowed: a path or a list of paths"),
        (row(videos=VIDEO, video=VIDEO), "video: it stands beside videos; allowed: one of the two"),
        (row(videos=[None]), "videos: missing; allowed: the path"),
        (row(videos=VIDEO, sound=3), "sound: got the number 3; allowed: a path, true, false or null"),
        (row(kind="multiple"), "kind: unknown kind 'multiple'; "),
        (row(kind=["open"]), "kind: got a list; allowed: single_choice | "),
        (row(modality="sight"), "modality: unknown modality 'sight'; "),
        (row(modality="audio", videos=VIDEO), "modality: got 'audio', and the media of the row do not fit it; allowed: video"),
        (row(user()), "target: missing; allowed: target, solution, or an assistant message behind the question"),
        (row(target=["a"]), "target: got a list; allowed: a string"),
        (row(target="C", options=["x", "y"]), 'target: got the string "C"; allowed: one letter of A to B, or the text of one option'),
        (row(solution="<answer>B", kind="open"), 'solution: got the string "<answer>B"; allowed: a text, or one with <answer>...</answer>'),
        (row(user(), says("well"), kind="yes_no"), 'messages: got the string "well"; allowed: yes or no'),
        (row(target="great", kind="level"), 'target: got the string "great"; allowed: one of bad, poor, fair, good, excellent'),
        (row(options=["x"]), "options: got 1; allowed: a list of 2 to 26 strings"),
        (row(kind="pose"), "values: got null; allowed: a list of 216 finite numbers for the kind pose"),
        (row(kind="pose", values=[0, 1]), "values: got 2; allowed: a list of 216 finite numbers for the kind pose"),
        (row(values=[10**400]), "values[0]: got the number 1000"),
        (row(values=[0, "1"]), 'values[1]: got the string "1"; allowed: a finite number'),
        (row(target="9" * 400, kind="scalar"), 'target: got the string "9999'),
        (
            row(user([{"type": "video", "video": "frames", "fps": 10**400}, text("a")])),
            "messages[0].content[0].fps: got the number 1000",
        ),
        (row(user("\ud800?"), says()), "question: it holds half a character; allowed: text in Unicode"),
        (row(task=3), "task: got the number 3; allowed: a string that is not empty"),
        (row(extra=[1]), "extra: got a list; allowed: one object"),
        (row(id=True), "id: got the truth value true; allowed: a string or a whole number"),
        (row(id="x"), "id: 'x' is the id of line 1 too; allowed: an id of its own"),
    ],
)
def test_malformed_rows_name_file_line_field_and_what_is_allowed(root: Path, entry: Any, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        load(root, row(id="x"), entry)
    assert str(caught.value).startswith(f"train.jsonl: line 2: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (row(videos="gone.mp4"), "videos: 'gone.mp4' is no file or folder under "),
        (row(user([{"type": "audio", "audio": "../a.wav"}, text("a")])), "messages[0].content[0].audio: '../a.wav' leaves the media root"),
        (row(user([{"type": "video", "video": "\ud800/a.mp4"}, text("a")])), "messages[0].content[0].video: '\\ud800/a.mp4' is no path"),
        (row(user([{"type": "video", "video": VIDEO, "sound": "gone.wav"}])), "messages[0].content[0].sound: 'gone.wav' is no file under"),
    ],
)
def test_media_must_lie_under_the_root(root: Path, entry: Any, message: str) -> None:
    with pytest.raises(MediaError) as caught:
        load(root, entry)
    assert str(caught.value).startswith(f"train.jsonl: line 1: {message}")


def test_a_modality_that_the_media_do_not_have(root: Path) -> None:
    with pytest.raises(
        RecordError, match=r"^train\.jsonl: line 1: modality: 'video' is asked for and the row has no media; allowed: text$"
    ):
        load(root, row(), modality=Modality.VIDEO)


BASE = Record("a", Modality.TEXT, "t", AnswerKind.OPEN, "Why?", "So.")


def back(root: Path, records: list[Record], media_root: Path | None = None) -> list[Record]:
    path = root / "written" / "out.jsonl"
    path.parent.mkdir(exist_ok=True)
    write(records, path, media_root=media_root or root)
    return [replace(record, source="") for record in read("conversations", path, media_root=media_root or root)]


def test_a_heard_video_survives(root: Path) -> None:
    heard, muted = refs(root, ("video", VIDEO, VIDEO), ("video", VIDEO, None))
    swapped = replace(heard, sound=f"{root}/{SOUND}")
    blank = replace(heard, blank=frozenset({"picture"}))
    media = [(heard,), (muted,), (swapped,), (blank,), (heard, *refs(root, ("image", IMAGE, None)))]
    records = [replace(BASE, id=str(i), modality=Modality.AUDIO_VIDEO, media=refs) for i, refs in enumerate(media)]
    assert back(root, records) == records
    written = [json.loads(line) for line in (root / "written" / "out.jsonl").read_text().splitlines()]
    assert written[0]["messages"][0]["content"][0] == {"type": "video", "video": VIDEO, "sound": VIDEO}


def test_a_text_of_answer_tags_takes_no_time(root: Path) -> None:
    """A pattern that looks behind each open tag for its end took 34 s for 30,000 of them."""
    began = time.perf_counter()
    with pytest.raises(RecordError, match=r"^train\.jsonl: line 1: solution: got the string .*allowed: a text, or one with <answer>"):
        load(root, row(solution="<answer>" * 300_000))
    assert one(root, row(solution="<answer>" * 300_000 + "x</answer>")).target.endswith("<answer>x")
    assert one(root, row(solution="<answer>x</answer>" * 100_000)).target == "x"
    assert time.perf_counter() - began < 10


def test_where_nothing_can_be_written_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "out.jsonl", tmp_path):
        with pytest.raises(InputError, match=r": cannot be written \((No such file or directory|Is a directory)\)$"):
            write([BASE], path)
    assert list(tmp_path.iterdir()) == []


def test_a_system_message_survives(root: Path) -> None:
    record = replace(BASE, extra={"system": "Be brief."})
    assert back(root, [record]) == [record]
    assert render(record, "short", "the recipe's")[0] == {"role": "system", "content": [text("Be brief.")]}


TEXTS = st.text(min_size=1, max_size=20).filter(str.strip)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def some_records(draw: st.DrawFn) -> Record:
    """Any record that a reader could give; media by name, to be placed under a root."""
    kind = draw(st.sampled_from(AnswerKind))
    choice = kind in (AnswerKind.SINGLE_CHOICE, AnswerKind.MULTI_SELECT)
    options = tuple(draw(st.lists(TEXTS, min_size=2, max_size=5))) if choice or draw(st.booleans()) else ()
    letters = "ABCDE"[: len(options)]
    number = draw(st.integers(-(10**6), 10**6)) / 8
    target = {
        AnswerKind.SINGLE_CHOICE: lambda: draw(st.sampled_from(letters)),
        AnswerKind.MULTI_SELECT: lambda: ",".join(sorted(draw(st.sets(st.sampled_from(letters), min_size=1)))),
        AnswerKind.NUMBER: lambda: str(int(number)),
        AnswerKind.SCALAR: lambda: f"{number:.3f}".rstrip("0").rstrip("."),
        AnswerKind.YES_NO: lambda: draw(st.sampled_from(["yes", "no"])),
        AnswerKind.LEVEL: lambda: draw(st.sampled_from(LEVELS)),
    }.get(kind, lambda: draw(TEXTS))()
    numbers = st.floats(allow_nan=False, allow_infinity=False)
    values = {AnswerKind.SCALAR: (number,), AnswerKind.POSE: (draw(numbers),) * 216}.get(kind, tuple(draw(st.lists(numbers, max_size=2))))
    image, audio = MediaRef("image", IMAGE), MediaRef("audio", SOUND)
    seen, heard, other = MediaRef("video", VIDEO), MediaRef("video", VIDEO, sound=VIDEO), MediaRef("video", "b.mp4", sound=VIDEO)
    modality, media = draw(
        st.sampled_from(
            [
                (Modality.TEXT, ()),
                (Modality.IMAGE, (image, image)),
                (Modality.VIDEO, (seen, replace(seen, blank=frozenset({"picture"})))),
                (Modality.VIDEO, (image, seen)),
                (Modality.AUDIO, (audio,)),
                (Modality.AUDIO_VIDEO, (heard, other)),
                (Modality.AUDIO_VIDEO, (seen, audio)),
                (Modality.AUDIO_VIDEO, (audio, image)),
                (Modality.AUDIO_VIDEO, (seen,)),
            ]
        )
    )
    return Record(
        id=draw(TEXTS),
        modality=modality,
        task=draw(TEXTS),
        kind=kind,
        question=draw(TEXTS),
        target=target,
        media=media,
        options=options,
        values=values,
        history=tuple(draw(st.lists(st.tuples(TEXTS, TEXTS), max_size=2))),
        response=draw(st.none() | TEXTS),
        extra=draw(st.dictionaries(st.text(max_size=5), JSON, max_size=2)),
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(some_records(), max_size=3, unique_by=lambda record: record.id))
def test_what_is_written_is_read_back_equal(root: Path, records: list[Record]) -> None:
    def placed(ref: MediaRef) -> MediaRef:
        return replace(ref, path=f"{root}/{ref.path}", sound=f"{root}/{ref.sound}" if ref.sound else None)

    records = [record.with_media(tuple(map(placed, record.media))) for record in records]
    assert back(root, records) == records


def test_one_line_a_record_relative_to_the_root_in_plain_utf8(root: Path) -> None:
    record = replace(BASE, question="Où\nest-elle ?\u2028", modality=Modality.IMAGE, media=refs(root, ("image", IMAGE, None)))
    assert back(root, [record, replace(record, id="b")]) == [record, replace(record, id="b")]
    content = (root / "written" / "out.jsonl").read_bytes()
    assert (content.count(b"\n"), "Où".encode() in content, str(root).encode() in content) == (2, True, False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": " "}, "record 'a': its question is empty; allowed: a text"),
        ({"response": ""}, "record 'a': its response is empty; allowed: a text"),
        ({"history": (("a", ""),)}, "record 'a': its history[0] is empty; allowed: a text"),
        ({"options": ("x",)}, "record 'a': it has 1 options; allowed: none, or 2 to 26"),
        ({"options": tuple(map(str, range(27)))}, "record 'a': it has 27 options; allowed: none, or 2 to 26"),
        ({"kind": AnswerKind.NUMBER, "target": "10.0"}, "record 'a': its target '10.0' is not in the normal form of the kind number"),
        ({"kind": AnswerKind.POSE}, "record 'a': it has 0 values; allowed for the kind pose: 216"),
        ({"modality": Modality.VIDEO}, "record 'a': its media do not fit the modality video; allowed: text"),
        (
            {"modality": Modality.AUDIO, "media": (MediaRef("audio", "/elsewhere/a.wav"),)},
            "record 'a': its medium '/elsewhere/a.wav' is not under",
        ),
        ({"values": (float("nan"),)}, "record 'a': JSON cannot hold it: "),
        ({"extra": {"a": {1, 2}}}, "record 'a': JSON cannot hold it: "),
        ({"extra": {"a": (1, 2)}}, "record 'a': extra changes in JSON; allowed: objects with text keys"),
        ({"extra": {1: 2}}, "record 'a': extra changes in JSON; allowed: objects with text keys"),
        ({"question": "\ud800"}, "record 'a': JSON cannot hold it: "),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("before")
    with pytest.raises(InputError) as caught:
        write([replace(BASE, id="first"), replace(BASE, **changes)], path)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert (path.read_text(), [file.name for file in tmp_path.iterdir()]) == ("before", ["out.jsonl"])


def test_ids_must_differ(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^record 'a': its id was there before; allowed: an id of its own$"):
        write([BASE, BASE], tmp_path / "out.jsonl")


def test_a_folder_of_frames_survives_the_way_there_and_back(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for index in range(3):
        write_image(frames / f"{index}.png", seed=index)
    ref = MediaRef("video", str(frames.resolve()), fps=4.0)
    record = Record("a", Modality.VIDEO, "t", AnswerKind.OPEN, "What happens?", "it rains", (ref,))
    write([record], tmp_path / "out.jsonl")
    (back,) = read("conversations", tmp_path / "out.jsonl", media_root=tmp_path)
    assert replace(back, source="") == record
