"""What a sample is: a question about media, with a known answer.

A `Record` is plain data (no torch, no decoded media): readers make it, the sampler draws it, the encoder turns it into tensors and graders
compare a completion with its `target`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

# From worst to best, as quality studies name them (ITU-T P.800).
LEVELS = ("bad", "poor", "fair", "good", "excellent")


class Modality(StrEnum):
    """What the policy perceives when it answers."""

    TEXT = "text"
    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    AUDIO_VIDEO = "audio_video"


class AnswerKind(StrEnum):
    """How an answer is written and graded."""

    SINGLE_CHOICE = "single_choice"
    MULTI_SELECT = "multi_select"
    NUMBER = "number"
    YES_NO = "yes_no"
    OPEN = "open"
    LEVEL = "level"
    SCALAR = "scalar"
    POSE = "pose"


@dataclass(frozen=True, slots=True)
class MediaRef:
    """One clip as the policy perceives it.

    `kind` says which sense starts from `path`; an image is one still frame. A video is heard only when `sound` names the file that its
    sound is read from (usually `path` itself; another file swaps the sound and keeps the picture). For controls, `blank` replaces what was
    decoded by a black picture or by silence of the same size, and `shuffle` (a seed) puts the frames in another order. `fps` is the rate of
    a video that is a folder of images (None: one a second); files of clips have their own.
    """

    kind: Literal["image", "video", "audio"]
    path: str
    sound: str | None = None
    blank: frozenset[Literal["picture", "sound"]] = frozenset()
    fps: float | None = None
    shuffle: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A question about media with its known answer.

    `target` is in the normal form of its kind: a letter (`"B"`), letters in order joined by commas (`"A,C"`), digits (`"10"`, `"2.5"`;
    number and scalar), `"yes"` or `"no"`, a level word (`LEVELS`), plain text (open), or the description of a pose. `values` holds the
    numbers of a scalar (one) or of a pose (24 joint rotations as 3 x 3 matrices, row by row: 216). `options` hold the options' texts
    without their letters. `history` holds the earlier turns of a dialogue as (question, answer). `response` is a whole demonstration for a
    supervised cold start, where the data has one. `source` says where the row stands (`"train.json: record 17"`, counted from 0).
    """

    id: str
    modality: Modality
    task: str
    kind: AnswerKind
    question: str
    target: str
    media: tuple[MediaRef, ...] = ()
    options: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    history: tuple[tuple[str, str], ...] = ()
    response: str | None = None
    source: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def with_media(self, media: tuple[MediaRef, ...]) -> Record:
        """The same question about other media."""
        return replace(self, media=media)
