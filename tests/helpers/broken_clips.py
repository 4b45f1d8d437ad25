"""Clips with one fault each, made from clips that are really encoded, and annotation files about them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np

from clip_files import tone, write_clip, write_wav

AGED_NS = 1_700_000_000 * 10**9
CHOICE = "Multiple-choice question (select one answer choice)"


def write_faults(folder: Path) -> dict[str, str]:
    """Name of a fault to the clip in `folder` that has it; `missing` names a file that is removed after it was read, `ok` has none."""
    sound, video = np.zeros(16_000, np.float32), folder / "ok.mp4"
    write_clip(video, 8, 4, sound_s=2.0)
    (folder / "unreadable.mp4").write_text("this is no clip\n" * 200)
    write_clip(folder / "long.mkv", 40, 5, sound_s=8.0)
    content = (folder / "long.mkv").read_bytes()
    (folder / "truncated.mkv").write_bytes(content[: len(content) // 2])
    write_clip(folder / "mute.mp4", 8, 4)
    write_wav(folder / "silent.wav", [sound])
    write_wav(folder / "short.wav", [tone(0.02)])
    write_wav(folder / "only_sound.wav", [tone(1.0)])
    write_no_frames(folder / "no_frames.mkv")
    names = {
        "ok": "ok.mp4",
        "unreadable": "unreadable.mp4",
        "truncated": "truncated.mkv",
        "no_sound": "mute.mp4",
        "silent": "silent.wav",
        "too_short": "short.wav",
        "no_picture": "only_sound.wav",
        "no_frames": "no_frames.mkv",
        "over_limits": "long.mkv",
    }
    for name in os.listdir(folder):
        os.utime(folder / name, ns=(AGED_NS, AGED_NS))
    return names


def write_no_frames(path: Path) -> None:
    """A whole file with a picture stream of no frames, and a tone."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(1.0)[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())


def remux(source: Path, target: Path) -> Path:
    """The streams of a clip in another container, as they are."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams if stream.type in ("video", "audio")}
        for packet in old.demux():
            if packet.dts is not None and packet.stream.index in streams:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return target


def copy(source: Path, target: Path) -> Path:
    shutil.copyfile(source, target)
    return target


def row(clip: str, question: str = "What is shown?", answer: str = "A", **more: Any) -> dict[str, Any]:
    """A row of the layout of HumanSense."""
    asked = {"task_type": "t", "question": question, "question_pattern": CHOICE, "options": ["A.one", "B.two"], "answer": answer}
    return {"video_path": clip, "questions": asked, **more}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text(json.dumps(rows))
    return str(path)
