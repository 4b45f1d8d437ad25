"""A record as messages of the chat-completions protocol, its clips as parts of them.

`frames`: the frames and samples that the policy would be given (`data.media`), frames as JPEG (`image_url`), sound as 16-bit WAV of 16 kHz
(`input_audio`); most hosted models take these. One line of text before the frames of a video says how far apart they are, which a model
that is given pictures cannot know. `files`: the whole clip as its file holds it (`image_url`, `video_url`, `audio_url`), for the server to
sample, as vLLM does. A video that is heard is its frames or its file, and then its sound.
"""

from __future__ import annotations

import io
import math
import mimetypes
import os
import wave
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnistage.data import media, prompts
from omnistage.data.errors import InputError, MediaError
from omnistage.data.media import SOUND_RATE_HZ, MediaLimits
from omnistage.data.records import MediaRef, Record
from omnistage.data.sound import heard

Part = dict[str, Any]
_USUAL = {"image": "image/jpeg", "video": "video/mp4", "audio": "audio/wav"}


@dataclass(frozen=True)
class Shown:
    """How a record is shown: the wording of its question (`data.prompts`), and what is sent of its clips.

    `limits` are those of frames and of sound; `max_pixels` is the most that a frame has, which is made smaller in its shape otherwise;
    `quality` is that of JPEG, 1 to 95. Raises `InputError` for values outside of these.
    """

    template: str = "think_answer"
    system: str | None = None
    media: Literal["frames", "files"] = "frames"
    limits: MediaLimits = field(default_factory=MediaLimits)
    max_pixels: int | None = None
    quality: int = 90

    def __post_init__(self) -> None:
        if self.template not in prompts.TEMPLATES:
            raise InputError(f"template is {self.template!r}; allowed: {', '.join(prompts.TEMPLATES)}")
        if self.media not in ("frames", "files"):
            raise InputError(f"media is {self.media!r}; allowed: frames, files")
        if self.max_pixels is not None and self.max_pixels < 1:
            raise InputError(f"max_pixels is {self.max_pixels}; must be at least 1")
        if not 1 <= self.quality <= 95:
            raise InputError(f"quality is {self.quality}; must be from 1 to 95")


def messages(record: Record, shown: Shown) -> list[dict[str, Any]]:
    """The messages of a record; those without clips are plain text, which every server takes.

    Raises:
        MediaError: a clip cannot be read.
        InputError: `files` are asked for, and the record's clip is an altered one or a folder of frames.
    """
    check(record, shown)
    refs = iter(record.media)
    out = []
    for message in prompts.render(record, shown.template, shown.system):
        parts: list[Part] = []
        for part in message["content"]:
            parts += [part] if part["type"] == "text" else _of(next(refs), shown)
        is_text = all(part["type"] == "text" for part in parts)
        out.append({"role": message["role"], "content": "\n".join(part["text"] for part in parts) if is_text else parts})
    return out


def check(record: Record, shown: Shown) -> None:
    """Raises `InputError` for a record that cannot be shown as it is asked for, before anything of it is read."""
    for ref in record.media:
        altered, is_folder = bool(ref.blank) or ref.shuffle is not None, os.path.isdir(ref.path)
        if shown.media == "files" and (altered or is_folder):
            what = "is a folder of frames" if is_folder else "is shown blank or shuffled"
            raise InputError(f"{ref.path!r} {what}, and media is 'files', which sends a clip as it is; allowed: 'frames'")


def _of(ref: MediaRef, shown: Shown) -> Iterator[Part]:
    return _whole(ref, shown.limits) if shown.media == "files" else _sampled(ref, shown)


def _sampled(ref: MediaRef, shown: Shown) -> Iterator[Part]:
    clip = media.decode(ref, shown.limits)
    if clip.frames is not None and clip.fps is not None:
        yield {"type": "text", "text": f"A video as {len(clip.frames)} frames, {clip.fps:.3g} of them a second:"}
    for frame in clip.frames if clip.frames is not None else ():
        yield {"type": "image_url", "image_url": {"url": _url("image/jpeg", _jpeg(frame, shown))}}
    if clip.sound is not None:
        yield {"type": "input_audio", "input_audio": {"data": _base64(_wav(clip.sound)), "format": "wav"}}


def _whole(ref: MediaRef, limits: MediaLimits) -> Iterator[Part]:
    kind = f"{ref.kind}_url"
    yield {"type": kind, kind: {"url": _url(_type(ref), _bytes(ref.path))}}
    if ref.kind == "video" and ref.sound is not None:
        # Decoded, for few servers look for the sound in the file of a video.
        yield {"type": "audio_url", "audio_url": {"url": _url("audio/wav", _wav(heard(ref.sound, limits.max_sound_s)))}}


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise MediaError(f"{path!r} does not exist", "missing") from error
    except OSError as error:
        raise MediaError(f"{path!r} cannot be read: {error.strerror}") from error


def _type(ref: MediaRef) -> str:
    """What the file's name says that it is, as long as it is of the record's kind."""
    told = mimetypes.guess_type(ref.path)[0] or ""
    return told if told.startswith(f"{ref.kind}/") else _USUAL[ref.kind]


def _jpeg(frame: NDArray[np.uint8], shown: Shown) -> bytes:
    picture = Image.fromarray(frame)
    pixels = picture.width * picture.height
    if shown.max_pixels is not None and pixels > shown.max_pixels:
        scale = math.sqrt(shown.max_pixels / pixels)
        picture = picture.resize((max(1, int(picture.width * scale)), max(1, int(picture.height * scale))), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=shown.quality)
    return out.getvalue()


def _wav(sound: NDArray[np.float32]) -> bytes:
    """Mono of 16 bits; what lies beyond full scale is cut."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SOUND_RATE_HZ)
        file.writeframes((np.clip(sound, -1, 1) * 32767).round().astype("<i2").tobytes())
    return out.getvalue()


def _url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{_base64(content)}"


def _base64(content: bytes) -> str:
    return b64encode(content).decode("ascii")
