"""Values of options that several commands read."""

from __future__ import annotations

import argparse
import math


def whole(text: str) -> int:
    """A whole number, at least 1."""
    return _at_least(text, 1)


def whole_or_zero(text: str) -> int:
    """A whole number, at least 0."""
    return _at_least(text, 0)


def _at_least(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"is {text!r}; must be a whole number, at least {least}")
    return int(text)


def positive(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"is {text!r}; must be a number above 0")
    return value
