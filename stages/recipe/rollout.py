"""Who draws a GRPO stage's completions: the policy itself, or vLLM. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from omnistage.data.section import Count, Positive, Section, Text

Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
# What belongs to which way to run vLLM.
COLOCATE = frozenset({"gpu_memory", "tensor_parallel", "max_model_length", "sleep"})
SERVER = frozenset({"server_url", "server_host", "server_port", "group_port", "timeout_s"})
# Others spread each weight over the processes; handing those over has not been run.
ENGINES = ("single", "ddp", "zero2")


class Rollout(Section):
    """What draws the completions (docs/clusters.md). Nothing of vLLM has been run on a GPU with this package yet."""

    engine: Literal["policy", "vllm"] = Field("policy", description="policy: the model that trains; vllm: a copy of it in vLLM")
    mode: Literal["colocate", "server"] = Field(
        "colocate", description="colocate: vLLM in the training processes; server: a `vllm serve` on devices of its own"
    )
    gpu_memory: Annotated[float, Field(strict=True, gt=0, lt=1)] = Field(
        0.3, description="colocate: share of a GPU's memory that vLLM takes"
    )
    tensor_parallel: Count = Field(1, description="colocate: GPUs over which vLLM spreads a copy")
    max_model_length: Count | None = Field(None, description="colocate: longest prompt and completion, in tokens; null: the model's own")
    sleep: bool = Field(False, strict=True, description="colocate: vLLM gives its memory back while the policy trains")
    server_url: Text | None = Field(None, description="server: its address; null: server_host and server_port")
    server_host: Text = Field("127.0.0.1", description="server: its host")
    server_port: Port = Field(8000, description="server: its port")
    group_port: Port = Field(51216, description="server: port over which weights are handed over")
    timeout_s: Positive = Field(240.0, description="server: seconds to wait until it is up")

    @model_validator(mode="after")
    def settings_are_of_the_engine(self) -> Self:
        # A recipe that was written back names every field.
        fields = type(self).model_fields
        given = {name for name in fields if name != "engine" and getattr(self, name) != fields[name].default}
        if self.engine == "policy" and given:
            raise ValueError(
                f"engine is 'policy' and {', '.join(sorted(given))} is given, which is vLLM's; take engine: vllm, or leave it out"
            )
        other = given & (SERVER if self.mode == "colocate" else COLOCATE)
        if other:
            raise ValueError(f"mode is '{self.mode}' and {', '.join(sorted(other))} is given, which the other mode takes")
        if self.server_url is not None and given & {"server_host", "server_port"}:
            raise ValueError(f"server_url is {self.server_url!r} and server_host or server_port is given; give one of the two")
        if self.server_url is not None and not self.server_url.startswith(("http://", "https://")):
            raise ValueError(f"server_url is {self.server_url!r}; it must begin with http:// or https://")
        return self


def check_stage(stage: Any) -> None:
    """What of a GRPO stage does not go with vLLM. Raises `ValueError`."""
    if stage.rollout.engine != "vllm":
        return
    if stage.dynamic_sampling is not None:
        raise ValueError("rollout.engine is 'vllm' and dynamic_sampling is given; allowed: dynamic_sampling null, or rollout.engine policy")
    modalities = [stage.modality, *(source.modality for source in stage.data)]
    if "audio_video" in modalities:
        raise ValueError(
            "rollout.engine is 'vllm' and a modality is 'audio_video', whose interleaved tokens vLLM reads at other positions; "
            "allowed: image, video, audio, text, or rollout.engine policy"
        )
    if stage.trainer.get("vllm_importance_sampling_correction", True) is not True:
        raise ValueError("rollout.engine is 'vllm' and trainer.vllm_importance_sampling_correction is not true, which it must be")


def check_launch(where: str, rollout: Rollout, engine: str, world: int) -> None:
    """What of `launch` does not go with vLLM. Raises `ValueError`."""
    if rollout.engine != "vllm":
        return
    if engine not in ENGINES:
        told = f"weights spread over processes are not handed over to vLLM yet; allowed: {', '.join(ENGINES)}"
        raise ValueError(f"{where}: rollout.engine is 'vllm' and launch.engine is {engine!r}; {told}")
    if world % rollout.tensor_parallel:
        raise ValueError(f"{where}: rollout.tensor_parallel is {rollout.tensor_parallel}, of which {world} processes are no multiple")
