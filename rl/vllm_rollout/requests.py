"""From an encoded prompt to what vLLM is asked.

Rollout and training must read the same token ids. In the same process (`colocated`) vLLM gets one placeholder for each medium, the decoded
frames and samples, and the settings of the processor that the encoder itself used; it then calls the same processor and lays out the
placeholders itself, and what comes out is compared with the encoder's ids (`check_same`). A server could only decode a clip anew, at
frames of its own choice, so that it gets the ids and the processed tensors themselves (`served`).

Video and its sound interleaved are refused: vLLM 0.30 gives the processor fewer placeholders than sounds, which transformers 5.23 takes for
an error, and counts positions from the bracket before the block, so that equal ids would be read at other positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from omnistage.data.errors import InputError, OmnistageError
from omnistage.data.media import Clip
from omnistage.rl.encoding import Encoded, Encoder, Sense

# What the processor calls a sense's media.
ARGUMENTS: Mapping[Sense, str] = {"image": "images", "video": "videos", "audio": "audio"}
# vLLM's processed media as text, by sense one for each medium.
Encode = Callable[[Mapping[str, Tensor]], Mapping[str, Sequence[str]]]


class OtherPromptError(OmnistageError, RuntimeError):
    """vLLM read another prompt than the one that is trained on."""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A prompt for vLLM: what it gets, and the ids and the record (as messages name it) that it belongs to."""

    where: str
    ids: list[int]
    content: Mapping[str, Any] | None


def media_tokens(encoder: Encoder) -> dict[Sense, int]:
    """The placeholder of each sense."""
    processor = encoder.processor
    return {"image": processor.image_token_id, "video": processor.video_token_id, "audio": processor.audio_token_id}


def check_whole(row: Encoded, where: str) -> None:
    """Raises `InputError` for a video with its sound interleaved."""
    if row.audio_in_video:
        raise InputError(
            f"{where}: a video that is heard cannot be drawn with vLLM (rollout.engine: vllm); allowed: rollout.engine: policy"
        )


def colocated(row: Encoded, clips: Sequence[Clip], encoder: Encoder, where: str) -> Request:
    """What vLLM's `generate` takes: ids with one placeholder for each of `clips`, the media, and the processor's settings."""
    check_whole(row, where)
    tokens, arguments = media_tokens(encoder), encoder.media_arguments(clips)
    media: dict[str, list[Any]] = {sense: list(arguments[name]) for sense, name in ARGUMENTS.items() if name in arguments}
    settings: dict[str, Any] = {name: dict(value) for name, value in arguments.items() if name.endswith("_kwargs") and value}
    if "audio_kwargs" in settings:
        # vLLM says this of all media itself, and the processor refuses to be told twice.
        settings["truncation"] = settings["audio_kwargs"].pop("truncation")
    found = runs(row.ids, tokens)
    for sense in tokens:
        held = len(media.get(sense, []))
        if len(found[sense]) != held:
            raise OtherPromptError(f"{where}: {held} media of {sense} and {len(found[sense])} runs of placeholders; vLLM is not asked")
    content: dict[str, Any] = {"prompt_token_ids": one_each(row.ids, tokens)}
    if media:
        content |= {"multi_modal_data": media, "mm_processor_kwargs": settings}
    return Request(where, row.ids, content)


def served(row: Encoded, encoder: Encoder, where: str, encode: Encode) -> Request:
    """The `features` of a request to `/inference/v1/generate`, beside the whole ids: tensors, where they belong, and their hashes."""
    check_whole(row, where)
    found = {sense: places for sense, places in runs(row.ids, media_tokens(encoder)).items() if places}
    digests = hashes(row)
    lengths = token_counts(row, encoder.processor.image_processor.merge_size)
    if {sense: [length for _, length in places] for sense, places in found.items()} != lengths:
        raise OtherPromptError(f"{where}: runs of placeholders {found} do not fit the media, which have {lengths} tokens")
    if not found:
        return Request(where, row.ids, None)
    placed = {sense: [{"offset": offset, "length": length} for offset, length in places] for sense, places in found.items()}
    return Request(
        where,
        row.ids,
        {"mm_hashes": digests, "mm_placeholders": placed, "kwargs_data": {sense: list(of) for sense, of in encode(processed(row)).items()}},
    )


def runs(ids: Sequence[int], tokens: Mapping[Sense, int]) -> dict[Sense, list[tuple[int, int]]]:
    """Where the placeholders of each sense stand: (first, count) of every unbroken run."""
    senses = {token: sense for sense, token in tokens.items()}
    found: dict[Sense, list[tuple[int, int]]] = {sense: [] for sense in tokens}
    at = 0
    for token, same in groupby(ids):
        count = len(list(same))
        if token in senses:
            found[senses[token]].append((at, count))
        at += count
    return found


def one_each(ids: Sequence[int], tokens: Mapping[Sense, int]) -> list[int]:
    """The ids with a single placeholder for each run."""
    single = set(tokens.values())
    return [token for at, token in enumerate(ids) if token not in single or at == 0 or ids[at - 1] != token]


def check_same(request: Request, ids: Sequence[int]) -> None:
    """Raises `OtherPromptError` when vLLM read other ids than those that are scored."""
    if list(ids) == request.ids:
        return
    shorter = min(len(ids), len(request.ids))
    first = next((at for at in range(shorter) if ids[at] != request.ids[at]), shorter)
    told = f"vLLM read a prompt of {len(ids)} tokens and training reads {len(request.ids)}"
    raise OtherPromptError(f"{request.where}: {told}; the first that differs is {first}")


def processed(row: Encoded) -> dict[str, Tensor]:
    """The media of a prompt under the names and in the shapes in which vLLM's own processor of this model leaves them."""
    batch: dict[str, Tensor] = {}
    if row.pictures is not None and row.grid is not None and row.second_per_grid is not None:
        batch |= {"pixel_values_videos": row.pictures, "video_grid_thw": row.grid, "second_per_grid_ts": row.second_per_grid}
    if row.stills is not None and row.still_grid is not None:
        batch |= {"pixel_values": row.stills, "image_grid_thw": row.still_grid}
    if row.mels:
        lengths = torch.tensor([mel.shape[1] for mel in row.mels])
        heard = torch.arange(int(lengths.max())) < lengths[:, None]
        batch |= {
            "input_audio_features": torch.cat(row.mels, dim=1),
            "feature_attention_mask": heard.long(),
            "audio_feature_lengths": lengths,
        }
    return batch | {"use_audio_in_video": torch.tensor(False)}


def token_counts(row: Encoded, merge: int) -> dict[Sense, list[int]]:
    """How many tokens each medium has in a prompt, by sense."""
    found: dict[Sense, list[int]] = {}
    if row.still_grid is not None:
        found["image"] = (row.still_grid.prod(-1) // merge**2).tolist()
    if row.grid is not None:
        found["video"] = (row.grid.prod(-1) // merge**2).tolist()
    if row.mels:
        # Two convolutions and a pooling by two.
        found["audio"] = [((mel.shape[1] - 1) // 2 + 1 - 2) // 2 + 1 for mel in row.mels]
    return found


def hashes(row: Encoded) -> dict[Sense, list[str]]:
    """A name for each medium that two of them share only if the model reads the same (vLLM keeps what it made of a medium by it)."""
    found: dict[Sense, list[str]] = {}
    for sense, parts in _parts(row):
        digest = hashlib.sha256(sense.encode())
        for part in parts:
            digest.update(str(tuple(part.shape)).encode())
            digest.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        found.setdefault(sense, []).append(digest.hexdigest())
    return found


def _parts(row: Encoded) -> Iterator[tuple[Sense, list[Tensor]]]:
    """The tensors of each medium."""
    visions: tuple[tuple[Sense, Tensor | None, Tensor | None], ...] = (
        ("image", row.stills, row.still_grid),
        ("video", row.pictures, row.grid),
    )
    for sense, patches, grid in visions:
        if patches is None or grid is None:
            continue
        for at, own in enumerate(patches.split(grid.prod(-1).tolist())):
            seconds = [row.second_per_grid[at : at + 1]] if sense == "video" and row.second_per_grid is not None else []
            yield sense, [own, grid[at], *seconds]
    for mel in row.mels:
        yield "audio", [mel]
