"""A question that is asked by hand: media files as a record has them, and the model that answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from omnistage.data import media, prompts
from omnistage.data.errors import InputError, MediaError
from omnistage.data.records import AnswerKind, MediaRef, Modality, Record
from omnistage.rl import policy
from omnistage.rl.encoding import Encoder
from omnistage.rl.heads.spec import HeadSpec
from omnistage.stages import presentation
from omnistage.stages.merge import ADAPTER


def check(checkpoint: str) -> None:
    """Say in one line why a checkpoint cannot be asked anything, before its weights are loaded.

    Raises:
        InputError: `checkpoint` is no model folder, or holds adapters that are not merged.
    """
    folder = Path(checkpoint)
    if (folder / ADAPTER).is_file() and not (folder / "config.json").is_file():
        raise InputError(
            f"{checkpoint}: holds adapters without the model under them; make one of both: omnistage merge {checkpoint} --out DIR"
        )
    policy.check_folder(checkpoint, "checkpoint")


def load(checkpoint: str) -> tuple[Any, Encoder]:
    """A frozen model with its heads, and the encoder that shows clips as it was trained to see them.

    Raises:
        InputError: as `check`.
    """
    policy.quiet_libraries()
    check(checkpoint)
    model = policy.load(checkpoint)
    policy.freeze(model, ["vision", "audio", "language"])
    if torch.cuda.is_available():
        model.cuda()
    return model.eval(), presentation.encoder(presentation.of_checkpoint(checkpoint), checkpoint)


def media_of(path: str, *, heard: bool = True) -> MediaRef:
    """A file as a record has it: one still picture is an image, other pictures a video, which is heard (`heard`) if it has sound.

    Raises:
        MediaError: it is missing, or neither seen nor heard.
    """
    if not Path(path).exists():
        raise MediaError(f"{path}: no such file")
    if Path(path).suffix.lower() in media.IMAGE_SUFFIXES:
        return MediaRef("image", path)
    if media.has_picture(path):
        return MediaRef("video", path, sound=path if heard and media.has_sound(path) else None)
    if media.has_sound(path):
        return MediaRef("audio", path)
    raise MediaError(f"{path}: has neither picture nor sound")


def kind_for(spec: HeadSpec) -> AnswerKind:
    """How a question to a head is worded: as the records are that say its values."""
    kinds = {"affine": AnswerKind.SCALAR, "levels": AnswerKind.LEVEL, "rot6d": AnswerKind.POSE}
    return kinds[spec.codec.kind]


def modality_of(refs: Sequence[MediaRef]) -> Modality:
    """What is perceived of several files together."""
    kinds = {ref.kind for ref in refs}
    if not kinds:
        return Modality.TEXT
    seen, heard = kinds & {"image", "video"}, "audio" in kinds or any(ref.sound for ref in refs)
    if seen and heard:
        return Modality.AUDIO_VIDEO
    if heard:
        return Modality.AUDIO
    return Modality.VIDEO if "video" in seen else Modality.IMAGE


def record_of(
    question: str, refs: Sequence[MediaRef], *, kind: AnswerKind = AnswerKind.OPEN, history: Sequence[tuple[str, str]] = ()
) -> Record:
    """A question without a known answer. Raises `InputError` for one that is empty or holds a control token."""
    if not question.strip():
        raise InputError("question: is empty")
    record = Record("question", modality_of(refs), "asked", kind, question, "", tuple(refs), history=tuple(history), source="question")
    if told := prompts.control_token(record):
        raise InputError(f"question: {told}")
    return record
