"""No path of a row leads out of the media root: real clips, real links, and every layout that names a folder of frames."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from clip_files import write_clip, write_image
from omnistage.data.errors import MediaError, RecordError
from omnistage.data.formats import read
from omnistage.data.formats.media_root import MediaRoot
from omnistage.data.formats.places import BadPath, code_of
from omnistage.data.formats.rows import Fields
from omnistage.data.media import resolve


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`root` with a clip, a folder of frames one of which is a link to an image outside, and links; `outside` beside it."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "clips", root / "frames", root / "leaking", root / "empty", outside):
        folder.mkdir(parents=True)
    write_clip(root / "clips" / "a.mp4", 4, 2)
    write_clip(outside / "secret.mp4", 4, 2)
    write_image(outside / "secret.png")
    for index in range(3):
        write_image(root / "frames" / f"{index}.png", seed=index)
        write_image(root / "leaking" / f"{index}.png", seed=index)
    (root / "leaking" / "3.png").symlink_to(outside / "secret.png")
    (root / "frames" / "3.png").symlink_to(root / "frames" / "0.png")
    (root / "secret.mp4").symlink_to(outside / "secret.mp4")
    (root / "out").symlink_to(outside)
    (root / "in").symlink_to(root / "clips")
    (outside / "back.mp4").symlink_to(root / "clips" / "a.mp4")
    return root.resolve()


NAMES = ["clips/a.mp4", "./clips//a.mp4", "in/a.mp4", "clips/../in/a.mp4", "{root}/clips/a.mp4", "../root/clips/a.mp4", "out/back.mp4"]
LEAVING = ["secret.mp4", "out/secret.mp4", "../outside/secret.mp4", "{root}/../outside/secret.mp4", "/etc/passwd", "..", "clips/../.."]


@pytest.mark.parametrize("named", NAMES)
def test_a_path_is_real_and_under_the_root(root: Path, named: str) -> None:
    """The same as `media.resolve` says, however it is named, the second time too."""
    named = named.format(root=root)
    place = MediaRoot(root)
    assert [place.media(Fields({"f": named}, "x"), "f") for _ in range(2)] == [str(root / "clips" / "a.mp4")] * 2
    assert place.resolve(named) == resolve(named, root)


@pytest.mark.parametrize("named", LEAVING)
def test_a_path_that_leaves_the_root_is_refused(root: Path, named: str) -> None:
    named = named.format(root=root)
    with pytest.raises(BadPath, match=r"^x: f: .* leaves the media root ") as caught:
        MediaRoot(root).media(Fields({"f": named}, "x"), "f", folders=True)
    assert code_of(caught.value) == "unreadable_row"


@pytest.mark.parametrize("named", ["a\0b.mp4", "\ud800.mp4", "\ud800/a.mp4"])
def test_what_is_no_path_is_refused(root: Path, named: str) -> None:
    with pytest.raises(BadPath, match=r"^x: f: .* is no path$"):
        MediaRoot(root).media(Fields({"f": named}, "x"), "f")


def test_a_name_that_is_no_utf8_is_found(root: Path) -> None:
    """As Python names it, with an escape for each byte."""
    write_clip(root / "b.mp4", 4, 2)
    os.rename(root / "b.mp4", os.fsencode(root) + b"/b\xff.mp4")
    assert MediaRoot(root).media(Fields({"f": "b\udcff.mp4"}, "x"), "f") == f"{root}/b\udcff.mp4"


@pytest.mark.parametrize(
    ("named", "folders", "code", "problem"),
    [
        ("gone.mp4", False, "missing", "'gone.mp4' is no file under "),
        ("gone.mp4", True, "missing", "'gone.mp4' is no file or folder under "),
        ("frames", False, "missing", "'frames' is no file under "),
        ("x" * 5000, False, "missing", "' is no file under "),
        ("empty", True, "no_frames", "is a folder without frames"),
    ],
)
def test_what_is_not_there_has_a_name(root: Path, named: str, folders: bool, code: str, problem: str) -> None:
    with pytest.raises(MediaError) as caught:
        MediaRoot(root).media(Fields({"f": named}, "x"), "f", folders=folders)
    assert problem in str(caught.value)
    assert code_of(caught.value) == code


def test_the_first_of_several_names(root: Path) -> None:
    place = MediaRoot(root)
    assert place.first(["gone.mp4", "clips", "in/a.mp4", "clips/a.mp4"], "x") == str(root / "clips" / "a.mp4")
    assert place.first(["gone.mp4"], "x") is None
    with pytest.raises(BadPath, match=r"^x: '\.\./outside/secret\.mp4' leaves the media root"):
        place.first(["../outside/secret.mp4"], "x")


def frames_of(format: str, folder: str) -> dict[str, Any]:
    if format == "conversations":
        return {"messages": [{"role": "user", "content": "<video>What?"}], "videos": [folder], "solution": "a"}
    if format == "instit_bench":
        return {"question_id": 1, "question": "What?", "answer": "a", "video_path": folder}
    captions = {"frame_level_caption": [], "question_answer_pairs": [], "video_level_caption": "a"}
    return {"video_id": 1, "video_path": folder, **captions}


@pytest.mark.parametrize("format", ["conversations", "instit_bench", "instit_dataset"])
def test_frames_do_not_lead_out_either(root: Path, format: str) -> None:
    """A folder whose links stay under the root is taken; one with a link to an image outside it is not, and one without images."""
    file = root / "rows.json"
    file.write_text(json.dumps([frames_of(format, "frames")]))
    (record,) = read(format, file)
    assert record.media[0].path == str(root / "frames")
    for folder, problem in (("leaking", r"'.*leaking/3\.png' leaves the media root "), ("empty", "is a folder without frames")):
        file.write_text(json.dumps([frames_of(format, "frames"), frames_of(format, folder)]))
        with pytest.raises(MediaError, match=rf"^rows\.json: record 1: video.*{problem}"):
            list(read(format, file))


def test_a_part_that_names_a_folder_of_frames_is_looked_into(root: Path) -> None:
    part = {"type": "video", "video": "leaking", "fps": 2}
    content = [part, {"type": "text", "text": "What?"}]
    (root / "rows.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": content}], "solution": "a"}))
    with pytest.raises(MediaError, match=r"^rows\.jsonl: line 1: messages\[0\]\.content\[0\]\.video: .* leaves the media root "):
        list(read("conversations", root / "rows.jsonl"))
    with pytest.raises(RecordError, match="got the number 3"):
        MediaRoot(root).path_of(Fields({}, "x"), "f", 3)
