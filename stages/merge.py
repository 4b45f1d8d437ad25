"""Adapters and heads become one plain model folder that loads from any path, with this package or without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import Qwen2_5OmniProcessor

from omnistage.data.errors import InputError
from omnistage.rl import policy
from omnistage.rl.heads import carried
from omnistage.stages import files, presentation, training

ADAPTER = "adapter_config.json"


def merge(checkpoint: str, out: Path, *, base: str | None = None, dtype: str = "float32") -> Path:
    """Write `out`: the model that the adapters of `checkpoint` (a trainer's, or any folder of PEFT's) stand on, with them merged in.

    `base` is that model's folder, where the one that the adapters name is not there any more. Heads come from the checkpoint, else from the
    base. How clips and questions were shown comes with the base. Weights are added up and saved in `dtype`.

    Raises:
        InputError: `checkpoint` holds no adapters, its base is no checkpoint, or `out` holds something.
    """
    folder = Path(checkpoint)
    about = folder / ADAPTER
    if not about.is_file():
        if not folder.is_dir():
            raise InputError(f"{checkpoint}: no such folder; allowed: the folder of adapters")
        told = "its weights are whole already" if (folder / "config.json").is_file() else f"it has no {ADAPTER}"
        raise InputError(f"{checkpoint}: there is nothing to merge: {told}")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"--out {out}: holds files; choose a folder that is empty or not there")
    under = base or files.read_json(about).get("base_model_name_or_path")
    if not isinstance(under, str) or not under:
        raise InputError(f"{about}: names no base model; give it (--base)")
    policy.check_folder(under, "--base" if base else f"{about}: base model")
    files.make_folder(out, "--out")
    model, processor = merged(folder, under, dtype=dtype)
    training.write_folder(model, out, processor, presentation.of_checkpoint(under), state_of(model))
    return out


def merged(folder: Path, under: str, *, dtype: str = "float32", attention: str = "auto") -> tuple[Any, Qwen2_5OmniProcessor]:
    """The model `under` the adapters of a folder with them merged in, with the heads of that folder, else its own; and its processor."""
    model = policy.load(under, dtype=dtype, attention=attention)
    processor = policy.load_processor(str(folder) if (folder / "processor_config.json").is_file() else under)
    if len(processor.tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    with torch.no_grad():
        whole = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    carried.attach(whole, folder)
    return whole, processor


def state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copies of a model's tensors by name, in the host's memory."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def told(out: Path) -> str:
    """One line about a merged folder."""
    about = out / carried.ABOUT
    heads = f", heads: {', '.join(json.loads(about.read_text(encoding='utf-8')))}" if about.is_file() else ""
    return f"{out}{heads}"
