"""What a body does, in words and in rotations.

A pose is one state for each of five parts. 5,400 combinations are possible; those whose states' places in their tables add up to a multiple
of `APART` are kept for the held-out sets, so every state is learned and every held-out combination is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from omnistage.data.body.skeleton import skeleton
from omnistage.data.rotations import Floats

JOINT = {name: place for place, name in enumerate(skeleton().names)}
APART = 4
# Standard deviation of each of a joint's three angles around its state, in radians (1.7 degrees).
SPREAD = 0.03
_FREE = [f"{side}_{joint}" for side in "LR" for joint in ("Shoulder", "Elbow", "Hip", "Knee")] + ["Spine1", "Spine2", "Neck"]
FREE = tuple(JOINT[name] for name in _FREE)

Choice = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class State:
    """What a part does: as a sentence says it, in a word or two, and as turns about x (left), y (up) and z (forward) in degrees.

    Turns of arms and legs are those of the left one; the right one does the same as in a mirror.
    """

    sentence: str
    short: str
    turns: Mapping[str, tuple[float, float, float]]


_ARM = (
    State("hangs down", "down", {"Shoulder": (0, 0, -75)}),
    State("is raised", "up", {"Shoulder": (0, 0, 70)}),
    State("points to the side", "sideways", {}),
    State("points forward", "forward", {"Shoulder": (0, -80, 0)}),
    State("rests on the hip", "on hip", {"Shoulder": (0, 0, -50), "Elbow": (0, 0, -85)}),
    State("is bent upward", "bent", {"Shoulder": (0, 0, -15), "Elbow": (0, 0, 95)}),
)
_LEG = (
    State("is straight", "straight", {}),
    State("is raised with a bent knee", "knee up", {"Hip": (-80, 0, 0), "Knee": (90, 0, 0)}),
    State("kicks forward", "kicking", {"Hip": (-60, 0, 0)}),
    State("is spread to the side", "spread", {"Hip": (0, 0, 40)}),
    State("is bent back", "heel up", {"Knee": (95, 0, 0)}),
)
_TRUNK = (
    State("is upright", "upright", {}),
    State("leans forward", "bowed", {"Spine1": (25, 0, 0), "Spine2": (20, 0, 0)}),
    State("leans to the left", "leaning left", {"Spine1": (0, 0, -18), "Spine2": (0, 0, -14)}),
    State("leans to the right", "leaning right", {"Spine1": (0, 0, 18), "Spine2": (0, 0, 14)}),
    State("is turned to the left", "turned left", {"Spine1": (0, 25, 0), "Spine2": (0, 20, 0)}),
    State("is turned to the right", "turned right", {"Spine1": (0, -25, 0), "Spine2": (0, -20, 0)}),
)
PARTS = {"left arm": _ARM, "right arm": _ARM, "left leg": _LEG, "right leg": _LEG, "body": _TRUNK}


def chosen(rng: np.random.Generator, *, held_out: bool) -> Choice:
    """One state's place for each part."""
    while True:
        choice = tuple(int(rng.integers(len(states))) for states in PARTS.values())
        if (sum(choice) % APART == 0) == held_out:
            return choice


def plain(choice: Choice) -> Floats:
    """The states' turns as axis-angle [24, 3] in radians; joint 0 is left at rest."""
    degrees = np.zeros((len(JOINT), 3))
    for part, state in _states(choice):
        side = {"left": "L_", "right": "R_"}.get(part.split()[0], "")
        mirror = (1, -1, -1) if side == "R_" else (1, 1, 1)
        for joint, turn in state.turns.items():
            degrees[JOINT[side + joint]] = np.multiply(turn, mirror)
    made: Floats = np.radians(degrees)
    return made


def varied(choice: Choice, rng: np.random.Generator) -> Floats:
    """The same [24, 3], each turn a little off."""
    made = plain(choice)
    made[list(FREE)] += rng.normal(0, SPREAD, (len(FREE), 3))
    return made


def sentences(choice: Choice) -> str:
    """A description in whole sentences."""
    return " , ".join(f"the {part} {state.sentence}" for part, state in _states(choice)) + " ."


def notes(choice: Choice) -> str:
    """The same in short."""
    return " , ".join(f"{part} {state.short}" for part, state in _states(choice)) + " ."


def _states(choice: Choice) -> list[tuple[str, State]]:
    return [(part, states[place]) for (part, states), place in zip(PARTS.items(), choice, strict=True)]
