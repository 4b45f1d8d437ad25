"""Going on from a checkpoint with the checkpoint's weights.

A thinker's folder keeps the names of an older layout (`visual.*`, `model.layers.*`), which `from_pretrained` translates. transformers'
`Trainer` reads the file without translating, loads none of the tensors, warns, and trains on from the stage's first weights with the
optimizer state of a later step. Here the weights go through `from_pretrained`, and every tensor must find its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5OmniThinkerForConditionalGeneration


class ResumesWhole:
    """Mixed into a TRL trainer in front of it: restores a thinker's weights from a checkpoint, all of them or none."""

    model: Any

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        target = self.model if model is None else model
        if (
            not isinstance(target, Qwen2_5OmniThinkerForConditionalGeneration)
            or not (Path(resume_from_checkpoint) / "config.json").is_file()
        ):
            # Adapters keep their own names, and sharded engines load their own checkpoints.
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        # In whole precision: what is trained may be float32 beside frozen parts that are not.
        saved = type(target).from_pretrained(resume_from_checkpoint, dtype=torch.float32, use_safetensors=True)
        target.load_state_dict(saved.state_dict(), strict=True)

    def create_model_card(self, *arguments: Any, **named: Any) -> None:
        """None: TRL's card would name a model that the folder does not come from."""
