"""An OpenAI-compatible judge on loopback that fails as real ones do, and bills: a call is charged once for each `Idempotency-Key`.

It judges by the hash of the prompt, so that a test knows which value a completion must get. `python judge_server.py '{"faults": 0.2}'` runs
it in a process of its own; it prints its URL, and `GET /report` tells what it saw.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from omnistage.rewards.judges.judge import Judge
from omnistage.rewards.judges.ledger import Counts, Ledger

FAULTS = ("429", "500", "cut", "half", "hang")
TOKENS_IN, TOKENS_OUT = 100, 10
GARBAGE = "It is hard to say; I would give 7 of 5."
CRITERIA = {"grounded": "names what is in the clip", "clear": "is easy to follow"}
COMPLETION = "<think>a red disc, then a beep</think><answer>B</answer>"


def judge(server: JudgeServer, path: Path, **settings: Any) -> Judge:
    """A judge that asks the server, with its ledger at `path`."""
    return Judge(url=server.url, model="m", ledger=str(path), **{"criteria": CRITERIA, **settings})


def score(reward: Judge, completions: list[str], **columns: Any) -> list[float | None]:
    """What it is worth, in an event loop of its own."""
    return asyncio.run(reward(completions, **columns))


def completions(count: int) -> list[str]:
    """So many different ones."""
    return [f"<think>item {number}</think><answer>B</answer>" for number in range(count)]


def counts(path: Path) -> Counts:
    """The account of the ledger at `path`."""
    return Ledger(path).counts()


def value_of(prompt: str) -> float:
    """The value that the server's marks for a prompt amount to."""
    marks = marks_of(prompt)
    return sum(marks.values()) / (5 * len(marks))


def marks_of(prompt: str) -> dict[str, int]:
    """The marks that the server gives for a prompt: whole numbers from 0 to 5, by its hash."""
    digest = hashlib.sha256(prompt.encode()).digest()
    return {name: digest[at] % 6 for at, name in enumerate(re.findall(r'"(\w+)": a number from', prompt))}


class JudgeServer(ThreadingHTTPServer):
    """Answers the first requests as `plan` says, then a share `faults` of them with a fault, the rest in order.

    A manner is 'ok', a status ('429 2' names the seconds of its Retry-After), 'cut' (the connection ends within the body), 'half' (half
    of the JSON, as if whole), 'hang' (no answer until the client is gone), 'garbage' (a reply that cannot be read), 'silent' (no text),
    'surrogate' (text that is no UTF-8), 'free' (no usage) or 'echo' (the reply repeats the Authorization header).
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, plan: list[str] | None = None, faults: float = 0.0, delay_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan = list(plan or [])
        self.faults = faults
        self.delay_s = delay_s
        self.lock = threading.Lock()
        self.keys: list[str] = []
        self.times: list[float] = []
        self.manners: Counter[str] = Counter()
        self.authorizations: set[str | None] = set()
        self.prompts: list[str] = []
        # Under each key the prompt and the reply.
        self.charged: dict[str, tuple[str, str]] = {}
        self.answered: Counter[str] = Counter()
        self.under_way = 0
        self.most_under_way = 0

    @property
    def url(self) -> str:
        """What a recipe has as `url`."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is what the tests are about; anything else is printed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def received(self, key: str, authorization: str | None, prompt: str) -> str:
        """Note a request and choose how it is answered."""
        with self.lock:
            seen = self.keys.count(key) if self.faults else 0
            self.keys.append(key)
            self.times.append(time.time())
            self.authorizations.add(authorization)
            self.prompts.append(prompt)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            manner = self.plan.pop(0) if self.plan else self._drawn(key, seen)
            self.manners[manner.split()[0]] += 1
            return manner

    def _drawn(self, key: str, seen: int) -> str:
        digest = hashlib.sha256(f"{key} {seen}".encode()).digest()
        return FAULTS[digest[8] % len(FAULTS)] if int.from_bytes(digest[:8]) < self.faults * 2**64 else "ok"

    def charge(self, key: str, prompt: str, reply: str) -> str:
        """The reply under a key, charged the first time that it is made."""
        with self.lock:
            return self.charged.setdefault(key, (prompt, reply))[1]

    def report(self) -> dict[str, Any]:
        """What was seen so far."""
        with self.lock:
            return {
                "requests": len(self.keys),
                "keys": len(set(self.keys)),
                "manners": dict(self.manners),
                "charged": self.charged,
                "answered": dict(self.answered),
                "most_under_way": self.most_under_way,
            }


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._send(200, json.dumps(self.server.report()).encode())

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self._send(404, b"{}")
            return
        prompt = asked["messages"][-1]["content"]
        key = self.headers["Idempotency-Key"]
        manner, _, detail = self.server.received(key, self.headers["Authorization"], prompt).partition(" ")
        try:
            time.sleep(self.server.delay_s)
            self._answer(key, prompt, manner, detail)
        finally:
            with self.server.lock:
                self.server.under_way -= 1

    def _answer(self, key: str, prompt: str, manner: str, detail: str) -> None:
        if manner.isdigit():
            self._send(int(manner), b'{"error": {"message": "no"}}', {"Retry-After": detail} if detail else {})
        elif manner == "hang":
            self._wait_until_gone()
        else:
            self._complete(key, prompt, manner)

    def _complete(self, key: str, prompt: str, manner: str) -> None:
        marks = json.dumps(marks_of(prompt))
        replies = {"garbage": GARBAGE, "silent": None, "surrogate": f"\ud800 {marks}", "echo": f"{self.headers['Authorization']} {marks}"}
        reply = replies.get(manner, f"So be it:\n```json\n{marks}\n```")
        text = self.server.charge(key, prompt, reply or "") or None
        body: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": text}}]}
        if manner != "free":
            body["usage"] = {"prompt_tokens": TOKENS_IN, "completion_tokens": TOKENS_OUT}
        content = json.dumps(body).encode()
        if manner == "half":
            self._send(200, content[: len(content) // 2])
        elif manner == "cut":
            self._send(200, content[: len(content) // 2], {"Content-Length": str(len(content))})
            self.close_connection = True
        else:
            self._send(200, content)
            with self.server.lock:
                self.server.answered[key] += 1

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _wait_until_gone(self) -> None:
        self.connection.settimeout(30)
        self.connection.recv(1, socket.MSG_PEEK)
        self.close_connection = True


if __name__ == "__main__":
    server = JudgeServer(**json.loads(sys.argv[1]))
    print(server.url, flush=True)
    server.serve_forever()
