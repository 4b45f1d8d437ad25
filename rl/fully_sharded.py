"""PyTorch's FSDP2 around a policy: who holds which weights, and how they are whole for a rollout, a checkpoint and a model folder.

Each process holds a slice of every weight, and its gradient and moments, in float32 where it is trained. A decoder layer (and a layer of a
trained tower) is a unit that is gathered, in the type that is computed with, when it is called, and let go behind it. What belongs to no
layer, the vocabulary's tables among it, is gathered as a forward begins, since a head that is read and never called would have no one to
gather it. A frozen tower is whole on every process: it runs once per prompt and its features are kept, on whichever process asks.

accelerate's plugin is not used. On a CPU it shards nothing, without a word; it makes the vocabulary's projection a unit of its own, of
which TRL's plain scoring then keeps each process's own gradient; and its checkpoint cannot go on where a tower has met no step yet.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from omnistage.data.errors import InputError
from omnistage.rl.heads import carried
from omnistage.rl.policy import frozen_parts, thinker_of, tower_of

# By name: transformers has them in one file with much else.
LAYERS = ("Qwen2_5OmniDecoderLayer", "Qwen2_5OmniVisionBlock", "Qwen2_5OmniAudioEncoderLayer")
_ASKED = "_omnistage_shards"
_WAKE = "_omnistage_wake"
# Beside a checkpoint's weights: one process's slice of the optimizer's state.
SLICE = "optimizer-{rank}-of-{world}.pt"


def ask_for(model: nn.Module) -> None:
    """Have the trainer that takes this thinker shard it."""
    setattr(thinker_of(model), _ASKED, True)


def is_asked_for(model: nn.Module) -> bool:
    """Whether a trainer is to shard this policy."""
    return bool(getattr(thinker_of(model), _ASKED, False))


def shard(model: nn.Module, device: torch.device, compute: torch.dtype) -> None:
    """Spread a policy (in an adapter or not) over all processes; `compute` is the type that its layers are gathered in."""
    thinker = thinker_of(model)
    frozen = [tower_of(thinker, part) for part in sorted(frozen_parts(model) - {"language"})]
    kept = {parameter for tower in frozen for parameter in tower.parameters()}
    for tower in frozen:
        tower.to(device)
    _agree(model, device)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    half = compute != torch.float32
    rounded = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32) if half else MixedPrecisionPolicy()
    layers = [module for module in model.modules() if type(module).__name__ in LAYERS]
    for layer in layers:
        if not kept.issuperset(layer.parameters()):
            fully_shard(layer, mesh=mesh, mp_policy=rounded)
    for head in carried.heads_of(thinker).values():
        fully_shard(head, mesh=mesh)
    setattr(model, _WAKE, types.MethodType(lambda self: None, model))
    fully_shard(model, mesh=mesh, mp_policy=rounded, ignored_params=kept)
    register_fsdp_forward_method(model, _WAKE)


def _agree(model: nn.Module, device: torch.device) -> None:
    """Give all processes the first one's trained weights: adapters and heads are drawn by each."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            value = parameter.detach().to(device)
            dist.broadcast(value, src=0)
            parameter.data.copy_(value)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Inside, every process holds the whole weights of a sharded policy (as the trainer has it) and runs it on its own, without gradients;
    of any other policy nothing is changed. All processes must enter."""
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    if not units:
        yield
        return
    # The first unit that is called takes itself for the outermost.
    getattr(model, _WAKE)()
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        # What ran inside is no part of a forward that a backward will follow.
        units[0].reset_iter_state()
        for unit in units:
            unit.reshard()
            unit.set_reshard_after_forward(unit is not units[0], recurse=False)


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module with whole tensors, on the CPU of the main process and empty on the others; all processes must ask."""
    main = dist.get_rank() == 0
    found: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        full = value.full_tensor() if isinstance(value, DTensor) else value
        if main:
            found[name] = full.detach().cpu().clone()
    return found


class ShardsFully:
    """Mixed into a trainer in front of `ResumesWhole`: shards a policy that is asked to be, and keeps each process's slice of the optimizer
    beside a checkpoint's whole weights."""

    args: Any
    model: Any
    ref_model: Any = None
    optimizer: Any
    lr_scheduler: Any
    accelerator: Any

    def __init__(self, model: Any, *arguments: Any, **named: Any) -> None:
        self.shards_fully = is_asked_for(model)
        super().__init__(model, *arguments, **named)  # type: ignore[call-arg]
        if not self.shards_fully:
            return
        # To transformers a model that came sharded: it is neither wrapped nor moved.
        self.is_distributed_loading_by_transformers = True
        if self.ref_model is not None:
            self.ref_model.requires_grad_(False)
            shard(self.ref_model, self.accelerator.device, self._compute(self.ref_model))

    def _compute(self, model: nn.Module) -> torch.dtype:
        return torch.bfloat16 if self.args.bf16 else next(model.parameters()).dtype

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        if not self.shards_fully:
            super()._move_model_to_device(model, device)  # type: ignore[misc]

    def create_optimizer(self, model: Any = None) -> Any:
        """The trainer's own, of the slices that this process holds."""
        if self.shards_fully and not isinstance(self.model, FSDPModule):
            shard(self.model, self.accelerator.device, self._compute(self.model))
        return super().create_optimizer(model)  # type: ignore[misc]

    @contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        # Gradients of every pass are sent and sliced: kept for the step's last one they would take the room of whole weights.
        yield

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.shards_fully:
            state_dict = whole_state(self.model)
            if not self.args.should_save:
                return
        super()._save(output_dir, state_dict)  # type: ignore[misc]

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.shards_fully:
            super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]
            return
        state = self.optimizer.state_dict()
        state["state"] = {at: {name: _local(value) for name, value in kept.items()} for at, kept in state["state"].items()}
        # The folder may not be there yet where another process writes the weights.
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        torch.save(state, Path(output_dir) / self._slice())
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self.shards_fully or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
            return
        path = Path(checkpoint) / self._slice()
        if not path.is_file():
            raise InputError(f"{checkpoint}: has no {path.name}; a run under engine fsdp2 goes on with as many processes as it began with")
        state = torch.load(path, map_location="cpu", weights_only=True)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        state["state"] = {at: {name: _as(value, parameters[at]) for name, value in kept.items()} for at, kept in state["state"].items()}
        self.optimizer.load_state_dict(state)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / "scheduler.pt", weights_only=True))

    def _slice(self) -> str:
        return SLICE.format(rank=dist.get_rank(), world=dist.get_world_size())


def _local(value: Any) -> Any:
    return value.to_local().detach().cpu() if isinstance(value, DTensor) else value


def _as(value: Any, parameter: Tensor) -> Any:
    """A slice of a moment beside the slice of its weight; numbers as they are."""
    if not isinstance(value, Tensor) or not isinstance(parameter, DTensor) or value.ndim != parameter.ndim:
        return value
    local = value.to(parameter.to_local().device)
    return DTensor.from_local(
        local, parameter.device_mesh, parameter.placements, run_check=False, shape=parameter.shape, stride=parameter.stride()
    )
