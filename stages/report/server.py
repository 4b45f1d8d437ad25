"""A run's page over HTTP, for the person at this machine: bound to the loopback, only to be read, and only with the token of its address.

A page of another site that a browser was led to cannot read it: it does not know the token, and the name by which it asks (the Host
header) is not this machine's. No path of a file is ever taken from an address: clips have names that the page was told, all else is made
in memory.
"""

from __future__ import annotations

import gzip
import hmac
import json
import re
import secrets
import socketserver
import threading
from contextlib import suppress
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from omnistage.data.errors import InputError
from omnistage.stages.report import page
from omnistage.stages.report.live import Live

ADDRESS = "127.0.0.1"
# Any port: it may be reached through a tunnel from another one.
HOSTS = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?", re.IGNORECASE)
RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
CLIP = re.compile(r"clips/([0-9a-f]{24})\.(json|mp4)")
HTML, JSON = "text/html; charset=utf-8", "application/json"


class Server(ThreadingHTTPServer):
    """Serves one run's page at `url`. `start` and `close` may be called once.

    Raises:
        InputError: the port cannot be had.
    """

    daemon_threads = True
    # Else a second watch at the same port would take the first one's place without a word.
    allow_reuse_port = False

    def __init__(self, run: Path, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((ADDRESS, port), Handler)
        except (OSError, OverflowError) as error:
            raise InputError(f"--port {port}: cannot be listened at ({error}); 0 takes one that is free") from error
        self.run = run
        self.live = Live(run)

    def server_bind(self) -> None:
        """Without the look-up of this machine's name that `HTTPServer` does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def url(self) -> str:
        """Where the page is, with its token."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    @cached_property
    def html(self) -> tuple[bytes, bytes]:
        """The page as it is, and gzipped: the library of its charts is long."""
        text = page.served(self.run.resolve().name).encode()
        return text, gzip.compress(text, 6, mtime=0)

    def start(self) -> None:
        """Serve in a thread."""
        threading.Thread(target=self.serve_forever, name="serve", daemon=True).start()

    def close(self) -> None:
        """End it."""
        self.live.close()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "omnistage", ""
    # Seconds after which a connection that says nothing is closed.
    timeout = 60

    def handle(self) -> None:
        """A browser ends connections as it likes: a video that is no longer looked at."""
        with suppress(ConnectionError, TimeoutError):
            super().handle()

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: addresses hold the token."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses by itself, as everything is refused: without a word of what was sent."""
        # Of a line that cannot be read none is known, and to one below 1.0 no headers would go out.
        self.request_version = self.protocol_version
        self._refuse(HTTPStatus(code))

    def parse_request(self) -> bool:
        """Refuse what is not asked of this machine by its name, and what is not asked to be read."""
        if not super().parse_request():
            return False
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not HOSTS.fullmatch(hosts[0].strip()):
            self._refuse(HTTPStatus.FORBIDDEN)
        elif self.command not in ("GET", "HEAD"):
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        else:
            return True
        return False

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self.do_GET()

    def do_GET(self) -> None:
        """What stands behind the token."""
        token, slash, rest = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not self.path.startswith("/") or not hmac.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN)
        elif not slash:
            self._refuse(HTTPStatus.MOVED_PERMANENTLY, {"Location": f"/{token}/"})
        elif rest == "":
            self._send(*self.server.html, HTML, {"Content-Security-Policy": f"{page.policy(live=True)}; frame-ancestors 'none'"})
        elif rest == "data.json":
            self._data()
        elif found := CLIP.fullmatch(rest):
            self._clip(*found.groups())
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def _data(self) -> None:
        answer = self.server.live.answer()
        if answer is None:
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)
        elif answer.tag in [one.strip() for one in self.headers.get("If-None-Match", "").split(",")]:
            self._head(HTTPStatus.NOT_MODIFIED, {"ETag": answer.tag})
        else:
            self._send(answer.body, answer.zipped, JSON, {"ETag": answer.tag})

    def _clip(self, name: str, what: str) -> None:
        shown = self.server.live.clip(name)
        if shown is not None and what == "json":
            self._send(json.dumps(shown.told).encode(), None, JSON)
        elif shown is not None and shown.content is not None:
            self._part(shown.content, shown.kind, f'"{name}"')
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def _part(self, content: bytes, kind: str, tag: str) -> None:
        """The whole, or the one range that was asked for (RFC 9110, 14)."""
        size, fields = len(content), {"Content-Type": kind, "Accept-Ranges": "bytes", "ETag": tag}
        asked = RANGE.fullmatch(self.headers.get("Range", "").strip())
        if asked is None or not any(asked.groups()) or self.headers.get("If-Range", tag) != tag:
            self._head(HTTPStatus.OK, fields, content)
            return
        first, last = asked.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(size - 1, int(last)) if first and last else size - 1
        if first and last and int(last) < start:
            self._head(HTTPStatus.OK, fields, content)
        elif start >= size:
            self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, {"Content-Range": f"bytes */{size}"})
        else:
            self._head(HTTPStatus.PARTIAL_CONTENT, fields | {"Content-Range": f"bytes {start}-{end}/{size}"}, content[start : end + 1])

    def _send(self, body: bytes, zipped: bytes | None, kind: str, fields: dict[str, str] | None = None) -> None:
        said = {"Content-Type": kind} | (fields or {})
        if zipped is not None and "gzip" in self.headers.get("Accept-Encoding", ""):
            body, said = zipped, said | {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        self._head(HTTPStatus.OK, said, body)

    def _refuse(self, status: HTTPStatus, fields: dict[str, str] | None = None) -> None:
        # What was sent along is not read, so the connection cannot go on.
        self.close_connection = True
        text = f"{status.value} {status.phrase}\n".encode()
        self._head(status, {"Content-Type": "text/plain; charset=utf-8", "Connection": "close"} | (fields or {}), text)

    def _head(self, status: HTTPStatus, fields: dict[str, str], body: bytes | None = None) -> None:
        self.send_response(status)
        safe = {
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
        for name, value in (safe | fields).items():
            self.send_header(name, value)
        if body is not None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body is not None and self.command != "HEAD":
            self.wfile.write(body)
