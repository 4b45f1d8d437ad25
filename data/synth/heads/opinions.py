"""Clips of a face with opinion scores, in Gen3DHF's layout (`data/formats/gen3dhf.py`).

How good a clip is follows from the strengths s of its distortions (`distortions.py`), each with a weight w (`WEIGHTS`):

    quality = product over distortions of (1 - w s)        from 1 (nothing is spoiled) down to 0.03
    score   = low + (high - low) quality                   low = 6.3619, high = 65.7502: the published bounds

Eight simulated raters see the clip. Each gives the score, plus how mild or strict he always is (`RATERS`, 0 on average), plus chance (a
standard deviation of 7), as a whole number from 0 to 100. The mean of their ratings is the mean opinion score, which errs by about 2.5;
its level is `gen3dhf.level_of` it within the published bounds. What the clip shows is drawn apart from how it is spoiled, and the
question is the same for all, so nothing but the picture tells the score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omnistage.data.formats.gen3dhf import BOUNDS, level_of
from omnistage.data.records import LEVELS
from omnistage.data.synth.encode import write_clip
from omnistage.data.synth.heads.distortions import MOST_DROPPED, spoiled
from omnistage.data.synth.heads.faces import moving_face

DIMENSION = "quality"
QUESTION = "Please rate the quality of the human face in this video."
WEIGHTS = {"blur": 0.75, "blocks": 0.65, "noise": 0.65, "drops": 0.5, "jitter": 0.5}
WEAKEST = 0.1
# How likely a clip is spoiled in none, one, two or three ways.
COUNTS = (0.1, 0.35, 0.35, 0.2)
# What each rater adds to every score.
RATERS = (-6.0, -4.0, -2.0, -1.0, 1.0, 2.0, 4.0, 6.0)
CHANCE = 7.0


@dataclass(frozen=True, slots=True)
class Rated:
    """One clip, `file` under the folder of the set; `stream` seeds what is drawn, `strengths` says how it is spoiled."""

    file: str
    stream: tuple[int, ...]
    strengths: Mapping[str, float]
    ratings: tuple[int, ...]

    @property
    def mos(self) -> float:
        """The mean opinion score."""
        return sum(self.ratings) / len(self.ratings)

    def write(self, out: Path) -> None:
        """Draws, spoils and encodes the clip."""
        rng = np.random.default_rng(self.stream)
        write_clip(out / self.file, spoiled(rng, moving_face(rng), self.strengths), None)

    def row(self, *, with_score: bool) -> dict[str, Any]:
        """An entry as Gen3DHF publishes it, with `strengths` and `ratings` beside it; the score stands in files under `numerical/`."""
        sentence = _sentence(level_of(self.mos, *BOUNDS[DIMENSION])) + (f" ({self.mos})" if with_score else "")
        return {
            "messages": [{"role": "user", "content": f"<video>{QUESTION}"}, {"role": "assistant", "content": sentence}],
            "videos": self.file,
            "strengths": dict(self.strengths),
            "ratings": list(self.ratings),
        }


def score(strengths: Mapping[str, float]) -> float:
    """What raters without a fault would say of a clip that is spoiled like this."""
    low, high = BOUNDS[DIMENSION]
    return low + (high - low) * float(np.prod([1 - WEIGHTS[name] * strength for name, strength in strengths.items()]))


def rated(key: Sequence[int], split: str, count: int) -> list[Rated]:
    """The clips of one set; `key` begins each of their random streams."""
    return [_rated((*key, index), f"video_RGB/{split}_{index:05d}.mp4") for index in range(count)]


def corpus() -> list[str]:
    """The question, every sentence that can answer it, and the levels alone."""
    return [QUESTION, *map(_sentence, LEVELS), *LEVELS]


def _rated(key: tuple[int, ...], file: str) -> Rated:
    rng = np.random.default_rng((*key, 0))
    names = rng.permutation(list(WEIGHTS))[: rng.choice(len(COUNTS), p=COUNTS)]
    strengths = {name: round(float(rng.uniform(WEAKEST, 1)), 3) for name in sorted(names.tolist())}
    if "drops" in strengths:
        # Frames are lost whole.
        strengths["drops"] = float(rng.integers(1, MOST_DROPPED, endpoint=True)) / MOST_DROPPED
    said = score(strengths) + np.array(RATERS) + rng.normal(0, CHANCE, len(RATERS))
    ratings = tuple(int(rating) for rating in said.round().clip(0, 100))
    return Rated(file, (*key, 1), strengths, ratings)


def _sentence(level: str) -> str:
    return f"The {DIMENSION} of the human face in this video is {level}."
