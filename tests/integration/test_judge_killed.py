"""1,000 judgements through 20 % faults and two kills: each is there in the end, is what the server said, and was paid for once."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import judge_server
from omnistage.rewards.judges.ledger import Ledger

COUNT = 1000
CONCURRENCY = 16
KILLED_AT = (350, 800)
"""Requests that the server has seen when the judging process is killed."""

JUDGING = f"""
import asyncio, json, sys
from omnistage.rewards.judges.judge import Judge
url, ledger, values = sys.argv[1:]
criteria = {{"grounded": "is grounded", "coherent": "is coherent", "conclusive": "leads to the answer"}}
judge = Judge(url=url, model="m", criteria=criteria, ledger=ledger, timeout_s=0.5, attempts=20, concurrency={CONCURRENCY})
texts = [f"<think>item {{number}} of many</think><answer>B</answer>" for number in range({COUNT})]
json.dump(asyncio.run(judge(texts)), open(values, "w"))
"""


@pytest.fixture
def url() -> Iterator[str]:
    """A server in a process of its own, which bills on while judges die."""
    settings = json.dumps({"faults": 0.2, "delay_s": 0.01})
    with subprocess.Popen([sys.executable, judge_server.__file__, settings], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def report(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/report", timeout=30) as response:
        found: dict[str, Any] = json.load(response)
    return found


def test_killed_judges_pay_once_and_invent_nothing(url: str, tmp_path: Path) -> None:
    ledger, values = tmp_path / "judge.sqlite", tmp_path / "values.json"
    command = [sys.executable, "-c", JUDGING, url, str(ledger), str(values)]
    for seen in KILLED_AT:
        judging = subprocess.Popen(command)
        while report(url)["requests"] < seen:
            assert judging.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        judging.send_signal(signal.SIGKILL)
        assert judging.wait(timeout=30) == -signal.SIGKILL
        assert not values.exists()
    subprocess.run(command, check=True, timeout=120)

    seen_by_server = report(url)
    charged: dict[str, tuple[str, str]] = seen_by_server["charged"]
    assert len(charged) == seen_by_server["keys"] == COUNT, "each call was charged, and under one key"
    twice = sum(times - 1 for times in seen_by_server["answered"].values())
    assert twice <= CONCURRENCY * len(KILLED_AT), "only what was under way when it was killed is asked twice"
    faults = sum(count for manner, count in seen_by_server["manners"].items() if manner != "ok")
    assert set(seen_by_server["manners"]) == {"ok", *judge_server.FAULTS}
    assert 0.15 < faults / seen_by_server["requests"] < 0.25
    assert seen_by_server["most_under_way"] <= CONCURRENCY * (1 + len(KILLED_AT)), "what was killed may still be served"

    said = {_item(prompt): _mean(reply) for prompt, reply in charged.values()}
    assert json.loads(values.read_text()) == [said[number] for number in range(COUNT)]
    counts = Ledger(ledger).counts()
    assert (counts.answered, counts.failed) == (COUNT, {})
    assert 0 <= counts.requests - seen_by_server["requests"] <= CONCURRENCY * len(KILLED_AT), "written before it is sent"
    assert 0 < counts.faults["lost"] <= CONCURRENCY * len(KILLED_AT)
    with sqlite3.connect(ledger) as base:
        assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    before = values.read_text()
    subprocess.run(command, check=True, timeout=60)
    assert values.read_text() == before
    assert report(url)["requests"] == seen_by_server["requests"], "all of it is remembered"


def _item(prompt: str) -> int:
    found = re.search(r"item (\d+) of many", prompt)
    assert found is not None
    return int(found[1])


def _mean(reply: str) -> float:
    marks = json.loads(reply[reply.index("{") : reply.rindex("}") + 1])
    assert len(marks) == 3
    return float(sum(marks.values()) / 15)
