"""An OpenAI-compatible server on loopback that looks and listens: it decodes what it is sent, answers by it, and fails as real ones do."""

from __future__ import annotations

import base64
import io
import json
import socket
import sys
import threading
import time
import wave
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np
from PIL import Image

TOKENS_OUT = 7


class AnswerServer(ThreadingHTTPServer):
    """Answers a question as `replies` says, else with "<question>|<its parts>", after failing as `plan` says of it.

    Both are by the text of the last part. Manners: 'ok', a status ('429 1' names the seconds of its Retry-After), 'half' (half of the
    JSON), 'cut' (the connection ends within the body), 'hang' (no answer until the client is gone), 'length' (ended by its length).
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, plan: dict[str, list[str]] | None = None, replies: dict[str, Any] | None = None, delay_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan = {question: list(manners) for question, manners in (plan or {}).items()}
        self.replies = replies or {}
        self.delay_s = delay_s
        self.lock = threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.keys: dict[str, list[str]] = {}
        self.times: list[float] = []
        self.authorizations: set[str | None] = set()
        self.under_way: Counter[str] = Counter()
        self.most_under_way = 0

    @property
    def url(self) -> str:
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


class _Handler(BaseHTTPRequestHandler):
    server: AnswerServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = question_of(asked)
        with self.server.lock:
            self.server.bodies.append(asked)
            self.server.times.append(time.monotonic())
            self.server.keys.setdefault(question, []).append(self.headers["Idempotency-Key"])
            self.server.authorizations.add(self.headers["Authorization"])
            self.server.under_way[question] += 1
            self.server.most_under_way = max(self.server.most_under_way, self.server.under_way.total())
            plan = self.server.plan.get(question)
            manner, _, detail = (plan.pop(0) if plan else "ok").partition(" ")
        try:
            time.sleep(self.server.delay_s)
            self._answer(asked, question, manner, detail)
        finally:
            with self.server.lock:
                self.server.under_way[question] -= 1

    def _answer(self, asked: dict[str, Any], question: str, manner: str, detail: str) -> None:
        if self.path != "/v1/chat/completions":
            self._send(404, b'{"error": "no such path"}')
        elif manner.isdigit():
            said = json.dumps({"error": {"message": f"no:\n {self.headers['Authorization']}"}}).encode()
            self._send(int(manner), said, {"Retry-After": detail} if detail else {})
        elif manner == "hang":
            self.connection.settimeout(30)
            self.connection.recv(1, socket.MSG_PEEK)
            self.close_connection = True
        else:
            try:
                reply = self.server.replies.get(question, f"{question}|{' '.join(seen(asked))}")
            except (ValueError, OSError, wave.Error) as error:
                self._send(400, json.dumps({"error": {"message": f"a part cannot be decoded: {error}"}}).encode())
                return
            self._complete(reply, manner)

    def _complete(self, reply: Any, manner: str) -> None:
        finish = "length" if manner == "length" else "stop"
        body = {"choices": [{"message": {"role": "assistant", "content": reply}, "finish_reason": finish}]}
        content = json.dumps(body | {"usage": {"prompt_tokens": 100, "completion_tokens": TOKENS_OUT}}).encode()
        if manner == "half":
            self._send(200, content[: len(content) // 2])
        elif manner == "cut":
            self._send(200, content[: len(content) // 2], {"Content-Length": str(len(content))})
            self.close_connection = True
        else:
            self._send(200, content)

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()


def question_of(asked: dict[str, Any]) -> str:
    """The last text of a request."""
    content = asked["messages"][-1]["content"]
    return str(content if isinstance(content, str) else content[-1]["text"])


def seen(asked: dict[str, Any]) -> list[str]:
    """Each part of a request that is no text, decoded: `picture WxH grey`, `sound rate samples peak`, or `file type bytes`."""
    out = []
    for message in asked["messages"]:
        for part in message["content"] if isinstance(message["content"], list) else ():
            match part:
                case {"type": "image_url", "image_url": {"url": str(url)}} if url.startswith("data:image/jpeg"):
                    picture = Image.open(io.BytesIO(_data(url)))
                    assert picture.format == "JPEG"
                    out.append(f"picture {picture.width}x{picture.height} {np.asarray(picture.convert('L')).mean():.0f}")
                case {"type": "input_audio", "input_audio": {"data": str(data), "format": "wav"}}:
                    out.append(_sound(base64.b64decode(data, validate=True)))
                case {"type": "audio_url", "audio_url": {"url": str(url)}} if url.startswith("data:audio/") and "wav" in url[:24]:
                    out.append(_sound(_data(url)))
                case {"type": "text"}:
                    pass
                case _:
                    url = part[part["type"]]["url"]
                    out.append(f"file {url.partition(';')[0].removeprefix('data:')} {len(_data(url))}")
    return out


def _data(url: str) -> bytes:
    assert url.startswith("data:")
    return base64.b64decode(url.partition(";base64,")[2], validate=True)


def _sound(content: bytes) -> str:
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return f"sound {file.getframerate()} {len(samples)} {np.abs(samples.astype(int)).max()}"
