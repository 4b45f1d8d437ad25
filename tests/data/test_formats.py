"""Readers by name: built in, and a user's own by file, by module and from an installed package."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omnistage.data.errors import InputError, RecordError
from omnistage.data.formats import READERS, known, read, reader_of
from omnistage.data.records import AnswerKind, Modality, Record

OWN = """
from omnistage.data.records import AnswerKind, Modality, Record

NOT_A_READER = {"a": 1}

def rows(path, *, media_root, modality=None):
    for position, line in enumerate(path.read_text().splitlines()):
        question, _, target = line.partition("|")
        source = f"{path.name}: line {position + 1}"
        yield Record(str(position), modality or Modality.TEXT, "own", AnswerKind.OPEN, question, target, source=source)

def dicts(path, *, media_root, modality=None):
    yield next(rows(path, media_root=media_root))
    yield {"question": "a"}
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, with a package `own_formats` that is installed: its dist-info names two readers."""
    folder = tmp_path / "packages"
    (folder / "own_formats").mkdir(parents=True)
    (folder / "own_formats" / "__init__.py").touch()
    (folder / "own_formats" / "readers.py").write_text(OWN)
    info = folder / "own_formats-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-formats\nVersion: 1.0\n")
    lines = ["[omnistage.formats]", "piped = own_formats.readers:rows", "broken = own_formats.readers:gone", "humansense = own_formats.x:y"]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_formats"]:
        del sys.modules[name]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "readers.py"
    path.write_text(OWN)
    return path


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.txt"
    path.write_text("Which?|that\nWho?|she\n")
    return path


FIRST = Record("0", Modality.TEXT, "own", AnswerKind.OPEN, "Which?", "that", source="rows.txt: line 1")


@pytest.mark.parametrize("name", sorted(READERS))
def test_built_in_readers_have_their_names(name: str) -> None:
    assert reader_of(name) is READERS[name]
    assert name in known()
    assert (sys.modules[READERS[name].__module__].__doc__ or "").strip()


def test_the_published_formats_are_all_here() -> None:
    formats = {"humansense", "gen3dhf", "instit_bench", "instit_dataset", "chatpose", "hisbench", "conversations", "video_r1"}
    assert formats <= set(READERS)


def test_a_function_of_a_file(file: Path, rows_file: Path) -> None:
    records = list(read(f"{file}:rows", rows_file))
    assert (records[0], len(records)) == (FIRST, 2)
    assert [record.id for record in read(f"{file}:rows", rows_file, limit=1)] == ["0"]
    assert {record.modality for record in read(f"{file}:rows", rows_file, modality=Modality.AUDIO)} == {Modality.AUDIO}


@pytest.mark.usefixtures("packages")
def test_a_function_of_a_module(rows_file: Path) -> None:
    assert next(read("own_formats.readers:rows", rows_file)) == FIRST


@pytest.mark.usefixtures("packages")
def test_a_reader_of_an_installed_package(rows_file: Path) -> None:
    assert "piped" in known()
    assert next(read("piped", rows_file)) == FIRST


@pytest.mark.usefixtures("packages")
def test_an_installed_reader_does_not_take_a_built_in_name() -> None:
    assert reader_of("humansense") is READERS["humansense"]
    assert known().count("humansense") == 1


@pytest.mark.usefixtures("packages")
def test_an_installed_reader_that_is_not_there(rows_file: Path) -> None:
    with pytest.raises(InputError, match=r"^format 'own_formats\.readers:gone': unknown function 'gone'") as caught:
        read("broken", rows_file)
    assert "\n" not in str(caught.value)


def test_a_name_that_leads_to_no_function(file: Path, rows_file: Path) -> None:
    with pytest.raises(InputError, match=r"^format '.*readers\.py:NOT_A_READER' is 'dict', not a function from a path to records$"):
        read(f"{file}:NOT_A_READER", rows_file)


def test_a_reader_that_gives_something_else_than_records(file: Path, rows_file: Path) -> None:
    records = read(f"{file}:dicts", rows_file)
    assert next(records) == FIRST
    with pytest.raises(RecordError, match=r"^rows\.txt: record 1: format '.*readers\.py:dicts' gave 'dict'; allowed: Record$"):
        next(records)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("videor1", "unknown format 'videor1'; did you mean 'video_r1'? known: chatpose, conversations, "),
        ("", "unknown format ''; known: chatpose"),
        ("xyz", "unknown format 'xyz'; known: chatpose"),
        ("no_such_package.readers:rows", "format 'no_such_package.readers:rows' cannot be imported: ModuleNotFoundError"),
        ("not a module:rows", "format 'not a module:rows': 'not a module' is neither a module nor a .py file"),
        ("gone.py:rows", "format 'gone.py:rows': file 'gone.py' does not exist or is no file"),
        (
            "omnistage.data.formats.humansense:raed",
            "format 'omnistage.data.formats.humansense:raed': unknown function 'raed'; did you mean 'read'?",
        ),
    ],
)
def test_names_that_lead_nowhere(rows_file: Path, name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(name, rows_file)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_says_how_to_give_ones_own(rows_file: Path) -> None:
    with pytest.raises(InputError, match=r"your own: 'package\.module:function' or 'path/file\.py:function'$"):
        read("xyz", rows_file)


@pytest.mark.parametrize(
    ("source", "problem"), [("def rows(:", "SyntaxError"), ("raise RuntimeError('no\\ngood')", "RuntimeError: no good")]
)
def test_a_file_that_does_not_load(tmp_path: Path, rows_file: Path, source: str, problem: str) -> None:
    (tmp_path / "bad.py").write_text(source)
    with pytest.raises(InputError, match=rf"^format '.*bad\.py:rows' cannot be loaded: {problem}") as caught:
        read(f"{tmp_path / 'bad.py'}:rows", rows_file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(READERS) - {"chatpose"}))
@pytest.mark.parametrize("content", ["[]", "[3]"])
def test_every_reader_of_a_list_takes_an_empty_one_and_no_number(tmp_path: Path, name: str, content: Any) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(json.loads(content)))
    if content == "[]":
        assert list(read(name, path)) == []
    else:
        with pytest.raises(RecordError, match=r"^rows\.json: record 0: it is the number 3; allowed: an object with "):
            list(read(name, path))
