"""Two steps of a head at a token, run under torchrun or alone.

    python head_ddp.py DATA CHECKPOINT OUT

One half of a step's rows asks for poses and the other for none, so that two processes ask the head for different numbers of values.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState

from head_data import POSES, posed
from head_trainers import spec_of, trained
from world import World


def main(data: str, checkpoint: str, out: str) -> None:
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    world = World(Path(data), Path(checkpoint))
    plain = world.records("video")
    rows = [replace(posed(plain[0], 1, 2), response="<POSE> then <POSE>"), posed(plain[1], 3), posed(plain[2], 4)]
    rows.append(replace(plain[3], response="it is red and it is blue", options=()))
    settings = {"per_device_train_batch_size": 4 // state.num_processes, "ddp_find_unused_parameters": True, "learning_rate": 1e-3}
    trainer = trained(world, rows, spec_of(POSES), Path(f"{out}-out"), **settings)
    if state.is_main_process:
        logged = trainer.state.log_history[:2]
        found = {key: [row[key] for row in logged] for key in ("loss", "grad_norm", "pose/text", "pose/body", "pose/root")}
        torch.save(dict(trainer.accelerator.unwrap_model(trainer.model).named_parameters()), f"{out}.pt")
        Path(out).write_text(json.dumps({"processes": state.num_processes} | found))
    state.wait_for_everyone()


if __name__ == "__main__":
    main(*sys.argv[1:])
