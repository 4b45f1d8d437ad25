"""Two GRPO steps of each case under one engine, on completions that do not depend on the number of processes.

    python engines.py DATA CHECKPOINT OUT ENGINE        (under torchrun; OUT/found.json and OUT/CASE.pt)

Sampling differs from process to process by design, so the rollout is replaced by a fixed completion of each row; everything else (encoding,
rewards, advantages, the forward with its media, the loss, what the engine does, the optimizer) is the real thing, and all cases run in the
same processes one after another, as stages of a run do.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from peft import LoraConfig
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from trl import GRPOConfig

from omnistage.data.records import MediaRef, Record
from omnistage.rl import fully_sharded, policy
from omnistage.rl.grpo_trainer import OmniGRPOTrainer
from omnistage.rl.sampler import Pool, StepSampler
from omnistage.stages.recipe.choices import DEEPSPEED, Engine
from omnistage.stages.recipe.engines import deepspeed_settings
from world import World

PROMPTS, G, PROCESSES, SEED = 4, 2, 2, 5


@dataclass(frozen=True)
class Case:
    """What is trained, on which records; `heard_once`: in each step one clip alone is heard, so that one process has sound and the other
    has none; `passes`: backward passes of a step;
    `as_on_gpu`: in bfloat16, with activation checkpointing."""

    modality: str
    frozen: tuple[policy.Part, ...] = ()
    lora: bool = False
    beta: float = 0.0
    heard_once: bool = False
    passes: int = 1
    as_on_gpu: bool = False


CASES = {
    "video": Case("video"),
    "audio": Case("audio", frozen=("vision",)),
    "audio_video": Case("audio_video"),
    "reference": Case("video", frozen=("vision", "audio"), beta=0.1),
    "heard_once": Case("audio_video", heard_once=True),
    "passes": Case("audio_video", frozen=("vision",), passes=2),
    "heard_once_frozen": Case("audio_video", frozen=("vision", "audio"), heard_once=True),
    "video_lora": Case("video", frozen=("vision", "audio"), lora=True, beta=0.1),
    "audio_lora": Case("audio", frozen=("vision", "audio"), lora=True),
    "as_on_gpu": Case("audio_video", frozen=("vision",), as_on_gpu=True),
    "heard_once_lora": Case("audio_video", frozen=("vision",), lora=True, heard_once=True),
}
# Of the language model and, where it is not frozen, of the audio tower.
TARGETS = r".*(language_model|audio_tower)\..*\.(q_proj|v_proj)"


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


def records_of(world: World, case: Case) -> list[Record]:
    records = world.records(case.modality)
    if not case.heard_once:
        return records
    order = list(StepSampler([Pool(tuple(range(len(records))), 1.0)], prompts=PROMPTS, steps=2, seed=SEED))
    heard = {order[0], order[PROMPTS]}
    silent = [record.with_media(tuple(MediaRef(ref.kind, ref.path) for ref in record.media)) for record in records]
    return [record if at in heard else silent[at] for at, record in enumerate(records)]


def trained(world: World, plain: Any, case: Case, engine: Engine, out: Path) -> tuple[ScriptedTrainer, dict[str, Any]]:
    """The trainer behind its steps, and what it logged; `plain` is a model of the world that no engine has touched."""
    processes = PartialState().num_processes
    # While settings of ZeRO-3 live, every model that is built is spread, and the encoder builds one.
    encoder = world.encoder(plain)
    args = GRPOConfig(
        str(out),
        per_device_train_batch_size=PROMPTS * G // processes // case.passes,
        gradient_accumulation_steps=case.passes,
        num_generations=G,
        max_completion_length=6,
        max_steps=2,
        logging_steps=1,
        learning_rate=1e-3,
        beta=case.beta,
        bf16=case.as_on_gpu,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=case.as_on_gpu,
        ddp_find_unused_parameters=True if engine == "ddp" else None,
        deepspeed=deepspeed_settings(engine, gpu=False),
        seed=SEED,
    )
    torch.manual_seed(SEED)
    model = world.model()
    policy.freeze(model, case.frozen)
    if engine == "fsdp2":
        fully_sharded.ask_for(model)
    prefixes = "|".join(prefix.replace(".", r"\.") for part in case.frozen for prefix in policy.PARTS[part])
    excluded = f"({prefixes}).*" if prefixes else None
    records = records_of(world, case)
    trainer = ScriptedTrainer(
        model,
        [even_first],
        args=args,
        records=records,
        pools=[Pool(tuple(range(len(records))), 1.0)],
        encoder=encoder,
        reference=str(world.checkpoint),
        peft_config=LoraConfig(r=4, target_modules=TARGETS, exclude_modules=excluded, task_type="CAUSAL_LM") if case.lora else None,
    )
    trainer.encoder.workers = 1
    trainer.train()
    logs = [row for row in trainer.state.log_history if "loss" in row]
    found: dict[str, Any] = {key: [row[key] for row in logs] for key in ("loss", "grad_norm", "reward", "reward_std", "media/decoded")}
    return trainer, found | {"decoded_by": gather_object([trainer.encoder.misses])}


def whole_state(trainer: ScriptedTrainer, engine: Engine) -> dict[str, torch.Tensor]:
    """Whole weights, on the main process of a sharded engine alone."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if engine == "fsdp2":
        return fully_sharded.whole_state(model)
    with policy.whole(model):
        return {name: value.detach().clone() for name, value in model.state_dict().items()}


def run(world: World, engine: Engine, out: Path, cases: Sequence[str]) -> dict[str, Any]:
    """What each case logs; its weights go to OUT/CASE.pt."""
    out.mkdir(exist_ok=True)
    found, plain = {}, world.model()
    for name in cases:
        trainer, found[name] = trained(world, plain, CASES[name], engine, out / name)
        state = whole_state(trainer, engine)
        if PartialState().is_main_process:
            torch.save(state, out / f"{name}.pt")
        unset_hf_deepspeed_config()
        del trainer, state
        gc.collect()
    return found


def main(data: str, checkpoint: str, out: str, engine: Engine) -> None:
    torch.set_num_threads(1)
    if engine in DEEPSPEED:
        from omnistage.launch.worker import open_deepspeed

        open_deepspeed(gpu=False)
    state = PartialState(cpu=True)
    found = run(World(Path(data), Path(checkpoint)), engine, Path(out), list(CASES))
    if state.is_main_process:
        Path(out, "found.json").write_text(json.dumps(found | {"processes": state.num_processes}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]
