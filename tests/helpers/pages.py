"""Blocks and commands of a page of the documentation, as tests run them."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"^```(?P<language>\w+)(?: (?P<name>\S+))?\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(text: str) -> list[tuple[str, str | None, str]]:
    """Language, name (of a file to write, else None) and body of each fenced block."""
    return [(match["language"], match["name"], match["body"]) for match in _BLOCK.finditer(text)]


def commands(body: str) -> list[tuple[str, list[str]]]:
    """Each command of a console block with the lines that are shown of its output."""
    parts = re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]
    return [(first, rest) for first, *rest in (part.splitlines() for part in parts)]
