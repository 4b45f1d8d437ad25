"""The judge on loopback of `judge_server`, which gives marks: those that a test says, or by the hash of the prompt."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from judge_server import TOKENS_IN, TOKENS_OUT, JudgeServer, _Handler
from omnistage.rewards.judges.chat import Chat, Service
from omnistage.rewards.judges.ledger import Ledger


def chat(server: JudgeServer, ledger: Path, **settings: Any) -> Chat:
    """Asks the server, with the ledger in that file."""
    return Chat(Service(url=server.url, model="m", **settings), Ledger(ledger))


def hashed(prompt: str) -> str:
    """A mark of those that the prompt allows, by its hash."""
    allowed = re.findall(r"[\d.]+\d|\d", prompt.rpartition("m is one of ")[2].partition("\n")[0])
    return json.dumps({"mark": float(allowed[hashlib.sha256(prompt.encode()).digest()[0] % len(allowed)])})


def by_question(marks: Mapping[str, Any]) -> Callable[[str], str]:
    """The reply for each question, with one mark for each judgement of it, in a list; text stands for a reply as it is."""

    def reply(prompt: str) -> str:
        question = json.loads(re.findall(r"^question: (.*)$", prompt, re.MULTILINE)[0])
        number = int(re.findall(r"This is judgement (\d+)", prompt)[0])
        mark = marks[question][number - 1]
        return mark if isinstance(mark, str) else f"Well.\n{json.dumps({'mark': mark})}"

    return reply


class MarkServer(JudgeServer):
    """Answers a prompt with `reply(prompt)`; the first requests as `plan` says."""

    def __init__(self, reply: Callable[[str], str] = hashed, plan: list[str] | None = None) -> None:
        super().__init__(plan)
        self.RequestHandlerClass = _MarkHandler
        self.reply = reply


class _MarkHandler(_Handler):
    server: MarkServer

    def _complete(self, key: str, prompt: str, manner: str) -> None:
        if manner != "ok":
            super()._complete(key, prompt, manner)
            return
        text = self.server.charge(key, prompt, self.server.reply(prompt))
        usage = {"prompt_tokens": TOKENS_IN, "completion_tokens": TOKENS_OUT}
        self._send(200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}], "usage": usage}).encode())
