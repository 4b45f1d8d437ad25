"""Clips as a page shows them: the frames that the model was shown, the wave of the sound, and small files that a browser plays."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnistage.data import media
from omnistage.data.clip_file import Frames, opened, picture_stream
from omnistage.data.errors import InputError, MediaError
from omnistage.data.media import Clip, MediaLimits
from omnistage.data.records import MediaRef, Modality
from omnistage.data.sound import SOUND_RATE_HZ
from omnistage.rewards.rollouts import SOUND

# Of the file that is played: seconds, frames a second, pixels of the longer side.
MOST_S, MOST_FPS, LONGEST = 20.0, 12, 320
# Of the strip: frames, and pixels of each one's longer side.
STRIP_FRAMES, STRIP_SIDE = 8, 160
WAVE_POINTS = 160
WORKERS = 4
_AAC_SAMPLES = 1024


def refs_of(row: Mapping[str, Any]) -> list[MediaRef]:
    """What a rollout's clips were to the policy. One that does not say what was heard is older; of such,
    videos are taken to be heard by their own sound."""
    paths, modality = [str(path) for path in row.get("media") or []], str(row["modality"])
    sounds = row.get(SOUND)
    if not isinstance(sounds, list) or len(sounds) != len(paths):
        sounds = [path if modality == Modality.AUDIO_VIDEO else None for path in paths]
    return [_ref(path, modality, None if sound is None else str(sound)) for path, sound in zip(paths, sounds, strict=True)]


def _ref(path: str, modality: str, sound: str | None) -> MediaRef:
    if modality == Modality.AUDIO or Path(path).suffix.lower() in (".wav", ".mp3", ".flac", ".m4a", ".ogg", ".opus"):
        return MediaRef("audio", path)
    if Path(path).suffix.lower() in media.IMAGE_SUFFIXES:
        return MediaRef("image", path)
    return MediaRef("video", path, sound=sound)


def packed(ref: MediaRef, limits: MediaLimits, *, playing: bool = True) -> dict[str, Any]:
    """One clip for a page: `strip` (a JPEG of its frames side by side), `video` or `sound` (a small MP4), all as data URLs; `wave` (peaks
    in 0..1) and what there is to say of them. Without `playing` there is no file to play, and less to decode. Of a clip that cannot be read
    there is `error` alone."""
    try:
        clip = media.decode(ref, limits)
        out: dict[str, Any] = {"kind": ref.kind}
        if clip.frames is not None:
            out |= _strip(clip)
        if clip.sound is not None:
            out |= {"wave": _wave(clip.sound), "seconds": round(len(clip.sound) / SOUND_RATE_HZ, 2)}
        if not playing:
            return out
        if ref.kind == "video":
            out["video"] = _url("video/mp4", _mp4(*_moving(ref, clip), clip.sound))
        elif clip.sound is not None:
            out["sound"] = _url("audio/mp4", _mp4(None, 1, clip.sound))
    except (MediaError, InputError, av.FFmpegError, OSError, ValueError) as error:
        # The message holds the path, which the page has already.
        return {"kind": ref.kind, "error": " ".join(str(error).split())[:300]}
    return out


def pack_all(refs: Sequence[MediaRef], limits: MediaLimits, *, playing: bool) -> list[dict[str, Any]]:
    """Several clips at once: libav leaves the interpreter to others while it works."""
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        return list(pool.map(lambda ref: packed(ref, limits, playing=playing), refs))


def link(path: str, page: Path) -> str | None:
    """A relative address of a clip for a page that does not hold it; None where there is none (another drive, a folder of frames)."""
    if not os.path.isfile(path):
        return None
    try:
        relative = os.path.relpath(os.path.abspath(path), os.path.abspath(page.parent))
    except ValueError:
        return None
    return quote(relative.replace(os.sep, "/"), errors="surrogateescape")


def _url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _strip(clip: Clip) -> dict[str, Any]:
    """The frames that the model is shown, of many evenly spread ones."""
    frames = clip.frames
    if frames is None:
        raise ValueError("no frames")
    count = min(len(frames), STRIP_FRAMES)
    chosen = np.linspace(0, len(frames) - 1, count).round().astype(int).tolist()
    height, width = frames.shape[1:3]
    scale = min(1.0, STRIP_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    strip = Image.new("RGB", (size[0] * count, size[1]))
    for place, at in enumerate(chosen):
        strip.paste(Image.fromarray(frames[at]).resize(size), (size[0] * place, 0))
    file = io.BytesIO()
    strip.save(file, "JPEG", quality=80, optimize=True)
    times = None if clip.fps is None else [round(at / clip.fps, 2) for at in chosen]
    shown = {"frames": count, "of": len(frames), "width": size[0], "height": size[1], "times": times}
    return {"strip": _url("image/jpeg", file.getvalue()), "shown": shown}


def _wave(sound: NDArray[np.float32]) -> list[float]:
    edges = np.linspace(0, len(sound), WAVE_POINTS + 1).astype(int)
    peaks = [float(np.abs(sound[low : max(high, low + 1)]).max()) for low, high in pairwise(edges.tolist())]
    return [round(min(1.0, peak), 3) for peak in peaks]


def _moving(ref: MediaRef, clip: Clip) -> tuple[list[NDArray[np.uint8]], float]:
    """Frames to play [H, W, 3] and their rate: those of the file, no more a second and no longer than a page wants."""
    if os.path.isdir(ref.path) or ref.shuffle is not None or ref.blank:
        frames = clip.frames
        return ([] if frames is None else [_small(frame) for frame in frames]), clip.fps or 1.0
    found: list[NDArray[np.uint8]] = []
    with opened(ref.path) as file:
        stream = picture_stream(file)
        if stream is None:
            raise MediaError(f"{ref.path!r} has no picture stream", "no_picture")
        rate = float(stream.average_rate or stream.guessed_rate or MOST_FPS)
        every = max(1, math.ceil(rate / MOST_FPS - 1e-6))
        for at, frame in enumerate(Frames(file, stream)):
            if at / rate >= MOST_S:
                break
            if at % every == 0:
                image = np.rot90(frame.to_ndarray(format="rgb24", width=stream.width, height=stream.height), frame.rotation // 90)
                found.append(_small(image))
    return found, rate / every


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image whose sides are even, as H.264 wants them, and no longer than `LONGEST`."""
    height, width = image.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    size = tuple(max(2, round(side * scale) // 2 * 2) for side in (width, height))
    if size == (width, height):
        return np.ascontiguousarray(image)
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize((size[0], size[1])))


def _mp4(frames: list[NDArray[np.uint8]] | None, fps: float, sound: NDArray[np.float32] | None) -> bytes:
    """H.264 and AAC, which every browser plays."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        picture: Any = None
        if frames:
            rate = Fraction(fps).limit_denominator(1000)
            picture = container.add_stream("libx264", rate=rate, options={"crf": "28", "preset": "veryfast", "bf": "0"})
            picture.height, picture.width = frames[0].shape[:2]
            picture.pix_fmt = "yuv420p"
            picture.thread_count = 1
        track: Any = None
        if sound is not None:
            track = container.add_stream("aac", rate=SOUND_RATE_HZ, layout="mono", options={"aac_coder": "fast"})
            track.bit_rate = 40_000
        for at, image in enumerate(frames or ()):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = at, 1 / rate
            container.mux(picture.encode(frame))
        if picture is not None:
            container.mux(picture.encode(None))
        if track is not None and sound is not None:
            _sound(container, track, sound[: int(MOST_S * SOUND_RATE_HZ)])
    return file.getvalue()


def _sound(container: Any, track: Any, sound: NDArray[np.float32]) -> None:
    pcm = (sound.clip(-1, 1) * 32767).round().astype(np.int16)
    for start in range(0, len(pcm), _AAC_SAMPLES):
        frame = av.AudioFrame.from_ndarray(pcm[None, start : start + _AAC_SAMPLES], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE_HZ, start, Fraction(1, SOUND_RATE_HZ)
        container.mux(track.encode(frame))
    container.mux(track.encode(None))
