"""Line plots with logarithmic axes as SVG, without a library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

# Pixels of a panel, and of the margins around its axes.
WIDTH, HEIGHT = 480, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 92, 24, 52
STEPS = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Series:
    """Points (x, y), all above zero, joined by a line; a dashed one has no markers."""

    name: str
    points: Sequence[tuple[float, float]]
    color: str
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Series over one pair of axes. The x axis is marked at the points of the series, the y axis at 1, 2 and 5 times powers of ten."""

    x_label: str
    y_label: str
    series: Sequence[Series]


def write_svg(path: Path, panels: Sequence[Panel]) -> None:
    """Draw the panels beside each other, with y axes of the same range."""
    values = [y for panel in panels for series in panel.series for _, y in series.points]
    y_range = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05
    width = WIDTH * len(panels)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" width="{width}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for index, panel in enumerate(panels):
        lines += _panel(panel, index * WIDTH, y_range)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, "</svg>"]) + "\n", encoding="utf-8")


def _panel(panel: Panel, left: float, y_range: tuple[float, float]) -> list[str]:
    marks = sorted({x for series in panel.series for x, _ in series.points})
    low, high = math.log10(marks[0]), math.log10(marks[-1])
    start, end, top, bottom = left + LEFT, left + WIDTH - RIGHT, TOP, HEIGHT - BOTTOM

    def across(x: float) -> float:
        return start + (math.log10(x) - low) / (high - low) * (end - start)

    def down(y: float) -> float:
        return bottom - (math.log10(y) - y_range[0]) / (y_range[1] - y_range[0]) * (bottom - top)

    lines = []
    for mark in marks:
        x = across(mark)
        lines.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="#e4e4e4"/>')
        lines.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{mark:,}</text>')
    for power in range(math.floor(y_range[0]), math.ceil(y_range[1]) + 1):
        for value in (step * 10.0**power for step in STEPS):
            if y_range[0] <= math.log10(value) <= y_range[1]:
                y = down(value)
                lines.append(f'<line x1="{start}" y1="{y:.1f}" x2="{end}" y2="{y:.1f}" stroke="#e4e4e4"/>')
                lines.append(f'<text x="{start - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    lines.append(f'<path d="M{start} {top}V{bottom}H{end}" fill="none" stroke="#333333"/>')
    lines.append(f'<text x="{(start + end) / 2:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(panel.x_label)}</text>')
    middle = (top + bottom) / 2
    lines.append(
        f'<text x="{left + 16}" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 {left + 16} {middle:.1f})">'
        f"{escape(panel.y_label)}</text>"
    )
    names = []
    for series in panel.series:
        places = [(across(x), down(y)) for x, y in series.points]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        dash = ' stroke-dasharray="5 4"' if series.dashed else ""
        lines.append(f'<polyline points="{drawn}" fill="none" stroke="{series.color}" stroke-width="2"{dash}/>')
        if not series.dashed:
            lines += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{series.color}"/>' for x, y in places]
        names.append((places[-1], series))
    return lines + _names(names)


def _names(ends: Sequence[tuple[tuple[float, float], Series]]) -> list[str]:
    """The names of the series behind their last points, moved apart where they would touch."""
    lines, lowest = [], -math.inf
    for (x, y), series in sorted(ends, key=lambda end: end[0][1]):
        lowest = max(y + 4, lowest + 15)
        lines.append(f'<text x="{x + 8:.1f}" y="{lowest:.1f}" fill="{series.color}">{escape(series.name)}</text>')
    return lines
