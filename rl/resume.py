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

from omnistage.rl.heads import carried
from omnistage.rl.policy import is_sharded_fully, thinker_of, whole


class ResumesWhole:
    """Mixed into a TRL trainer in front of it: a checkpoint holds a thinker's weights and heads, and all of them are restored or none."""

    model: Any
    args: Any

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # transformers takes what it leaves out from the dictionary that it is given.
        super()._save(output_dir, None if state_dict is None else dict(state_dict))  # type: ignore[misc]
        thinker = thinker_of(self.model)
        # Not those of the dictionary: beside adapters DeepSpeed collects what is trained alone, and an earlier stage's head is not.
        with whole(carried.all_of(thinker)):
            if self.args.should_save:
                carried.write(thinker, output_dir or self.args.output_dir, state_dict if is_sharded_fully(thinker) else None)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        target = self.model if model is None else model
        if (
            not isinstance(target, Qwen2_5OmniThinkerForConditionalGeneration)
            or not (Path(resume_from_checkpoint) / "config.json").is_file()
        ):
            # Adapters keep their own names, and sharded engines load their own checkpoints.
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        else:
            # In whole precision: what is trained may be float32 beside frozen parts that are not.
            saved = type(target).from_pretrained(resume_from_checkpoint, dtype=torch.float32, use_safetensors=True)
            own = {name for name in target.state_dict() if not name.startswith(f"{carried.MODULE}.")}
            if own != set(saved.state_dict()):
                raise RuntimeError(f"{resume_from_checkpoint}: does not hold {sorted(own ^ set(saved.state_dict()))}")
            target.load_state_dict(saved.state_dict(), strict=False)
        carried.attach(thinker_of(target), resume_from_checkpoint)

    def create_model_card(self, *arguments: Any, **named: Any) -> None:
        """None: TRL's card would name a model that the folder does not come from."""
