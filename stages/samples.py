"""Completions and their clips in a stage's TensorBoard events, beside the numbers: of a few steps those with the highest and the lowest
reward.

What a model or a file says stands there as an indented block of Markdown code, in which nothing is interpreted.
"""

from __future__ import annotations

import io
import re
import wave
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tensorboardX.proto.summary_pb2 import Summary

from omnistage.data import media
from omnistage.data.errors import InputError, MediaError
from omnistage.data.media import MediaLimits
from omnistage.data.records import MediaRef
from omnistage.data.sound import SOUND_RATE_HZ
from omnistage.rewards.rollouts import DROPPED, REWARD
from omnistage.stages.events import Events
from omnistage.stages.main_process import say
from omnistage.stages.report.media import refs_of
from omnistage.stages.report.rollouts import total
from omnistage.stages.report.texts import cut

# Steps of a stage; frames of a strip, and pixels of a frame's longer side; seconds of sound. About 8 MB a stage at most.
MOST_STEPS, FRAMES, SIDE, SOUND_S = 20, 8, 160, 4.0
_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


class Samples:
    """Logs the extremes of recorded steps, `MOST_STEPS` of a stage at most (one more for each time that it goes on after a stop)."""

    def __init__(self, name: str, weights: Mapping[str, float], limits: MediaLimits, steps: int) -> None:
        self.name = name
        self._weights = weights
        self._limits = limits
        self._every = max(1, -(-steps // MOST_STEPS))
        self._logged = -1

    def __call__(self, writer: Events, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log a step, of which `rows` are all completions, unless one near it is logged."""
        if (step - 1) // self._every == self._logged:
            return
        self._logged = (step - 1) // self._every
        worth = [(value, row) for row in rows if not row.get(DROPPED) and (value := total(row, self._weights)) is not None]
        if not worth:
            return
        # Of equals the first.
        chosen = {"highest": max(worth, key=lambda one: one[0]), "lowest": min(worth, key=lambda one: one[0])}
        for which, (value, row) in chosen.items():
            writer.add_text(f"{self.name}/completions/{which}", as_code(told(row, value, step)), step)
            for ref in refs_of(row)[:1]:
                shown = self._clip(which, ref)
                if shown:
                    writer.add_summary(Summary(value=shown), step)

    def _clip(self, which: str, ref: MediaRef) -> list[Any]:
        """The frames of a clip side by side, and the beginning of its sound; nothing of one that cannot be read now."""
        try:
            clip = media.decode(ref, self._limits)
        except (MediaError, InputError, av.FFmpegError, OSError, ValueError):
            return []
        out = []
        if clip.frames is not None:
            out.append(Summary.Value(tag=f"{self.name}/clips/{which}", image=strip(clip.frames)))
        if clip.sound is not None:
            out.append(Summary.Value(tag=f"{self.name}/sounds/{which}", audio=sound(clip.sound)))
        return out


def recorder(
    write: Callable[[int, Sequence[dict[str, Any]]], None], samples: Samples, writer: Callable[[], Events | None]
) -> Callable[[int, Sequence[dict[str, Any]]], None]:
    """Writes the completions of a step, then logs its samples where the stage has a writer of events by then.

    Samples are there to be looked at: whatever goes wrong with them is said once, ends them, and nothing else.
    """
    going = True

    def record(step: int, rows: Sequence[dict[str, Any]]) -> None:
        nonlocal going
        write(step, rows)
        events = writer()
        if events is None or not going:
            return
        try:
            samples(events, step, rows)
        except Exception as error:  # noqa: BLE001
            going = False
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            say(f"  {samples.name}: no samples for TensorBoard from step {step} on ({said})")

    return record


def told(row: Mapping[str, Any], worth: float, step: int) -> str:
    """A completion with what it answers and what it was worth."""
    rewards = {name[len(REWARD) :]: value for name, value in row.items() if name.startswith(REWARD)}
    head = [
        f"step {step}, {row.get('record_id')}, {row.get('task')}, {row.get('modality')}",
        f"reward {worth:.4g}: "
        + ", ".join(f"{name} {'not scored' if value is None else f'{value:.4g}'}" for name, value in rewards.items()),
    ]
    if row.get("advantage") is not None:
        head.append(f"advantage {row['advantage']:.4g}")
    options = [
        f"  {letter}. {_cut(option)}" for letter, option in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", row.get("options") or [], strict=False)
    ]
    body = [f"question: {_cut(row.get('question') or '')}", *options, f"gold: {_cut(row.get('target') or '')}", ""]
    return "\n".join([*head, *body, _cut(row.get("completion") or "")])


def as_code(text: str) -> str:
    """The text as Markdown that shows it as it is: each line indented, what cannot be seen by its number."""
    plain = _HIDDEN.sub(lambda found: f"U+{ord(found[0]):04X}", re.sub(r"\r\n?", "\n", text))
    return "\n".join(f"    {line}" for line in plain.split("\n"))


def _cut(text: Any) -> str:
    found = cut(str(text))
    return str(found["text"]) + (f" … {found['cut']} more characters … {found['end']}" if "cut" in found else "")


def strip(frames: NDArray[np.uint8]) -> Any:
    """Evenly spread frames [F, H, W, 3] side by side, as a JPEG."""
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), FRAMES)).round().astype(int).tolist()
    height, width = frames.shape[1:3]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.new("RGB", (size[0] * len(chosen), size[1]))
    for place, at in enumerate(chosen):
        image.paste(Image.fromarray(frames[at]).resize(size), (size[0] * place, 0))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return Summary.Image(height=size[1], width=image.width, colorspace=3, encoded_image_string=file.getvalue())


def sound(samples: NDArray[np.float32]) -> Any:
    """The beginning of a sound [N], as a WAV."""
    pcm = (samples[: int(SOUND_S * SOUND_RATE_HZ)].clip(-1, 1) * 32767).round().astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SOUND_RATE_HZ)
        out.writeframes(pcm.tobytes())
    given = {"sample_rate": SOUND_RATE_HZ, "num_channels": 1, "length_frames": len(pcm), "content_type": "audio/wav"}
    return Summary.Audio(encoded_audio_string=file.getvalue(), **given)
