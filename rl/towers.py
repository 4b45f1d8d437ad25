"""The towers of a policy: what they see and hear of a batch, encoded once where they are frozen, raw where they are trained."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from omnistage.rl.encoding import Encoded, Sense
from omnistage.rl.feature_cache import FeatureCache, FeatureMemory, key_of
from omnistage.rl.policy import Part, fingerprint, frozen_parts, is_sharded, nothing_heard, nothing_seen, thinker_of, tower_of

TOWER: Mapping[Sense, Part] = {"image": "vision", "video": "vision", "audio": "audio"}
RAW: Mapping[Sense, tuple[str, str]] = {
    "image": ("pixel_values", "image_grid_thw"),
    "video": ("pixel_values_videos", "video_grid_thw"),
    "audio": ("input_features", "feature_attention_mask"),
}
# Of each sense: a policy's features and its reference's.
MOST_KEPT = 2
# What a configuration says of the file that it was read from, and not of the tower.
NOT_OF_THE_TOWER = ("_name_or_path", "architectures", "dtype", "transformers_version")
# Where features came from.
Origin = Literal["encoded", "memory", "disk"]


def raw_media(rows: Sequence[Encoded], device: torch.device) -> dict[str, Any]:
    """Media tensors of all rows in order, as the model's forward takes them, for towers that are trained."""
    out: dict[str, Any] = {}
    for (values, sizes), patches, grids in (
        (RAW["video"], [row.pictures for row in rows], [row.grid for row in rows]),
        (RAW["image"], [row.stills for row in rows], [row.still_grid for row in rows]),
    ):
        if any(found is not None for found in patches):
            out[values] = torch.cat([found for found in patches if found is not None]).to(device)
            out[sizes] = torch.cat([found for found in grids if found is not None]).to(device)
    mels = [mel for row in rows for mel in row.mels]
    if mels:
        lengths = torch.tensor([mel.shape[-1] for mel in mels])
        longest = int(lengths.max())
        out["input_features"] = torch.stack([torch.nn.functional.pad(mel, (0, longest - mel.shape[-1])) for mel in mels]).to(device)
        out["feature_attention_mask"] = (torch.arange(longest) < lengths[:, None]).long().to(device)
    return out


class Towers:
    """Gives a policy's forward the media of a batch: encoded once per distinct prompt where a tower is frozen, raw where it is trained.

    Features are kept with the prompt under the hash of the tower's weights, so rollout, old, reference and policy passes, later epochs and
    later stages with the same frozen tower share one encoding; with a `cache` they are kept on disk, too, for other ranks and runs, and for
    prompts that memory has let go. Under ZeRO-3 a tower's weights are spread over the ranks, and every rank must run it as often as the
    others do, whatever it has kept: there all towers get raw media. So it is with a tower that is trained, whose gradients the ranks share;
    one whose clips have nothing for it is given media that show nothing.

    `origins` counts where features came from, one for each row and sense that a pass asked for.
    """

    def __init__(self, model: torch.nn.Module, cache: FeatureCache | FeatureMemory | None = None) -> None:
        self.thinker = thinker_of(model)
        self.cache = cache
        self.origins: Counter[Origin] = Counter()
        frozen = frozen_parts(model) & {"vision", "audio"}
        kept = [part for part in sorted(frozen) if not is_sharded(tower_of(self.thinker, part))]
        self._hashes: dict[Part, str] = {part: fingerprint(model, part) for part in kept}

    @property
    def frozen(self) -> frozenset[Part]:
        """The towers whose features are kept."""
        return frozenset(self._hashes)

    def media(self, rows: Sequence[Encoded], device: torch.device) -> dict[str, Any]:
        """Keyword arguments of the forward for these rows, in their order."""
        out: dict[str, Any] = {}
        pictures: dict[str, BaseModelOutputWithPooling] = {}
        for sense in ("image", "video"):
            features = self._features(rows, sense, device)
            if features:
                pictures[sense] = BaseModelOutputWithPooling(pooler_output=tuple(features))
        if pictures:
            out["mm_encoder_outputs"] = pictures
        sounds = self._features(rows, "audio", device)
        if sounds:
            out["input_features"] = torch.cat(sounds)
        if len(self._hashes) < 2:
            trained = raw_media(rows, device)
            trained |= self._for_company(trained, device)
            names = [name for sense in RAW if TOWER[sense] not in self._hashes for name in RAW[sense]]
            out |= {name: trained[name] for name in names if name in trained}
        return out

    def _for_company(self, media: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
        """Media that show nothing, for each sense that another process has media for in this pass and this one (with `media`) has not."""
        parts = frozenset[Part]({"vision", "audio"}) - self.frozen
        bound = torch.is_grad_enabled() or any(is_sharded(tower_of(self.thinker, part)) for part in parts)
        if not bound or not dist.is_initialized() or dist.get_world_size() == 1:
            return {}
        senses = [sense for sense in RAW if TOWER[sense] in parts]
        used = torch.tensor([float(RAW[sense][0] in media) for sense in senses], device=device)
        dist.all_reduce(used, dist.ReduceOp.MAX)
        out: dict[str, Any] = {}
        for sense, by_any in zip(senses, used.tolist(), strict=True):
            if by_any and RAW[sense][0] not in media:
                nothing = nothing_heard if sense == "audio" else nothing_seen
                out |= dict(zip(RAW[sense], nothing(self.thinker.model, device), strict=True))
        return out

    def _features(self, rows: Sequence[Encoded], sense: Sense, device: torch.device) -> list[Tensor]:
        """Kept features of the rows that have the sense, or none where its tower is trained."""
        weights = self._hashes.get(TOWER[sense])
        if weights is None:
            return []
        return [self._of_row(row, sense, weights, device).to(device) for row in rows if row.has(sense)]

    def _of_row(self, row: Encoded, sense: Sense, weights: str, device: torch.device) -> Tensor:
        """Features [tokens, hidden] of one row, from the row itself, from disk or from the tower; kept with the row."""
        kept = row.features.get(f"{sense}/{weights}")
        if kept is not None:
            self.origins["memory"] += 1
            return kept
        if self.cache is None:
            found, was_there = self._encode(row, sense, device), False
        else:
            key = key_of(_given(row, sense), sense, self._tower(TOWER[sense], device))
            found, was_there = self.cache.get_or_make(key, lambda: self._encode(row, sense, device))
        self.origins["disk" if was_there else "encoded"] += 1
        _keep(row, sense, weights, found)
        return found

    def _tower(self, part: Part, device: torch.device) -> str:
        """What features depend on beside the media: weights, settings and type of the tower, and what computes it."""
        body = self.thinker.model
        tower = body.visual if part == "vision" else body.audio_tower
        settings = {name: value for name, value in tower.config.to_dict().items() if name not in NOT_OF_THE_TOWER}
        how = [str(tower.dtype), tower.config._attn_implementation, *_computed_on(device)]
        return json.dumps([self._hashes[part], settings, how], sort_keys=True, default=str)

    @torch.no_grad()
    def _encode(self, row: Encoded, sense: Sense, device: torch.device) -> Tensor:
        """Features of what one row shows to one sense, [tokens, hidden].

        They must not depend, not even in their last bits, on the rows beside it: one row at a time. Nor on the pass that asks for them
        first, of which some run under autocast and some do not: a tower computes in its own type.
        """
        body = self.thinker.model
        values, sizes = (raw_media([row], device)[name] for name in RAW[sense])
        with torch.autocast(device.type, enabled=False):
            if sense == "audio":
                heard: Tensor = body.get_audio_features(values, sizes, return_dict=True).last_hidden_state
                return heard.cpu()
            see = body.get_image_features if sense == "image" else body.get_video_features
            return torch.cat(list(see(values, sizes, return_dict=True).pooler_output)).cpu()


def _keep(row: Encoded, sense: Sense, weights: str, features: Tensor) -> None:
    """Keep features with the row; for each sense the latest `MOST_KEPT`."""
    kept = [name for name in row.features if name.startswith(sense)]
    for name in kept[: len(kept) + 1 - MOST_KEPT]:
        del row.features[name]
    row.features[f"{sense}/{weights}"] = features


def _given(row: Encoded, sense: Sense) -> list[Tensor]:
    """The tensors that a tower is given of one row, before they are padded."""
    given: dict[Sense, list[Tensor | None]] = {
        "image": [row.stills, row.still_grid],
        "video": [row.pictures, row.grid],
        "audio": list(row.mels),
    }
    return [tensor for tensor in given[sense] if tensor is not None]


def _computed_on(device: torch.device) -> list[str]:
    """What a product's last bits depend on: the device, and how it is told to compute."""
    if device.type != "cuda":
        return [device.type, str(torch.get_num_threads())]
    products = torch.backends.cuda.matmul.fp32_precision
    convolutions = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    return [torch.cuda.get_device_name(device), products, convolutions]
