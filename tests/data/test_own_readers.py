"""A user's own reader: its rows get places, its bad rows are named, and its faults are one line that says where they happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnistage.data.checks import rows
from omnistage.data.errors import InputError, RecordError
from omnistage.data.formats import read, reading
from omnistage.data.formats.places import place_of
from omnistage.data.formats.reading import ReaderError
from omnistage.data.records import Record

READERS = """
from omnistage.data.errors import RecordError
from omnistage.data.formats.rows import Mapped
from omnistage.data.records import AnswerKind, Modality, Record

def record(name, **changes):
    given = dict(id=name, modality=Modality.TEXT, task="t", kind=AnswerKind.OPEN, question="q", target="a")
    return Record(**given | changes)

def fine(path, *, media_root, modality=None):
    return [record("a"), record("b", source="mine: 7")]

def fails(path, *, media_root, modality=None):
    yield record("a", source="rows.txt: line 1")
    {}["x"]

def fails_at_once(path, *, media_root, modality=None):
    raise ValueError("no\\ngood")

def wants_nothing(path):
    yield record("a")

def gives_none(path, *, media_root, modality=None):
    return None

def no_text(path, *, media_root, modality=None):
    yield record("a", question=None)
    yield record("b")

def half(path, *, media_root, modality=None):
    for name in ("question", "response", "target", "task", "id"):
        yield record("x", **{name: "a \\ud800"})

def bad_history(path, *, media_root, modality=None):
    yield record("a", history=(None,))

class Bad:
    def __init__(self, ends):
        self.ends, self.number = ends, 0

    def __iter__(self):
        return self

    def __next__(self):
        self.number += 1
        if self.number == self.ends:
            raise StopIteration
        if self.number % 3 == 0 and self.ends:
            return record(str(self.number))
        raise RecordError(f"bad row {self.number}")

def some_bad(path, *, media_root, modality=None):
    return Bad(7)

def all_bad(path, *, media_root, modality=None):
    return Bad(0)

def bad_entries(path, *, media_root, modality=None):
    return Mapped(Bad(0), lambda entry: [entry])

def refuse(name):
    if name == "b":
        raise RecordError("bad row b")
    return [record(name)]

def mapped(path, *, media_root, modality=None):
    return Mapped("abc", refuse)

def bad_generator(path, *, media_root, modality=None):
    yield record("a")
    raise RecordError("bad row")
    yield record("b")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(READERS)
    (tmp_path / "rows.txt").touch()
    return tmp_path / "rows.txt"


def checked(file: Path, name: str) -> rows.Rows:
    return rows.read(f"{file.parent / 'own.py'}:{name}", str(file))


def drawn(file: Path, name: str) -> list[Record]:
    return list(read(f"{file.parent / 'own.py'}:{name}", file))


def test_records_without_a_place_get_one(file: Path) -> None:
    assert [record.source for record in drawn(file, "fine")] == ["rows.txt: entry 0", "mine: 7"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("fails", r"failed behind rows\.txt: line 1: KeyError: 'x' \(own\.py, line \d+\)"),
        ("fails_at_once", r"failed before its first record: ValueError: no good \(own\.py, line \d+\)"),
        (
            "wants_nothing",
            r"failed before its first record: TypeError: wants_nothing\(\) got an unexpected keyword argument 'media_root' .*",
        ),
        ("gives_none", r"gave 'NoneType'; allowed: an iterator of records"),
        ("bad_history", r"failed before its first record: TypeError: .*"),
        ("all_bad", r"gave 1000 errors and not one record before its first record, the last of them: bad row 1000"),
    ],
)
def test_a_fault_of_the_reader_is_one_line(file: Path, name: str, problem: str) -> None:
    """Which reader, which file, behind which row, what and where; for the doctor too, since no row is to blame."""
    for use in (drawn, checked) if name != "all_bad" else (checked,):
        with pytest.raises(ReaderError, match=rf"^rows\.txt: format '.*own\.py:{name}' {problem}$") as caught:
            use(file, name)
        assert isinstance(caught.value, InputError)
        assert "\n" not in str(caught.value)


def test_what_is_no_text_is_a_bad_row(file: Path) -> None:
    with pytest.raises(RecordError, match=r"^rows\.txt: entry 0: question: got 'NoneType'; allowed: a text$"):
        drawn(file, "no_text")


def test_half_a_character_is_a_bad_row_and_not_the_end(file: Path) -> None:
    found = checked(file, "half")
    names = ("question", "response", "target", "task", "id")
    assert [(str(row.place), row.code, row.message) for row in found.refused] == [
        (
            f"rows.txt: entry {number}",
            "unreadable_row",
            f"rows.txt: entry {number}: {name}: it holds half a character; allowed: text in Unicode",
        )
        for number, name in enumerate(names)
    ]
    assert (found.records, found.whole) == ([], True)


def test_an_iterator_that_goes_on_is_read_to_its_end(file: Path) -> None:
    """Rows 3 and 6 are records, and 6 is the last one."""
    found = checked(file, "some_bad")
    assert ([record.id for record in found.records], found.whole) == (["3", "6"], True)
    assert [(str(row.place), row.message) for row in found.refused] == [
        (f"rows.txt: entry {number - 1}", f"bad row {number}") for number in (1, 2, 4, 5)
    ]


def test_entries_that_fail_end_what_is_made_of_them(file: Path) -> None:
    found = checked(file, "bad_entries")
    assert (found.whole, [(row.place, row.message) for row in found.refused]) == (False, [(None, "bad row 1")])


def test_a_mapped_reader_goes_on_behind_its_bad_row(file: Path) -> None:
    found = checked(file, "mapped")
    assert ([record.id for record in found.records], found.whole) == (["a", "c"], True)
    assert [(str(row.place), row.message) for row in found.refused] == [("rows.txt: entry 1", "bad row b")]


def test_a_generator_ends_at_its_bad_row(file: Path) -> None:
    found = checked(file, "bad_generator")
    assert ([record.id for record in found.records], found.whole) == (["a"], False)
    assert [(row.place, row.message) for row in found.refused] == [(None, "bad row")]
    with pytest.raises(RecordError, match=r"^bad row$") as caught:
        drawn(file, "bad_generator")
    assert place_of(caught.value) is None


def test_the_limit_counts_records_and_no_errors(file: Path) -> None:
    records = read(f"{file.parent / 'own.py'}:some_bad", file, limit=2)
    given, errors = [], 0
    for _ in range(8):
        try:
            given.append(next(records).id)
        except RecordError:
            errors += 1
        except StopIteration:
            break
    assert (given, errors) == (["3", "6"], 4)


def test_faults_of_our_own_readers_keep_their_traceback(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omnistage.data import formats

    def broken(path: Path, **_: object) -> None:
        raise KeyError("x")

    monkeypatch.setitem(formats.READERS, "humansense", broken)
    with pytest.raises(KeyError):
        read("humansense", file)
    assert reading.MOST_ERRORS == 1000
