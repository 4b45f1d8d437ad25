"""Each benchmark by the real command on its published layout: asked, scored, scored again to the same bytes, compared.

The model is tiny and untrained, so that what it says is mostly unreadable: what figures make of answers that can be read is shown by the
tests of each benchmark, and by those of an endpoint, whose answers are known.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import golden_benchmarks
from head_data import SCORES
from mark_server import MarkServer
from omnistage.launch import cli
from omnistage.rl.heads import carried
from omnistage.rl.heads.spec import HeadSpec
from world import World

SPLITS = ("instit_image_open_ended", "instit_image_multi_choice", "instit_video_open_ended", "instit_video_multi_choice")
# Benchmark, its files, further options, the number of its items, and its headline.
CASES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...], int, str]] = {
    "humansense": ("humansense", ("humansense_vqa", "humansense_aqa"), ("--compat", "upstream"), 9, "average"),
    "instit": ("instit", SPLITS, ("--compat", "upstream"), 8, "image, open-ended"),
    "hisbench": ("hisbench", ("hisbench",), ("--compat", "upstream"), 4, "average"),
    "gen3dhf_text": (
        "gen3dhf",
        ("gen3dhf_text_quality", "gen3dhf_text_authenticity"),
        ("--compat", "upstream"),
        6,
        "quality/level_accuracy",
    ),
    "gen3dhf_numerical": (
        "gen3dhf",
        ("gen3dhf_numerical_quality", "gen3dhf_numerical_authenticity"),
        ("--compat", "upstream", "--ask", "scale"),
        6,
        "quality/srcc",
    ),
    "text_to_pose": ("pose", ("posescript",), ("--compat", "upstream", "--ask", "numbers"), 3, "pa_mpjpe_mm"),
    "image_to_pose": ("pose", ("pose_images",), ("--compat", "upstream"), 3, "pa_mpjpe_mm"),
    "choice": ("choice", ("humansense_vqa",), (), 7, "all items"),
    "open": ("open", ("hisbench",), ("--format", "hisbench"), 4, "all items"),
}
OPEN = {"instit", "hisbench", "open"}
SCORED = ("scores.jsonl", "scores.json", "card.md")


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return golden_benchmarks.write(tmp_path_factory.mktemp("golden"))


def root(golden: dict[str, Path]) -> Path:
    """The media root of all of them."""
    return golden["humansense_vqa"].parent


def arguments(world: World, golden: dict[str, Path], case: str, out: Path, *more: str) -> list[str]:
    benchmark, files, options, *_ = CASES[case]
    data = ["--benchmark", benchmark, "--data", *(str(golden[file]) for file in files), "--media-root", str(root(golden))]
    return ["evaluate", str(world.checkpoint), *data, "--max-new-tokens", "6", "--batch-size", "4", "--out", str(out), *options, *more]


def evaluated(world: World, golden: dict[str, Path], case: str, out: Path, *more: str) -> dict[str, Any]:
    assert cli.main(arguments(world, golden, case, out, *more)) == 0
    return read(out)


def read(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "scores.json").read_text())
    return found


def lines(out: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


@pytest.mark.parametrize("case", CASES)
def test_each_benchmark_from_its_files_to_a_comparison(
    case: str, world: World, golden: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark, _, options, items, headline = CASES[case]
    out, other = tmp_path / "out", tmp_path / "other"
    found = evaluated(world, golden, case, out)
    assert (found["benchmark"], found["items"], found["headline"]) == (benchmark, items, headline)
    assert found["runs"]["greedy"]["counts"]["items"] == items
    assert ("upstream" in found) == ("--compat" in options)
    said = capsys.readouterr().out
    assert said.startswith(f"{benchmark}: {items} items\n")
    assert len({row["id"] for row in lines(out, "items.jsonl")}) == items
    assert [row["id"] for row in lines(out, "predictions.jsonl")] == [row["id"] for row in lines(out, "items.jsonl")]
    # Again, without the model: the same figures, byte for byte.
    before = {name: (out / name).read_bytes() for name in SCORED}
    assert cli.main(["score", str(out), *(("--compat", "upstream") if "--compat" in options else ())]) == 0
    assert {name: (out / name).read_bytes() for name in SCORED} == before
    assert capsys.readouterr().out == said
    # Beside another wording of the questions.
    evaluated(world, golden, case, other, "--prompt", "short")
    capsys.readouterr()
    assert cli.main(["compare", str(out), str(other)]) == 0
    table = capsys.readouterr().out
    assert table.startswith(f"{other} against {out} ({items} items, run greedy)\n")
    assert all(f"\n{name} " in table for name in found["runs"]["greedy"]["figures"])
    assert cli.main(["compare", str(out), str(other), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in compared["figures"]] == list(found["runs"]["greedy"]["figures"])


@pytest.mark.parametrize("case", ["humansense", "instit", "gen3dhf_text", "gen3dhf_numerical", "text_to_pose", "image_to_pose"])
def test_samples_and_probes(case: str, world: World, golden: dict[str, Path], tmp_path: Path) -> None:
    """Errors of scores and poses do not pass or fail, so of their samples there is no pass@k; and a text has no blank clip."""
    probes = {"text_to_pose": [], "image_to_pose": ["blank"]}.get(case, ["blank", "shuffled"])
    given = ["--probes", *probes] if probes else []
    if "shuffled" not in probes:
        more = [*given, "shuffled"] if probes else ["--probes", "shuffled"]
        assert cli.main(arguments(world, golden, case, tmp_path, *more)) == 2, "a probe that says nothing is refused, not left out"
    found = evaluated(world, golden, case, tmp_path, "--samples", "2", *given)
    passed = ["pass@1", "pass@2", "maj@2"] if case in ("humansense", "gen3dhf_text") else []
    assert list(found["runs"]) == ["greedy", "sample-0", "sample-1", *probes, *passed]
    assert list(found["probes"]) == probes
    # What is only heard, or is one picture, has no order of frames.
    expected = {"humansense": 7, "instit": 4, "gen3dhf_text": 6, "gen3dhf_numerical": 6}
    for run in probes:
        asked = found["runs"][run]["counts"]["items"]
        assert asked == (expected[case] if run == "shuffled" else found["items"])
    card = (tmp_path / "card.md").read_text()
    assert all(f" {run} |" in card.splitlines()[2] for run in [*probes, *passed])
    # Each run has the headline, though a probe may leave out a whole task; but what is about images alone has no order of frames.
    if case != "instit":
        headline = next(line for line in card.splitlines() if line.startswith("| **"))
        assert all(cell.strip() for cell in headline.split("|")[1:4] + headline.split("|")[-len([*probes, *passed]) - 1 : -1])
    assert cli.main(["compare", str(tmp_path), str(tmp_path), "--run", "sample-1"]) == 0


def test_humansense_asked_with_a_guide_and_a_transcript(world: World, golden: dict[str, Path], tmp_path: Path) -> None:
    evaluated(world, golden, "humansense", tmp_path, "--ask", "guided", "asr")
    asked = {row["task"]: row["question"] for row in lines(tmp_path, "items.jsonl")}
    assert all("Before you answer, work out three things" in question for question in asked.values())
    assert "speech recogniser wrote it down:\nHello. Hello, you.\n" in asked["Talkingperson_Recognition"]
    assert "speech recogniser" not in asked["Action_Recognition"], "a clip without a transcript is asked about as it is"
    assert json.loads((tmp_path / "setup.json").read_text())["ask"] == ["guided", "asr"]


@pytest.mark.parametrize("case", ["instit", "hisbench", "open"])
def test_open_answers_wait_for_a_judge_and_keep_its_marks(
    case: str, world: World, golden: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a judge: counted, and no figure. With one: every answer that says something is marked once. Without it again: kept."""
    found = evaluated(world, golden, case, tmp_path / "out")
    open_items = [row["id"] for row in lines(tmp_path / "out", "items.jsonl") if row["kind"] == "open"]
    assert len(open_items) == 4
    counts = found["runs"]["greedy"]["counts"]
    waiting = counts["not_judged"]
    assert waiting > 0
    assert found["runs"]["greedy"]["figures"][found["headline"]]["value"] is None
    assert "not judged" in capsys.readouterr().out
    with MarkServer() as server:
        judge = ["--judge", server.url, "--judge-model", "m"]
        assert cli.main(["score", str(tmp_path / "out"), *judge, "--judge-repeats", "2"]) == 0
        judged = read(tmp_path / "out")
        # Two repeats of each answer; two of the same words to one question are one judgement.
        marked = [row for row in lines(tmp_path / "out", "scores.jsonl") if row.get("judge")]
        questions = {row["id"]: row["question"] for row in lines(tmp_path / "out", "items.jsonl")}
        different = {(questions[row["id"]], row["answer"]) for row in marked}
        paid = len(server.report()["charged"])
        assert paid == 2 * len(different)
        assert cli.main(["score", str(tmp_path / "out"), *judge, "--judge-repeats", "2"]) == 0
        assert len(server.report()["charged"]) == paid, "what stands in the ledger is not paid for again"
        evaluated(world, golden, case, tmp_path / "at once", *judge, "--judge-repeats", "2")
    assert judged["runs"]["greedy"]["counts"]["not_judged"] == 0
    assert judged["runs"]["greedy"]["figures"][judged["headline"]]["value"] is not None
    assert len(marked) == waiting
    best = 2.0 if case == "hisbench" else 1.0
    for row in marked:
        assert row["value"] == pytest.approx(sum(row["judge"]["marks"]) / (2 * best))
    kept = (tmp_path / "out" / "scores.jsonl").read_bytes()
    assert cli.main(["score", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "scores.jsonl").read_bytes() == kept
    assert (tmp_path / "at once" / "scores.jsonl").read_bytes() == kept


def test_a_head_is_read_in_place_of_words(world: World, golden: dict[str, Path], tmp_path: Path) -> None:
    """Its number is the answer: the scores are the distances from it, whatever the policy would have said."""
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(world.checkpoint, checkpoint)
    model = world.model()
    carried.add(model, HeadSpec.model_validate(SCORES))
    carried.write(model, checkpoint)
    found = evaluated(World(world.data, checkpoint), golden, "gen3dhf_numerical", tmp_path / "out", "--probes", "blank")
    rows = {row["id"]: row for row in lines(tmp_path / "out", "items.jsonl")}
    made = {row["id"]: row for row in lines(tmp_path / "out", "predictions.jsonl") if row["run"] == "greedy"}
    scores = {row["id"]: row for row in lines(tmp_path / "out", "scores.jsonl") if row["run"] == "greedy"}
    assert len(made) == 6
    for name, row in made.items():
        assert (row["raw"], row["status"], row["head"]["name"]) == (None, "ok", "mos")
        [value] = row["head"]["values"]
        number, right = value["values"]["score"], rows[name]["values"][0]
        assert scores[name]["value"] == pytest.approx(abs(number - right), abs=1e-9)
        assert scores[name]["valid"]
    assert len({row["head"]["values"][0]["values"]["score"] for row in made.values()}) > 1
    counts = found["runs"]["greedy"]["counts"]
    assert (counts["ok"], counts["unreadable"]) == (6, 0)
    assert json.loads((tmp_path / "out" / "setup.json").read_text())["head"] == "mos"
    assert list(found["runs"]) == ["greedy", "blank"]
    assert cli.main(arguments(World(world.data, checkpoint), golden, "gen3dhf_numerical", tmp_path / "no", "--head", "most")) == 2
    assert cli.main(arguments(world, golden, "gen3dhf_numerical", tmp_path / "none", "--head", "mos")) == 2


def test_poses_are_retrieved_by_an_embedding_of_ones_own(world: World, golden: dict[str, Path], tmp_path: Path) -> None:
    """Three poses, none readable: all are the rest pose, so all are as near as the right one. That is place 2 of 3: a hit at 5."""
    evaluated(world, golden, "text_to_pose", tmp_path / "out")
    embed = "import numpy as np\ndef embed(texts, poses):\n    return np.eye(len(texts), 5), np.ones((len(texts), 5))\n"
    (tmp_path / "embed.py").write_text(embed)
    assert cli.main(["score", str(tmp_path / "out"), "--embedding", f"{tmp_path / 'embed.py'}:embed"]) == 0
    figures = read(tmp_path / "out")["runs"]["greedy"]["figures"]
    assert figures["recall_t2p_at_5"]["value"] == 1.0
    assert figures["recall_t2p_at_5"]["n"] == 3


def test_the_command_as_it_is_installed(world: World, golden: dict[str, Path], tmp_path: Path) -> None:
    """In a process of its own, with its output as JSON: that of `scores.json`, and nothing else on stdout."""
    command = [sys.executable, "-m", "omnistage.launch", *arguments(world, golden, "choice", tmp_path, "--json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == read(tmp_path)


@pytest.mark.parametrize(
    ("benchmark", "files", "reader", "message"),
    [
        ("humansense", "hisbench", "hisbench", "benchmark 'humansense' needs answers that are right or wrong"),
        ("gen3dhf", "posescript", "chatpose", "its task is 'text_to_pose'; allowed: quality, authenticity"),
        ("pose", "humansense_vqa", "humansense", "is of kind multi_select with 0 values; allowed: a pose with 216"),
        ("open", "humansense_vqa", "humansense", "a question of kind multi_select; benchmark 'open' asks for open"),
        ("hisbench", "humansense_vqa", "humansense", "a question of kind multi_select; benchmark 'hisbench' asks for open"),
    ],
)
def test_questions_of_another_benchmark_are_refused(
    benchmark: str,
    files: str,
    reader: str,
    message: str,
    world: World,
    golden: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before anything is asked, in one line."""
    data = ["--data", str(golden[files]), "--media-root", str(root(golden)), "--format", reader]
    assert cli.main(["evaluate", str(world.checkpoint), "--benchmark", benchmark, *data, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said
    assert not any((tmp_path / "out").iterdir())
