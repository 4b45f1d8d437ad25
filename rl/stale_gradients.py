"""What a step did not use has no gradient in it, under ZeRO-3 too.

A step of video asks nothing of a trained audio tower. Elsewhere its parameters then have no gradient, or one of zeros. DeepSpeed's
ZeRO-3 (0.19) keeps gradients in one buffer, of which a backward overwrites what it reaches, and takes all of it: the tower would be
moved by the gradient of the last step that heard something, again and again, and no log would say so.
"""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class NoStaleGradients(TrainerCallback):  # type: ignore[misc]
    """Clears ZeRO-3's gradients before each optimizer step; without ZeRO-3 there is nothing to clear."""

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, optimizer: Any = None, **kwargs: Any
    ) -> None:
        # Inside accelerate's wrapper.
        kept = getattr(getattr(optimizer, "optimizer", None), "grad_partitions_flat_buffer", None)
        if kept is not None:
            kept.zero_()
