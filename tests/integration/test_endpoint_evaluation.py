"""`omnistage evaluate --endpoint` against a real server on loopback: figures of known answers, errors, retries, kills, and refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from answer_server import AnswerServer
from clip_files import write_image
from omnistage.launch import cli
from omnistage.stages import files

ITEMS = 24
RIGHT = "yes"


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Two dozen questions with yes or no about two pictures: the even ones are right with yes, the odd ones with no."""
    for name in "ab":
        write_image(tmp_path / f"{name}.png", seed=ord(name))
    rows = [
        {
            "id": f"item-{number}",
            "messages": [
                {"role": "user", "content": f"<image>Is it {number}?"},
                {"role": "assistant", "content": ["yes", "no"][number % 2]},
            ],
            "images": [f"{'ab'[number % 2]}.png"],
            "task": "guess",
            "kind": "yes_no",
        }
        for number in range(ITEMS)
    ]
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(rows))
    return path


def asked(number: int) -> str:
    """What the server reads of an item."""
    return f"Is it {number}?"


def command(questions: Path, server: AnswerServer, out: Path, *more: str) -> list[str]:
    who = ["--endpoint", server.url, "--model", "m", "--concurrency", "2"]
    what = ["--data", str(questions), "--format", "conversations", "--prompt", "plain", "--batch-size", "4", "--out", str(out)]
    return ["evaluate", *who, *what, *more]


def evaluated(questions: Path, server: AnswerServer, out: Path, *more: str) -> dict[str, Any]:
    assert cli.main(command(questions, server, out, *more)) == 0
    found: dict[str, Any] = files.read_json(out / "scores.json")
    return found


def requests(server: AnswerServer) -> Counter[str]:
    return Counter({question: len(keys) for question, keys in server.keys.items()})


def yes() -> dict[str, Any]:
    return {asked(number): RIGHT for number in range(ITEMS)}


def test_answers_are_kept_and_scored(questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Yes to all is right 12 times of 24; item 1 is answered with nothing, item 3 with no sense, item 5 cut off at "no": right."""
    replies = yes() | {asked(1): "", asked(3): "perhaps", asked(5): "no"}
    out = tmp_path / "out"
    with AnswerServer(plan={asked(5): ["length"]}, replies=replies) as server:
        found = evaluated(questions, server, out)
        assert requests(server) == {asked(number): 1 for number in range(ITEMS)}
        assert {body["temperature"] for body in server.bodies} == {0.0}
        assert {body["max_tokens"] for body in server.bodies} == {1024}
        again = evaluated(questions, server, out)
        assert sum(requests(server).values()) == ITEMS, "the same command again asks nothing"
        setup = files.read_json(out / "setup.json")
    assert again == found
    assert setup["endpoint"] == {"url": server.url, "model": "m", "media": "frames"}
    figure = found["runs"]["greedy"]["figures"]["all items"]
    assert (figure["value"], figure["n"]) == (13 / 24, 24)
    assert (figure["valid_value"], figure["valid_n"]) == (pytest.approx(13 / 22), 22)
    counts = found["runs"]["greedy"]["counts"]
    assert {name: count for name, count in counts.items() if count} == {"items": 24, "ok": 22, "empty": 1, "truncated": 1, "unreadable": 1}
    rows = files.read_lines(out / "predictions.jsonl")
    assert [row["id"] for row in rows] == [f"item-{number}" for number in range(ITEMS)]
    assert rows[5] == {"id": "item-5", "run": "greedy", "raw": "no", "status": "truncated", "tokens": 7}
    capsys.readouterr()
    before = (out / "scores.json").read_bytes()
    assert cli.main(["score", str(out)]) == 0
    assert (out / "scores.json").read_bytes() == before


def test_samples_and_probes_of_a_server(questions: Path, tmp_path: Path) -> None:
    """Three samples at temperature 1 and a seed each, a blank picture, and the answers of the two compared."""
    with AnswerServer(replies=yes()) as server:
        found = evaluated(questions, server, tmp_path, "--samples", "3", "--probes", "blank", "swapped")
        sampled = [body for body in server.bodies if body["temperature"] == 1.0]
        black = [body for body in server.bodies if body["temperature"] == 0.0]
    assert len(sampled) == 3 * ITEMS
    assert len(black) == 3 * ITEMS
    assert len({body["seed"] for body in sampled}) == 3 * ITEMS / 4, "a batch of four has one seed a sample"
    assert list(found["runs"]) == ["greedy", "sample-0", "sample-1", "sample-2", "blank", "swapped", "pass@1", "pass@2", "pass@3", "maj@3"]
    assert {run: of["figures"]["all items"]["value"] for run, of in found["runs"].items()} == dict.fromkeys(found["runs"], 0.5)


def test_what_a_server_fails_at_is_counted_and_asked_again_where_wanted(
    questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Items 0 and 9 are refused, so in batches 0 and 2 of four each; they are wrong, and the command ends well. `--again` asks these two
    batches once more."""
    out = tmp_path / "out"
    with AnswerServer(plan={asked(0): ["400"], asked(9): ["400"]}, replies=yes()) as server:
        found = evaluated(questions, server, out)
        counts = found["runs"]["greedy"]["counts"]
        assert (counts["items"], counts["ok"], counts["error"]) == (24, 22, 2)
        assert found["runs"]["greedy"]["figures"]["all items"]["value"] == 11 / 24
        assert f"{out}: 2 of 24 items could not be asked (greedy); predictions.jsonl says why" in "".join(capsys.readouterr())
        errors = {row["id"]: row["error"] for row in files.read_lines(out / "predictions.jsonl") if row["status"] == "error"}
        assert errors == {"item-0": "status 400: no: None", "item-9": "status 400: no: None"}
        assert sum(requests(server).values()) == ITEMS
        evaluated(questions, server, out)
        assert sum(requests(server).values()) == ITEMS, "without --again they stay as they are"
        mended = evaluated(questions, server, out, "--again")
        assert requests(server) == {asked(number): 2 if number in (0, 1, 2, 3, 8, 9, 10, 11) else 1 for number in range(ITEMS)}
        assert "2 batches are asked again" in "".join(capsys.readouterr())
    assert mended["runs"]["greedy"]["counts"]["error"] == 0
    assert mended["runs"]["greedy"]["figures"]["all items"]["value"] == 0.5


def test_after_a_kill_nothing_that_is_on_disk_is_asked_again(questions: Path, tmp_path: Path) -> None:
    """Killed after at least two of six batches; the rest is asked by the same command, to the bytes of a whole run but for the URL."""
    out = tmp_path / "out"
    with AnswerServer(replies=yes(), delay_s=0.1) as server:
        started = [sys.executable, "-m", "omnistage.launch", *command(questions, server, out)]
        asking = subprocess.Popen(started, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
        part = out / "parts" / "0.jsonl"
        while not part.is_file() or part.read_bytes().count(b"\n") < 2:
            assert asking.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        asking.send_signal(signal.SIGKILL)
        asking.wait()
        kept = [row["batch"] for row in map(json.loads, part.read_text().splitlines(keepends=False)[: part.read_bytes().count(b"\n")])]
        assert 2 <= len(kept) < 6
        server.delay_s = 0.0
        evaluated(questions, server, out)
        counts = requests(server)
        whole = evaluated(questions, server, tmp_path / "whole")
    on_disk = {asked(4 * int(key.partition("/")[2]) + place) for key in kept for place in range(4)}
    assert all(counts[question] == 1 for question in on_disk)
    assert set(counts) == {asked(number) for number in range(ITEMS)}
    assert sum(counts.values()) <= ITEMS + 4, "at most the batch that was under way"
    assert files.read_json(out / "scores.json") == whole
    for name in ("items.jsonl", "predictions.jsonl", "scores.jsonl"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (out / "parts").exists()


BAD: dict[str, tuple[list[str], str]] = {
    "nobody": ([], "give either CHECKPOINT (a folder or a Hugging Face id) or --endpoint; neither is given"),
    "both": (["model", "--endpoint", "http://localhost:1/v1", "--model", "m"], "give either CHECKPOINT (a folder or a Hugging Face id)"),
    "no model": (["--endpoint", "http://localhost:1/v1"], "--endpoint needs --model"),
    "model alone": (["model", "--model", "m"], "--model goes with --endpoint"),
    "key alone": (["model", "--key-env", "KEY"], "--key-env goes with --endpoint"),
    "again alone": (["model", "--again"], "--again goes with --endpoint"),
    "processes": (
        ["--endpoint", "http://localhost:1/v1", "--model", "m", "--processes", "2"],
        "--processes and --head are for a checkpoint",
    ),
    "head": (["--endpoint", "http://localhost:1/v1", "--model", "m", "--head", "mos"], "--processes and --head are for a checkpoint"),
    "no url": (["--endpoint", "localhost", "--model", "m"], "url is 'localhost'; must be the address of a server"),
    "no key": (
        ["--endpoint", "http://localhost:1/v1", "--model", "m", "--key-env", "NO_SUCH_KEY"],
        "the environment variable 'NO_SUCH_KEY'",
    ),
    "judge": (["--endpoint", "http://localhost:1/v1", "--model", "m", "--judge-model", "j"], "--judge-model goes with --judge"),
    "judge without a model": (["--endpoint", "http://localhost:1/v1", "--model", "m", "--judge", "http://localhost:1/v1"], "--judge needs"),
    "benchmark": (["model", "--benchmark", "humansens"], "unknown benchmark 'humansens'; did you mean 'humansense'?"),
    "ask": (["--endpoint", "http://localhost:1/v1", "--model", "m", "--ask", "asr"], "benchmark 'choice': unknown way to ask 'asr'"),
}


@pytest.mark.parametrize("case", BAD)
def test_options_that_cannot_be_together(case: str, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, message = BAD[case]
    what = ["--data", str(questions), "--format", "conversations", "--out", str(tmp_path / "out")]
    assert cli.main(["evaluate", *given, *what]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"omnistage: {message}")
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_whole_files_cannot_be_blank(questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with AnswerServer(replies=yes()) as server:
        assert cli.main(command(questions, server, tmp_path / "out", "--endpoint-media", "files", "--probes", "blank")) == 2
        assert server.bodies == [], "what could have been asked is not paid for first"
    err = capsys.readouterr().err
    assert err.startswith("omnistage: questions.json: record 0: ")
    assert err.endswith("is shown blank or shuffled, and media is 'files', which sends a clip as it is; allowed: 'frames'\n")
    assert err.count("\n") == 1


def test_another_server_is_another_evaluation(questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with AnswerServer(replies=yes()) as server:
        evaluated(questions, server, tmp_path / "out")
        capsys.readouterr()
        assert cli.main([*command(questions, server, tmp_path / "out"), "--model", "other"]) == 2
        assert 'another evaluation stands there: endpoint.model is "m" there and "other" here; choose' in capsys.readouterr().err
