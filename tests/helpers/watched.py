"""`omnistage watch` in a process of its own, and requests to it as they stand on the wire."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from small_run import command

# A machine that does other work takes its time to load what a view needs.
WAIT_S = 120.0


@dataclass(frozen=True)
class Reply:
    """What was answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Watched:
    """A watch under way and its address."""

    process: subprocess.Popen[str]
    url: str

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    @property
    def path(self) -> str:
        """With the token, and a slash at its end."""
        return urlsplit(self.url).path

    def ask(self, path: str, method: str = "GET", host: str | None = None, **fields: str) -> Reply:
        """One request; `path` goes out as it is given, below the token where it does not begin with a slash."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        connection.putrequest(method, path if path.startswith("/") else self.path + path, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host if host is not None else f"127.0.0.1:{self.port}")
        for name, value in fields.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        reply = Reply(answer.status, dict(answer.getheaders()), answer.read())
        connection.close()
        return reply

    def until(self, wanted: Any) -> Any:
        """The data of the page as soon as `wanted` is true of them."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            found = self.ask("data.json").json()
            if wanted(found):
                return found
            time.sleep(0.3)
        raise AssertionError("the data of the page did not become so")


@contextmanager
def watched(run: Path, *arguments: str) -> Iterator[Watched]:
    """A watch that serves its page alone, ended by Ctrl-C: quietly, with 130. It takes that also where the tests run in the background and
    do not."""
    process = subprocess.Popen(
        command("watch", run, "--page", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), process.communicate(timeout=WAIT_S)
        yield Watched(process, url)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT_S)
        assert (process.returncode, out, err) == (130, "", "")
    finally:
        process.kill()
        process.wait()
