"""The policy: a Qwen2.5-Omni thinker, loaded from any folder, with parts that are trained or frozen one by one."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniThinkerModel
from transformers.utils.logging import disable_progress_bar

from omnistage.data.errors import InputError
from omnistage.rl.heads import carried

Part = Literal["vision", "audio", "language"]
PARTS: dict[Part, tuple[str, ...]] = {
    "vision": ("model.visual.",),
    "audio": ("model.audio_tower.",),
    "language": ("model.language_model.", "lm_head."),
}
ARCHITECTURES = ("qwen2_5_omni_thinker", "qwen2_5_omni")


def quiet_libraries() -> None:
    """Leave out what no user of a recipe could act on: names that the libraries retire among themselves, bars where no terminal is."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft|accelerate)\.")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"transformers\.")
    if not sys.stderr.isatty():
        disable_progress_bar()


def thinker_of(model: nn.Module) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """The thinker inside an adapter or a distributed wrapper."""
    inside: Any = model
    while not isinstance(inside, Qwen2_5OmniThinkerForConditionalGeneration):
        if hasattr(inside, "get_base_model"):
            inside = inside.get_base_model()
        elif isinstance(getattr(inside, "module", None), nn.Module):
            inside = inside.module
        else:
            raise TypeError(f"no Qwen2.5-Omni thinker inside {type(model).__name__}")
    return inside


def _check_hub(path: str, where: str) -> None:
    if path.startswith((".", "/")) or path.count("/") != 1:
        raise InputError(f"{where}: {path!r} does not exist")
    try:
        kind = AutoConfig.from_pretrained(path).model_type
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{where}: {path!r} is no folder here, and as a name on the hub it cannot be had: {reason}") from error
    if kind not in ARCHITECTURES:
        raise InputError(f"{where}: {path!r} is a {kind!r} model; known: {', '.join(ARCHITECTURES)}")


def check_folder(path: str, where: str = "model.path") -> None:
    """Say in one line why a folder, or a name on the hub, is no checkpoint; of the hub only the configuration is fetched.

    `where` names the setting that gave the path.

    Raises:
        InputError: it is not there, has no configuration, or one of another architecture.
    """
    folder = Path(path)
    if not folder.exists():
        _check_hub(path, where)
        return
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(f"{where}: {path!r} is no checkpoint: it has no config.json")
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except ValueError as error:
        raise InputError(f"{where}: {config} is not valid JSON ({error})") from error
    if kind not in ARCHITECTURES:
        raise InputError(f"{where}: {path!r} is a {kind!r} model; known: {', '.join(ARCHITECTURES)}")


def load(path: str, *, dtype: str = "auto", attention: str = "auto") -> Qwen2_5OmniThinkerForConditionalGeneration:
    """Load a thinker, with the heads it carries, from its own folder or from a whole Qwen2.5-Omni checkpoint (talker and vocoder left out).

    `dtype` auto is bfloat16 on a GPU and float32 elsewhere; `attention` auto is FlashAttention 2 where it is installed, a GPU is there and
    the type is a half one, else PyTorch's own.

    Raises:
        InputError: `path` is no checkpoint of this architecture, or the attention is not installed.
    """
    return _load(path, compute_type(dtype), attention_for(attention, dtype))


def load_for_training(
    path: str, frozen: Collection[Part], *, dtype: str = "auto", attention: str = "auto", whole_weights: bool
) -> Qwen2_5OmniThinkerForConditionalGeneration:
    """Load a thinker whose parts but `frozen` are trained.

    `whole_weights` keeps what is trained in float32 while it computes in `dtype` under autocast: a step of AdamW at a learning rate of 1e-6
    is smaller than the distance of two neighbouring bfloat16 numbers, so that most weights would never move. DeepSpeed keeps such
    copies itself, and adapters are float32 anyway.

    Raises:
        InputError: as `load`.
    """
    compute = compute_type(dtype)
    model = _load(path, torch.float32 if whole_weights else compute, attention_for(attention, dtype))
    freeze(model, frozen)
    if whole_weights and compute != torch.float32:
        for part in frozen:
            for _, parameter in parameters_of(model, part):
                parameter.data = parameter.data.to(compute)
    return model


def compute_type(dtype: str) -> torch.dtype:
    """The type that a recipe's `dtype` stands for on this machine."""
    if dtype == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    chosen: torch.dtype = getattr(torch, dtype)
    return chosen


def attention_for(attention: str, dtype: str) -> str:
    """The attention that a recipe's `attention` stands for on this machine. Raises `InputError` where it is not installed."""
    if attention == "auto":
        half = compute_type(dtype) != torch.float32
        return "flash_attention_2" if half and torch.cuda.is_available() and _has_flash() else "sdpa"
    if attention == "flash_attention_2" and not _has_flash():
        raise InputError("model.attention: 'flash_attention_2' is not installed here (pip install flash-attn); allowed: auto, sdpa, eager")
    return attention


def _load(path: str, dtype: torch.dtype, attention: str) -> Qwen2_5OmniThinkerForConditionalGeneration:
    check_folder(path)
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        path, dtype=dtype, attn_implementation=attention, use_safetensors=True
    )
    accept_encoded_audio(model)
    carried.attach(model, path)
    if is_sharded(model):
        # Under ZeRO-3 transformers keeps every conversion that it tried, used or not, and a saved folder would get names of none. Without
        # them it saves as it does a model that was built here.
        model._weight_conversions = None
    return model


def _has_flash() -> bool:
    from transformers.utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())


def load_processor(path: str) -> Qwen2_5OmniProcessor:
    """The checkpoint's own processor; audio is always padded on the right, for padding on the left shifts its frames."""
    processor = Qwen2_5OmniProcessor.from_pretrained(path)
    processor.feature_extractor.padding_side = "right"
    return processor


# Mel frames, of which the tower makes two tokens.
_LEAST_FRAMES = 8


class HearsEncodedSound(Qwen2_5OmniThinkerModel):  # type: ignore[misc]
    """A thinker's body that also takes sound which its frozen tower has already encoded, and media that show nothing.

    transformers takes encoded pictures as `mm_encoder_outputs`, but has no such door for sound. A two-dimensional `input_features`
    ([tokens, hidden]; raw mel frames have three dimensions) passes through.

    Where processes share weights or gradients, each must run a tower that any of them runs, also when its own clips have nothing for it
    (`nothing_seen`, `nothing_heard`): else they wait for each other for ever.
    """

    def get_audio_features(self, input_features: torch.Tensor, feature_attention_mask: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Features of mel frames [sounds, bins, frames], or what is already encoded [tokens, hidden]; none, with their graph, of frames
        that are all masked."""
        if input_features.dim() == 2:
            return BaseModelOutputWithPooling(last_hidden_state=input_features)
        if feature_attention_mask is None or feature_attention_mask.any():
            return super().get_audio_features(input_features, feature_attention_mask, *args, **kwargs)
        made = super().get_audio_features(input_features, torch.ones_like(feature_attention_mask), *args, **kwargs)
        made.last_hidden_state = made.last_hidden_state[:0]
        return made

    def get_image_features(self, pixel_values: torch.Tensor, image_grid_thw: Any = None, **kwargs: Any) -> Any:
        """Features of patches; none, with their graph, of a grid of nothing."""
        if image_grid_thw is None or image_grid_thw.any():
            return super().get_image_features(pixel_values, image_grid_thw, **kwargs)
        return _nothing_of(super().get_image_features(pixel_values, self._least_grid(image_grid_thw), **kwargs))

    def get_video_features(self, pixel_values_videos: torch.Tensor, video_grid_thw: Any = None, **kwargs: Any) -> Any:
        """As `get_image_features`."""
        if video_grid_thw is None or video_grid_thw.any():
            return super().get_video_features(pixel_values_videos, video_grid_thw, **kwargs)
        return _nothing_of(super().get_video_features(pixel_values_videos, self._least_grid(video_grid_thw), **kwargs))

    def _least_grid(self, like: torch.Tensor) -> torch.Tensor:
        side = int(self.visual.spatial_merge_size)
        return torch.tensor([[1, side, side]], device=like.device)


def _nothing_of(made: Any) -> Any:
    made.pooler_output = [made.pooler_output[0][:0]]
    return made


def nothing_seen(body: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches and a grid of which a thinker's body makes no features, though its tower runs."""
    config = body.config.vision_config
    size = config.in_channels * config.temporal_patch_size * config.patch_size**2
    return torch.zeros(int(body.visual.spatial_merge_size) ** 2, size, device=device), torch.zeros(1, 3, dtype=torch.long, device=device)


def nothing_heard(body: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mel frames and a mask of which a thinker's body makes no features, though its tower runs."""
    bins = body.config.audio_config.num_mel_bins
    return torch.zeros(1, bins, _LEAST_FRAMES, device=device), torch.zeros(1, _LEAST_FRAMES, dtype=torch.long, device=device)


def accept_encoded_audio(model: Qwen2_5OmniThinkerForConditionalGeneration) -> None:
    """Open the door of `HearsEncodedSound` in a model that is already built.

    Its body changes class. A patched method would hold the body that holds it, and the weights would outlive the stage.
    """
    if type(model.model) is Qwen2_5OmniThinkerModel:
        model.model.__class__ = HearsEncodedSound


def parameters_of(model: nn.Module, part: Part) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and parameters of one part of a thinker."""
    return ((name, value) for name, value in model.named_parameters() if name.startswith(PARTS[part]))


def freeze(model: nn.Module, parts: Collection[Part]) -> None:
    """Train every part but `parts`."""
    for part in PARTS:
        for _, parameter in parameters_of(model, part):
            parameter.requires_grad_(part not in parts)


def frozen_parts(model: nn.Module) -> frozenset[Part]:
    """The parts of a (possibly wrapped) policy in which no parameter is trained."""
    thinker = thinker_of(model)
    return frozenset(part for part in PARTS if not any(p.requires_grad for _, p in parameters_of(thinker, part)))


def tower_of(thinker: nn.Module, part: Part) -> nn.Module:
    """The module of a tower, `vision` or `audio`."""
    return thinker.get_submodule(PARTS[part][0].rstrip("."))


def is_sharded(model: nn.Module) -> bool:
    """Whether ZeRO-3 or FSDP2 has spread weights over the ranks, so that no rank holds all of these whole between forwards."""
    return any(hasattr(parameter, "ds_id") or isinstance(parameter, DTensor) for parameter in model.parameters())


def is_sharded_fully(model: nn.Module) -> bool:
    """Whether it is FSDP2 that has spread the weights."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Inside, every rank holds the whole weights, also under ZeRO-3; what is changed there is lost for a sharded model. Under FSDP2 nothing
    is gathered (`fully_sharded.gathered` does, and `whole_state`)."""
    if not is_sharded(model) or is_sharded_fully(model):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        yield


def active_adapters(model: nn.Module) -> tuple[str, ...]:
    """Names of the adapters that take part in a forward now; none where they are switched off, or where there are none."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            return () if module.disable_adapters else tuple(module.active_adapters)
    return ()


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Inside, no unit is dropped, whatever mode the model is in."""
    on = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.training]
    for module in on:
        module.eval()
    try:
        yield
    finally:
        for module in on:
            module.train()


def fingerprint(model: nn.Module, part: Part) -> str:
    """A hash of one part's weights: equal weights, equal features."""
    digest = hashlib.sha256()
    for name, value in sorted(parameters_of(thinker_of(model), part), key=lambda item: item[0]):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def forbidden_tokens(processor: Qwen2_5OmniProcessor) -> list[int]:
    """Ids that a policy must never sample: a media placeholder or bracket in a completion breaks the next forward."""
    tokenizer = processor.tokenizer
    names = ("image_token", "audio_token", "video_token", "vision_bos_token", "vision_eos_token", "audio_bos_token", "audio_eos_token")
    return [int(tokenizer.convert_tokens_to_ids(getattr(tokenizer, name))) for name in names]


def end_tokens(model: Qwen2_5OmniThinkerForConditionalGeneration, processor: Qwen2_5OmniProcessor) -> list[int]:
    """Ids that end a completion: the tokenizer's, and those that the checkpoint's generation settings name."""
    named = model.generation_config.eos_token_id
    listed = named if isinstance(named, list) else [named]
    return sorted({int(i) for i in [processor.tokenizer.eos_token_id, *listed] if i is not None})
