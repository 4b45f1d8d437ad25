"""Lists and lines of JSON, whatever they hold: one error that names the row, and no stack, memory or time without end."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnistage.data.errors import InputError, RecordError
from omnistage.data.formats import streams
from omnistage.data.formats.places import Row, place_of
from omnistage.data.formats.streams import MOST_LEVELS, read_whole, stream_lines, stream_list


def drawn(rows: Iterator[Row]) -> tuple[list[Any], list[str]]:
    """The values up to the end, and the errors on the way."""
    values: list[Any] = []
    errors: list[str] = []
    while True:
        try:
            values.append(next(rows).value)
        except StopIteration:
            return values, errors
        except InputError as error:
            errors.append(str(error))


def nested(levels: int, *kinds: str) -> str:
    """Lists and objects in each other, of the `kinds` in turn."""
    chosen = [kinds[level % len(kinds)] for level in range(levels)]
    opening = "".join("[" if kind == "list" else '{"a":' for kind in chosen)
    return opening + "0" + "".join("]" if kind == "list" else "}" for kind in reversed(chosen))


KINDS = [("list",), ("object",), ("list", "object")]
DEEP = "lists and objects stand in each other more than 100 deep; allowed: fewer levels"


def test_each_row_knows_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[1, {"a": 2}]')
    (tmp_path / "a.jsonl").write_text('1\n\n {"a": 2}\n')
    assert [(str(row.place), row.position) for row in stream_list(tmp_path / "a.json")] == [
        ("a.json: record 0", 0),
        ("a.json: record 1", 1),
    ]
    assert [(str(row.place), row.position) for row in stream_lines(tmp_path / "a.jsonl")] == [
        ("a.jsonl: line 1", 0),
        ("a.jsonl: line 3", 1),
    ]


def test_behind_a_bad_line_the_next_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'1\n{"a"\n2\n\xff\n3\n' + b"9" * 5000 + b"\n4\n")
    lines = stream_lines(tmp_path / "a.jsonl")
    values, errors = drawn(lines)
    assert (values, lines.whole) == ([1, 2, 3, 4], True)
    assert [error.split(":")[1].strip() for error in errors] == ["line 2", "line 4", "line 6"]
    assert all(error.endswith("; allowed: one JSON object a line in UTF-8") and "\n" not in error for error in errors)


@pytest.mark.parametrize("kinds", KINDS)
def test_a_line_has_as_many_levels_as_are_allowed_and_no_more(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    good, deep = nested(MOST_LEVELS, *kinds), nested(MOST_LEVELS + 1, *kinds)
    (tmp_path / "a.jsonl").write_text(f"1\n{good}\n{deep}\n2\n")
    assert drawn(stream_lines(tmp_path / "a.jsonl")) == ([1, json.loads(good), 2], [f"a.jsonl: line 3: {DEEP}"])


@pytest.mark.parametrize("kinds", KINDS)
def test_a_list_has_as_many_levels_as_are_allowed_and_no_more(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    """The list of the rows is a level itself. What stands before a row that is too deep is read, however the file falls into blocks."""
    good, deep = nested(MOST_LEVELS - 1, *kinds), nested(MOST_LEVELS, *kinds)
    for fill in ("", "x" * 65_400, "x" * 70_000):
        (tmp_path / "a.json").write_text(f'["{fill}", {good}, {good}, {deep}, 1]')
        values, errors = drawn(stream_list(tmp_path / "a.json"))
        assert (values, errors) == ([fill, json.loads(good), json.loads(good)], [f"a.json: record 3: {DEEP}"])


def levels_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(levels_of, inner), default=0)


TEXT = st.text(alphabet='[]{}"\\a\n\u00e9', max_size=8)
VALUES = st.recursive(
    TEXT | st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=20
)


@settings(max_examples=300, deadline=None)
@given(VALUES, st.lists(st.integers(0, 200), max_size=6), st.integers(0, 6))
def test_levels_are_counted_as_a_parser_counts_them(value: Any, cuts: list[int], most: int) -> None:
    """Whatever stands in strings, and wherever blocks end: there are too many levels exactly where the value has more."""
    text = json.dumps(value).encode()
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    levels, whole = streams._Levels(most), b""
    for start, stop in pairwise(places):
        block = text[start:stop]
        if not levels.follow(block):
            whole += block[: levels.end(block)]
            assert levels_of(value) > most
            assert whole == text[: len(whole)]
            assert text[len(whole) : len(whole) + 1] in (b"[", b"{")
            return
        whole += block
    assert levels_of(value) <= most


@pytest.mark.parametrize("read", [lambda path: drawn(stream_list(path)), lambda path: drawn(stream_lines(path)), read_whole])
def test_a_file_of_brackets_costs_nothing(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    """A parser would take a gigabyte for 20,000 of them, or all of the stack."""
    (tmp_path / "a.json").write_bytes(b"[" * 2_000_000)
    tracemalloc.start()
    began = time.perf_counter()
    try:
        errors = read(tmp_path / "a.json")[1]
    except InputError as error:
        errors = [str(error)]
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert [DEEP in error for error in errors] == [True]
    assert peak < 20_000_000
    assert time.perf_counter() - began < 10


def test_objects_of_one_line_that_are_too_deep_are_no_list(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"messages":' * 50_000)
    with pytest.raises(RecordError, match=r"^a\.json: the top level is an object; allowed: one JSON list of objects in UTF-8$"):
        next(stream_list(tmp_path / "a.json"))


@pytest.mark.parametrize("read", [stream_list, stream_lines])
def test_a_folder_is_no_file_of_rows(tmp_path: Path, read: Callable[[Path], Iterator[Row]]) -> None:
    with pytest.raises(RecordError, match=rf"^{tmp_path.name}: it is a folder; allowed: one JSON ") as caught:
        next(read(tmp_path))
    assert place_of(caught.value) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read any file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "a.json").chmod(0)
    with pytest.raises(RecordError, match=r"^a\.json: cannot be read \(Permission denied\)$"):
        next(stream_list(tmp_path / "a.json"))


def test_a_file_that_is_gone_is_one_error(tmp_path: Path) -> None:
    assert drawn(stream_lines(tmp_path / "a.jsonl")) == ([], ["a.jsonl: cannot be read (No such file or directory)"])


def test_a_whole_file_is_read_behind_its_mark(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_whole(tmp_path / "a.json") == [1]
    (tmp_path / "b.json").write_bytes(b"[" + b"9" * 5000 + b"]")
    with pytest.raises(RecordError, match=r"^b\.json: .*; allowed: JSON in UTF-8$"):
        read_whole(tmp_path / "b.json")
