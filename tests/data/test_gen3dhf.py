from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from clip_files import write_clip
from omnistage.data.errors import InputError, MediaError, RecordError
from omnistage.data.formats import read
from omnistage.data.formats.gen3dhf import BOUNDS, level_of
from omnistage.data.media import MediaLimits, decode
from omnistage.data.records import LEVELS, AnswerKind, MediaRef, Modality, Record

QUESTIONS = {
    "quality": "Please rate the quality of the human face in this video, considering factors such as clarity and overall visual quality.",
    "authenticity": "Please rate the authenticity of the human face in this video, considering factors such as natural facial movements.",
}
FOLDER = "/database/video_RGB"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`seed0001.mp4` at the top, `seed0002.mp4` in the folder that the published archive unpacks to."""
    (tmp_path / "video_RGB").mkdir()
    write_clip(tmp_path / "seed0001.mp4", 4, 2)
    write_clip(tmp_path / "video_RGB" / "seed0002.mp4", 4, 2)
    return tmp_path


def row(ending: str = "good.", dimension: str = "quality", videos: Any = f"{FOLDER}/seed0001.mp4", **fields: Any) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": f"<video>{QUESTIONS[dimension]}"},
        {"role": "assistant", "content": f"The {dimension} of the human face in this video is {ending}"},
    ]
    return {"messages": messages, "videos": videos} | fields


def load(root: Path, content: Any, name: str = "train_quality.json", **arguments: Any) -> list[Record]:
    path = root / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return list(read("gen3dhf", path, **arguments))


def test_text_rows_become_levels_with_a_demonstration(root: Path) -> None:
    first, second = load(root, [row(), row("None.", "authenticity", f"{FOLDER}/seed0002.mp4", note=1)], "train_text.json")
    assert first == Record(
        id="train_text-level-0",
        modality=Modality.VIDEO,
        task="quality",
        kind=AnswerKind.LEVEL,
        question=QUESTIONS["quality"],
        target="good",
        media=(MediaRef("video", str((root / "seed0001.mp4").resolve())),),
        response="The quality of the human face in this video is good.",
        source="train_text.json: record 0",
        extra={"dimension": "quality"},
    )
    assert second == Record(
        id="train_text-level-1",
        modality=Modality.VIDEO,
        task="authenticity",
        kind=AnswerKind.LEVEL,
        question=QUESTIONS["authenticity"],
        target="bad",
        media=(MediaRef("video", str((root / "video_RGB" / "seed0002.mp4").resolve())),),
        response="The authenticity of the human face in this video is bad.",
        source="train_text.json: record 1",
        extra={"dimension": "authenticity", "label": "None", "note": 1},
    )
    assert decode(first.media[0], MediaLimits()).fps == 2.0


def test_numerical_rows_become_scalars_that_do_not_tell_their_level(root: Path) -> None:
    first, second = load(root, [row("good. (51.8686560031219)"), row("None. (8.5847)", "authenticity")], "train_numbers.json")
    assert first == Record(
        id="train_numbers-scalar-0",
        modality=Modality.VIDEO,
        task="quality",
        kind=AnswerKind.SCALAR,
        question=QUESTIONS["quality"],
        target="51.8686560031219",
        media=(MediaRef("video", str((root / "seed0001.mp4").resolve())),),
        values=(51.8686560031219,),
        source="train_numbers.json: record 0",
        extra={"dimension": "quality", "level": "good"},
    )
    assert (second.values, second.response) == ((8.5847,), None)
    assert second.extra == {"dimension": "authenticity", "label": "None", "level": "bad"}


@pytest.mark.parametrize(
    ("dimension", "mos", "level"),
    [
        ("quality", 51.8686560031219, "good"),
        ("quality", 42.2594246626812, "good"),
        ("quality", 56.6144326546138, "excellent"),
        ("authenticity", 57.6978499425894, "excellent"),
        ("authenticity", 42.4535427235207, "fair"),
        ("quality", 18.2395, "bad"),
        ("quality", 18.2397, "poor"),
        ("quality", 30.1171, "poor"),
        ("quality", 30.1174, "fair"),
        ("authenticity", 54.7369, "good"),
        ("authenticity", 54.7372, "excellent"),
        ("quality", 6.3619, "bad"),
        ("quality", 65.7502, "excellent"),
        ("quality", 0.0, "bad"),
        ("quality", 100.0, "excellent"),
    ],
)
def test_published_scores_have_their_published_levels(dimension: str, mos: float, level: str) -> None:
    assert level_of(mos, *BOUNDS[dimension]) == level


def test_bins_hold_their_upper_ends() -> None:
    assert [level_of(mos, 0.0, 5.0) for mos in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 4.5, 5.0)] == [
        *["bad"] * 3,
        *["poor"] * 2,
        "fair",
        "good",
        *["excellent"] * 2,
    ]
    assert [level_of(step + 0.5, 0.0, 5.0) for step in range(5)] == list(LEVELS)


@pytest.mark.parametrize("arguments", [(1.0, 5.0, 5.0), (1.0, 5.0, 0.0), (1.0, float("nan"), 5.0), (float("nan"), 0.0, 5.0)])
def test_bounds_and_score_must_be_numbers(arguments: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match=r"^level_of: "):
        level_of(*arguments)


@pytest.mark.parametrize(
    ("videos", "found"),
    [
        ("seed0001.mp4", "seed0001.mp4"),
        ("video_RGB/seed0002.mp4", "video_RGB/seed0002.mp4"),
        ("/seed0001.mp4", "seed0001.mp4"),
        (f"{FOLDER}/seed0002.mp4", "video_RGB/seed0002.mp4"),
        ("{root}/video_RGB/seed0002.mp4", "video_RGB/seed0002.mp4"),
    ],
)
def test_clips_are_found_under_the_media_root(root: Path, videos: str, found: str) -> None:
    (record,) = load(root, [row(videos=videos.format(root=root))])
    assert record.media == (MediaRef("video", str((root / found).resolve())),)


def test_a_file_that_is_there_outside_the_root_is_not_opened(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "seed0009.mp4"
    write_clip(outside, 4, 2)
    with pytest.raises(
        MediaError, match=r"record 0: videos: neither '.*seed0009\.mp4' nor 'outside.*' nor 'seed0009\.mp4' is a file under"
    ):
        load(root, [row(videos=str(outside))])
    (root / "seed0009.mp4").symlink_to(outside)
    with pytest.raises(MediaError, match=r"record 0: videos: 'seed0009\.mp4' leaves the media root"):
        load(root, [row(videos=str(outside))])


def test_clips_of_one_name_are_found_in_their_folders(root: Path) -> None:
    """Three clips called seed0001.mp4: at the top, and in the folders of two generators."""
    for index, folder in enumerate(("gen_a", "gen_b")):
        (root / folder).mkdir()
        write_clip(root / folder / "seed0001.mp4", 6 + index, 2)
    named = ["/x/gen_a/seed0001.mp4", "/x/gen_b/seed0001.mp4", "/x/gen_c/seed0001.mp4"]
    records = load(root, [row(videos=name) for name in named])
    found = [str(Path(record.media[0].path).relative_to(root.resolve())) for record in records]
    assert found == ["gen_a/seed0001.mp4", "gen_b/seed0001.mp4", "seed0001.mp4"]


def test_a_clip_that_two_paths_may_mean_is_refused(root: Path) -> None:
    named = ["/x/gen_a/seed0001.mp4", "/x/gen_a/seed0001.mp4", "/x/gen_b/seed0001.mp4"]
    with pytest.raises(
        RecordError, match=r"record 2: videos: '/x/gen_b/seed0001\.mp4' and '/x/gen_a/seed0001\.mp4' are both found as 'seed0001\.mp4'"
    ):
        load(root, [row(videos=name) for name in named])


def test_modality_is_as_asked(root: Path) -> None:
    path = str((root / "seed0001.mp4").resolve())
    (blind,) = load(root, [row()], modality=Modality.TEXT)
    (heard,) = load(root, [row()], modality=Modality.AUDIO_VIDEO)
    assert (blind.modality, blind.media) == (Modality.TEXT, ())
    assert (heard.modality, heard.media) == (Modality.AUDIO_VIDEO, (MediaRef("video", path, sound=path),))
    with pytest.raises(RecordError, match="record 0: modality 'image' is asked for; allowed: video, audio_video, audio, text"):
        load(root, [row()], modality=Modality.IMAGE)


def turns(*messages: Any) -> dict[str, Any]:
    return row(messages=list(messages))


USER, ASSISTANT = row()["messages"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "it is the number 3; allowed: an object with messages and videos"),
        ({"videos": "seed0001.mp4"}, "messages: missing; allowed: a list of two messages"),
        (row(messages="rate it"), 'messages: got the string "rate it"; allowed: a list of two messages'),
        (turns(USER), "messages: got a list of 1; allowed: a list of two messages"),
        (turns(USER, ASSISTANT, USER), "messages: got a list of 3; allowed: a list of two messages"),
        (turns(USER, "good"), 'messages[1]: got the string "good"; allowed: an object with role and content'),
        (turns(ASSISTANT, USER), "messages[0].role: got the string \"assistant\"; allowed: 'user'"),
        (turns({"role": "user"}, ASSISTANT), "messages[0].content: missing; allowed: a string that is not empty"),
        (
            turns({"role": "user", "content": "<video>"}, ASSISTANT),
            'messages[0].content: got the string "<video>"; allowed: a question with',
        ),
        (
            turns({"role": "user", "content": "<video><video>quality?"}, ASSISTANT),
            "messages[0].content: got the string .*in it once at most",
        ),
        (turns({"role": "user", "content": "<video>Rate the authenticity."}, ASSISTANT), "messages[0].content: .*a question about quality"),
        (row("great."), "messages[1].content: got the string .*; allowed: .*bad, poor, fair, good, excellent, None"),
        (row("good"), "messages[1].content: got the string .*; allowed: 'The quality of the human face in this video is good.'"),
        (row("good. (51.8) more"), "messages[1].content: got the string .*; allowed: 'The quality"),
        (row("good. (much)"), "messages[1].content: the score is the string \"much\"; allowed: digits from 0 to 100, such as '51.87'"),
        (row("good. (nan)"), 'messages[1].content: the score is the string "nan"; allowed: digits from 0 to 100'),
        (row("good. (518.6)"), 'messages[1].content: the score is the string "518.6"; allowed: digits from 0 to 100'),
        (row("good. ()"), 'messages[1].content: the score is the string ""; allowed: digits from 0 to 100'),
        (
            turns(USER, {"role": "assistant", "content": "The size of the face is good."}),
            "messages[1].content: got .*quality, authenticity",
        ),
        (row(videos=None), "videos: missing; allowed: the path of one clip"),
        (row(videos=["seed0001.mp4"]), "videos: got a list; allowed: the path of one clip"),
    ],
)
def test_malformed_rows_name_file_record_field_and_what_is_allowed(root: Path, entry: Any, message: str) -> None:
    pattern = "^" + r"train_quality\.json: record 1: " + ".*".join(map(re.escape, message.split(".*")))
    with pytest.raises(RecordError, match=pattern) as caught:
        load(root, [row(), entry])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("videos", "reason"),
    [
        ("gone.mp4", "'gone.mp4' is no file under"),
        ("../seed0001.mp4", "leaves the media root"),
        ("/database/../gone.mp4", "leaves the media root|is a file under"),
        ("/database/somebody/", "is a file under"),
        ("/", "is a file under"),
        ("/a\0b.mp4", "is no path"),
        ("video_RGB", "'video_RGB' is no file under"),
    ],
)
def test_clips_must_be_there(root: Path, videos: str, reason: str) -> None:
    with pytest.raises(MediaError, match=rf"^train_quality\.json: record 1: videos: .*({reason})") as caught:
        load(root, [row(), row(videos=videos)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{}", "[", json.dumps(row()), f"{json.dumps(row())}\n{json.dumps(row())}"])
def test_the_file_must_be_one_json_list(root: Path, content: str) -> None:
    with pytest.raises(RecordError, match=r"^train_quality\.json: .*; allowed: one JSON list of objects in UTF-8$"):
        load(root, content)


def test_rows_are_read_as_they_are_drawn(root: Path) -> None:
    path = root / "train.json"
    path.write_text("[" + ",".join([json.dumps(row("good. (51.5)"))] * 20_000) + ", broken")
    tracemalloc.start()
    try:
        drawn = [record.id for record in read("gen3dhf", path, limit=3)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert drawn == ["train-scalar-0", "train-scalar-1", "train-scalar-2"]
    assert peak < path.stat().st_size / 8
