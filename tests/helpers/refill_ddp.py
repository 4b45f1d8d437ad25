"""Steps with groups that are replaced, on completions that do not depend on the number of processes; run under torchrun or alone.

    python refill_ddp.py DATA CHECKPOINT OUT

`even`: two steps of four prompts, with one flat group in either half of the first and two in the first half of the second, so that two
processes need one each, then two and none. `uneven`: one step of two prompts whose first is flat, as is the first prompt that is drawn
for it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from trl import GRPOConfig

from omnistage.rl.grpo_trainer import OmniGRPOTrainer
from omnistage.rl.sampler import Pool
from world import World

G = 2


class Scripted(OmniGRPOTrainer):
    """Says of the k-th completion of a prompt what a small arithmetic of its tokens says, and counts what is asked of it."""

    def _sample(self, heads: Any, num_generations: int) -> list[list[int]]:
        self.asked: list[int] = [*getattr(self, "asked", []), len(heads)]
        out = []
        for row in heads:
            first = (sum(row.ids) * 7 + int(1000 * float(row.positions.float().mean()))) % 150 + 20
            out += [[first + 31 * k + t for t in range(3 + k)] + [self._tokenizer.eos_token_id] for k in range(num_generations)]
        return out


def main(data: str, checkpoint: str, out: str) -> None:
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    world = World(Path(data), Path(checkpoint))
    found: dict[str, Any] = {"processes": state.num_processes}
    for case, prompts, steps in (("even", 4, 2), ("uneven", 2, 1)):
        flat: set[tuple[int, str]] = set()

        def worth(completion_ids: Any, record_id: list[str], trainer_state: Any, flat: Any = flat, **columns: Any) -> list[float]:
            scored = zip(completion_ids, record_id, strict=True)
            return [0.0 if (trainer_state.global_step, name) in flat else float(len(ids)) for ids, name in scored]

        steps_recorded: dict[int, list[dict[str, Any]]] = {}
        model = world.model()
        args = GRPOConfig(
            f"{out}-{case}",
            per_device_train_batch_size=prompts * G // state.num_processes,
            num_generations=G,
            max_completion_length=6,
            max_steps=steps,
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
        trainer = Scripted(
            model,
            [worth],
            args=args,
            records=world.records("video"),
            pools=[Pool(tuple(range(8)), 1.0)],
            encoder=world.encoder(model),
            recorder=steps_recorded.__setitem__,
            refill_rounds=2,
        )
        ids = [record.id for record in world.records("video")]
        # Each step is given G times over: once for each completion.
        drawn = [ids[at] for at in list(trainer._get_train_sampler())[::G]]
        if case == "even":
            flat |= {(0, drawn[0]), (0, drawn[2]), (1, drawn[4]), (1, drawn[5])}
            order: list[str] = []
        else:
            order = [ids[at] for at in trainer._order(0) if ids[at] not in drawn]
            flat |= {(0, drawn[0]), (0, order[0])}
        trainer.train()
        logs = [row for row in trainer.state.log_history if "loss" in row]
        asked = torch.tensor(trainer.asked)
        found[case] = {
            "drawn": drawn,
            "order": order,
            "asked": trainer.accelerator.gather(asked).view(state.num_processes, -1).tolist(),
            "recorded": {number: [(row["record_id"], row["dropped"]) for row in rows[::G]] for number, rows in steps_recorded.items()},
            **{name: [row[name] for row in logs] for name in ("loss", "grad_norm", "reward", "groups/no_spread", "groups/refilled")},
        }
        if state.is_main_process:
            torch.save(trainer.accelerator.unwrap_model(trainer.model).state_dict(), f"{out}-{case}.pt")
    if state.is_main_process:
        Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
