"""Rewards called again on recorded rollouts: how their values are spread, and what another reward would have taught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omnistage.data.errors import InputError
from omnistage.data.records import AnswerKind, Modality, Record
from omnistage.rewards import rollouts
from omnistage.rewards.base import columns_of
from omnistage.rewards.bench.replay import replay
from omnistage.rewards.registry import RewardSpec, load

OWN = """
from omnistage.rewards.base import reward


def text(completion):
    return completion[0]["content"]


def length(completions, **columns):
    return [float(len(text(c))) for c in completions]


def shortness(completions, **columns):
    return [-float(len(text(c))) for c in completions]


def first_letter(completions, target, **columns):
    return [None if not text(c) else float(text(c)[0] == t) for c, t in zip(completions, target)]


def tokens(completion_ids, **columns):
    return [float(len(ids)) for ids in completion_ids]


async def later(completions, **columns):
    return [float(len(text(c))) for c in completions]


@reward(needs=["shuffled"])
def temporal(completions, shuffled, **columns):
    return [float(len(texts)) for texts in shuffled]


@reward(needs=["heads"])
def readout(completions, heads, **columns):
    return [read["mos"][0]["values"]["score"] for read in heads]
"""
MESSAGES = '[{"role": "user", "content": [{"type": "text", "text": "What?"}]}]'
GROUPS = [["B", "Bx", "Axx", ""], ["A", "A", "A", "A"]]


def rows(step: int, **more: Any) -> list[dict[str, Any]]:
    made = []
    for group, texts in enumerate(GROUPS):
        record = Record(f"r{group}", Modality.VIDEO, "t", AnswerKind.SINGLE_CHOICE, "What?", "B", options=("x", "y"))
        for text in texts:
            row = columns_of(record) | {
                "group": group,
                "prompt": "What?",
                "messages": MESSAGES,
                "completion": text,
                "completion_ids": [1] * len(text),
            }
            made.append(row | {"advantage": 0.0, "reward/length": float(len(text)), "reward/odd": None} | more)
    return made


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    for step in (1, 2):
        rollouts.write(tmp_path / "run" / "02-video" / "rollouts", step, rows(step))
    rollouts.write(tmp_path / "run" / "03-audio" / "rollouts", 1, rows(1))
    return tmp_path / "run"


def own(run: Path, name: str) -> Any:
    return load(RewardSpec(f"{run.parent / 'own.py'}:{name}"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = rows(7, **{"advantage/think": 0.5, "extra/seen": {"a": [1]}, "shuffled": ["x", ""]})
    rollouts.write(tmp_path, 7, written)
    (read,) = rollouts.read(tmp_path)
    assert read == [row | {"step": 7, "extra/seen": '{"a": [1]}'} for row in written]
    assert [path.name for path in tmp_path.iterdir()] == ["step-000007.parquet"]


def test_the_spread_of_one_reward(run: Path) -> None:
    spread, *_ = replay(run, own(run, "first_letter")).spreads
    assert (spread.completions, spread.scored, spread.groups, spread.groups_without_spread) == (24, 21, 6, 3)
    assert (spread.low, spread.high, sum(spread.counts)) == (0.0, 1.0, 21)
    assert spread.mean == pytest.approx(6 / 21)


def test_without_another_reward_it_is_compared_with_what_was_recorded(run: Path) -> None:
    report = replay(run, own(run, "length"))
    assert [spread.name for spread in report.spreads] == ["length", "length as recorded"]
    assert report.comparison is not None
    assert (report.comparison.equal, report.comparison.both_scored, report.comparison.rankings_changed) == (24, 24, 0)
    assert report.differing == []


def test_two_rewards_that_rank_the_other_way_round(run: Path) -> None:
    report = replay(run, own(run, "length"), own(run, "shortness"), stage="video", most=3)
    found = report.comparison
    assert found is not None
    assert found.rank_correlation == pytest.approx(-1)
    assert (found.groups, found.rankings_changed, found.rankings_reversed) == (4, 2, 2)
    assert [row["completion"] for row in report.differing] == ["Axx", "Axx", "Bx"]
    assert {row["stage"] for row in report.differing} == {"video"}
    assert "rankings changed in 2 of 4 groups, reversed in 2" in report.table()


def test_ties_change_a_ranking_without_reversing_it(run: Path) -> None:
    found = replay(run, own(run, "length"), own(run, "first_letter"), stage="audio").comparison
    assert found is not None
    # Scored by both: B, Bx, Axx (lengths 1, 2, 3; values 1, 1, 0) and four times A.
    assert (found.both_scored, found.only_first, found.rankings_changed, found.rankings_reversed) == (7, 1, 1, 1)


def test_without_a_record_it_says_what_there_is(run: Path) -> None:
    report = replay(run, own(run, "tokens"))
    assert report.comparison is None
    assert report.table().endswith("to compare with; it recorded: length, odd")


@pytest.mark.parametrize("folder", [".", "02-video", "02-video/rollouts"])
def test_a_run_a_stage_and_a_folder_of_rollouts(run: Path, folder: str) -> None:
    assert replay(run / folder, own(run, "tokens")).spreads[0].high == 3


def test_async_rewards_are_called(run: Path) -> None:
    assert replay(run, own(run, "later"), own(run, "length")).comparison.equal == 24  # type: ignore[union-attr]


def test_a_reward_that_needs_shuffled_frames(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs the column 'shuffled'.*which this run did not record$"):
        replay(run, own(run, "temporal"))
    rollouts.write(tmp_path / "other", 1, rows(1, shuffled=["a", "b"]))
    assert replay(tmp_path / "other", own(run, "temporal")).spreads[0].mean == 2


def test_a_reward_that_needs_heads(run: Path, tmp_path: Path) -> None:
    """What was read off a completion is recorded as text and handed to the reward as it was."""
    text = '{"mos": [{"values": {"score": 2.5}}], "pose": []}'
    rollouts.write(tmp_path / "other", 1, rows(1, heads=text))
    assert [row["heads"] for row in next(rollouts.read(tmp_path / "other"))] == [text] * 8
    assert replay(tmp_path / "other", own(run, "readout")).spreads[0].mean == 2.5
    with pytest.raises(InputError, match="needs the column 'heads'"):
        replay(run, own(run, "readout"))


@pytest.mark.parametrize(
    ("where", "stage", "problem"),
    [
        ("nowhere", None, "no such folder"),
        ("..", None, "holds no recorded rollouts"),
        (".", "vide", "no stage 'vide' with rollouts; there are: video, audio"),
    ],
)
def test_what_cannot_be_replayed(run: Path, where: str, stage: str | None, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        replay(run / where, own(run, "length"), stage=stage)


def test_a_reward_is_called_as_in_training(run: Path) -> None:
    (run.parent / "seen.py").write_text(
        "def seen(completions, prompts, trainer_state, **columns):\n"
        "    assert prompts[0] == [{'role': 'user', 'content': [{'type': 'text', 'text': 'What?'}]}]\n"
        "    return [float(trainer_state.global_step)] * len(completions)\n"
    )
    assert replay(run, load(RewardSpec(f"{run.parent / 'seen.py'}:seen")), stage="video").spreads[0].mean == 0.5


@pytest.mark.parametrize("rows", [[], [{"a": 1}]], ids=["no rows", "other columns"])
def test_a_parquet_file_of_something_else(tmp_path: Path, rows: list[dict[str, int]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema([("a", pa.int64())])), tmp_path / "step-000001.parquet")
    with pytest.raises(InputError, match=r"step-000001.parquet: holds no recorded rollouts \(no (rows|column 'record_id')\)"):
        list(rollouts.read(tmp_path))


def test_a_file_that_is_no_parquet(run: Path) -> None:
    (run / "02-video" / "rollouts" / "step-000002.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(InputError, match=r"step-000002.parquet: cannot be read as Parquet"):
        replay(run, own(run, "length"))
