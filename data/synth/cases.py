"""The table of classes behind each question.

A table holds each class as often as it should be drawn, and each answer equally often. The audio-video tables are Latin squares: for each
picture every answer goes with equally many sounds, and for each sound with equally many pictures, so whoever only sees or only hears is
right no more often than by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

from omnistage.data.synth import picture, sound

# What a drawing function gets after the generator, such as ("red", "blue"), ("up",) or (3,).
Scene = tuple[str | int, ...]

COLOURS = tuple(picture.COLOURS)
SHAPES = ("disc", "bar", "cross", "frame")
TIMBRES = ("bell", "buzz", "hiss", "click")
TONES = tuple(sound.TONES_HZ)
LAMPS = ("left", "right", "none")
# Clockwise, as `picture.CORNERS` has them.
CORNERS = tuple(picture.CORNERS)
SLOTS = ("first", "second", "third", "fourth")


@dataclass(frozen=True, slots=True)
class Case:
    """One class: what is seen and heard (`None`: that sense is absent), the right answer, and what is perceived, without the letter."""

    seen: Scene | None
    heard: Scene | None
    answer: str
    think: str
    options: tuple[str, ...] = ()


Table = tuple[Case, ...]


def lettered(options: Sequence[str]) -> list[str]:
    """`["A.red", "B.blue"]`, as HumanSense writes options."""
    return [f"{letter}.{option}" for letter, option in zip("ABCD", options, strict=False)]


def colours() -> Table:
    return tuple(Case((name,), None, _letters([name], COLOURS), f"it is {name}", COLOURS) for name in COLOURS)


def directions() -> Table:
    names = tuple(picture.DIRECTIONS)
    return tuple(Case((name,), None, _letters([name], names), f"it moves {name}", names) for name in names)


def squares() -> Table:
    return tuple(Case((count,), None, str(count), _there_are(count, "square")) for count in (1, 2, 3, 4))


def shapes() -> Table:
    return tuple(Case((name,), None, _letters([name], SHAPES), f"it is a {name}", SHAPES) for name in SHAPES)


def is_red() -> Table:
    """Red as often as the three other colours together."""
    names = [name for other in COLOURS if other != "red" for name in ("red", other)]
    return tuple(Case((name,), None, _yes_no(name == "red"), f"it is {name}") for name in names)


def which_colours() -> Table:
    pairs = combinations(COLOURS, 2)
    return tuple(Case(pair, None, _letters(pair, COLOURS), f"there are {' and '.join(pair)}", COLOURS) for pair in pairs)


def beeps() -> Table:
    return tuple(Case(None, (count,), str(count), _there_are(count, "beep")) for count in (1, 2, 3, 4))


def rises() -> Table:
    return tuple(Case(None, (way,), _yes_no(way == "rises"), f"the tone {way}") for way in ("rises", "falls"))


def timbres() -> Table:
    return tuple(Case(None, (name,), _letters([name], TIMBRES), f"it is a {name}", TIMBRES) for name in TIMBRES)


def which_tones() -> Table:
    subsets = [*combinations(TONES, 1), *combinations(TONES, 2)]
    return tuple(Case(None, names, _letters(names, TONES), _tones_are(names), TONES) for names in subsets)


def colour_at_beep() -> Table:
    """The colours take turns in their order, half a second each, from any of them on; the beep comes in one of the four half seconds."""
    table = []
    for start, slot in product(range(4), repeat=2):
        order = tuple(COLOURS[(start + step) % 4] for step in range(4))
        think = f"first {order[0]} beep {SLOTS[slot]} it is {order[slot]}"
        table.append(Case(order, (slot,), _letters([order[slot]], COLOURS), think, COLOURS))
    return tuple(table)


def walk() -> Table:
    """A square stands in a corner and goes on clockwise, one corner at each beep."""
    table = []
    for start, steps in product(range(4), (1, 2, 3, 4)):
        end = CORNERS[(start + steps) % 4]
        think = f"square {CORNERS[start]} {_counted(steps, 'beep')} it ends {end}"
        table.append(Case((CORNERS[start],), (steps,), _letters([end], CORNERS), think, CORNERS))
    return tuple(table)


def dial() -> Table:
    """A dial of the figures 1 to 3 starts at the number of squares and goes on by one at each beep, from 3 to 1."""
    table = []
    for seen, heard in product((1, 2, 3), repeat=2):
        place = (seen + heard - 1) % 3 + 1
        think = f"{_counted(seen, 'square')} {_counted(heard, 'beep')} it stands at {place}"
        table.append(Case((seen,), (heard,), str(place), think))
    return tuple(table)


def lamps() -> Table:
    """The low tone switches the left lamp, on or off, the high tone the right one."""
    table = []
    for left, right, low, high in product((True, False), repeat=4):
        lit = [side for side, on in (("left", left != low), ("right", right != high)) if on]
        seen = tuple("lit" if on else "dark" for on in (left, right))
        heard = tuple(name for name, on in (("low", low), ("high", high)) if on)
        think = f"left {seen[0]} right {seen[1]} tones {' and '.join(heard) or 'none'} then {' and '.join(lit) or 'none'} lit"
        table.append(Case(seen, heard, _letters(lit or ["none"], LAMPS), think, LAMPS))
    return tuple(table)


def _letters(chosen: Sequence[str], options: Sequence[str]) -> str:
    return ",".join(letter for letter, option in zip("ABCD", options, strict=False) if option in chosen)


def _yes_no(yes: bool) -> str:
    return "yes" if yes else "no"


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _there_are(count: int, thing: str) -> str:
    return f"there {'is' if count == 1 else 'are'} {_counted(count, thing)}"


def _tones_are(names: Sequence[str]) -> str:
    return f"the tone{' is' if len(names) == 1 else 's are'} {' and '.join(names)}"
