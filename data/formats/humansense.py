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

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from omnistage.data.errors import MediaError, unknown_name
from omnistage.data.formats.media_root import MediaRoot
from omnistage.data.formats.parts import allowed_answers, answer_text, option_texts, target_of
from omnistage.data.formats.places import Row
from omnistage.data.formats.rows import Fields, Mapped, distinct, media_refs, object_of
from omnistage.data.formats.streams import stream_list
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
PROBES_KEPT = 1024

# From a clip to whether it has a picture and whether it has sound.
_Probe = Callable[[str], tuple[bool, bool]]

_CHOICES = (AnswerKind.SINGLE_CHOICE, AnswerKind.MULTI_SELECT)
_ROW_FIELDS = frozenset({"id", "video_path", "questions"})
_QUESTION_FIELDS = frozenset({"task_type", "question_pattern", "question", "options", "answer", "response"})


def read(path: Path, *, media_root: Path, modality: Modality | None = None) -> Iterator[Record]:
    """The records of one annotation file, in its order.

    Without `modality`, the clip's streams decide, and for a clip with picture and sound the task's name. Raises `RecordError` for a row
    that does not hold what is described above and `MediaError` for media that are missing, unreadable or outside `media_root`.
    """
    root = MediaRoot(media_root)
    # Rows about one clip stand close together, and opening it costs more than the row.
    probe = lru_cache(maxsize=PROBES_KEPT)(streams)

    def made(row: Row) -> list[Record]:
        return [_record(row, f"{path.stem}-{row.position}", root, modality, probe)]

    return distinct(Mapped(stream_list(path), made))


def _record(row: Row, default_id: str, root: MediaRoot, modality: Modality | None, probe: _Probe) -> Record:
    source = str(row.place)
    top = object_of(row.value, source, "video_path and questions")
    clip = root.media(top, "video_path")
    questions = top.below("questions")
    task = questions.text("task_type")
    kind = _kind(questions)
    options = tuple(map(str.strip, option_texts(questions))) if kind in _CHOICES else ()
    perceived = modality if modality is not None else _modality(task, clip, top, probe)
    return Record(
        id=top.name("id") if top.values.get("id") is not None else default_id,
        modality=perceived,
        task=task,
        kind=kind,
        question=questions.text("question"),
        target=target_of(questions, "answer", kind, answer_text(questions, "answer", lambda: allowed_answers(kind, options)), options),
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
        raise MediaError(f"{top.where}: video_path: {error}", error.code) from error
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
