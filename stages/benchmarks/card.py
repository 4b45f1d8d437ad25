"""The protocol card of an evaluation (`card.md`): its figures, and all that somebody needs who wants to get them again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from omnistage.stages.benchmarks.items import GREEDY

CARD = "card.md"


def card(setup: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Markdown, from `setup.json` and `scores.json`."""
    lines = [f"# {result['benchmark']}", "", *table(result), ""]
    if result["notes"]:
        lines += [*(f"- {note}" for note in result["notes"]), ""]
    lines += ["## How it was made", ""]
    lines += [f"- {name}: {told}" for name, told in _protocol(setup)]
    return "\n".join(lines) + "\n"


def table(result: Mapping[str, Any]) -> list[str]:
    """The figures of every run as Markdown: a row a figure with its interval, what the valid answers alone would give, and the probes."""
    main = main_run(result)
    of_main, counts = result["runs"][main]["figures"], result["runs"][main]["counts"]
    baseline, probes = result.get("baseline"), result.get("probes", {})
    others = [run for run in result["runs"] if run != main]
    head = ["figure", "n", f"{main} [95 % interval]", "valid answers only", *([baseline["name"]] if baseline else []), *others]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, figure in of_main.items():
        cells = [f"**{name}**" if name == result["headline"] else name, str(figure["n"]), cell(figure)]
        cells.append(_valid(figure) or "the same")
        if baseline:
            cells.append(printed(baseline["figures"].get(name), figure))
        for run in others:
            other, drop = result["runs"][run]["figures"].get(name), probes.get(run, {}).get(name)
            cells.append("" if other is None else printed(other["value"], other) + (f" ({signed(drop, figure)})" if drop else ""))
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", _told(counts)]
    return lines


def text_table(result: Mapping[str, Any]) -> list[str]:
    """The same for a terminal, a line a figure."""
    main = main_run(result)
    of_main, counts = result["runs"][main]["figures"], result["runs"][main]["counts"]
    baseline = result.get("baseline")
    rows = [("", "n", f"{main} [95 % interval]", "valid only", baseline["name"] if baseline else "")]
    for name, figure in of_main.items():
        constant = printed(baseline["figures"].get(name), figure) if baseline else ""
        rows.append((name, str(figure["n"]), cell(figure), _valid(figure), constant))
    for run in (run for run in result["runs"] if run != main):
        drops = result.get("probes", {}).get(run, {})
        for name, figure in result["runs"][run]["figures"].items():
            if name == result["headline"]:
                told = f"{signed(drops[name], figure)} to {main}" if name in drops else ""
                rows.append((f"{run}: {name}", str(figure["n"]), cell(figure), told, ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # What a probe changes reaches into the next column, which such a line has nothing in.
    widths[3] = max(len(row[3]) for row in rows[: len(of_main) + 1])
    lines = []
    for name, n, value, valid, constant in rows:
        line = f"  {name:<{widths[0]}}  {n:>{max(widths[1], 4)}}  {value:<{widths[2]}}  {valid:<{widths[3]}}  {constant}"
        lines.append(line.rstrip())
    return [*lines, "  " + _told(counts)]


def _told(counts: Mapping[str, int]) -> str:
    told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if name != "items" and count)
    return f"{counts['items']} items: {told or 'none'}. What was not answered, or cannot be read, is wrong and counts."


def main_run(result: Mapping[str, Any]) -> str:
    """The run that figures are quoted of: the greedy one, else the first."""
    runs: Mapping[str, Any] = result["runs"]
    return GREEDY if GREEDY in runs else next(iter(runs))


def cell(figure: Mapping[str, Any]) -> str:
    """A figure with its interval, as it is printed."""
    if figure["value"] is None:
        return "undefined" if figure["n"] else "not judged"
    if figure["low"] is None:
        return f"{printed(figure['value'], figure)} [unknown]"
    return f"{printed(figure['value'], figure)} [{printed(figure['low'], figure)}, {printed(figure['high'], figure)}]"


def _valid(figure: Mapping[str, Any]) -> str:
    """The figure over the answers that were valid, and how many those are; nothing where all are."""
    if figure["valid_n"] == figure["n"]:
        return ""
    return f"{printed(figure['valid_value'], figure)} ({figure['valid_n']})" if figure["valid_n"] else "none"


def printed(value: float | None, figure: Mapping[str, Any]) -> str:
    """Shares in percent, correlations with two digits, all else with one."""
    if value is None:
        return ""
    match figure["unit"]:
        case "share":
            return f"{100 * value:.1f} %"
        case "correlation":
            return f"{value:.3f}"
        case unit:
            return f"{value:.1f} {unit}"


def signed(drop: Mapping[str, Any], figure: Mapping[str, Any]) -> str:
    """A difference with its interval, as it is printed; `?` is a bound that could not be had."""
    scale = 100.0 if figure["unit"] == "share" else 1.0
    digits = 3 if figure["unit"] == "correlation" else 1
    value, low, high = ("?" if drop[name] is None else f"{scale * drop[name]:+.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _protocol(setup: Mapping[str, Any]) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for name, value in setup.items():
        if name == "made":
            continue
        if isinstance(value, Mapping):
            out.append((name, ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())))
        else:
            out.append((name, _plain(value)))
    command = setup.get("made", {}).get("command")
    return out + ([("command", f"`{shlex.join(command)}`")] if command else [])


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
