"""A run that is asked to stop saves what it has and says, by its exit code, that the same command goes on with it.

SIGTERM and SIGUSR1 are what schedulers send before they take a machine away. While a stage trains, the optimizer step under way is finished
and a checkpoint is saved; all processes agree on the step. Anywhere else the run stops at once: what is asked or measured there stands on
disk already.
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from omnistage.data.errors import Preempted
from omnistage.stages import asked
from omnistage.stages.main_process import say


class SaveAndStop(TrainerCallback):  # type: ignore[misc]
    """Ends training behind the step in which any process was asked to, with a checkpoint. `stopped` says that it did."""

    def __init__(self) -> None:
        self.stopped = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        asked.state.is_training = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        asked.state.is_training = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # A checkpoint holds no rollouts: one in the middle of their reuse could not go on with the same ones.
        if state.global_step % int(getattr(args, "num_iterations", 1)) or state.global_step >= state.max_steps:
            return
        if any_process(asked.state.by is not None):
            say(f"  asked to stop: saving step {state.global_step}")
            self.stopped = control.should_save = control.should_training_stop = True


def any_process(here: bool) -> bool:
    """Whether it is so in any process; every process must ask."""
    state = PartialState()
    if state.num_processes == 1:
        return here
    found: torch.Tensor = reduce(torch.tensor(float(here), device=state.device), reduction="sum")
    return bool(found > 0)


def between(callback: SaveAndStop) -> None:
    """Behind training: raises `Preempted` when it ended early."""
    if callback.stopped:
        if asked.state.by is None:
            raise Preempted("stopped, as another process was asked to; what is done is saved, and the same command goes on")
        asked.stop_if_asked()
