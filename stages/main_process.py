"""What one process of many does for all of them."""

from __future__ import annotations

from collections.abc import Callable

from accelerate import PartialState


def on_main(act: Callable[[], None]) -> None:
    """One process acts, all others wait for it."""
    if PartialState().is_main_process:
        act()
    PartialState().wait_for_everyone()


def say(text: str) -> None:
    """One process prints."""
    if PartialState().is_main_process:
        print(text, flush=True)
