"""Where two pieces of plain data differ, in one line for people."""

from __future__ import annotations

import json
from typing import Any


def first_difference(held: Any, wanted: Any, where: str = "") -> str | None:
    """The first place in which `wanted` (here) differs from `held` (there), with both values; None where they are alike."""
    if isinstance(held, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys([*wanted, *held]):
            found = first_difference(held.get(key), wanted.get(key), f"{where}.{key}" if where else str(key))
            if found:
                return found
        return None
    if isinstance(held, list) and isinstance(wanted, list) and len(held) == len(wanted):
        for index, (a, b) in enumerate(zip(held, wanted, strict=True)):
            found = first_difference(a, b, f"{where}[{index}]")
            if found:
                return found
        return None
    return None if held == wanted else f"{where} is {json.dumps(held)[:80]} there and {json.dumps(wanted)[:80]} here"
