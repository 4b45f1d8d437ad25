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
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.logging import disable_progress_bar

from omnistage.data.errors import InputError

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


def check_folder(path: str) -> None:
    """Say in one line why a local folder is no checkpoint; a name on the hub is left to transformers.

    Raises:
        InputError: the folder has no configuration, or one of another architecture.
    """
    folder = Path(path)
    if not folder.exists():
        if path.startswith((".", "/")) or path.count("/") != 1:
            raise InputError(f"model.path: {path!r} does not exist")
        return
    config = folder / "config.json"
    if not config.is_file():
        raise InputError(f"model.path: {path!r} is no checkpoint: it has no config.json")
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except ValueError as error:
        raise InputError(f"model.path: {config} is not valid JSON ({error})") from error
    if kind not in ARCHITECTURES:
        raise InputError(f"model.path: {path!r} is a {kind!r} model; known: {', '.join(ARCHITECTURES)}")


def load(path: str, *, dtype: str = "auto", attention: str = "auto") -> Qwen2_5OmniThinkerForConditionalGeneration:
    """Load a thinker from its own folder or from a whole Qwen2.5-Omni checkpoint (talker and vocoder are left out).

    `dtype` auto is bfloat16 on a GPU and float32 elsewhere; `attention` auto is FlashAttention 2 where it is installed and a GPU is there,
    else PyTorch's own.

    Raises:
        InputError: `path` is no checkpoint of this architecture.
    """
    check_folder(path)
    gpu = torch.cuda.is_available()
    chosen = getattr(torch, dtype) if dtype != "auto" else torch.bfloat16 if gpu else torch.float32
    if attention == "auto":
        attention = "flash_attention_2" if gpu and _has_flash() else "sdpa"
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        path, dtype=chosen, attn_implementation=attention, use_safetensors=True
    )
    accept_encoded_audio(model)
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


def accept_encoded_audio(model: Qwen2_5OmniThinkerForConditionalGeneration) -> None:
    """Let the forward take sound that its frozen tower has already encoded.

    transformers takes encoded pictures as `mm_encoder_outputs`, but has no such door for sound. A two-dimensional `input_features`
    ([tokens, hidden]; raw mel frames have three dimensions) now passes through.
    """
    body = model.model
    encode = body.get_audio_features

    def get_audio_features(input_features: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if input_features.dim() == 2:
            return BaseModelOutputWithPooling(last_hidden_state=input_features)
        return encode(input_features, *args, **kwargs)

    body.get_audio_features = get_audio_features


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


def is_sharded(model: nn.Module) -> bool:
    """Whether DeepSpeed's ZeRO-3 has spread the weights over the ranks, so that no rank holds a whole tensor between forwards."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Inside, every rank holds the whole weights, also under ZeRO-3; what is changed there is lost for a sharded model."""
    if not is_sharded(model):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        yield


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
