"""A judge's calls through faults, stops and limits, against a real server on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from judge_server import COMPLETION, GARBAGE, TOKENS_IN, TOKENS_OUT, JudgeServer, completions, counts, judge, score, value_of
from omnistage.data.errors import InputError
from omnistage.rewards.judges.judge import Judge
from omnistage.rewards.judges.ledger import Step
from omnistage.rewards.registry import RewardSpec, load

SECRET = "sk-7f3a9c1e5b2d"

pytestmark = pytest.mark.filterwarnings("ignore:judge 'm'")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "judge.sqlite"


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer() as server:
        yield server


def test_no_more_than_concurrency_under_way(path: Path) -> None:
    with JudgeServer(delay_s=0.02) as server:
        score(judge(server, path, concurrency=4), completions(40))
        assert server.most_under_way == 4


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("429", "status 429"),
        ("408", "status 408"),
        ("500", "status 500"),
        ("503", "status 503"),
        ("cut", "connection lost"),
        ("half", "no completion in the body"),
        ("hang", "time-out"),
    ],
)
def test_a_passing_fault_is_tried_again_under_the_same_idempotency_key(path: Path, fault: str, outcome: str) -> None:
    with JudgeServer(plan=[fault, fault]) as server:
        values = score(judge(server, path, timeout_s=0.3), [COMPLETION])
        assert values == [value_of(server.prompts[0])]
        assert (len(server.keys), len(set(server.keys)), len(server.charged)) == (3, 1, 1)
    assert counts(path).faults == {outcome: 2}


@pytest.mark.parametrize("status", [302, 400, 401, 404, 409])
def test_another_status_fails_at_once(path: Path, status: int) -> None:
    with JudgeServer(plan=[str(status)]) as server:
        assert score(judge(server, path), [COMPLETION]) == [None]
        assert len(server.keys) == 1
    assert counts(path).failed == {f"status {status}": 1}


def test_a_failure_is_none_and_asked_again_at_the_next_call(path: Path) -> None:
    with JudgeServer(plan=["500", "500", "500"]) as server:
        reward = judge(server, path, attempts=3)
        with pytest.warns(UserWarning, match="judge 'm': completions are not scored: status 500"):
            assert score(reward, [COMPLETION]) == [None]
        assert len(server.keys) == 3
        assert counts(path).failed == {"status 500": 1}
        assert score(reward, [COMPLETION]) == [value_of(server.prompts[0])]
        assert len(server.keys) == 4
    assert (counts(path).failed, counts(path).answered) == ({}, 1)


@pytest.mark.parametrize("manner", ["garbage", "silent", "surrogate"])
def test_a_reply_that_cannot_be_read_is_none_and_asked_again_as_a_new_request(path: Path, manner: str) -> None:
    with JudgeServer(plan=[manner]) as server:
        reward = judge(server, path)
        assert score(reward, [COMPLETION]) == [None]
        assert counts(path).failed == {"unreadable": 1}
        assert score(reward, [COMPLETION]) == [value_of(server.prompts[0])]
        assert server.keys == [server.keys[0], f"{server.keys[0]}-1"]
    with sqlite3.connect(path) as base:
        kept = base.execute("SELECT reply FROM attempts").fetchall()
    assert kept[0] == (GARBAGE if manner == "garbage" else "",)


def test_no_server_at_all(path: Path) -> None:
    with JudgeServer() as server:
        reward = judge(server, path, attempts=2, most_calls=1)
    assert score(reward, [COMPLETION, "other"]) == [None, None]
    assert counts(path).failed == {"no connection": 2}


@pytest.mark.parametrize(
    ("header", "least_s"),
    [
        ("1", 1.0),
        ("0", 0.0),
        ("soon", 0.0),
        ("nan", 0.0),
        ("-5", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after_is_honoured(path: Path, header: str, least_s: float) -> None:
    """With up to 0.5 s of jitter on top."""
    with JudgeServer(plan=[f"429 {header}"]) as server:
        score(judge(server, path), [COMPLETION])
        first, second = server.times
        assert least_s <= second - first < least_s + 4


def test_retry_after_may_name_a_time(path: Path) -> None:
    """Whole seconds: 2 s from now is at least 1 s away."""
    header = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    with JudgeServer(plan=[f"429 {header}"]) as server:
        score(judge(server, path), [COMPLETION])
        assert server.times[1] - server.times[0] > 0.9


def test_a_long_retry_after_is_bounded_and_who_is_stopped_meanwhile_leaves_the_call_free(path: Path) -> None:
    """A day becomes 120 s and the jitter, and the lease lasts 5 s longer."""

    async def stopped(reward: Judge) -> float:
        judging = asyncio.create_task(reward([COMPLETION]))
        while not (faults := reward.chat.ledger.counts().faults) or "under way" in faults:
            await asyncio.sleep(0.05)
        with sqlite3.connect(path) as base:
            ((until,),) = base.execute("SELECT lease_until FROM calls").fetchall()
        judging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await judging
        return float(until - time.time())

    with JudgeServer(plan=["429 86400"]) as server:
        reward = judge(server, path)
        assert 122 < asyncio.run(stopped(reward)) < 125.5
        assert score(reward, [COMPLETION]) == [value_of(server.prompts[0])]
        assert server.times[1] - server.times[0] < 10


def test_who_is_stopped_while_it_asks_leaves_the_call_free(path: Path) -> None:
    with JudgeServer(plan=["hang"]) as server:
        reward = judge(server, path)
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(reward([COMPLETION]), 0.3))
        assert score(reward, [COMPLETION]) == [value_of(server.prompts[0])]
        assert server.times[1] - server.times[0] < 10
        assert len(set(server.keys)) == 1
    assert counts(path).faults == {"lost": 1}


def test_who_is_stopped_while_the_ledger_is_written_leaves_the_call_free(
    monkeypatch: pytest.MonkeyPatch, server: JudgeServer, path: Path
) -> None:
    """The lease is written by a thread, which is not stopped."""
    reward = judge(server, path)
    begin, begun = reward.chat.ledger.begin, threading.Event()

    def slow(*args: Any, **settings: Any) -> Step:
        begun.set()
        time.sleep(0.5)
        return begin(*args, **settings)

    async def stopped() -> None:
        judging = asyncio.create_task(reward([COMPLETION]))
        await asyncio.to_thread(begun.wait)
        judging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await judging

    monkeypatch.setattr(reward.chat.ledger, "begin", slow)
    asyncio.run(stopped())
    with sqlite3.connect(path) as base:
        ((state, until),) = base.execute("SELECT state, lease_until FROM calls").fetchall()
    assert state == "asked"
    assert until <= time.time()


def test_an_unforeseen_failure_of_a_request_is_none_and_counted(monkeypatch: pytest.MonkeyPatch, server: JudgeServer, path: Path) -> None:
    async def post(*_: Any, **__: Any) -> None:
        raise KeyError(SECRET)

    monkeypatch.setattr("httpx2.AsyncClient.post", post)
    with pytest.warns(UserWarning, match="judge 'm': completions are not scored: request failed: KeyError"):
        assert score(judge(server, path), [COMPLETION]) == [None]
    assert counts(path).failed == {"request failed: KeyError": 1}


def test_any_exception_leaves_the_call_free(server: JudgeServer, path: Path) -> None:
    """Also when the ledger cannot be written any more: then what came first is raised."""
    chat = judge(server, path).chat
    prompt = [{"role": "user", "content": '"a": a number from'}]

    def broken(reply: str) -> bool:
        raise ZeroDivisionError(reply)

    def broken_with_the_ledger(reply: str) -> bool:
        chat.ledger.close()
        raise ZeroDivisionError(reply)

    for readable in (broken, broken_with_the_ledger):
        with pytest.raises(ZeroDivisionError):
            asyncio.run(chat.ask([prompt], readable))
    with sqlite3.connect(path) as base:
        base.execute("UPDATE calls SET lease_until = 0")
    again = judge(server, path).chat
    (reply,) = asyncio.run(again.ask([prompt], bool))
    assert reply.text is not None
    assert server.times[1] - server.times[0] < 10


def test_cost_is_exact_and_a_reply_without_usage_keeps_the_most(path: Path) -> None:
    """3 calls of 100 tokens in at 2 and 10 out at 30 a million cost 3 · 500 millionths; one without usage has its bytes + 256 tokens in."""
    with JudgeServer(plan=["ok", "ok", "ok", "free"]) as server:
        reward = judge(server, path, price_in=2.0, price_out=30.0, max_tokens=100, concurrency=1)
        score(reward, completions(4))
        most = ((len(server.prompts[3].encode()) + 256) * 2 + 100 * 30) / 1e6
    assert (TOKENS_IN, TOKENS_OUT) == (100, 10)
    assert counts(path).cost == 0.0015
    assert counts(path).cost_at_most == pytest.approx(0.0015 + most, abs=1e-12)


def test_no_calls_allowed_reads_the_ledger_alone(server: JudgeServer, path: Path) -> None:
    first = score(judge(server, path), completions(3))
    assert score(judge(server, path, most_calls=0), completions(4)) == [*first, None]
    assert counts(path).failed == {"most_calls is reached": 1}
    assert None not in score(judge(server, path), completions(4))
    assert len(server.keys) == 4


def test_a_key_that_is_none_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, server: JudgeServer, path: Path) -> None:
    for wrong in (f"{SECRET}\nX-Other: 1", f"{SECRET}é", "  "):
        monkeypatch.setenv("JUDGE_KEY", wrong)
        with pytest.raises(InputError, match="environment variable 'JUDGE_KEY'") as caught:
            judge(server, path, key_env="JUDGE_KEY")
        assert SECRET not in repr(caught.getrepr())


@pytest.mark.parametrize("variable", [SECRET, "sk_" + "a1" * 40, "A=B", "", "1A", "JUDGE\n", "JUDGE_KEY\0", "É"])
def test_who_gives_the_key_as_its_variable_does_not_find_it_in_the_error(server: JudgeServer, path: Path, variable: str) -> None:
    with pytest.raises(InputError) as caught:
        load(
            RewardSpec("judge", config={"url": server.url, "model": "m", "key_env": variable, "ledger": str(path), "criteria": {"a": "b"}})
        )
    if variable.startswith("sk_"):
        told = "is not set; set it to the key, or the same name with _FILE to a file that holds it"
        assert str(caught.value).endswith(f"the environment variable that key_env names {told}")
    else:
        assert "key_env is not the name of an environment variable" in str(caught.value)
    assert not variable or variable not in str(caught.value)


def test_a_key_may_stand_in_a_file(monkeypatch: pytest.MonkeyPatch, server: JudgeServer, path: Path) -> None:
    file = path.with_name("key")
    monkeypatch.setenv("JUDGE_KEY_FILE", str(file))
    with pytest.raises(InputError, match="the file of its _FILE cannot be read: No such file or directory"):
        judge(server, path, key_env="JUDGE_KEY")
    file.write_text(f"{SECRET}\n")
    score(judge(server, path, key_env="JUDGE_KEY"), completions(1))
    monkeypatch.setenv("JUDGE_KEY", "another")
    score(judge(server, path, key_env="JUDGE_KEY"), completions(2))
    assert server.authorizations == {f"Bearer {SECRET}", "Bearer another"}


def test_the_key_reaches_the_server_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Through every fault, with all logging on, and a server that repeats the key in its reply."""
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    with (
        JudgeServer(plan=["echo", "429", "500", "401", "garbage", "cut", "half", "hang"]) as server,
        warnings.catch_warnings(record=True) as said,
    ):
        warnings.simplefilter("always")
        reward = judge(server, path, key_env="JUDGE_KEY", timeout_s=0.3, concurrency=1)
        values = score(reward, completions(8))
        assert server.authorizations == {f"Bearer {SECRET}"}
    assert sum(value is not None for value in values) == 6
    said_or_shown = [caplog.text, *capfd.readouterr(), *map(str, said), repr(reward), repr(vars(reward)), repr(reward.chat.service)]
    assert "httpx2" in caplog.text
    assert [text for text in said_or_shown if SECRET in text] == []
    files = list(path.parent.glob("judge.sqlite*"))
    assert len(files) == 3, "with the log of SQLite, where all of it was written"
    assert [file.name for file in files if SECRET.encode() in file.read_bytes()] == []
    assert b"Bearer [key]" in b"".join(file.read_bytes() for file in files)


CHILD = """
import asyncio, json, sys
from omnistage.rewards.judges.judge import Judge
settings, count, limit_s = json.loads(sys.argv[1])
judge = Judge(criteria={"grounded": "is grounded"}, model="m", **settings)
print("ready", flush=True)
sys.stdin.readline()
async def main():
    try:
        async with asyncio.timeout(limit_s):
            print(json.dumps(await judge([f"<think>item {number}</think>" for number in range(count)])))
    except TimeoutError:
        print("null")
asyncio.run(main())
"""


def judged_by_two(server: JudgeServer, path: Path, count: int, limit_s: float = 60.0, **settings: Any) -> list[Any]:
    """What two processes get that start to judge the same completions at the same time; None for one that is not done in time."""
    given = json.dumps([{"url": server.url, "ledger": str(path), **settings}, count, limit_s])
    command = [sys.executable, "-W", "ignore::UserWarning", "-c", CHILD, given]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    ended = [child.communicate(timeout=120) for child in children]
    assert [errors for _, errors in ended] == ["", ""]
    return [json.loads(said) for said, _ in ended]


def test_two_processes_that_want_the_same_make_each_call_once(path: Path) -> None:
    with JudgeServer(delay_s=0.01) as server:
        first, second = judged_by_two(server, path, 200)
        assert (len(server.keys), len(set(server.keys))) == (200, 200)
    assert first == second
    assert None not in first
    assert (counts(path).answered, counts(path).hits) == (200, 200)


def test_two_processes_share_the_rate(server: JudgeServer, path: Path) -> None:
    """30 a minute: 30 are sent at once by the two of them, and no more while both wait."""
    begun = time.time()
    assert judged_by_two(server, path, 100, limit_s=4.0, per_minute=30) == [None, None]
    assert time.time() - begun < 30
    assert len(server.keys) == 30


def test_two_processes_share_the_limit_on_calls(path: Path) -> None:
    """50 of 200, although some are refused on the way and all slots want more at once."""
    with JudgeServer(plan=["429", "ok"] * 20, delay_s=0.005) as server:
        both = judged_by_two(server, path, 200, most_calls=50, concurrency=16, attempts=20)
        assert (len(server.charged), len(server.keys)) == (50, 70)
    assert [sum(value is not None for value in values) for values in both] == [50, 50]
    assert counts(path).failed == {"most_calls is reached": 150}


def test_two_processes_share_the_limit_on_cost(path: Path) -> None:
    """A call costs 110 millionths. What is spent stays within the limit, and what is left is less than one more call can cost."""
    with JudgeServer(delay_s=0.005) as server:
        judged_by_two(server, path, 200, most_cost=0.01, price_in=1.0, price_out=1.0, max_tokens=100, concurrency=16)
        most = (max(len(prompt.encode()) for prompt in server.prompts) + 256 + 100) / 1e6
        spent = len(server.charged) * 110 / 1e6
    assert 0.01 - most < spent <= 0.01
    assert counts(path).cost == pytest.approx(spent, abs=1e-12)
