"""Calls a reward outside of training as TRL does within it, and shows completions in a line."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from omnistage.rewards.calls import UNLOGGED
from omnistage.rewards.registry import Reward

Value = float | None


def values_of(
    reward: Reward, texts: Sequence[str], prompts: Sequence[Any], columns: Mapping[str, Sequence[Any]], *, step: int = 0
) -> list[Value]:
    """The values of completions with their prompts (messages) and columns, `step` steps into a training; what a reward logs is dropped.

    Raises:
        RewardError: the reward fails.
    """
    made = reward(
        prompts=list(prompts),
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        trainer_state=SimpleNamespace(global_step=step),
        **UNLOGGED,
        **columns,
    )
    values: list[Value] = asyncio.run(_result(made)) if inspect.isawaitable(made) else made
    return values


async def _result(made: Any) -> Any:
    return await made


def shown(text: str) -> str:
    """A completion in at most about 200 characters: its beginning and its end."""
    return text if len(text) <= 200 else f"{text[:120]}…{text[-60:]}"
