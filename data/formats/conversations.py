"""Conversations, one JSON object a line: chat messages with media parts, TRL's prompt and completion, and the rows of ms-swift.

    {"messages": [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}, {"type": "text", "text": "What is it?"}]},
                  {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}]}
    {"prompt": [{"role": "user", "content": "What is 1 + 1?"}], "completion": [{"role": "assistant", "content": "2"}]}
    {"messages": [{"role": "user", "content": "<video>Is she sad?"}], "videos": ["a.mp4"], "solution": "<answer>yes</answer>",
     "kind": "yes_no"}

A JSON list of such objects is read too. `prompt` and `completion` may be plain strings. A media part names its file beside its type, or
takes the next one of the columns `images`, `videos`, `audios` (or `image`, `video`, `audio`; a string or a list), as `<image>`, `<video>`,
`<audio>` in a plain string do; files of a column that nothing points to stand in front. Media belong to the first question.

The last user message is the question, turns before it are `history`, and an assistant message behind it is the `response`. The answer is
`target` as it stands, else `solution`, else that response (of the last two, what an `<answer>` tag holds, or the whole text).

| column | default |
|---|---|
| `kind` (`AnswerKind`), `task`, `id` | single_choice with `options`, else open; "conversation"; file name and number |
| `options` | none; with or without the letters "A. " |
| `modality` | what the media are; `audio_video` makes videos heard where no sound is named |
| `sound` of a video part, or of the row | a path, true (the video's own file), or null: not heard |
| `blank` of a media part | none; a list of "picture" and "sound" |
| `fps` of a video part that is a folder of images | one image a second |
| `values` | none; the number itself for a scalar |
| `extra` | all other columns; a system message is `extra["system"]` |

Sources: the documentation of TRL ("Dataset formats") and of ms-swift ("Custom dataset").
"""

from __future__ import annotations

import json
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, TypeVar

from omnistage.data.errors import InputError, unknown_name
from omnistage.data.formats.media_root import MediaRoot
from omnistage.data.formats.parts import (
    answer_in,
    answer_text,
    fits,
    id_of,
    is_finite,
    modality_of,
    normal_form,
    option_texts,
    perceived_as,
    rate_of,
    rows_of,
    target_of,
)
from omnistage.data.formats.rows import Fields, Mapped, distinct, shown
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record

Name = TypeVar("Name", AnswerKind, Modality)
Sense = Literal["image", "video", "audio"]
SENSES: tuple[Sense, ...] = ("image", "video", "audio")
# How many numbers a record of a kind has.
COUNTS = {AnswerKind.SCALAR: 1, AnswerKind.POSE: 216}

_PLACEHOLDER = re.compile(r"<(image|video|audio)>")
_ANSWER_COLUMNS = frozenset({"kind", "options", "target", "solution", "values"})
_MEDIA_COLUMNS = frozenset({"modality", "sound", "image", "images", "video", "videos", "audio", "audios"})
_ROW = _ANSWER_COLUMNS | _MEDIA_COLUMNS | {"id", "task", "messages", "prompt", "completion", "extra"}


def read(path: Path, *, media_root: Path, modality: Modality | None = None) -> Iterator[Record]:
    """The records of one file, in its order.

    Raises `RecordError` for a row that does not hold what is described above and `MediaError` for media that are missing or outside
    `media_root`.
    """
    rows = rows_of(path, "messages, or prompt and completion")
    root = MediaRoot(media_root)

    def made(row: tuple[int, Fields]) -> list[Record]:
        position, fields = row
        return [_record(fields, f"{path.stem}-{position}", root, modality)]

    return distinct(Mapped(rows, made))


def _record(fields: Fields, default_id: str, root: MediaRoot, modality: Modality | None) -> Record:
    conversation = _Conversation(fields, root)
    history, question, response = conversation.turns()
    options = option_texts(fields) if fields.values.get("options") else ()
    kind = _one_of(fields, "kind", AnswerKind, AnswerKind.SINGLE_CHOICE if options else AnswerKind.OPEN)
    target = _target(fields, kind, options, response)
    media = tuple(conversation.media)
    own = _one_of(fields, "modality", Modality, modality_of(media))
    if not fits(own, media):
        raise fields.error("modality", f"got {str(own)!r}, and the media of the row do not fit it; allowed: {modality_of(media)}")
    used = {"solution"} if fields.values.get("target") is not None else set()
    return Record(
        id=id_of(fields, "id", default_id),
        modality=own if modality is None else modality,
        task=_exact(fields, "task") if fields.values.get("task") is not None else "conversation",
        kind=kind,
        question=question,
        target=target,
        media=media if modality is None else perceived_as(fields, media, modality),
        options=options,
        values=_values(fields, kind, target),
        history=history,
        response=response,
        source=fields.where,
        extra=_extra(fields) | {k: v for k, v in fields.others(_ROW - used).items() if v is not None} | conversation.system,
    )


def _extra(fields: Fields) -> dict[str, Any]:
    return fields.below("extra").values if fields.values.get("extra") is not None else {}


def _one_of(fields: Fields, field: str, names: type[Name], default: Name) -> Name:
    if fields.values.get(field) is None:
        return default
    known = [name.value for name in names]
    value = fields.text(field, " | ".join(known))
    if value not in known:
        raise fields.error(field, unknown_name(field, value, known))
    return names(value)


def _exact(fields: Fields, field: str) -> str:
    """The text of a field as it stands, white space and all."""
    fields.text(field)
    return str(fields.values[field])


def _target(fields: Fields, kind: AnswerKind, options: tuple[str, ...], response: str | None) -> str:
    field = next((name for name in ("target", "solution") if fields.values.get(name) is not None), None)
    if field is None and response is None:
        raise fields.error("target", "missing; allowed: target, solution, or an assistant message behind the question")
    if field is None:
        return target_of(fields, "messages", kind, answer_in(fields, "messages", response or ""), options)
    value = fields.values[field]
    text = _exact(fields, field) if isinstance(value, str) else answer_text(fields, field, lambda: "a string that is not empty")
    return target_of(fields, field, kind, answer_in(fields, field, text) if field == "solution" else text, options)


def _values(fields: Fields, kind: AnswerKind, target: str) -> tuple[float, ...]:
    values = fields.values.get("values")
    count = COUNTS.get(kind)
    allowed = f"a list of {count or 'any number of'} finite numbers"
    if values is None and kind is AnswerKind.SCALAR:
        return (float(target),)
    if values is None and kind is not AnswerKind.POSE:
        return ()
    if not isinstance(values, list):
        raise fields.error("values", f"got {shown(values)}; allowed: {allowed} for the kind {kind}")
    for position, value in enumerate(values):
        if not is_finite(value):
            raise fields.error(f"values[{position}]", f"got {shown(value)}; allowed: a finite number")
    if count is not None and len(values) != count:
        raise fields.error("values", f"got {len(values)}; allowed: {allowed} for the kind {kind}")
    return tuple(float(value) for value in values)


class _Conversation:
    """The messages of one row as turns, its media as they are met."""

    def __init__(self, fields: Fields, root: MediaRoot) -> None:
        self.fields = fields
        self.root = root
        self.media: list[MediaRef] = []
        self.system: dict[str, Any] = {}
        self.sound_is_said = fields.values.get("sound") is not None
        self.columns = {sense: _column(fields, sense) for sense in SENSES}
        self.listed = {sense: deque(column) for sense, column in self.columns.items()}

    def turns(self) -> tuple[tuple[tuple[str, str], ...], str, str | None]:
        """Earlier (question, answer) pairs, the question, and the assistant's message behind it where there is one."""
        messages = self._messages()
        if messages[0].values.get("role") == "system":
            self.system = {"system": self._content(messages.pop(0), False)}
        texts: list[str] = []
        for position, message in enumerate(messages):
            wanted = "assistant" if position % 2 else "user"
            role = message.values.get("role")
            if role != wanted:
                allowed = f"{wanted}, for user and assistant take turns behind at most one system message"
                raise message.error("role", f"{'missing' if role is None else f'got {shown(role)}'}; allowed: {allowed}")
            texts.append(self._content(message, position == 0))
        if not texts:
            raise self.fields.error("messages", "holds no user message; allowed: a question, and turns before it")
        self._place_the_rest()
        self._hear()
        response = texts.pop() if len(texts) % 2 == 0 else None
        return tuple(zip(texts[:-1:2], texts[1::2], strict=True)), texts[-1], response

    def _messages(self) -> list[Fields]:
        values = self.fields.values
        if values.get("messages") is not None and values.get("prompt") is not None:
            raise self.fields.error("prompt", "it stands beside messages; allowed: one of the two")
        if values.get("messages") is not None:
            return self._listed_messages("messages", "user")
        if values.get("prompt") is None:
            raise self.fields.error("messages", "missing; allowed: a list of messages, or prompt and completion")
        messages = self._listed_messages("prompt", "user")
        return messages + (self._listed_messages("completion", "assistant") if values.get("completion") is not None else [])

    def _listed_messages(self, field: str, role: str) -> list[Fields]:
        listed = self.fields.values[field]
        if isinstance(listed, str) and field != "messages":
            listed = [{"role": role, "content": listed}]
        allowed = "a list of objects with role and content" + (", or a string" if field != "messages" else "")
        if not isinstance(listed, list) or not listed:
            raise self.fields.error(field, f"got {'an empty list' if listed == [] else shown(listed)}; allowed: {allowed}")
        for position, message in enumerate(listed):
            if not isinstance(message, dict):
                raise self.fields.error(f"{field}[{position}]", f"got {shown(message)}; allowed: an object with role and content")
        return [Fields(message, self.fields.where, f"{field}[{position}].") for position, message in enumerate(listed)]

    def _content(self, message: Fields, media_allowed: bool) -> str:
        allowed = "a string, or a list of parts"
        content = message.need("content", allowed)
        if isinstance(content, str):
            text = self._plain(message, content, media_allowed) if message.values["role"] == "user" else content.strip()
        elif isinstance(content, list):
            text = "".join(self._part(message, position, part, media_allowed) for position, part in enumerate(content))
        else:
            raise message.error("content", f"got {shown(content)}; allowed: {allowed}")
        if not text.strip():
            raise message.error("content", "holds no text; allowed: a text that is not empty")
        return text

    def _plain(self, message: Fields, content: str, media_allowed: bool) -> str:
        for sense in _PLACEHOLDER.findall(content):
            self._add(message, "", sense, None, {}, media_allowed)
        return _PLACEHOLDER.sub("", content).strip()

    def _part(self, message: Fields, position: int, part: Any, media_allowed: bool) -> str:
        field = f"content[{position}]"
        kinds = ("text", *SENSES)
        if not isinstance(part, dict) or part.get("type") not in kinds:
            what = shown(part.get("type") if isinstance(part, dict) else part)
            raise message.error(
                f"{field}.type" if isinstance(part, dict) else field, f"got {what}; allowed: a part of type {', '.join(kinds)}"
            )
        kind = part["type"]
        if kind == "text":
            if not isinstance(part.get("text"), str):
                raise message.error(f"{field}.text", f"got {shown(part.get('text'))}; allowed: a string")
            return str(part["text"])
        named = part.get(kind) if part.get(kind) is not None else part.get("path")
        self._add(message, f"{field}.", kind, named, part, media_allowed)
        return ""

    def _add(self, message: Fields, place: str, sense: Sense, named: Any, part: dict[str, Any], media_allowed: bool) -> None:
        """One medium that a part or a placeholder names; `place` leads from the message to the part."""
        if not media_allowed:
            raise message.error(
                f"{place}{sense}" if place else "content", f"it names {sense} media; allowed: media in the first question only"
            )
        if named is None:
            if not self.listed[sense]:
                allowed = f"a path, or one file in {sense}s for each <{sense}>"
                raise message.error(f"{place}{sense}" if place else "content", f"no file is left for <{sense}>; allowed: {allowed}")
            path = self.root.path_of(self.fields, f"{sense}s", self.listed[sense].popleft(), folders=sense == "video")
        else:
            path = self.root.path_of(message, f"{place}{sense}", named, folders=sense == "video")
        self.media.append(self._ref(message, place, sense, path, part))

    def _ref(self, message: Fields, place: str, sense: Sense, path: str, part: dict[str, Any]) -> MediaRef:
        blank = part.get("blank") or []
        if not isinstance(blank, list) or not set(map(str, blank)) <= {"picture", "sound"}:
            raise message.error(f"{place}blank", f"got {shown(blank)}; allowed: a list of 'picture' and 'sound'")
        sound = None
        if sense == "video" and "sound" in part:
            self.sound_is_said = True
            sound = self._sound(message, f"{place}sound", part["sound"], path)
        elif sense == "video":
            sound = self._sound(self.fields, "sound", self.fields.values.get("sound"), path)
        fps = rate_of(message, f"{place}fps", part.get("fps"))
        return MediaRef(sense, path, sound=sound, blank=frozenset(blank), fps=fps if os.path.isdir(path) else None)

    def _sound(self, where: Fields, field: str, said: Any, path: str) -> str | None:
        if said is None or isinstance(said, bool):
            return path if said else None
        if not isinstance(said, str):
            raise where.error(field, f"got {shown(said)}; allowed: a path, true, false or null")
        return self.root.path_of(where, field, said)

    def _place_the_rest(self) -> None:
        """Files of columns that no placeholder points to stand in front; some placeholders and other files is a mistake."""
        front: list[MediaRef] = []
        for sense, rest in self.listed.items():
            if rest and len(rest) < len(self.columns[sense]):
                raise self.fields.error(f"{sense}s", f"{len(rest)} of its files have no <{sense}>; allowed: one for each, or none at all")
            paths = [self.root.path_of(self.fields, f"{sense}s", named, folders=sense == "video") for named in rest]
            front += [self._ref(self.fields, "", sense, path, {}) for path in paths]
        self.media = front + self.media

    def _hear(self) -> None:
        """A row that says audio_video and nothing of a sound means the videos' own."""
        said = self.sound_is_said or any(ref.kind == "audio" for ref in self.media)
        if self.fields.values.get("modality") == Modality.AUDIO_VIDEO and not said:
            self.media = [replace(ref, sound=ref.path) if ref.kind == "video" else ref for ref in self.media]


def _column(fields: Fields, sense: Sense) -> list[Any]:
    """The files of the columns of a sense: a string, a list, or null."""
    named = [name for name in (f"{sense}s", sense) if fields.values.get(name) is not None]
    if len(named) > 1:
        raise fields.error(sense, f"it stands beside {sense}s; allowed: one of the two")
    if not named:
        return []
    value = fields.values[named[0]]
    if not isinstance(value, str | list):
        raise fields.error(named[0], f"got {shown(value)}; allowed: a path or a list of paths")
    return [value] if isinstance(value, str) else value


def write(records: Iterable[Record], path: Path, *, media_root: Path | None = None) -> None:
    """Write records so that `read` gives equal ones (but for `source`); media paths are relative to `media_root` (the file's folder).

    The file is there when all of it is. Raises `InputError` for a record that could not be read back: media outside the root or that do not
    fit its modality, a target that is not in its normal form, an empty text, an id that was there before, or what JSON cannot hold, and
    where nothing can be written.
    """
    root = os.path.realpath(path.parent if media_root is None else media_root)
    part = path.with_name(f".{path.name}.part")
    seen: set[str] = set()
    try:
        with part.open("wb") as file:
            for record in records:
                if record.id in seen:
                    raise InputError(f"record {record.id!r}: its id was there before; allowed: an id of its own")
                seen.add(record.id)
                file.write(_line(record, root))
        part.replace(path)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        with suppress(OSError):
            part.unlink()


def _line(record: Record, root: str) -> bytes:
    _check(record)
    row: dict[str, Any] = {
        "id": record.id,
        "modality": str(record.modality),
        "task": record.task,
        "kind": str(record.kind),
        "target": record.target,
        "messages": _chat(record, root),
    }
    if record.options:
        row["options"] = [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, record.options, strict=False)]
    if record.values:
        row["values"] = list(record.values)
    if record.extra:
        row["extra"] = record.extra
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
        line = text.encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"record {record.id!r}: JSON cannot hold it: {' '.join(str(error).split())}") from error
    if json.loads(text).get("extra", {}) != record.extra:
        raise InputError(f"record {record.id!r}: extra changes in JSON; allowed: objects with text keys, lists, texts, numbers, true, null")
    return line


def _chat(record: Record, root: str) -> list[dict[str, Any]]:
    parts = [_media_part(record, ref, root) for ref in record.media]
    turns = [text for pair in record.history for text in pair] + [record.question]
    turns += [record.response] if record.response is not None else []
    contents = [[{"type": "text", "text": text}] for text in turns]
    contents[0] = [*parts, *contents[0]]
    return [{"role": "assistant" if turn % 2 else "user", "content": content} for turn, content in enumerate(contents)]


def _media_part(record: Record, ref: MediaRef, root: str) -> dict[str, Any]:
    part: dict[str, Any] = {"type": ref.kind, ref.kind: _relative(record, ref.path, root)}
    if ref.kind == "video":
        # Written even when it is null: an audio_video record may be muted.
        part["sound"] = None if ref.sound is None else _relative(record, ref.sound, root)
    if ref.blank:
        part["blank"] = sorted(ref.blank)
    if ref.fps is not None:
        part["fps"] = ref.fps
    return part


def _relative(record: Record, path: str, root: str) -> str:
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(root):
        raise InputError(f"record {record.id!r}: its medium {path!r} is not under the media root {root!r}; give a root that holds it")
    return real.relative_to(root).as_posix()


def _check(record: Record) -> None:
    """Raises `InputError` for a record that `read` would refuse or change."""
    texts = {"id": record.id, "task": record.task, "question": record.question, "target": record.target}
    texts |= {f"history[{i // 2}]": text for i, text in enumerate(text for pair in record.history for text in pair)}
    texts |= {f"options[{i}]": text for i, text in enumerate(record.options)} | (
        {} if record.response is None else {"response": record.response}
    )
    empty = [name for name, text in texts.items() if not text.strip()]
    count = COUNTS.get(record.kind)
    problem = None
    if empty:
        problem = f"its {empty[0]} is empty; allowed: a text"
    elif len(record.options) == 1 or len(record.options) > len(ascii_uppercase):
        problem = f"it has {len(record.options)} options; allowed: none, or 2 to {len(ascii_uppercase)}"
    elif normal_form(record.kind, record.target, record.options) != record.target:
        problem = f"its target {record.target!r} is not in the normal form of the kind {record.kind}"
    elif count is not None and len(record.values) != count:
        problem = f"it has {len(record.values)} values; allowed for the kind {record.kind}: {count}"
    elif not fits(record.modality, record.media) or any(ref.sound is not None and ref.kind != "video" for ref in record.media):
        problem = f"its media do not fit the modality {record.modality}; allowed: {modality_of(record.media)}"
    if problem is not None:
        raise InputError(f"record {record.id!r}: {problem}")
