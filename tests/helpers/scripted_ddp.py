"""Two GRPO steps for each modality on completions that do not depend on the number of processes; run under torchrun or alone.

    python scripted_ddp.py WORLD OUT

Sampling differs from process to process by design, so the rollout is replaced by a fixed completion of each row; everything else (encoding,
rewards, advantages, the forward with its media, the loss, DDP's averaging, the optimizer) is the real thing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from trl import GRPOConfig

from omnistage.rl import policy
from omnistage.rl.grpo_trainer import OmniGRPOTrainer
from omnistage.rl.sampler import Pool
from world import World

PROMPTS, G = 4, 2


class ScriptedTrainer(OmniGRPOTrainer):
    """Says of the k-th completion of a prompt what a small arithmetic of its tokens says."""

    def _generate_single_turn(self, prompt_ids: Any, images: Any, fields: Any, num_generations: int, has_tool_images: bool = False) -> Any:
        out = []
        for index, row in enumerate(self._rows):
            k = index % num_generations
            first = (sum(row.ids) * 7 + int(1000 * float(row.positions.float().mean())) + 31 * k) % 200 + 20
            out.append([first + t for t in range(3 + k)] + [self._tokenizer.eos_token_id])
        return out, None


def even_first(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    return [float(ids[0] % 4) for ids in completion_ids]


def main(data: str, checkpoint: str, out: str) -> None:
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    world = World(Path(data), Path(checkpoint))
    found: dict[str, Any] = {"processes": state.num_processes}
    for modality in ("video", "audio", "audio_video"):
        model = world.model()
        policy.freeze(model, ["vision"] if modality == "audio" else [])
        args = GRPOConfig(
            f"{out}-{modality}",
            per_device_train_batch_size=PROMPTS * G // state.num_processes,
            num_generations=G,
            max_completion_length=6,
            max_steps=2,
            logging_steps=1,
            learning_rate=1e-3,
            bf16=False,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            gradient_checkpointing=False,
            ddp_find_unused_parameters=True,
            seed=5,
        )
        trainer = ScriptedTrainer(
            model,
            [even_first],
            args=args,
            records=world.records(modality),
            pools=[Pool(tuple(range(8)), 1.0)],
            encoder=world.encoder(model),
        )
        trainer.encoder.workers = 1
        trainer.train()
        logs = [row for row in trainer.state.log_history if "loss" in row]
        plain = policy.thinker_of(trainer.model)
        found[modality] = {
            "loss": [row["loss"] for row in logs],
            "grad_norm": [row["grad_norm"] for row in logs],
            "reward": [row["reward"] for row in logs],
            "reward_std": [row["reward_std"] for row in logs],
            "decoded": [row["media/decoded"] for row in logs],
            "decoded_by": gather_object([trainer.encoder.misses]),
        }
        if state.is_main_process:
            torch.save(plain.state_dict(), f"{out}-{modality}.pt")
    if state.is_main_process:
        Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
