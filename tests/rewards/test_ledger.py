"""The ledger alone: who may ask, what is remembered, and limits that hold to the last call."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from omnistage.data.errors import InputError
from omnistage.rewards.judges.ledger import Answered, Call, Counts, Ended, Failed, Go, Ledger, Limits, Step, Taken, Wait

LEASE_S = 60.0
REFUSED = Ended("status 429", cost=0, free=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "judge.sqlite"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    return Ledger(path)


def call(text: str = "a", **changed: Any) -> Call:
    given: dict[str, Any] = {"url": "http://x/v1", "model": "m", "sampling": {"temperature": 0.0, "max_tokens": 9}, **changed}
    return Call.of(given["url"], given["model"], [{"role": "user", "content": text}], given["sampling"])


def begin(ledger: Ledger, text: str = "a", owner: str = "me", since: float | None = None, lease_s: float = LEASE_S, **more: Any) -> Step:
    return ledger.begin(call(text), owner=owner, since=time.time() if since is None else since, lease_s=lease_s, **more)


def go(ledger: Ledger, text: str = "a", owner: str = "me", **more: Any) -> Go:
    step = begin(ledger, text, owner, **more)
    assert isinstance(step, Go)
    return step


def answer(ledger: Ledger, text: str = "a", reply: str = "yes", cost: int = 0) -> None:
    ledger.end(go(ledger, text, most=cost).attempt, "me", Ended("answered", reply, 3, 1, cost), state="answered")


def test_the_key_is_of_all_that_the_answer_depends_on_and_of_nothing_else() -> None:
    same = call(sampling={"max_tokens": 9, "temperature": 0.0})
    assert call() == same
    others = [call("b"), call(url="http://y/v1"), call(model="n"), call(sampling={"temperature": 0.5, "max_tokens": 9})]
    assert len({same.key, *(other.key for other in others)}) == 5
    assert call("\ud800").key != call("\udc00").key


def test_an_answer_is_found_for_ever(path: Path, ledger: Ledger) -> None:
    assert ledger.hits([call().key]) == {}
    answer(ledger)
    again = Ledger(path)
    assert again.hits([call().key, call("b").key]) == {call().key: "yes"}
    assert begin(again) == Answered("yes")
    assert ledger.counts() == Counts(answered=1, hits=2, requests=1, cost=0.0, cost_at_most=0.0)


def test_an_attempt_is_on_the_disk_before_it_is_sent(path: Path, ledger: Ledger) -> None:
    sent = go(ledger, most=7)
    with sqlite3.connect(path) as base:
        assert base.execute("SELECT id, key, cost, ended_at FROM attempts").fetchall() == [(sent.attempt, call().key, 7, None)]
    assert sent.idempotency_key == call().key


def test_one_owner_asks_at_a_time(ledger: Ledger) -> None:
    sent = go(ledger)
    assert begin(ledger, owner="you") == Taken()
    ledger.end(sent.attempt, "me", Ended("status 500"), state="asked", lease_s=LEASE_S)
    assert begin(ledger, owner="you") == Taken()
    assert isinstance(begin(ledger), Go)


def test_a_call_is_taken_over_when_its_lease_has_ended(ledger: Ledger) -> None:
    """The first owner was only slow: its answer, which comes first, stands, and both attempts are in the account."""
    slow = go(ledger, most=10, lease_s=0.0)
    other = go(ledger, owner="you", most=10)
    assert other.idempotency_key == slow.idempotency_key
    assert ledger.counts().faults == {"lost": 1, "under way": 1}
    assert ledger.end(slow.attempt, "me", Ended("answered", "first", 1, 1, 4), state="answered") == "first"
    assert ledger.end(other.attempt, "you", Ended("answered", "second", 1, 1, 4), state="answered") == "first"
    assert begin(ledger) == Answered("first")
    assert ledger.counts() == Counts(answered=1, hits=1, requests=2, cost=8e-9, cost_at_most=8e-9)


def test_a_call_that_is_released_is_free_at_once(ledger: Ledger) -> None:
    go(ledger)
    ledger.release(call(), "you")
    assert begin(ledger, owner="you") == Taken()
    ledger.release(call(), "me")
    assert isinstance(begin(ledger, owner="you"), Go)


def test_who_lost_its_lease_cannot_fail_the_call(ledger: Ledger) -> None:
    slow = go(ledger, lease_s=0.0)
    go(ledger, owner="you")
    assert ledger.end(slow.attempt, "me", Ended("time-out"), state="failed") is None
    assert begin(ledger, owner="third") == Taken()


def test_a_failure_is_shared_by_those_who_waited_and_asked_again_by_those_who_come_later(ledger: Ledger) -> None:
    before = time.time()
    ledger.end(go(ledger).attempt, "me", Ended("status 400", cost=0, free=True), state="failed")
    assert begin(ledger, owner="you", since=before) == Failed("status 400")
    assert ledger.counts().failed == {"status 400": 1}
    assert isinstance(begin(ledger, owner="you"), Go)
    assert ledger.counts().failed == {}
    assert ledger.counts().faults == {"status 400": 1, "under way": 1}


def test_what_nobody_could_read_is_kept_and_asked_for_under_another_idempotency_key(path: Path, ledger: Ledger) -> None:
    """The same key would bring the same reply again from a server that honours it."""
    for number in range(2):
        sent = go(ledger)
        assert sent.idempotency_key == (call().key if number == 0 else f"{call().key}-{number}")
        ledger.end(sent.attempt, "me", Ended("unreadable", f"garbage {number}", 3, 1, 2), state="failed")
    assert ledger.hits([call().key]) == {}
    assert ledger.counts() == Counts(0, 0, 2, 4e-9, 4e-9, {"unreadable": 1}, {"unreadable": 2})
    with sqlite3.connect(path) as base:
        assert base.execute("SELECT reply FROM attempts").fetchall() == [("garbage 0",), ("garbage 1",)]


def test_a_minute_has_so_many_requests(path: Path, ledger: Ledger) -> None:
    """Of one service: another model has its own. Refused ones count."""
    limits = Limits(per_minute=3)
    for text in "abc":
        ledger.end(go(ledger, text, limits=limits).attempt, "me", REFUSED, state="failed")
    step = begin(ledger, "d", limits=limits)
    assert isinstance(step, Wait)
    assert 59 < step.seconds <= 60
    other = ledger.begin(call(model="n"), owner="me", since=0.0, lease_s=LEASE_S, limits=limits)
    assert isinstance(other, Go)
    with sqlite3.connect(path) as base:
        base.execute("UPDATE attempts SET started_at = started_at - 59.5")
    step = begin(ledger, "d", limits=limits)
    assert isinstance(step, Wait)
    assert 0 < step.seconds <= 0.5
    time.sleep(step.seconds)
    assert isinstance(begin(ledger, "d", limits=limits), Go)


def test_spent_calls_are_those_that_may_have_been_charged(ledger: Ledger) -> None:
    """Two allowed. While two are under way a third waits; one is refused, so the third goes; one times out, and the limit is reached."""
    limits = Limits(most_calls=2)
    first, second = go(ledger, "a", limits=limits), go(ledger, "b", limits=limits)
    assert isinstance(begin(ledger, "c", limits=limits), Wait)
    ledger.end(first.attempt, "me", REFUSED, state="failed")
    third = go(ledger, "c", limits=limits)
    ledger.end(second.attempt, "me", Ended("time-out"), state="failed")
    assert isinstance(begin(ledger, "d", limits=limits), Wait)
    ledger.end(third.attempt, "me", Ended("answered", "yes"), state="answered")
    assert begin(ledger, "d", limits=limits) == Failed("most_calls is reached")
    assert ledger.counts().failed == {"most_calls is reached": 1, "status 429": 1, "time-out": 1}
    assert begin(ledger, "c", limits=limits) == Answered("yes")


def test_spent_cost_never_passes_the_limit(ledger: Ledger) -> None:
    """At most 10: 6 reserved leave no room for 6 more until the first turns out to cost 4; then 4 + 6 fit exactly, and 1 more does not."""
    limits = Limits(most_cost=10)
    first = go(ledger, "a", most=6, limits=limits)
    assert isinstance(begin(ledger, "b", most=6, limits=limits), Wait)
    ledger.end(first.attempt, "me", Ended("answered", "yes", 1, 1, 4), state="answered")
    second = go(ledger, "b", most=6, limits=limits)
    ledger.end(second.attempt, "me", Ended("connection lost"), state="failed")
    assert begin(ledger, "c", most=1, limits=limits) == Failed("most_cost is reached")
    assert (ledger.counts().cost, ledger.counts().cost_at_most, ledger.cost_at_most()) == (4e-9, 1e-8, 1e-8)


def test_what_a_killed_process_left_under_way_is_spent(ledger: Ledger) -> None:
    limits = Limits(most_calls=1)
    go(ledger, "a", lease_s=0.0, limits=limits)
    assert begin(ledger, "b", limits=limits) == Failed("most_calls is reached")


def test_threads_share_a_ledger(ledger: Ledger) -> None:
    """8 threads want the same 40 calls, of which 25 may be sent: each is sent by one of them, and 25 are."""
    sent: Counter[str] = Counter()

    def want(owner: str) -> None:
        for number in range(40):
            step = begin(ledger, str(number), owner, limits=Limits(most_calls=25))
            if isinstance(step, Go):
                sent[step.idempotency_key] += 1
                ledger.end(step.attempt, owner, Ended("answered", owner), state="answered")

    threads = [threading.Thread(target=want, args=(f"thread {number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(sent), set(sent.values())) == (25, {1})
    assert ledger.counts().requests == ledger.counts().answered == 25


OPEN = "import sys; from omnistage.rewards.judges.ledger import Ledger; sys.stdin.readline(); print(Ledger(sys.argv[1]).counts().requests)"


def test_processes_make_one_file_together(path: Path) -> None:
    """All open the same new file at once."""
    command = [sys.executable, "-c", OPEN, str(path)]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(6)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("now\n")
        child.stdin.flush()
    assert [child.communicate(timeout=60) for child in children] == [("0\n", "")] * 6


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE probes (key TEXT)")


def newer(path: Path) -> None:
    Ledger(path).close()
    with sqlite3.connect(path) as base:
        base.execute("PRAGMA user_version = 2")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_text("{}" * 100), "cannot be read: file is not a database"),
        (lambda path: path.mkdir(), "cannot be opened: unable to open database file"),
        (foreign, "is an SQLite file and no judge's ledger; name another file"),
        (newer, "is of version 2, this omnistage reads version 1; name another file"),
    ],
)
def test_a_file_that_is_no_ledger_is_refused_in_one_line_and_left_as_it_is(path: Path, make: Any, message: str) -> None:
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(InputError) as caught:
        Ledger(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert before == (path.read_bytes() if path.is_file() else None)


def test_a_folder_is_made_and_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    Ledger(tmp_path / "new" / "judge.sqlite")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be opened"):
        Ledger(tmp_path / "file" / "judge.sqlite")


def test_a_ledger_that_cannot_be_written_any_more_says_so(path: Path, ledger: Ledger) -> None:
    answer(ledger)
    with sqlite3.connect(path) as base:
        base.execute("DROP TABLE spent")
    with pytest.raises(InputError, match="cannot be written: no such table: spent"):
        begin(ledger, "b")
    assert ledger.hits([call().key]) == {call().key: "yes"}, "what failed was undone, and the ledger can be used"
