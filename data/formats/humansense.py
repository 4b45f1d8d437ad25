"""HumanSense (arXiv 2508.10576): questions about people in clips, for training and for its benchmark.

One JSON list; each entry has `video_path` (a sound file for audio questions too) and one `questions` object:

    {"video_path": "videos/x.mp4", "questions": {"task_type": "Relation_Recognition", "question": "How are the two related?",
     "question_pattern": "Multiple-choice question (select one answer choice)", "options": ["A.son", "B.friend"], "answer": "A"}}

The benchmark's files are of the same layout, with `full_frame_number`, `fps`, `asr_en` and the answers of models beside the question; these
and all other fields are kept in `extra`.

What is perceived is told from the clip: no picture is `AUDIO`, no sound is `VIDEO`. A clip with both does not tell which of them the
question is about; by default the task's name does, as in the published code: `AUDIO_TASKS` are only heard, `SOUND_TASKS` are seen and
heard, and all others are seen in silence. Give `modality` where that is not meant.

Beyond the published layout an entry may have an `id`, and `questions` a `response`: a demonstration for a supervised cold start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from omnistage.data.errors import MediaError, unknown_name
from omnistage.data.formats.rows import Fields, Mapped, distinct, media_path, media_refs, object_of, shown, stream_list
from omnistage.data.media import streams
from omnistage.data.records import AnswerKind, Modality, Record

PATTERNS = {
    "Question and answer (Arabic numerals)": AnswerKind.NUMBER,
    "Multiple-choice question (select one answer choice)": AnswerKind.SINGLE_CHOICE,
    "Multiple-choice question (select one or more answer choices)": AnswerKind.MULTI_SELECT,
    "Judgment question (Yes or No)": AnswerKind.YES_NO,
}
# The published lists.
AUDIO_TASKS = frozenset({"Fraud_Recognition", "Psychological_Chat"})
SOUND_TASKS = frozenset(
    {"Rapport_Recognition", "Emo_Strategy", "Talkingperson_Recognition", "Familiarity_Recognition", "Relation_Recognition"}
)
# Not .ogg: it may hold a picture.
AUDIO_SUFFIXES = frozenset({".wav", ".mp3", ".flac", ".m4a", ".aac", ".opus", ".wma"})
MIN_OPTIONS, MAX_OPTIONS = 2, 10
PROBES_KEPT = 1024

# From a clip to whether it has a picture and whether it has sound.
_Probe = Callable[[str], tuple[bool, bool]]

_ROW_FIELDS = frozenset({"id", "video_path", "questions"})
_QUESTION_FIELDS = frozenset({"task_type", "question_pattern", "question", "options", "answer", "response"})
_LETTERED = re.compile(r"\s*\(?([A-J])\s*[.):\u3001\uff0e\uff1a\uff09]\s*(.*)", re.DOTALL)
_NUMBER = re.compile(r"([+-]?)([0-9]+)(?:\.([0-9]*))?")


def read(path: Path, *, media_root: Path, modality: Modality | None = None) -> Iterator[Record]:
    """The records of one annotation file, in its order.

    Without `modality`, the clip's streams decide, and for a clip with picture and sound the task's name. Raises `RecordError` for a row
    that does not hold what is described above and `MediaError` for media that are missing, unreadable or outside `media_root`.
    """
    # Rows about one clip stand close together, and opening it costs more than the row.
    probe = lru_cache(maxsize=PROBES_KEPT)(streams)

    def made(place: tuple[int, Any]) -> list[Record]:
        row, entry = place
        return [_record(entry, f"{path.name}: record {row}", f"{path.stem}-{row}", media_root, modality, probe)]

    return distinct(Mapped(enumerate(stream_list(path)), made))


def _record(entry: Any, source: str, default_id: str, media_root: Path, modality: Modality | None, probe: _Probe) -> Record:
    top = object_of(entry, source, "video_path and questions")
    clip = media_path(top, "video_path", media_root)
    questions = top.below("questions")
    task = questions.text("task_type")
    kind = _kind(questions)
    options = _options(questions) if kind in (AnswerKind.SINGLE_CHOICE, AnswerKind.MULTI_SELECT) else ()
    perceived = modality if modality is not None else _modality(task, clip, top, probe)
    return Record(
        id=top.name("id") if top.values.get("id") is not None else default_id,
        modality=perceived,
        task=task,
        kind=kind,
        question=questions.text("question"),
        target=_TARGETS[kind](questions, options),
        media=media_refs(clip, perceived),
        options=options,
        response=questions.text("response") if questions.values.get("response") is not None else None,
        source=source,
        extra=top.others(_ROW_FIELDS) | questions.others(_QUESTION_FIELDS),
    )


def _modality(task: str, clip: str, top: Fields, probe: _Probe) -> Modality:
    if Path(clip).suffix.lower() in AUDIO_SUFFIXES:
        return Modality.AUDIO
    try:
        picture, sound = probe(clip)
    except MediaError as error:
        raise MediaError(f"{top.where}: video_path: {error}") from error
    if not picture and not sound:
        raise MediaError(f"{top.where}: video_path: {clip!r} has neither a picture nor a sound stream")
    if not picture or not sound:
        return Modality.VIDEO if picture else Modality.AUDIO
    if task in AUDIO_TASKS:
        return Modality.AUDIO
    return Modality.AUDIO_VIDEO if task in SOUND_TASKS else Modality.VIDEO


def _kind(questions: Fields) -> AnswerKind:
    pattern = questions.text("question_pattern", " | ".join(PATTERNS))
    if pattern not in PATTERNS:
        raise questions.error("question_pattern", unknown_name("question pattern", pattern, PATTERNS))
    return PATTERNS[pattern]


def _options(questions: Fields) -> tuple[str, ...]:
    """The options' texts without their letters; options that carry no letters stay as they are."""
    allowed = f"a list of {MIN_OPTIONS} to {MAX_OPTIONS} strings"
    options = questions.need("options", allowed)
    if not isinstance(options, list):
        raise questions.error("options", f"got {shown(options)}; allowed: {allowed}")
    if not MIN_OPTIONS <= len(options) <= MAX_OPTIONS:
        raise questions.error("options", f"got {len(options)}; allowed: {allowed}")
    for position, option in enumerate(options):
        if not isinstance(option, str) or not option.strip():
            raise questions.error(f"options[{position}]", f"got {shown(option)}; allowed: a string that is not empty")
    return _without_letters(options, questions)


def _without_letters(options: list[str], questions: Fields) -> tuple[str, ...]:
    found = [_LETTERED.match(option) for option in options]
    right = [match is not None and match[1] == letter for match, letter in zip(found, ascii_uppercase, strict=False)]
    # Answers name letters, so letters in another order, or on some options only, would point at the wrong text.
    if not all(right) and (any(right) or all(found)):
        position = right.index(False)
        allowed = f"the letter {ascii_uppercase[position]!r} first, or no letters on any option"
        raise questions.error(f"options[{position}]", f"got {shown(options[position])}; allowed: {allowed}")
    texts = [match[2].strip() for match in found if match] if all(right) else [option.strip() for option in options]
    if "" in texts:
        raise questions.error(f"options[{texts.index('')}]", "has a letter and no text; allowed: a letter and a text")
    return tuple(texts)


def _answer(questions: Fields, allowed: str) -> str:
    value = questions.need("answer", allowed)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return questions.text("answer", allowed)


def _letter(questions: Fields, options: tuple[str, ...]) -> str:
    letters = ascii_uppercase[: len(options)]
    allowed = f"one of {', '.join(letters)}, or the text of one option"
    answer = _answer(questions, allowed)
    same_text = [letter for letter, option in zip(letters, options, strict=True) if option.casefold() == answer.casefold()]
    if len(answer) > 1 and len(same_text) == 1:
        return same_text[0]
    lettered = _LETTERED.match(answer.upper())
    letter = lettered[1] if lettered else answer.upper()
    if len(letter) == 1 and letter in letters:
        return letter
    raise questions.error("answer", f"got {shown(answer)}; allowed: {allowed}")


def _letters(questions: Fields, options: tuple[str, ...]) -> str:
    letters = ascii_uppercase[: len(options)]
    allowed = f"letters of {', '.join(letters)}, such as 'A,{letters[-1]}'"
    answer = _answer(questions, allowed)
    chosen = set(re.sub(r"[.,\uff0c\s]", "", answer).upper())
    if not chosen or not chosen <= set(letters):
        raise questions.error("answer", f"got {shown(answer)}; allowed: {allowed}")
    return ",".join(sorted(chosen))


def _number(questions: Fields, options: tuple[str, ...]) -> str:
    allowed = "a number in digits, such as '10' or '2.5'"
    answer = _answer(questions, allowed)
    match = _NUMBER.fullmatch(answer)
    if match is None:
        raise questions.error("answer", f"got {shown(answer)}; allowed: {allowed}")
    whole, fraction = match[2].lstrip("0") or "0", (match[3] or "").rstrip("0")
    digits = f"{whole}.{fraction}" if fraction else whole
    return f"-{digits}" if match[1] == "-" and digits != "0" else digits


def _yes_no(questions: Fields, options: tuple[str, ...]) -> str:
    answer = _answer(questions, "yes or no")
    if answer.rstrip(".").lower() not in ("yes", "no"):
        raise questions.error("answer", f"got {shown(answer)}; allowed: yes or no")
    return answer.rstrip(".").lower()


_TARGETS: dict[AnswerKind, Callable[[Fields, tuple[str, ...]], str]] = {
    AnswerKind.SINGLE_CHOICE: _letter,
    AnswerKind.MULTI_SELECT: _letters,
    AnswerKind.NUMBER: _number,
    AnswerKind.YES_NO: _yes_no,
}
