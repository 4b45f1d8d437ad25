"""TRL's generation with vLLM, given media and a thinker's weights.

TRL's own code gathers prompts over processes, hands over weights, sleeps and wakes; it knows images only. Here what it carries as a
prompt's images is a `Request`, which is put in the place of what it would have made of them at the last moment.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import Qwen2_5OmniConfig, Qwen2_5OmniThinkerForConditionalGeneration
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration

from omnistage.data.errors import OmnistageError
from omnistage.rl.heads import carried
from omnistage.rl.policy import thinker_of
from omnistage.rl.vllm_rollout.requests import Request, check_same

# A thinker's weights, and what the published checkpoint of the whole model (which vLLM loads) calls them.
NAMES: Mapping[str, str] = {
    "model.language_model.": "thinker.model.",
    "model.visual.": "thinker.visual.",
    "model.audio_tower.": "thinker.audio_tower.",
    "lm_head.": "thinker.lm_head.",
}
DIFFERENCE = "sampling/sampling_logp_difference/mean"
# Nats a token. Rounding and other kernels differ by hundredths; weights or clips that vLLM does not have, by several.
MOST_DIFFERENCE = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How vLLM runs: in the training processes (`colocate`), or as a server that was started apart."""

    mode: Literal["colocate", "server"] = "colocate"
    gpu_memory: float = 0.3
    tensor_parallel: int = 1
    max_model_length: int | None = None
    sleep: bool = False
    base_url: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    group_port: int = 51216
    timeout_s: float = 240.0


class DisagreementError(OmnistageError, RuntimeError):
    """vLLM and the policy give the same completions quite other probabilities."""


class OmniVLLMGeneration(VLLMGeneration):  # type: ignore[misc]
    """`generate` takes a list with one `Request` where TRL's takes a prompt's images, and raises `OtherPromptError` when vLLM read other
    ids than `prompts`."""

    llm: Any

    def _init_vllm(self) -> None:
        if self.mode == "server":
            super()._init_vllm()
            if self.accelerator.is_main_process:
                self.vllm_client.image_features = features_of
            return
        thinker = thinker_of(self.model)
        origin, engine = thinker.name_or_path, vllm_generation.LLM
        # vLLM reads its processor from the folder again, so that it stays as long as this does.
        self._folder = tempfile.TemporaryDirectory(prefix="omnistage-vllm-")
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}
        dtype = half.get(self.accelerator.mixed_precision, thinker.dtype)
        write_shell(thinker, self.processing_class, Path(self._folder.name), dtype)
        thinker.name_or_path = self._folder.name
        # All weights are handed over before the first completion is drawn; there are none in the folder.
        vllm_generation.LLM = partial(engine, load_format="dummy")
        try:
            super()._init_vllm()
        finally:
            thinker.name_or_path, vllm_generation.LLM = origin, engine
        self.llm = AskingWithMedia(self.llm)

    def _fix_param_name_to_vllm(self, name: str, extra_prefixes: list[str] | None = None) -> str:
        return published_name(super()._fix_param_name_to_vllm(name, extra_prefixes))

    def _iter_named_params(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in super()._iter_named_params():
            # A head is no part of what vLLM runs.
            if not name.startswith(f"{carried.MODULE}."):
                yield name, value

    def _place_features(self, features: Any, prompt_ids: list[int]) -> Any:
        return features

    def generate(self, prompts: Any, images: Any, num_generations: int, profiler: Any = None) -> tuple[Any, Any, Any, Any]:
        found: tuple[Any, Any, Any, Any] = super().generate(prompts, images, num_generations, profiler)
        for (request,), read in zip(images, found[0], strict=True):
            check_same(request, read)
        return found


class AskingWithMedia:
    """vLLM's engine, which gets what a request says in place of TRL's prompt with images; all else goes to it as it is."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, prompts: Sequence[Mapping[str, Any]], **settings: Any) -> Any:
        """As the engine's own."""
        return self._engine.generate([dict(prompt["multi_modal_data"]["image"].content) for prompt in prompts], **settings)


def features_of(requests: Sequence[Sequence[Request]], **settings: Any) -> list[Mapping[str, Any] | None]:
    """What TRL's client sends beside the ids of each prompt."""
    return [request.content for (request,) in requests]


def published_name(name: str) -> str:
    """The name of a thinker's weight in the published checkpoint; that of a head as it is.

    Raises:
        ValueError: it is neither.
    """
    for own, published in NAMES.items():
        if name.startswith(own):
            return published + name.removeprefix(own)
    if not name.startswith(f"{carried.MODULE}."):
        raise ValueError(f"{name!r} is no weight of a thinker; vLLM would go on without it")
    return name


def write_shell(thinker: Qwen2_5OmniThinkerForConditionalGeneration, processor: Any, folder: Path, dtype: torch.dtype) -> None:
    """A folder that vLLM takes for a whole Qwen2.5-Omni: its configuration with this thinker's, its processor, and no weights."""
    config = Qwen2_5OmniConfig(thinker_config=thinker.config.to_dict(), enable_audio_output=False)
    config.architectures = ["Qwen2_5OmniModel"]
    config.dtype = dtype
    config.save_pretrained(folder)
    processor.save_pretrained(folder)


def encoded_by_vllm(batch: Mapping[str, Tensor], merge: int) -> dict[str, list[str]]:
    """Processed media as vLLM's server takes them, by sense."""
    from transformers import BatchFeature
    from vllm.entrypoints.scale_out.token_in_token_out.mm_serde import encode_mm_kwargs_item
    from vllm.model_executor.models.qwen2_5_omni_thinker import create_qwen2_5_omni_thinker_field_factory
    from vllm.multimodal.inputs import MultiModalKwargsItems

    items = MultiModalKwargsItems.from_hf_inputs(BatchFeature(dict(batch)), create_qwen2_5_omni_thinker_field_factory(merge)(batch))
    return {sense: [encode_mm_kwargs_item(item) for item in of_sense] for sense, of_sense in items.items()}


def attach(trainer: Any, settings: Settings, forbidden: Sequence[int]) -> None:
    """Let a TRL trainer that was made without vLLM draw with it; `forbidden` ids are never sampled."""
    args = trainer.args
    if not args.vllm_importance_sampling_correction:
        raise ValueError(
            "vllm_importance_sampling_correction is false; vLLM samples otherwise than the policy scores, which must be corrected"
        )
    trainer.vllm_generation = OmniVLLMGeneration(
        model=trainer.model,
        accelerator=trainer.accelerator,
        processing_class=trainer.processing_class,
        mode=settings.mode,
        server_base_url=settings.base_url,
        server_host=settings.host,
        server_port=settings.port,
        server_timeout=settings.timeout_s,
        group_port=settings.group_port,
        tensor_parallel_size=settings.tensor_parallel,
        gpu_memory_utilization=settings.gpu_memory,
        max_model_length=settings.max_model_length,
        max_num_seqs=args.per_device_train_batch_size * settings.tensor_parallel * args.steps_per_generation,
        enable_sleep_mode=settings.sleep,
        model_impl="vllm",
        repetition_penalty=trainer.repetition_penalty,
        temperature=trainer.temperature,
        top_p=trainer.top_p,
        top_k=trainer.top_k,
        min_p=trainer.min_p,
        max_completion_length=trainer.max_completion_length,
        logprobs=0,
        # The largest bias that vLLM takes; it has no list of tokens that are left out.
        generation_kwargs={"logit_bias": dict.fromkeys(forbidden, -100.0), "stop_token_ids": list(trainer.eos_token_ids)},
    )
    trainer._last_loaded_step = -1
    trainer.use_vllm = True


def check_agreement(metrics: Mapping[str, Sequence[float]]) -> None:
    """Raises `DisagreementError` when the last completions are far less, or more, likely to the policy than to vLLM."""
    found = metrics.get(DIFFERENCE, [])
    if found and not found[-1] <= MOST_DIFFERENCE:
        raise DisagreementError(
            f"log-probs of vLLM and of the policy differ by {found[-1]:.2f} nats a token (at most {MOST_DIFFERENCE}): "
            "vLLM does not run the policy's weights or does not see its clips; rollout.engine: policy draws without it"
        )
