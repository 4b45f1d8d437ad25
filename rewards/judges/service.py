"""A model at an OpenAI-compatible URL, and how it is asked: by a judge's calls, and for the answers of an evaluation."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from omnistage.data.errors import InputError
from omnistage.rewards.judges.ledger import BILLION, Limits

# What a server's chat template may add to a prompt, in tokens.
_TEMPLATE_TOKENS = 256
# Far beyond any use. Within them the cost of a call, and the sum of all that can be under way at once, is an integer that SQLite holds.
_MOST = {
    "max_tokens": 1_000_000,
    "attempts": 1_000,
    "concurrency": 1_000,
    "per_minute": 1_000_000,
    "temperature": 100,
    "timeout_s": 86_400,
    "most_calls": BILLION,
    "most_cost": BILLION,
    "price_in": 1_000_000,
    "price_out": 1_000_000,
}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_VARIABLE = 64
_LONGEST_LABEL = 63


@dataclass(frozen=True, slots=True)
class Service:
    """A model at a URL and how it is asked.

    `url` ends before `/chat/completions`. `timeout_s` is for a whole request, `attempts` counts the requests for one call, `concurrency`
    those under way at once in one process. Prices are per million tokens. `key_env` names the environment variable with the key; where
    that is not set, the same name with `_FILE` names a file with it.

    Raises:
        InputError: a value out of its range, a URL that is none or that carries a user name or a query, a `key_env` that names no
            variable or one without a key, or `most_cost` without prices.
    """

    url: str
    model: str
    key_env: str | None = None
    temperature: float = 0.0
    max_tokens: int = 512
    timeout_s: float = 60.0
    attempts: int = 5
    concurrency: int = 8
    per_minute: int | None = None
    most_calls: int | None = None
    most_cost: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    key: str | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        _check_url(self.url)
        if not self.model:
            raise InputError("model is empty; must be a name that the server knows")
        if not is_text(self.model):
            raise InputError(f"model is {self.model!r}; must have no half of a surrogate pair")
        for name, most in _MOST.items():
            # The number is not repeated: Python writes none of more than 4,300 digits.
            if (getattr(self, name) or 0) > most:
                raise InputError(f"{name} is too large; must be at most {most}")
        for name in ("max_tokens", "attempts", "concurrency", "per_minute"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise InputError(f"{name} is {count}; must be at least 1")
        for name in ("temperature", "most_calls", "most_cost", "price_in", "price_out"):
            number = getattr(self, name)
            if number is not None and not number >= 0:
                raise InputError(f"{name} is {number}; must not be negative")
        if not self.timeout_s > 0:
            raise InputError(f"timeout_s is {self.timeout_s}; must be more than 0")
        if self.most_cost is not None and (self.price_in is None or self.price_out is None):
            raise InputError(f"most_cost is {self.most_cost} and there are no prices; give price_in and price_out per million tokens")
        object.__setattr__(self, "key", None if self.key_env is None else _key(self.key_env))

    @property
    def sampling(self) -> dict[str, float | int]:
        """As a request has it."""
        return {"temperature": self.temperature, "max_tokens": self.max_tokens}

    @property
    def limits(self) -> Limits:
        """As the ledger counts them."""
        return Limits(self.per_minute, self.most_calls, None if self.most_cost is None else round(self.most_cost * BILLION))

    def cost(self, tokens_in: int, tokens_out: int) -> int:
        """In billionths, rounded up; 0 without prices."""
        # A price for a million tokens is a thousandth of that for a billion.
        return math.ceil(((self.price_in or 0.0) * tokens_in + (self.price_out or 0.0) * tokens_out) * (BILLION // 1_000_000))

    def most(self, messages: Sequence[Mapping[str, str]]) -> int:
        """The most that a request can cost, in billionths: a token is at least one byte of text."""
        text = sum(len(message["content"].encode("utf-8", "surrogatepass")) for message in messages)
        return self.cost(text + _TEMPLATE_TOKENS, self.max_tokens)


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_url(url: str) -> None:
    # What stands before '@' or after '?' or '#' is not repeated: it may be a secret.
    if not _is_address(url):
        said = f"is {url!r}" if set("@?#").isdisjoint(url) else "cannot be read"
        raise InputError(f"url {said}; must be the address of a server, such as 'http://localhost:8000/v1'")
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise InputError("url carries a user name, a query or a fragment; must be an address alone, and the key comes from key_env")


def _is_address(url: str) -> bool:
    import httpx2

    try:
        parts, host = urlsplit(url), httpx2.URL(url).raw_host.decode("ascii")
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except (ValueError, httpx2.InvalidURL):
        return False
    return good and "%20" not in host and all(0 < len(label) <= _LONGEST_LABEL for label in host.removesuffix(".").split("."))


def _key(variable: str) -> str:
    # Who gives the key itself must not find it in a log.
    if not _VARIABLE.fullmatch(variable):
        raise InputError("key_env is not the name of an environment variable; must be a name such as 'JUDGE_KEY', never the key itself")
    named = f"environment variable {variable!r}" if len(variable) <= _LONGEST_VARIABLE else "environment variable"
    key = (os.environ.get(variable) or _of_file(os.environ.get(f"{variable}_FILE"), named)).strip()
    if not key:
        raise InputError(
            f"the {named} that key_env names is not set; set it to the key, or the same name with _FILE to a file that holds it"
        )
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"the {named} that key_env names holds characters that no key has")
    return key


def _of_file(path: str | None, named: str) -> str:
    """The key in a file, as schedulers and containers mount secrets; an empty text without a file."""
    if path is None:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(f"the {named} that key_env names is not set, and the file of its _FILE cannot be read: {told}") from error
