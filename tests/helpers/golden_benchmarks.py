"""A few questions of each benchmark in the published layouts, with clips that are really encoded and a fraction of a second to make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clip_files import tone, write_clip, write_image, write_wav

SINGLE = "Multiple-choice question (select one answer choice)"
MULTI = "Multiple-choice question (select one or more answer choices)"
NUMBER = "Question and answer (Arabic numerals)"
YES_NO = "Judgment question (Yes or No)"

# File, task, pattern, question, options, answer, transcript.
VQA: list[tuple[str, str, str, str, list[str], str, str | None]] = [
    ("videos/silent.mp4", "Action_Recognition", MULTI, "What do they do?", ["A.walk", "B.sing", "C.wave", "D.sit"], "A,C", None),
    ("videos/silent.mp4", "Emotion_Recognition", SINGLE, "How is he?", ["A. sad", "B. glad", "C. angry", "D. afraid"], "B", None),
    ("videos/silent.mp4", "Human_Counting", NUMBER, "How many people are there?", [], "10", None),
    ("videos/silent.mp4", "Lie_Detection", YES_NO, "Does she tell the truth?", [], "Yes", None),
    ("videos/talk.mp4", "Talkingperson_Recognition", SINGLE, "Who talks?", ["A.he", "B.she", "C.both"], "C", "Hello. Hello, you."),
    ("videos/talk.mp4", "Relation_Recognition", SINGLE, "Who are they?", ["A.a", "B.b", "C.c", "D.d", "E.friends"], "E", "My friend."),
    ("videos/silent.mp4", "Abnormal_Recognition", SINGLE, "Is anything odd?", ["A.yes", "B.no"], "A", None),
]
AQA: list[tuple[str, str, str, str, list[str], str, str | None]] = [
    ("audios/call.wav", "Fraud_Recognition", SINGLE, "Is it a fraud?", ["A.it is", "B.it is not"], "A", None),
    ("audios/call.wav", "Psychological_Chat", SINGLE, "What helps?", ["A.hush", "B.laugh", "C.listen", "D.go"], "C. listen", None),
]
CHOICES = {"choice_a": "[1] sits.", "choice_b": "[1] leaves.", "choice_c": "[2] waits.", "choice_d": "[1] lifts [2]."}


def write(folder: Path) -> dict[str, Path]:
    """The annotation files by name, written with their clips into `folder`, which is the media root of all of them.

    `humansense_vqa` (7 items of all four patterns), `humansense_aqa` (2), `instit_` followed by each of the four splits (2 each), and
    `hisbench` (a folder: two records of one turn, one of two turns).
    """
    _write_clips(folder)
    files: dict[str, Any] = {
        "humansense_vqa": [_humansense(*row) for row in VQA],
        "humansense_aqa": [_humansense(*row) for row in AQA],
    }
    for sense, media in (("image", {"image": "images/1.png"}), ("video", {"video_path": "videos_vpt/001"})):
        for at, name in enumerate(("multi_choice", "open_ended")):
            files[f"instit_{sense}_{name}"] = [_instit(number, at == 0) | media for number in range(2)]
    written = {name: _dumped(folder / f"{name}.json", rows) for name, rows in files.items()}
    his = folder / "hisbench"
    his.mkdir()
    _dumped(
        his / "activity.json", [_hisbench("activity", ("What does she do?", "Sits down.")), _hisbench("activity", ("And he?", "Walks."))]
    )
    _dumped(his / "dialogue.json", [_hisbench("dialogue", ("Where is she?", "On the sofa."), ("What is next?", "She stands up."))])
    return written | {"hisbench": his}


def _write_clips(folder: Path) -> None:
    frames, motion = folder / "videos_vpt" / "001", folder / "PROX" / "motions" / "walk"
    for place in (folder / "videos", folder / "audios", folder / "images", frames, motion):
        place.mkdir(parents=True)
    write_clip(folder / "videos" / "silent.mp4", 4, 2)
    write_clip(folder / "videos" / "talk.mp4", 4, 2, sound_s=2.0)
    write_clip(motion / "video_render.mp4", 4, 2)
    write_wav(folder / "audios" / "call.wav", [tone(1.0)])
    write_image(folder / "images" / "1.png", seed=1)
    for index in range(3):
        write_image(frames / f"{index}.png", seed=index)


def _humansense(
    file: str, task: str, pattern: str, question: str, options: list[str], answer: str, transcript: str | None
) -> dict[str, Any]:
    asked: dict[str, Any] = {"task_type": task, "question_pattern": pattern, "question": question, "answer": answer}
    asked |= {"options": options} if options else {}
    asked |= {"full_frame_number": 4, "fps": 2} if file.endswith(".mp4") else {}
    asked |= {"asr_en": transcript} if transcript else {}
    return {"video_path": file, "questions": asked}


def _instit(number: int, is_choice: bool) -> dict[str, Any]:
    asked = {"question_id": f"001-{number:02}", "question": f"What does [{number + 1}] do at <2>?"}
    return asked | (CHOICES | {"answer": "CD"[number]} if is_choice else {"answer": "[1] lifts [2]."})


def _hisbench(task: str, *turns: tuple[str, str]) -> dict[str, Any]:
    qa = [{"question": question, "answer": answer} for question, answer in turns]
    return {"task": task, "source": "PROX", "scene": "room", "motion": "walk", "start": 0.0, "end": 2.0, "qa": qa}


def _dumped(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows))
    return path
