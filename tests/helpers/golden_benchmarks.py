"""A few questions of each benchmark in the published layouts, with clips that are really encoded and a fraction of a second to make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

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
# Clip, dimension, level and opinion score.
OPINIONS: list[tuple[str, str, str, float]] = [
    ("seed1", "quality", "bad", 10.0),
    ("seed2", "quality", "fair", 36.0),
    ("seed3", "quality", "excellent", 60.0),
    ("seed1", "authenticity", "poor", 30.0),
    ("seed2", "authenticity", "good", 50.0),
    ("seed3", "authenticity", "bad", 12.0),
]
DESCRIBED = {"3": "The person bows to the left.", "8": "Someone stands on one leg.", "9": "The arms point forward."}
CHOICES = {"choice_a": "[1] sits.", "choice_b": "[1] leaves.", "choice_c": "[2] waits.", "choice_d": "[1] lifts [2]."}


def write(folder: Path) -> dict[str, Path]:
    """The annotation files by name, written with their clips into `folder`, which is the media root of all of them.

    `humansense_vqa` (7 items of all four patterns), `humansense_aqa` (2), `instit_` followed by each of the four splits (2 each),
    `hisbench` (a folder: two records of one turn, one of two turns), `gen3dhf_text_` and `gen3dhf_numerical_` followed by `quality` and
    `authenticity` (the same three clips each), `posescript` (a folder: three described poses) and `pose_images` (two rows of 4D-Humans,
    one of RPE-Refined).
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
    return written | {"hisbench": his} | _gen3dhf(folder) | _poses(folder)


def _gen3dhf(folder: Path) -> dict[str, Path]:
    """The same clips under `text/`, in words, and under `numerical/`, with scores."""
    (folder / "video_RGB").mkdir()
    for at, clip in enumerate(sorted({clip for clip, *_ in OPINIONS})):
        write_clip(folder / "video_RGB" / f"{clip}.mp4", 2 * at + 2, 2)
    out = {}
    for layout in ("text", "numerical"):
        (folder / layout).mkdir()
        for dimension in ("quality", "authenticity"):
            rows = []
            for clip, level, score in [(clip, level, score) for clip, about, level, score in OPINIONS if about == dimension]:
                asked = f"<video>Please rate the {dimension} of the human face in this video, considering all that you see."
                said = f"The {dimension} of the human face in this video is {level}." + (f" ({score})" if layout == "numerical" else "")
                turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
                rows.append({"messages": turns, "videos": f"/database/video_RGB/{clip}.mp4"})
            out[f"gen3dhf_{layout}_{dimension}"] = _dumped(folder / layout / f"eval_{dimension}.json", rows)
    return out


def _poses(folder: Path) -> dict[str, Path]:
    """PoseScript's release with a sequence of AMASS, and images with SMPL parameters."""
    release, sequences, images = folder / "posescript_release", folder / "AMASS" / "BMLrub" / "rub001", folder / "people"
    for place in (release, sequences, images):
        place.mkdir(parents=True)
    turns = np.random.default_rng(5).normal(scale=0.3, size=(len(DESCRIBED) + 3, 156))
    np.savez(sequences / "walk_poses.npz", poses=turns)
    index = {key: ["AMASS", "BioMotionLab_NTroje/rub001/walk_poses.npz", frame] for frame, key in enumerate(DESCRIBED)}
    (release / "ids_2_dataset_sequence_and_frame_index.json").write_text(json.dumps(index))
    (release / "human6293.json").write_text(json.dumps(DESCRIBED))
    rows: list[dict[str, Any]] = []
    for number, pose in enumerate(turns[-3:, :72].tolist()):
        write_image(images / f"{number}.png", seed=number)
        rows.append({"image": f"people/{number}.png", "smpl_params": {"global_orient": pose[:3], "body_pose": pose[3:]}})
    refined = {"real_image": rows[2]["image"], "conversations": [{"from": "human", "value": "<image>How does she stand?"}]}
    rows[2] = refined | {"ground_truth": {"smpl_param": {"pose": turns[-1, :72].tolist()}}}
    return {"posescript": release, "pose_images": _dumped(folder / "people.json", rows)}


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
