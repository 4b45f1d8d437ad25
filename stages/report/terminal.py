"""A run's progress in a terminal: a table that is drawn anew in its place, or one plain line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

MARKS = {"done": "✓", "begun": "◐", "waiting": "○"}
STATES = {"running": "under way", "done": "done", "stopped": "stopped"}
# Columns that a terminal needs for all figures.
WIDE = 110


def visible(text: str) -> str:
    """A name without what would steer a terminal."""
    return "".join(character if character.isprintable() else "�" for character in str(text))


def short(value: float | None, digits: int = 3) -> str:
    """A number in a few characters."""
    return "–" if value is None else f"{value:.{digits}g}"


def share(value: float | None) -> str:
    """A share in percent."""
    return "–" if value is None else f"{100 * value:.0f} %"


def duration(seconds: float | None) -> str:
    """Seconds as a person says them; unknown ones are said to be."""
    if seconds is None:
        return "unknown"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def held_out(found: Mapping[str, Any] | None) -> str:
    """A measured figure with its interval."""
    if found is None or found["value"] is None:
        return "–"
    if found["unit"] in ("srcc", "mm"):
        told = f"SRCC {short(found['value'])}" if found["unit"] == "srcc" else f"{short(found['value'])} mm"
        alone = found["low"] is None or found["high"] is None
        return told if alone else f"{told} [{short(found['low'])}, {short(found['high'])}]"
    if found["unit"] != "share":
        return short(found["value"])
    if found["low"] is None or found["high"] is None:
        return share(found["value"])
    return f"{share(found['value'])} [{100 * found['low']:.0f}, {100 * found['high']:.0f}]"


def left(state: Mapping[str, Any]) -> str:
    """What training is still to take."""
    if state["state"] == "done":
        return "all stages are done"
    unknown = state["unknown"]
    if state["left_s"] is None:
        return "time left unknown"
    more = f", and {', '.join(map(visible, unknown))} (unknown)" if unknown else ""
    return f"{duration(state['left_s'])} of training left{more}"


def view(state: Mapping[str, Any], width: int, note: str | None = None) -> RenderableType:
    """The whole run, in a terminal of so many columns."""
    head = Text.assemble((visible(state["run"]), "bold"), f"  {STATES[state['state']]} · {left(state)}")
    if state["start"] is not None:
        head.append(f" · held-out accuracy at the start {held_out(state['start'])}")
    table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
    names = ["stage", "", "step", "reward", "accuracy", "loss"]
    names += ["KL", "no spread"] if width >= WIDE else []
    names += ["s a step", "left"] if width >= WIDE else ["left"]
    names += ["held out"]
    for name in names:
        table.add_column(name, justify="left" if name in ("stage", "") else "right", no_wrap=True)
    for stage in state["stages"]:
        table.add_row(*(_cells(stage, width)[name] for name in names))
    lines: list[RenderableType] = [head, table]
    if note is not None:
        lines.append(Text(note, style="dim"))
    return Group(*lines)


def _cells(stage: Mapping[str, Any], width: int) -> dict[str, RenderableType]:
    done, of = stage["state"] == "done", stage["of"]
    whole = of or max(1, stage["step"])
    return {
        "stage": Text(f"{MARKS[stage['state']]} {visible(stage['name'])}", style="" if stage["state"] != "waiting" else "dim"),
        "": ProgressBar(total=whole, completed=whole if done else stage["step"] if of else 0, width=14 if width >= WIDE else 6),
        "step": Text("–" if stage["kind"] == "evaluate" else f"{stage['step']}/{of if of is not None else '?'}"),
        "reward": Text(short(stage["reward"])),
        "accuracy": Text(share(stage["accuracy"])),
        "loss": Text(short(stage["loss"], 2)),
        "KL": Text(short(stage["kl"])),
        "no spread": Text(share(stage["no_spread"])),
        "s a step": Text(short(stage["step_s"])),
        "left": Text("" if done else "–" if stage["kind"] == "evaluate" else duration(stage["left_s"])),
        "held out": Text(held_out(stage["held_out"])),
    }


def line(state: Mapping[str, Any]) -> str:
    """The run in one line without escape codes: the stage under way with its newest figures, and what is left."""
    now = next((stage for stage in state["stages"] if stage["state"] == "begun"), None)
    parts = [f"{visible(state['run'])}: {STATES[state['state']]}"]
    if now is not None:
        told = f"{visible(now['name'])} step {now['step']} of {now['of'] if now['of'] is not None else 'unknown'}"
        named = [
            ("reward", short(now["reward"])),
            ("accuracy", share(now["accuracy"])),
            ("loss", short(now["loss"])),
            ("KL", short(now["kl"])),
        ]
        named += [("no spread", share(now["no_spread"])), ("s a step", short(now["step_s"]))]
        parts += [told, *(f"{name} {value}" for name, value in named if value != "–")]
    measured = [(stage["name"], stage["held_out"]) for stage in state["stages"] if stage["held_out"] is not None]
    if measured:
        parts.append(f"held out after {visible(measured[-1][0])} {held_out(measured[-1][1])}")
    return ", ".join([*parts, left(state)])
