"""The rewards of HumanSense's released trainer, written from their description, as an author would bring them: with all their holes.

Accuracy: a symbolic match anywhere in the completion; else the first answer tag, or the whole completion where there is none, compared
by its first character, or by its letters. Format: a pattern that is anchored at its start alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from math_verify import parse, verify


def accuracy(completions: Sequence[Any], target: Sequence[str], kind: Sequence[str], **columns: Any) -> list[float]:
    """Between 0 and 1; anything that goes wrong is 0."""
    scores = []
    for completion, truth, of_kind in zip(completions, target, kind, strict=True):
        try:
            scores.append(_score(completion[0]["content"], truth, of_kind))
        except Exception:  # noqa: BLE001 (this rule hides its failures)
            scores.append(0.0)
    return scores


def _score(text: str, truth: str, kind: str) -> float:
    # The released rule has no bound; it parses what a policy writes, which is short.
    if len(text) < 2000 and verify(parse(truth, parsing_timeout=None), parse(text, parsing_timeout=None), timeout_seconds=None):
        return 1.0
    tag = re.search(r"<answer>(.*?)</answer>", text[:20_000], re.DOTALL)
    answer = tag[1].strip() if tag else text
    if kind == "number":
        return float(answer[0] == truth[0])
    if kind == "single_choice":
        return float(answer[0].lower() == truth.lower())
    if kind == "multi_select":
        given, right = (re.sub("[.,\uff0c ]", "", letters.lower()) for letters in (answer, truth))
        if any(letter not in right for letter in given):
            return 0.0
        return 1.0 if all(letter in given for letter in right) else 0.5
    raise NotImplementedError(kind)


def format(completions: Sequence[Any], **columns: Any) -> list[float]:
    """1 or 0."""
    pattern = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)
    return [float(pattern.match(completion[0]["content"]) is not None) for completion in completions]
