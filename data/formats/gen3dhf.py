"""Gen3DHF, the data of LMME3DHF (arXiv 2504.20466): opinion scores of generated heads, for quality and for authenticity.

One JSON list; each entry is a question, a sentence with the level of the clip, and the path of the clip on the authors' machine:

    {"messages": [{"role": "user", "content": "<video>Please rate the quality of the human face in this video, considering ..."},
                  {"role": "assistant", "content": "The quality of the human face in this video is good."}],
     "videos": "/database/video_RGB/seed1053.mp4"}

The files under `text/` end like this one; their records are of kind `LEVEL`, and the sentence is the demonstration. In those under
`numerical/` the sentence goes on with the mean opinion score, `... is good. (51.8686560031219)`; their records are of kind `SCALAR`,
without a demonstration, since the sentence gives the level away. The dimension, quality or authenticity, is read off the sentence.

The published levels are five bins over the scores of all clips (`level_of`), and the very lowest score falls out of them: its level is the
word "None". It is read as "bad", in the demonstration too, and `extra["label"]` keeps the word.

A path that is absolute and not under the media root is looked for there by the names of its folder and file, then by that of its file alone
(`video_RGB/seed1053.mp4`, then `seed1053.mp4`). Files of two folders that are found under one name alone are refused: one of them would be
another clip. Nothing outside the media root is opened.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from omnistage.data.errors import InputError, MediaError, RecordError
from omnistage.data.formats.media_root import MediaRoot
from omnistage.data.formats.places import Row
from omnistage.data.formats.rows import Fields, Mapped, media_refs, object_of, perceived, shown
from omnistage.data.formats.streams import stream_list
from omnistage.data.records import LEVELS, AnswerKind, Modality, Record

# The least and the greatest score of all 2000 published clips, by dimension.
BOUNDS = {"quality": (6.3619, 65.7502), "authenticity": (8.5847, 66.2751)}
SCALE = (0.0, 100.0)
NO_LABEL = "None"

_PLACEHOLDER = "<video>"
_SENTENCE = re.compile(r"(The (\w+) of .+ is )(\w+)\.(?:\s*\(([^()]*)\))?", re.DOTALL)
_DIGITS = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def level_of(mos: float, low: float, high: float) -> str:
    """The level word of a score: five bins of equal width over [low, high], each without its lower end and with its upper one.

    What lies below or at `low` is "bad" and what lies above `high` is "excellent". Raises `InputError` for bounds that span nothing or a
    score that is no number.
    """
    if not low < high or not math.isfinite(high - low):
        raise InputError(f"level_of: low must be below high, got {low} and {high}")
    if math.isnan(mos):
        raise InputError("level_of: the score is not a number")
    inner = [low + (high - low) * step / len(LEVELS) for step in range(1, len(LEVELS))]
    return LEVELS[sum(mos > bound for bound in inner)]


def read(path: Path, *, media_root: Path, modality: Modality | None = None) -> Iterator[Record]:
    """The records of one annotation file, in its order; clips are `VIDEO` unless `modality` says otherwise.

    Raises `RecordError` for a row that does not hold what is described above and `MediaError` for a clip that is not under `media_root`.
    """

    clips = _Clips(media_root)

    def made(row: Row) -> list[Record]:
        return [_record(row, path.stem, clips, modality)]

    return Mapped(stream_list(path), made)


def _record(row: Row, stem: str, clips: _Clips, modality: Modality | None) -> Record:
    source = str(row.place)
    top = object_of(row.value, source, "messages and videos")
    question, sentence = _turns(top)
    answer = Fields({"content": sentence}, source, "messages[1].")
    example = "'The quality of the human face in this video is good.'"
    allowed = f"{example}, with one of {', '.join(BOUNDS)} and one of {', '.join(LEVELS)}, {NO_LABEL}"
    match = _SENTENCE.fullmatch(sentence)
    if match is None or match[2] not in BOUNDS or match[3] not in (*LEVELS, NO_LABEL):
        raise answer.error("content", f"got {shown(sentence)}; allowed: {allowed}, and a score in brackets in a numerical file")
    opening, dimension, label, score = match.groups()
    if dimension not in question.lower():
        raise RecordError(f"{source}: messages[0].content: got {shown(question)}; allowed: a question about {dimension}, as the answer is")
    level = LEVELS[0] if label == NO_LABEL else label
    seen_as = perceived(modality, (Modality.VIDEO, Modality.AUDIO_VIDEO, Modality.AUDIO, Modality.TEXT), source)
    extra = {"dimension": dimension} | ({"label": label} if label != level else {}) | top.others({"messages", "videos"})
    record = Record(
        id=f"{stem}-{AnswerKind.LEVEL}-{row.position}",
        modality=seen_as,
        task=dimension,
        kind=AnswerKind.LEVEL,
        question=question,
        target=level,
        media=media_refs(clips.of(top), seen_as),
        response=f"{opening}{level}.",
        source=source,
        extra=extra,
    )
    if score is None:
        return record
    value = _score(score, answer)
    return replace(
        record,
        id=f"{stem}-{AnswerKind.SCALAR}-{row.position}",
        kind=AnswerKind.SCALAR,
        target=score.strip(),
        values=(value,),
        response=None,
        extra=extra | {"level": level},
    )


def _turns(top: Fields) -> tuple[str, str]:
    """The question without the clip's place in it, and the answer."""
    allowed = "a list of two messages, of the user and of the assistant"
    messages = top.need("messages", allowed)
    if not isinstance(messages, list) or len(messages) != 2:
        size = f" of {len(messages)}" if isinstance(messages, list) else ""
        raise top.error("messages", f"got {shown(messages)}{size}; allowed: {allowed}")
    texts = []
    for position, (message, role) in enumerate(zip(messages, ("user", "assistant"), strict=True)):
        name = f"messages[{position}]"
        if not isinstance(message, dict):
            raise top.error(name, f"got {shown(message)}; allowed: an object with role and content")
        turn = Fields(message, top.where, f"{name}.")
        if turn.text("role", repr(role)) != role:
            raise turn.error("role", f"got {shown(message['role'])}; allowed: {role!r}")
        texts.append(turn.text("content"))
    places = texts[0].count(_PLACEHOLDER)
    question = texts[0].replace(_PLACEHOLDER, "").strip()
    if places > 1 or not question:
        raise top.error("messages[0].content", f"got {shown(texts[0])}; allowed: a question with {_PLACEHOLDER!r} in it once at most")
    return question, texts[1]


class _Clips:
    """Finds the clips of rows that name them as they lay on another machine."""

    def __init__(self, media_root: Path) -> None:
        self.root = MediaRoot(media_root)
        # What is found by the name of its file alone, and the path that it was found for.
        self._alone: dict[str, str] = {}

    def of(self, top: Fields) -> str:
        """The path of a row's clip; `MediaError` where there is none under the root, or one that may be another's."""
        named = top.text("videos", "the path of one clip")
        root, where = self.root.folder, f"{top.where}: videos"
        if "\0" in named or not os.path.isabs(named) or Path(os.path.realpath(named)).is_relative_to(os.path.realpath(root)):
            return self.root.media(top, "videos")
        file, folder = os.path.basename(named), os.path.basename(os.path.dirname(named))
        names = [f"{folder}/{file}", file] if folder else [file]
        for name in names if file else []:
            found = self.root.first([name], where)
            if found is not None and name == file and (other := self._alone.setdefault(found, named)) != named:
                problem = f"{named!r} and {other!r} are both found as {file!r}"
                raise top.error("videos", f"{problem}; allowed: clips in their folders under {str(root)!r}")
            if found is not None:
                return found
        sought = " nor ".join(map(repr, names))
        raise MediaError(
            f"{where}: neither {named!r} nor {sought} is a file under {str(root)!r}; allowed: the path of a clip there", "missing"
        )


def _score(text: str, answer: Fields) -> float:
    low, high = SCALE
    if not _DIGITS.fullmatch(text.strip()) or not low <= float(text) <= high:
        raise answer.bad_answer("content", f"the score is {shown(text)}; allowed: digits from {low:g} to {high:g}, such as '51.87'")
    return float(text)
