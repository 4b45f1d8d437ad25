"""Two evaluation folders and two runs of one, from the files on disk to the table."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from omnistage.data.errors import InputError
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record
from omnistage.stages import files
from omnistage.stages.benchmarks.columns import columns_for, columns_of, scores_by_run
from omnistage.stages.benchmarks.compare import compare, compare_runs, table
from omnistage.stages.benchmarks.figures import Figure, by
from omnistage.stages.benchmarks.items import Score, item_row
from omnistage.stages.measure.correlation import srcc
from omnistage.stages.measure.statistics import Z_95


def record(at: int, *, clip: str | None = None, task: str = "gesture") -> Record:
    media = (MediaRef("video", clip or f"{at}.mp4"),)
    return Record(f"q{at}", Modality.VIDEO, task, AnswerKind.SINGLE_CHOICE, f"what is {at} ?", "A", media, ("wave", "nod"))


def score(name: str, value: float | None, run: str = "greedy", **numbers: float) -> Score:
    return Score(name, run, "grade", value, value is not None, "A", "", numbers)


def write(folder: Path, records: Sequence[Record], scores: Sequence[Score]) -> Path:
    folder.mkdir(exist_ok=True)
    files.write_lines(folder / "items.jsonl", [item_row(each, "toy") for each in records])
    files.write_lines(folder / "scores.jsonl", [asdict(each) for each in scores])
    return folder


def accuracy(records: Sequence[Record]) -> list[Figure]:
    tasks = by([each.task for each in records])
    whole = Figure("accuracy", (tuple(range(len(records))),))
    return [whole, Figure("average over tasks", tuple(tasks.values()))]


def test_columns_stand_in_the_items_order() -> None:
    """Two items share a clip; the third was not answered, the fourth could not be judged."""
    records = [record(0, clip="a.mp4"), record(1, clip="b.mp4"), record(2, clip="a.mp4"), record(3)]
    scores = {"q3": score("q3", None), "q1": score("q1", 1.0, made=3.0), "q0": score("q0", 0.5, made=2.0, right=1.0)}
    found = columns_of(records, scores)
    assert np.array_equal(found.value, [0.5, 1, 0, np.nan], equal_nan=True)
    assert found.valid.tolist() == [True, True, False, False]
    assert found.clip.tolist() == [0, 1, 0, 2]
    assert np.array_equal(found.numbers["made"], [2, 3, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(found.numbers["right"], [1, np.nan, np.nan, np.nan], equal_nan=True)
    assert math.isnan(columns_of(records, scores, missing=math.nan).value[2])


def test_what_was_not_answered_is_wrong_and_has_no_error() -> None:
    records, scores = [record(0), record(1)], {"q0": score("q0", 0.5, iou=0.25, made=1.0, right=1.0)}
    all_of_it = ((0, 1),)
    assert columns_for(Figure("accuracy", all_of_it), records, scores).value.tolist() == [0.5, 0]
    assert columns_for(Figure("iou", all_of_it, column="iou"), records, scores).numbers["iou"].tolist() == [0.25, 0]
    assert math.isnan(columns_for(Figure("mm", all_of_it, unit="mm", higher_is_better=False), records, scores).value[1])
    numbers = columns_for(Figure("srcc", all_of_it, metric=srcc), records, scores).numbers
    assert np.array_equal(numbers["made"], [1, np.nan], equal_nan=True)
    assert np.isnan(columns_for(Figure("srcc", all_of_it, metric=srcc), records, {}).numbers["right"]).all()


def test_two_folders_are_joined_by_id(tmp_path: Path) -> None:
    """Ten items in two tasks of 8 and 2; after: 6 gained in the first task, none lost. p = 2 / 2^6. The folders' lines stand in another
    order. One item has no line after: wrong in both, so it does not differ."""
    records = [record(at, task="gesture" if at < 8 else "mood") for at in range(10)]
    before = write(tmp_path / "before", records, [score(f"q{at}", float(at >= 7)) for at in range(10) if at != 6])
    moved = [replace(each, media=(MediaRef("video", f"elsewhere/{each.id}.mp4"),)) for each in records[::-1]]
    after = write(tmp_path / "after", moved, [score(f"q{at}", 1.0) for at in range(10) if at != 6])
    result = compare(before, after, accuracy)
    whole, average = result["figures"]
    assert (result["items"], result["run"]) == (10, "greedy")
    assert (whole["before"], whole["after"], whole["value"]) == pytest.approx((0.3, 0.9, 0.6))
    assert (whole["p"], whole["items"], whole["clips"], whole["differ"], whole["unanswered"]) == (2 / 64, 10, 10, 6, [1, 1])
    assert (average["before"], average["after"]) == pytest.approx(((1 / 8 + 1) / 2, (7 / 8 + 1) / 2))
    assert average["p"] == whole["p"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    lines = table(result).splitlines()
    assert lines[0] == f"{after} against {before} (10 items, run greedy)"
    assert lines[2].split()[:4] == ["accuracy", "30.0", "90.0", "+60.0"]
    assert " 0.0312* " in lines[2]
    assert lines[2].endswith("(2 without a score)")


def test_of_nothing_nothing_is_said(tmp_path: Path) -> None:
    records = [record(0), record(1)]
    folder = write(tmp_path / "one", records, [score("q0", None), score("q1", None)])
    (row, _) = compare(folder, folder, accuracy)["figures"]
    assert (row["value"], row["low"], row["p"], row["items"]) == (None, None, None, 0)
    assert "- [-, -]" in table(compare(folder, folder, accuracy))


def test_folders_of_other_items_are_refused(tmp_path: Path) -> None:
    records = [record(at) for at in range(4)]
    scores = [score(f"q{at}", 1.0) for at in range(3)]
    one = write(tmp_path / "one", records[:3], scores)

    def said(others: Sequence[Record]) -> str:
        with pytest.raises(InputError) as caught:
            compare(one, write(tmp_path / "two", others, scores), accuracy)
        return str(caught.value).partition("compared: ")[2]

    assert said(records[:2]) == f"1 of 3 items are not the same; the first: id 'q2' is missing in {tmp_path / 'two' / 'items.jsonl'}"
    assert said(records) == f"1 of 4 items are not the same; the first: id 'q3' is missing in {tmp_path / 'one' / 'items.jsonl'}"
    changed = [records[0], replace(records[1], target="B"), replace(records[2], question="why ?")]
    assert said(changed) == "2 of 3 items are not the same; the first: id 'q1' has another target ('A' and 'B')"
    with pytest.raises(InputError, match="has no run 'blank'; it has greedy"):
        compare(one, one, accuracy, run="blank")
    write(tmp_path / "two", records, [score("q7", 1.0)])
    with pytest.raises(InputError, match=r"scores.jsonl: id 'q7' is that of no line of .*items.jsonl"):
        compare_runs(tmp_path / "two", accuracy)


def test_the_later_line_of_an_item_counts(tmp_path: Path) -> None:
    records = [record(0), record(1)]
    folder = write(tmp_path / "one", records, [score("q0", 0.0), score("q1", 0.0, "blank"), score("q0", 1.0)])
    found = scores_by_run(folder, records)
    assert [list(found), found["greedy"]["q0"].value] == [["greedy", "blank"], 1.0]


def test_probes_stand_beside_the_greedy_run(tmp_path: Path) -> None:
    """Twelve items right; blank media were asked of the first ten, of which two stay right. The drop is 0.8 over ten items, p = 2 / 2^8.
    Only two clips are unlike the others, so Bonett and Price: lost 9/12, gained 1/12."""
    records = [record(at, task="gesture" if at < 10 else "mood") for at in range(12)]
    scores = [score(f"q{at}", 1.0) for at in range(12)]
    scores += [score(f"q{at}", float(at < 2), "blank") for at in range(10)]
    scores += [score(f"q{at}", 1.0, "sample-0") for at in range(12)]
    folder = write(tmp_path / "one", records, scores)
    result = compare_runs(folder, lambda found: [*accuracy(found), Figure("mood", ((10, 11),))])
    assert list(result["runs"]) == ["blank"]
    blank = result["runs"]["blank"]
    assert blank["items"] == 10
    # "mood" was not asked with blank media: it is no figure here, and no part of the average.
    assert [row["name"] for row in blank["figures"]] == ["accuracy", "average over tasks"]
    for row in blank["figures"]:
        assert (row["before"], row["after"], row["value"], row["p"], row["items"]) == (
            1,
            pytest.approx(0.2),
            pytest.approx(-0.8),
            2 / 256,
            10,
        )
        assert (row["low"], row["high"]) == pytest.approx((-1, -8 / 12 + Z_95 * math.sqrt((10 / 12 - (8 / 12) ** 2) / 12)))
        assert row["unanswered"] == [0, 0]
    assert table(result).startswith("blank against greedy (10 items of both)\n")

    sampled = compare_runs(folder, accuracy, ["sample-0"])["runs"]["sample-0"]["figures"][0]
    # Nothing differs: Bonett and Price with 12 clips.
    assert (sampled["value"], sampled["p"]) == (0, 1)
    assert sampled["high"] == pytest.approx(Z_95 * math.sqrt(2) / 14)
    with pytest.raises(InputError, match="has no run 'muted'; it has greedy, blank, sample-0"):
        compare_runs(folder, accuracy, ["muted"])
    alone = write(tmp_path / "two", records, scores[:12])
    assert table(compare_runs(alone, accuracy)) == f"{alone} has no run beside greedy"
