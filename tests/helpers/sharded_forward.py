"""The shared-prefix forward and its backward on two processes that hold the weights together; run under torchrun.

    python sharded_forward.py DATA CHECKPOINT OUT ENGINE ...

Each process scores two groups of its own, towers trained, so that all weights get gradients. Process 0 writes to OUT/ENGINE.pt, for each
case of `CASES`, the log-probs of both processes and the gradients of the mean of their losses, as whole tensors: what `one_process` gives,
too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers.integrations import HfDeepSpeedConfig

from omnistage.launch.worker import open_deepspeed
from omnistage.rl.encoding import Encoded
from omnistage.rl.shared_prefix import forward
from omnistage.rl.shared_prefix.attention import Mode
from omnistage.rl.shared_prefix.layout import pack
from omnistage.rl.towers import raw_media
from world import World

PROCESSES = 2
# How a row is scored, and whether activations are computed again in the backward.
CASES: dict[str, tuple[Mode, bool]] = {
    "cat": ("cat", False),
    "cascade": ("cascade", False),
    "checkpointing": ("cascade", True),
    "idle": ("cascade", False),
}
# Of two groups on each process: ragged, one completion of one token.
LENGTHS = [7, 3, 1, 5, 7, 4]

Found = dict[str, dict[str, Any]]


def rows_of(world: World, model: Any, rank: int) -> list[Encoded]:
    """The prompts of a process's completions: two clips of its own, taken in turn."""
    encoder = world.encoder(model)
    heads = [encoder(record) for record in world.records("audio_video")[2 * rank : 2 * rank + 2]]
    return [heads[at % 2] for at in range(len(LENGTHS))]


def scored(model: Any, rows: list[Encoded], rank: int, case: str) -> tuple[Tensor, Tensor]:
    """Log-probs [B, C] of a process's completions, and a loss of them. In the case `idle` the last process has nothing to score."""
    generator = torch.Generator().manual_seed(rank)
    completions = torch.randint(10, 100, (len(LENGTHS), max(LENGTHS)), generator=generator)
    mask = (torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]).long()
    if case == "idle" and rank == PROCESSES - 1:
        mask[:] = 0
    packed = pack(rows, completions, mask)
    log_probs = model(packed=packed, packed_mode=CASES[case][0], **raw_media(packed.heads, completions.device)).log_probs
    return log_probs, (log_probs * torch.randn(log_probs.shape, generator=generator)).sum()


def thinker(world: World) -> Any:
    model = world.model()
    forward.install(model, temperature=0.7)
    return model.train()


def checkpointing(model: Any, wanted: bool) -> None:
    if wanted:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def one_process(world: World) -> Found:
    """What all processes together are to give, from one model that nothing is wrapped around."""
    rows = [rows_of(world, world.model(), rank) for rank in range(PROCESSES)]
    found: Found = {}
    for case, (_, again) in CASES.items():
        model = thinker(world)
        checkpointing(model, again)
        log_probs, losses = zip(*(scored(model, rows[rank], rank, case) for rank in range(PROCESSES)), strict=True)
        (sum(losses) / PROCESSES).backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found[case] = {"log_probs": torch.stack(log_probs).detach(), "gradients": gradients}
    return found


Wrapped = tuple[Any, Callable[[Tensor], None], Callable[[Any], Tensor | None]]


def ddp(model: Any) -> Wrapped:
    return DistributedDataParallel(model, find_unused_parameters=True), lambda loss: loss.backward(), lambda p: p.grad


def fsdp2(model: Any, *units: Any) -> Wrapped:
    """PyTorch's `fully_shard` of each decoder layer, of `units`, and of what is left."""
    mesh = init_device_mesh("cpu", (PROCESSES,))
    for unit in (*units, *model.model.language_model.layers):
        fully_shard(unit, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert all(isinstance(p, DTensor) and p.to_local().numel() < p.numel() for p in model.parameters())
    return model, lambda loss: loss.backward(), lambda p: None if p.grad is None else p.grad.full_tensor()


def fsdp2_head(model: Any) -> Wrapped:
    """The same with the vocabulary's projection as a unit of its own, whose weights are not gathered when the model's own are."""
    return fsdp2(model, model.lm_head)


def zero(model: Any, stage: int) -> Wrapped:
    """DeepSpeed's ZeRO."""
    import deepspeed
    from deepspeed.utils import safe_get_full_grad

    engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.0), config=settings(stage))
    return engine, engine.backward, safe_get_full_grad


def settings(stage: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": len(LENGTHS),
        # By default a bucket takes two gigabytes.
        "zero_optimization": {"stage": stage, "reduce_bucket_size": 2**16},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


ENGINES: dict[str, Callable[[Any], Wrapped]] = {
    "ddp": ddp,
    "fsdp2": fsdp2,
    "fsdp2_head": fsdp2_head,
    "zero2": partial(zero, stage=2),
    "zero3": partial(zero, stage=3),
}


def main(data: str, checkpoint: str, out: str, *engines: str) -> None:
    torch.set_num_threads(1)
    if "zero2" in engines:
        open_deepspeed(gpu=False)
    else:
        dist.init_process_group("gloo")
    rank, world = dist.get_rank(), World(Path(data), Path(checkpoint))
    rows = rows_of(world, world.model(), rank)
    for engine in engines:
        # While it lives, transformers spreads the weights over the ranks as it loads them.
        spread = HfDeepSpeedConfig(settings(3)) if engine == "zero3" else None
        found = {case: together(world, rows, engine, case) for case in CASES}
        del spread
        if rank == 0:
            torch.save(found, Path(out) / f"{engine}.pt")
    dist.destroy_process_group()


def together(world: World, rows: list[Encoded], engine: str, case: str) -> dict[str, Any]:
    """What all processes found, on each of them."""
    model = thinker(world)
    checkpointing(model, CASES[case][1])
    wrapped, backward, gradient = ENGINES[engine](model)
    log_probs, loss = scored(wrapped, rows, dist.get_rank(), case)
    backward(loss)
    gathered = [torch.empty_like(log_probs) for _ in range(PROCESSES)]
    dist.all_gather(gathered, log_probs.detach())
    made = {name: gradient(p) for name, p in model.named_parameters()}
    return {"log_probs": torch.stack(gathered), "gradients": {name: grad for name, grad in made.items() if grad is not None}}


if __name__ == "__main__":
    main(*sys.argv[1:])
