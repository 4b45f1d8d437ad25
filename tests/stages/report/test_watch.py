"""A run served while it is written: only to who has its address, only to be read, and nothing but what the page shows of it."""

from __future__ import annotations

import base64
import fcntl
import io
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import av
import pytest

from omnistage.launch import cli
from omnistage.stages import files
from omnistage.stages.report import rollouts
from omnistage.stages.report.live import Live
from omnistage.stages.report.reading import Notes
from report_run import completion, copied, recorded
from watched import Watched, watched

WRITER = """
import sys, time
with open(sys.argv[1], "a") as file:
    for step in range(7, 12):
        line = '{"step": %d, "reward": 0.5, "loss": 0.25}\\n' % step
        file.write(line[:12]); file.flush(); time.sleep(0.2)
        file.write(line[12:]); file.flush()
    file.write('{"step": 12, "rew'); file.flush()
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def half(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real run in the middle of its third stage."""
    folder = tmp_path_factory.mktemp("watched") / "run"
    return copied(run, folder, without=["04-audio_video", "03-audio/model", "03-audio/evaluation", "03-audio/seconds.json", "summary.json"])


@pytest.fixture(scope="module")
def serving(half: Path) -> Iterator[Watched]:
    with watched(half) as found:
        yield found


def test_the_page_holds_no_data_and_fetches_from_itself_alone(serving: Watched) -> None:
    page = serving.ask("")
    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert b'id="data"' not in page.body
    rules = dict(rule.split(" ", 1) for rule in page.headers["Content-Security-Policy"].split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == rules["media-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"
    zipped = serving.ask("", Accept_Encoding="gzip")
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert len(zipped.body) < len(page.body) / 2
    head = serving.ask("", method="HEAD")
    assert (head.status, head.body, int(head.headers["Content-Length"])) == (200, b"", len(page.body))


@pytest.mark.parametrize("path", ["", "data.json", "clips/x", "/", "/favicon.ico"])
def test_every_answer_is_kept_from_others(path: str, serving: Watched) -> None:
    headers = serving.ask(path).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers


def test_without_the_token_there_is_nothing(serving: Watched) -> None:
    token = serving.path.strip("/")
    assert len(token) >= 32
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    paths = ["/", "/data.json", f"/{wrong}/", f"/{token[:-1]}/data.json", f"/{token}x/", "/%2e%2e/", "//", f"/?{token}"]
    answers = [serving.ask(path) for path in paths]
    assert [answer.status for answer in answers] == [403] * len(paths)
    assert {answer.body for answer in answers} == {b"403 Forbidden\n"}
    assert serving.ask("/" + token).headers["Location"] == serving.path


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::1]", "0.0.0.0"]
)
def test_other_names_of_the_machine_are_refused(host: str, serving: Watched) -> None:
    """A page whose name was made to lead here (DNS rebinding) asks by that name."""
    assert serving.ask("data.json", host=host).status == 403


def test_its_own_names_are_answered_at_any_port(serving: Watched) -> None:
    for host in ("127.0.0.1", "localhost", f"localhost:{serving.port}", "LOCALHOST:9999"):
        assert serving.ask("data.json", method="HEAD", host=host).status == 200


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /{token}/ HTTP/x", 400),
        ("GET /{token}/ HTTP/9.0", 505),
        ("GET /{token}/ and more HTTP/1.1", 400),
        ("{token}", 400),
        ("GET /{token}/" + "a" * 70_000 + " HTTP/1.1", 414),
        ("GET /{token}/ HTTP/1.1\r\nX: " + "a" * 70_000, 431),
    ],
)
def test_what_is_no_request_is_refused_without_its_words(line: str, status: int, serving: Watched) -> None:
    """As every other answer: plain, kept by nobody, and closed."""
    token = serving.path.strip("/")
    with socket.create_connection(("127.0.0.1", serving.port), timeout=60) as there:
        there.sendall(line.format(token=token).encode() + b"\r\nHost: evil.example\r\n\r\n")
        told = b""
        # The rest of a line that is too long is not read: the connection may end harder than others.
        with suppress(ConnectionError):
            while part := there.recv(65536):
                told += part
    head, _, body = told.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert body == f"{status} {HTTPStatus(status).phrase}\n".encode()
    for field in (b"Cache-Control: no-store", b"Content-Security-Policy: default-src 'none'", b"Content-Type: text/plain"):
        assert field in head
    assert token.encode() not in told


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "BREW"])
def test_nothing_can_be_done_but_reading(method: str, serving: Watched) -> None:
    answer = serving.ask("data.json", method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_no_path_of_a_file_is_an_address(serving: Watched, half: Path) -> None:
    """However it is written; the files are there."""
    assert (half / "run.json").is_file()
    up = ["..", "%2e%2e", "..%2f..", "%252e%252e", "..\\..", "clips/../..", "clips/%2e%2e/%2e%2e"]
    tries = [f"{one}/run.json" for one in up]
    tries += ["run.json", "clips", "clips/", "clips/run.json", "02-video/", "02-video/metrics.jsonl", "data/", f"clips/{half}/run.json"]
    tries += [str(half / "run.json").lstrip("/"), "file:///etc/passwd", "clips/" + "0" * 24 + ".json", "clips/" + "0" * 24 + ".mp4"]
    for path in tries:
        answer = serving.ask(path)
        assert (answer.status, answer.body) == (404, b"404 Not Found\n"), path
    assert serving.ask(f"/..{serving.path}run.json").status == 403


def test_the_same_view_as_the_report_has(serving: Watched, run: Path) -> None:
    found = serving.until(lambda found: found.get("data", {}).get("summary"))
    data = found["data"]
    assert [(stage["name"], stage["state"]) for stage in data["stages"]] == [
        ("cold_start", "done"),
        ("video", "done"),
        ("audio", "begun"),
        ("audio_video", "waiting"),
    ]
    rows = [row for row in files.read_lines(run / "02-video" / "metrics.jsonl") if "loss" in row]
    assert data["stages"][1]["metrics"]["columns"]["reward"] == [row["reward"] for row in rows]
    assert data["shown"]["groups"] == 48
    kept = files.read_json(run / "summary.json")
    assert data["summary"]["stages"][1]["modalities"]["video"]["accuracy"] == kept["stages"][1]["modalities"]["video"]["accuracy"]


def test_clips_are_fetched_by_name_and_in_parts(serving: Watched) -> None:
    found = serving.ask("data.json").json()
    group = next(part for key, part in found["parts"].items() if key.startswith("group-") and part["modality"] == "video")
    entry = found["parts"][f"clip-{group['clips'][0]}"]
    assert set(entry) == {"name", "kind", "later"}
    told = serving.ask(f"clips/{entry['later']}.json").json()
    assert base64.b64decode(told["strip"].partition(",")[2])[:2] == b"\xff\xd8"
    address = told["video"]
    whole = serving.ask(address)
    assert (whole.status, whole.headers["Content-Type"], whole.headers["Accept-Ranges"]) == (200, "video/mp4", "bytes")
    with av.open(io.BytesIO(whole.body), "r") as file:
        assert len(list(file.decode(video=0))) == 4
    size = len(whole.body)
    for asked, start, end in (
        ("bytes=0-99", 0, 99),
        ("bytes=100-", 100, size - 1),
        ("bytes=-50", size - 50, size - 1),
        (f"bytes=5-{size * 2}", 5, size - 1),
    ):
        part = serving.ask(address, Range=asked)
        assert (part.status, part.headers["Content-Range"]) == (206, f"bytes {start}-{end}/{size}")
        assert part.body == whole.body[start : end + 1]
    beyond = serving.ask(address, Range=f"bytes={size}-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{size}")
    for other in (f"bytes={'9' * 5000}-", f"bytes=-{'9' * 19}", "bytes=9-3", "bytes=0-1,4-5", "lines=1-2", "bytes=-", "bytes=x-"):
        assert serving.ask(address, Range=other).body == whole.body
    assert serving.ask(address, Range="bytes=0-9", If_Range='"other"').status == 200
    assert serving.ask(address, Range="bytes=0-9", If_Range=whole.headers["ETag"]).status == 206


def test_nothing_new_is_told_by_its_tag_and_what_is_written_arrives(serving: Watched, half: Path) -> None:
    """A process appends to metrics.jsonl, every line in two halves, and stops within the last."""
    serving.until(lambda found: found.get("data", {}).get("summary"))
    before = serving.ask("data.json")
    again = serving.ask("data.json", If_None_Match=before.headers["ETag"])
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", before.headers["ETag"])
    log = half / "03-audio" / "metrics.jsonl"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(log)], stdin=subprocess.PIPE) as writer:
        found = serving.until(lambda found: found["data"]["stages"][2]["steps"] == 11)
        assert log.read_text().endswith('{"step": 12, "rew')
        assert writer.stdin is not None
        writer.stdin.close()
    metrics = found["data"]["stages"][2]["metrics"]
    assert metrics["steps"] == list(range(1, 12))
    assert metrics["columns"]["loss"][6:] == [0.25] * 5
    assert not [note for note in found["data"]["notes"] if "metrics.jsonl" in note["line"]]
    after = serving.ask("data.json", If_None_Match=before.headers["ETag"])
    assert after.status == 200
    assert after.headers["ETag"] != before.headers["ETag"]


def test_a_run_that_is_not_there_yet_is_waited_for(run: Path, tmp_path: Path) -> None:
    with watched(tmp_path / "later") as serving:
        assert "is not there yet" in serving.ask("data.json").json()["waiting"]
        (tmp_path / "later").mkdir()
        (tmp_path / "later" / ".lock").touch()
        serving.until(lambda found: "holds no run.json yet" in found.get("waiting", ""))
        files.write_json(tmp_path / "later" / "run.json", files.read_json(run / "run.json"))
        found = serving.until(lambda found: "data" in found)
        assert {stage["state"] for stage in found["data"]["stages"]} == {"waiting"}
        with (tmp_path / "later" / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            serving.until(lambda found: found["data"]["run"]["state"] == "running")
        serving.until(lambda found: found["data"]["run"]["state"] == "stopped")


def test_what_a_record_names_is_decoded_or_not_shown(tmp_path: Path) -> None:
    """A record may name any file, also by a link: what is no clip gives an error, and none of its bytes."""
    secret = tmp_path / "run" / "secret.txt"
    secret.parent.mkdir()
    secret.write_text("the secret of this machine\n" * 50)
    link = tmp_path / "run" / "clip.mp4"
    link.symlink_to(secret)
    rows = [completion("a", 0, "x", 1.0, media=[str(path)]) for path in (link,)] + [completion("b", 1, "x", 1.0, media=[str(secret)])]
    served = Live(recorded(tmp_path / "run", {1: rows}))
    answer = served.answer()
    served.close()
    assert answer is not None
    found = json.loads(answer.body)
    names = [entry["later"] for key, entry in found["parts"].items() if key.startswith("clip-")]
    assert len(names) == 2
    for name in names:
        shown = served.clip(name)
        assert shown is not None
        assert (set(shown.told), shown.content) == ({"kind", "error"}, None)
        assert "secret of" not in json.dumps(shown.told)


def test_recorded_steps_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks again reads what is new, and finds what who looks for the first time finds."""
    rows = [completion(f"r{at % 3}", at // 2, f"text {at}", at % 2 + 0.0) for at in range(6)]
    folder = recorded(tmp_path / "run", {1: rows, 2: rows})
    kept, stages = rollouts.Kept(), [{"name": "video", "folder": "01-video", "kind": "grpo", "state": "begun", "rewards": []}]
    read: list[str] = []
    plain = rollouts._rows

    def noted(path: Path, *given: Any, **named: Any) -> Any:
        read.append(path.name)
        return plain(path, *given, **named)

    monkeypatch.setattr(rollouts, "_rows", noted)

    def look(kept: rollouts.Kept | None) -> list[object]:
        found = rollouts.groups_of(folder, stages, Notes(), kept)
        return [found, rollouts.samples_of(found, {}, Notes(), kept)]

    first = look(kept)
    assert sorted(read) == sorted(2 * ["step-000001.parquet", "step-000002.parquet"])
    read.clear()
    assert look(kept) == first
    assert read == []
    recorded(folder, {2: rows[:4], 3: rows})
    again = look(kept)
    assert sorted(read) == sorted(2 * ["step-000002.parquet", "step-000003.parquet"])
    assert again == look(None)


def test_a_port_in_use_and_a_file_are_one_line(serving: Watched, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for given, said in (
        ([str(tmp_path), "--port", str(serving.port)], f"--port {serving.port}: cannot be listened at"),
        ([str(tmp_path / "file")], "is a file; allowed: the folder of a run"),
        ([str(tmp_path), "--port", "70000"], "--port 70000"),
        ([str(tmp_path), "--once"], "holds no run.json"),
        ([str(tmp_path), "--json"], "--json goes with --once"),
    ):
        assert cli.main(["watch", *given]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
