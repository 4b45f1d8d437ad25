"""HumanSense (arXiv 2508.10576): questions about people in clips, for training and for its benchmark.

One JSON list; each entry has `video_path` (a sound file for audio questions too) and one `questions` object:

    {"video_path": "videos/x.mp4", "questions": {"task_type": "Relation_Recognition", "question": "How are the two related?",
     "question_pattern": "Multiple-choice question (select one answer choice)", "options": ["A.son", "B.friend"], "answer": "A"}}

Beyond the published layout an entry may have an `id`, and `questions` a `response`: a demonstration for a supervised cold start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from omnistage.data.errors import MediaError, RecordError, unknown_name
from omnistage.data.formats.rows import Fields, load_list, shown
from omnistage.data.media import has_picture, has_sound, resolve
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record

PATTERNS = {
    "Question and answer (Arabic numerals)": AnswerKind.NUMBER,
    "Multiple-choice question (select one answer choice)": AnswerKind.SINGLE_CHOICE,
    "Multiple-choice question (select one or more answer choices)": AnswerKind.MULTI_SELECT,
    "Judgment question (Yes or No)": AnswerKind.YES_NO,
}
# The published lists: what is heard is told by the name of the task, and by nothing in the row.
AUDIO_TASKS = frozenset({"Fraud_Recognition", "Psychological_Chat"})
SOUND_TASKS = frozenset(
    {"Rapport_Recognition", "Emo_Strategy", "Talkingperson_Recognition", "Familiarity_Recognition", "Relation_Recognition"}
)
AUDIO_SUFFIXES = frozenset({".wav", ".mp3", ".flac", ".m4a", ".aac", ".ogg", ".opus", ".wma"})
MIN_OPTIONS, MAX_OPTIONS = 2, 10

_ROW_FIELDS = frozenset({"id", "video_path", "questions"})
_QUESTION_FIELDS = frozenset({"task_type", "question_pattern", "question", "options", "answer", "response"})
_LETTERED = re.compile(r"\s*\(?([A-J])\s*[.):\u3001\uff0e\uff1a\uff09]\s*(.*)", re.DOTALL)
_NUMBER = re.compile(r"([+-]?)([0-9]+)(?:\.([0-9]*))?")


def read(path: Path, *, media_root: Path, modality: Modality | None = None) -> Iterator[Record]:
    """The records of one annotation file, in its order.

    Without `modality`, a file with no picture is `AUDIO`, then the task's name decides (`AUDIO_TASKS`, `SOUND_TASKS`), and any other
    task is silent `VIDEO`. Raises `RecordError` for a row that does not hold what is described above and `MediaError` for media that are
    missing, unreadable or outside `media_root`.
    """
    seen: dict[str, int] = {}
    for row, entry in enumerate(load_list(path)):
        record = _record(entry, row, path, media_root, modality)
        if record.id in seen:
            raise RecordError(f"{record.source}: id: {record.id!r} is the id of record {seen[record.id]} too; allowed: an id of its own")
        seen[record.id] = row
        yield record


def _record(entry: Any, row: int, path: Path, media_root: Path, modality: Modality | None) -> Record:
    source = f"{path.name}: record {row}"
    if not isinstance(entry, dict):
        raise RecordError(f"{source}: it is {shown(entry)}; allowed: an object with video_path and questions")
    top = Fields(entry, source)
    media_path = _media_path(top, media_root)
    questions = top.below("questions")
    task = questions.text("task_type")
    kind = _kind(questions)
    options = _options(questions) if kind in (AnswerKind.SINGLE_CHOICE, AnswerKind.MULTI_SELECT) else ()
    perceived = modality if modality is not None else _modality(task, media_path, top)
    return Record(
        id=_id(top, default=f"{path.stem}-{row}"),
        modality=perceived,
        task=task,
        kind=kind,
        question=questions.text("question"),
        target=_TARGETS[kind](questions, options),
        media=_media(media_path, perceived),
        options=options,
        response=questions.text("response") if questions.values.get("response") is not None else None,
        source=source,
        extra=top.others(_ROW_FIELDS) | questions.others(_QUESTION_FIELDS),
    )


def _id(top: Fields, default: str) -> str:
    value = top.values.get("id")
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip():
        raise top.error("id", f"got {shown(value)}; allowed: a string or a whole number")
    return str(value).strip()


def _media_path(top: Fields, media_root: Path) -> str:
    named = top.text("video_path", "the path of a clip under the media root")
    try:
        path = resolve(named, media_root)
    except MediaError as error:
        raise MediaError(f"{top.where}: video_path: {error}") from error
    if not Path(path).is_file():
        raise MediaError(f"{top.where}: video_path: {named!r} is no file under {str(media_root)!r}")
    return path


def _modality(task: str, media_path: str, top: Fields) -> Modality:
    if task in AUDIO_TASKS or Path(media_path).suffix.lower() in AUDIO_SUFFIXES:
        return Modality.AUDIO
    try:
        picture, sound = has_picture(media_path), has_sound(media_path)
    except MediaError as error:
        raise MediaError(f"{top.where}: video_path: {error}") from error
    if not picture and not sound:
        raise MediaError(f"{top.where}: video_path: {media_path!r} has neither a picture nor a sound stream")
    if not picture:
        return Modality.AUDIO
    return Modality.AUDIO_VIDEO if task in SOUND_TASKS else Modality.VIDEO


def _media(path: str, modality: Modality) -> tuple[MediaRef, ...]:
    match modality:
        case Modality.TEXT:
            return ()
        case Modality.AUDIO:
            return (MediaRef("audio", path),)
        case Modality.VIDEO:
            return (MediaRef("video", path),)
        case Modality.AUDIO_VIDEO:
            return (MediaRef("video", path, sound=path),)


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
