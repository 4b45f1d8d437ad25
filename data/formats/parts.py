"""What several readers do alike: rows of a JSON list or of JSON lines, ids, modalities, options, and answers in normal form."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from omnistage.data.formats.places import Row
from omnistage.data.formats.rows import Fields, Mapped, object_of, shown
from omnistage.data.formats.streams import begins_with_object, stream_lines, stream_list
from omnistage.data.records import LEVELS, AnswerKind, MediaRef, Modality

_LETTERED = re.compile(r"\s*\(?([A-Za-z])\s*[.):\u3001\uff0e\uff1a\uff09]\s*(.*)", re.DOTALL)
_NUMBER = re.compile(r"([+-]?)([0-9]+|[0-9]{1,3}(?:,[0-9]{3})+)(?:\.([0-9]*))?")
_OPEN, _CLOSE = "<answer>", "</answer>"
# Options that all begin with one of the first letters are lettered; 'U.S.' and 'E.U.' are not.
_USUAL_LETTERS = 10


def rows_of(path: Path, holds: str) -> Mapped[Row, tuple[int, Fields]]:
    """The objects of a JSON list (`.jsonl`, or a file that begins with '{': of JSON lines), each with its place counted from 0.

    `Fields.where` names "<file>: record N" (from 0) or "<file>: line N" (from 1). `RecordError` for an entry that is no object, which says
    what one `holds`.
    """
    lines = path.suffix.lower() == ".jsonl" or begins_with_object(path)
    allowed = "a file with a JSON list, or with one JSON object a line"

    def made(row: Row) -> list[tuple[int, Fields]]:
        return [(row.position, object_of(row.value, str(row.place), holds))]

    return Mapped(stream_lines(path, allowed=allowed) if lines else stream_list(path, allowed=allowed), made)


def id_of(fields: Fields, field: str, default: str) -> str:
    """The string or whole number of a field as it stands, or `default` where it is missing or null."""
    value = fields.values.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip():
        raise fields.error(field, f"got {shown(value)}; allowed: a string or a whole number")
    return str(value)


def is_finite(value: Any) -> bool:
    """Whether a JSON value is a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def rate_of(fields: Fields, field: str, value: Any) -> float | None:
    """A rate of frames, None for null; `RecordError` for one that is no positive number."""
    if value is None:
        return None
    if not is_finite(value) or value <= 0:
        raise fields.error(field, f"got {shown(value)}; allowed: frames a second, a positive number")
    return float(value)


def at_rate(media: tuple[MediaRef, ...], fields: Fields) -> tuple[MediaRef, ...]:
    """The media, with the row's `fps` on folders of frames; `RecordError` for a rate that is no positive number."""
    fps = rate_of(fields, "fps", fields.values.get("fps"))
    return media if fps is None else tuple(replace(ref, fps=fps) if os.path.isdir(ref.path) else ref for ref in media)


def modality_of(media: Sequence[MediaRef]) -> Modality:
    """What media alone say about how they are perceived."""
    kinds = {ref.kind for ref in media}
    heard = "audio" in kinds or any(ref.sound is not None for ref in media)
    if not kinds:
        return Modality.TEXT
    if heard:
        return Modality.AUDIO_VIDEO if kinds & {"video", "image"} else Modality.AUDIO
    return Modality.VIDEO if "video" in kinds else Modality.IMAGE


def fits(modality: Modality, media: Sequence[MediaRef]) -> bool:
    """Whether a record of a modality can have these media; an audio_video record may be muted."""
    kinds = {ref.kind for ref in media}
    heard = any(ref.sound is not None for ref in media)
    match modality:
        case Modality.TEXT:
            return not kinds
        case Modality.IMAGE:
            return kinds == {"image"}
        case Modality.AUDIO:
            return kinds == {"audio"}
        case Modality.VIDEO:
            return "video" in kinds and "audio" not in kinds and not heard
        case Modality.AUDIO_VIDEO:
            return bool(kinds & {"video", "image"})


def perceived_as(fields: Fields, media: Sequence[MediaRef], modality: Modality) -> tuple[MediaRef, ...]:
    """The media as the reader's caller wants them perceived: videos muted, heard, or heard without being seen.

    What has no place in that modality is left out. `RecordError` where too little is left for it.
    """
    heard = any(ref.kind == "audio" or ref.sound is not None for ref in media)
    kept: list[MediaRef] = []
    for ref in media:
        match ref.kind, modality:
            case ("video", Modality.VIDEO):
                kept.append(MediaRef("video", ref.path))
            case ("video", Modality.AUDIO_VIDEO):
                kept.append(ref if heard else MediaRef("video", ref.path, sound=ref.path))
            case ("video", Modality.AUDIO):
                kept.append(MediaRef("audio", ref.sound or ref.path))
            case ("image", Modality.IMAGE | Modality.VIDEO | Modality.AUDIO_VIDEO) | ("audio", Modality.AUDIO | Modality.AUDIO_VIDEO):
                kept.append(ref)
            case _:
                pass
    if not fits(modality, kept):
        has = ", ".join(dict.fromkeys(ref.kind for ref in media)) or "no media"
        allowed = " or ".join(dict.fromkeys((modality_of(media), Modality.TEXT)))
        raise fields.error("modality", f"{str(modality)!r} is asked for and the row has {has}; allowed: {allowed}")
    return tuple(kept)


def option_texts(fields: Fields, field: str = "options") -> tuple[str, ...]:
    """The options' texts without the letters 'A. ', 'B) ' where all have theirs, as they stand where none has."""
    allowed = f"a list of 2 to {len(ascii_uppercase)} strings"
    options = fields.need(field, allowed)
    if not isinstance(options, list):
        raise fields.error(field, f"got {shown(options)}; allowed: {allowed}")
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise fields.error(field, f"got {len(options)}; allowed: {allowed}")
    for position, option in enumerate(options):
        if not isinstance(option, str) or not option.strip():
            raise fields.error(f"{field}[{position}]", f"got {shown(option)}; allowed: a string that is not empty")
    texts = _without_letters(fields, field, options)
    for position, text in enumerate(texts):
        if not text.strip():
            raise fields.error(f"{field}[{position}]", "has a letter and no text; allowed: a letter and a text")
    return texts


def _without_letters(fields: Fields, field: str, options: list[str]) -> tuple[str, ...]:
    if all(option.startswith(f"{letter}. ") for letter, option in zip(ascii_uppercase, options, strict=False)):
        return tuple(option[3:] for option in options)
    found = [_LETTERED.match(option) for option in options]
    right = [match is not None and match[1].upper() == letter for match, letter in zip(found, ascii_uppercase, strict=False)]
    if all(right):
        return tuple(match[2].strip() for match in found if match)
    usual = ascii_uppercase[: max(len(options), _USUAL_LETTERS)]
    # Answers name letters, so letters in another order, or on some options only, would point at the wrong text.
    if any(right) or all(match is not None and match[1].upper() in usual for match in found):
        position = right.index(False)
        allowed = f"the letter {ascii_uppercase[position]!r} first, or no letters on any option"
        raise fields.error(f"{field}[{position}]", f"got {shown(options[position])}; allowed: {allowed}")
    return tuple(option.strip() for option in options)


def answer_text(fields: Fields, field: str, allowed: Callable[[], str]) -> str:
    """The stripped text of a field that may hold a number; `RecordError` names what is `allowed` for anything else."""
    value = fields.values.get(field)
    if isinstance(value, str) and (text := value.strip()):
        return text
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return fields.text(field, allowed())


def answer_in(fields: Fields, field: str, text: str) -> str:
    """What the last answer tag of a text holds, or the whole text where it has none; `BadAnswer` for half a tag or an empty one."""
    found = _last_tagged(text)
    answer = (text if found is None else found).strip()
    if not answer or (found is None and (_OPEN in text or _CLOSE in text)):
        raise fields.bad_answer(field, f"got {shown(text)}; allowed: a text, or one with {_OPEN}...{_CLOSE}")
    return answer


def _last_tagged(text: str) -> str | None:
    """What stands in the last pair of answer tags. Plain searches: a pattern looks at the whole rest of the text from each open tag."""
    found, at = None, 0
    while (start := text.find(_OPEN, at)) >= 0 and (end := text.find(_CLOSE, start)) >= 0:
        found, at = text[start + len(_OPEN) : end], end + len(_CLOSE)
    return found


def target_of(fields: Fields, field: str, kind: AnswerKind, text: str, options: Sequence[str]) -> str:
    """An answer in the normal form of its kind; `BadAnswer` names what is allowed for one that is none."""
    target = normal_form(kind, text, options)
    if target is None:
        raise fields.bad_answer(field, f"got {shown(text)}; allowed: {allowed_answers(kind, options)}")
    return target


def normal_form(kind: AnswerKind, text: str, options: Sequence[str]) -> str | None:
    """An answer as `Record.target` holds it, or None where it is none of its kind; open answers and poses stay as they are."""
    plain = text.strip()
    letters = ascii_uppercase[: len(options)] or ascii_uppercase
    match kind:
        case AnswerKind.SINGLE_CHOICE:
            return _letter(plain, letters, options)
        case AnswerKind.MULTI_SELECT:
            chosen = set(re.sub(r"[.,;\uff0c\s]", "", plain).upper())
            return ",".join(sorted(chosen)) if chosen and chosen <= set(letters) else None
        case AnswerKind.NUMBER | AnswerKind.SCALAR:
            return _digits(plain)
        case AnswerKind.YES_NO:
            return word if (word := plain.rstrip(".").lower()) in ("yes", "no") else None
        case AnswerKind.LEVEL:
            return word if (word := plain.rstrip(".").lower()) in LEVELS else None
        case AnswerKind.OPEN | AnswerKind.POSE:
            return text if plain else None


def _letter(text: str, letters: str, options: Sequence[str]) -> str | None:
    same_text = [letter for letter, option in zip(letters, options, strict=False) if option.strip().casefold() == text.casefold()]
    if len(text) > 1 and len(same_text) == 1:
        return same_text[0]
    lettered = _LETTERED.fullmatch(text)
    letter = (lettered[1] if lettered else text).upper()
    return letter if len(letter) == 1 and letter in letters else None


def _digits(text: str) -> str | None:
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    whole, fraction = match[2].replace(",", "").lstrip("0") or "0", (match[3] or "").rstrip("0")
    digits = f"{whole}.{fraction}" if fraction else whole
    if not math.isfinite(float(digits)):
        return None
    return f"-{digits}" if match[1] == "-" and digits != "0" else digits


def allowed_answers(kind: AnswerKind, options: Sequence[str]) -> str:
    """What an answer of a kind may be, for an error line."""
    last = ascii_uppercase[len(options) - 1]
    return {
        AnswerKind.SINGLE_CHOICE: f"one letter of A to {last}, or the text of one option" if options else "one letter",
        AnswerKind.MULTI_SELECT: f"letters of A to {last}, such as 'A,{last}'",
        AnswerKind.NUMBER: "a number in digits, such as '10' or '2.5'",
        AnswerKind.SCALAR: "a number in digits, such as '10' or '2.5'",
        AnswerKind.YES_NO: "yes or no",
        AnswerKind.LEVEL: f"one of {', '.join(LEVELS)}",
    }.get(kind, "a text that is not empty")
