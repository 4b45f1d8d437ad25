"""A gradient that is not finite moves no weight: the step is skipped, counted and noted, and too many in a row end the run.

One NaN that reaches the optimizer is in every weight and in both of its moments, for ever. What was skipped stands in `nonfinite.jsonl` of
the stage's folder; the completions of that step are in its `rollouts/`. DeepSpeed steps inside the backward, where nothing can be held
back: there the run ends at the first such step, behind the last checkpoint. float16 has a scaler that skips by itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from omnistage.data.errors import OmnistageError
from omnistage.stages.main_process import say
from omnistage.stages.preemption import any_process

# Steps in a row that are skipped before the run ends.
MOST_IN_A_ROW = 5
NAME = "nonfinite.jsonl"


class NonFiniteError(OmnistageError):
    """Training has run away: gradients are not finite."""


class SkipNonFinite(TrainerCallback):  # type: ignore[misc]
    """Takes gradients away from the optimizer where one of them is not finite. Raises `NonFiniteError` after `MOST_IN_A_ROW` such steps."""

    def __init__(self, out: Path, name: str) -> None:
        self.path = out / NAME
        self.name = name
        self.in_a_row = 0
        self.skipped = 0

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, optimizer: Any = None, **kwargs: Any
    ) -> None:
        if args.fp16 or optimizer is None:
            return
        held = [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.grad is not None]
        if args.deepspeed is not None:
            norm = getattr(getattr(optimizer, "optimizer", None), "_global_grad_norm", None)
            if norm is not None and not torch.isfinite(torch.as_tensor(float(norm))):
                self._note(state.global_step + 1, "ended the run")
                raise NonFiniteError(
                    f"stage {self.name!r}, step {state.global_step + 1}: the gradient's norm is {float(norm)}, and DeepSpeed has taken "
                    "the step; the same command goes on from the last checkpoint (a lower learning_rate, or trainer.max_grad_norm)"
                )
            return
        if not any_process(not _are_finite(held)):
            self.in_a_row = 0
            return
        for parameter in held:
            parameter.grad = None
        self.skipped += 1
        self.in_a_row += 1
        self._note(state.global_step + 1, "skipped")
        if self.in_a_row >= MOST_IN_A_ROW:
            raise NonFiniteError(
                f"stage {self.name!r}: {self.in_a_row} steps in a row, to step {state.global_step + 1}, have a gradient that is not "
                f"finite; {self.path} lists them (a lower learning_rate, model.dtype float32, or look at their completions in rollouts/)"
            )

    def _note(self, step: int, what: str) -> None:
        say(f"  {self.name}: step {step}: a gradient is not finite; {what}")
        if PartialState().is_main_process:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "what": what}) + "\n")


def _are_finite(parameters: list[torch.nn.Parameter]) -> bool:
    """Whether all gradients [..] that this process holds are finite."""
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    local = [grad.to_local() if hasattr(grad, "to_local") else grad for grad in found]
    if not local:
        return True
    norms = torch._foreach_norm(local)
    return bool(torch.isfinite(torch.stack([norm.to(norms[0].device) for norm in norms])).all())
