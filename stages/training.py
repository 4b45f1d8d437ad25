"""What the training stages share: settings of TRL's configs, the log of a run, sealed checkpoints, and the model that a stage leaves."""

from __future__ import annotations

import errno
import json
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from peft import LoraConfig
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Qwen2_5OmniProcessor,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import integration_utils
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from omnistage.data.errors import OmnistageError, RecipeError, unknown_name
from omnistage.rl import fully_sharded, policy
from omnistage.rl.heads import carried
from omnistage.rl.stale_gradients import NoStaleGradients
from omnistage.stages import asked, files, preemption, presentation
from omnistage.stages.events import Events
from omnistage.stages.main_process import on_main, say
from omnistage.stages.nonfinite import SkipNonFinite
from omnistage.stages.preemption import SaveAndStop
from omnistage.stages.presentation import Presentation
from omnistage.stages.recipe.choices import DEEPSPEED
from omnistage.stages.recipe.engines import deepspeed_settings
from omnistage.stages.recipe.model import Model
from omnistage.stages.recipe.schema import GrpoStage, Recipe, Training
from omnistage.stages.recipe.surroundings import Launch
from omnistage.stages.retention import LOG, Retention

ConfigT = TypeVar("ConfigT", bound=TrainingArguments)

# Bytes: a disk with less is taken for full where a library hides why it could not write.
LEAST_FREE = 1_000_000
# Says in the folder of a stage whose model is chosen among its checkpoints that all of them are there.
TRAINED = "choice/trained.json"
SHOWN = ("loss", "reward", "rewards/accuracy/mean")
# Fields of TRL's configs that a stage's `trainer:` must not set, and where the recipe sets them.
OWNED = {
    "output_dir": "run_dir",
    "max_steps": "steps",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size or per_device_batch",
    "save_strategy": "save_every",
    "save_steps": "save_every",
    "save_total_limit": "keep",
    "seed": "seed",
    "bf16": "model.dtype",
    "fp16": "model.dtype",
    "use_cpu": "nothing (a GPU is used where there is one)",
    "deepspeed": "launch.engine",
    "remove_unused_columns": "nothing (rows keep their columns)",
    "resume_from_checkpoint": "nothing (the same command goes on)",
    "model_init_kwargs": "model",
}
OWNED_BY_GRPO = {
    "gradient_accumulation_steps": "prompts_per_step and per_device_batch",
    "steps_per_generation": "prompts_per_step and per_device_batch",
    "generation_batch_size": "prompts_per_step and num_generations",
    "loss_type": "loss",
    "num_iterations": "iterations",
    "multi_objective_aggregation": "aggregation",
    "reward_weights": "rewards[].weight",
    "use_vllm": "rollout.engine",
    "vllm_mode": "rollout.mode",
    "vllm_gpu_memory_utilization": "rollout.gpu_memory",
    "vllm_tensor_parallel_size": "rollout.tensor_parallel",
    "vllm_max_model_length": "rollout.max_model_length",
    "vllm_enable_sleep_mode": "rollout.sleep",
    "vllm_server_base_url": "rollout.server_url",
    "vllm_server_host": "rollout.server_host",
    "vllm_server_port": "rollout.server_port",
    "vllm_group_port": "rollout.group_port",
    "vllm_server_timeout": "rollout.timeout_s",
}


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stage starts: the folder of its model, that of the run's first model, and the stage's own seed."""

    model: str
    base: str
    seed: int


def steps_of(stage: Training, rows: int, rows_per_step: int) -> int:
    """Optimizer steps of a stage: its own number, or as many as its epochs need."""
    if stage.steps is not None:
        return stage.steps
    assert stage.epochs is not None
    return max(1, round(stage.epochs * rows / rows_per_step))


def built(config: type[ConfigT], stage: Training, settings: Mapping[str, Any]) -> ConfigT:
    """TRL's config of these settings.

    Raises:
        RecipeError: a key of `trainer:` is none of the config's, or is set elsewhere in the recipe, or TRL refuses a value.
    """
    where, known = f"stages.{stage.name}.trainer", config.__dataclass_fields__
    owned = OWNED | (OWNED_BY_GRPO if isinstance(stage, GrpoStage) else {})
    for key in stage.trainer:
        if key in owned:
            raise RecipeError(f"{where}: {key!r} is set by {owned[key]}")
        if key not in known:
            raise RecipeError(f"{where}: {unknown_name(f'field of {config.__name__}', key, known)}")
    try:
        made: ConfigT = config(**settings)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{where}: {config.__name__} says: {' '.join(str(error).split())}") from error
    check_reporters(f"{where}.report_to", made.report_to)
    return made


def check_reporters(where: str, names: Sequence[str]) -> None:
    """Raises `RecipeError` for what transformers cannot report to, or not as things are installed here."""
    available = integration_utils.get_available_reporting_integrations()
    for name in names:
        if name not in integration_utils.INTEGRATION_TO_CALLBACK:
            raise RecipeError(f"{where}: {unknown_name('reporter', name, integration_utils.INTEGRATION_TO_CALLBACK)}")
        # The two that transformers does not list as it looks.
        if name not in (*available, "flyte", "azure_ml"):
            raise RecipeError(f"{where}: {name!r} is not installed here; installed: {', '.join(available)}")


def common_settings(stage: Training, model: Model, launch: Launch, out: Path, *, steps: int, seed: int) -> dict[str, Any]:
    """Settings that both TRL configs take; `trainer:` of the stage comes on top."""
    gpu = torch.cuda.is_available()
    half = gpu if model.dtype == "auto" else model.dtype == "bfloat16"
    settings: dict[str, Any] = {
        "output_dir": str(out / "checkpoints"),
        "max_steps": steps,
        "learning_rate": stage.learning_rate,
        "seed": seed,
        "bf16": half,
        "fp16": model.dtype == "float16",
        "use_cpu": not gpu,
        "gradient_checkpointing": gpu,
        "report_to": [],
        "logging_steps": 1,
        "disable_tqdm": True,
        "save_strategy": "steps" if stage.save_every else "no",
        "save_steps": stage.save_every or 1,
        "save_total_limit": None,
        "dataloader_pin_memory": gpu,
        "ddp_find_unused_parameters": True if launch.engine == "ddp" else None,
        "deepspeed": deepspeed_settings(launch.engine, gpu=gpu),
    }
    return settings | stage.trainer


def load(stage: Training, recipe: Recipe, start: Start) -> PreTrainedModel:
    """The policy at the stage's start, with the parts frozen that the stage freezes."""
    keeps_copies = recipe.launch.engine in DEEPSPEED
    model = policy.load_for_training(
        start.model,
        recipe.freeze_of(stage),
        dtype=recipe.model.dtype,
        attention=recipe.model.attention,
        whole_weights=recipe.lora_of(stage) is None and not keeps_copies,
    )
    if recipe.launch.engine == "fsdp2":
        fully_sharded.ask_for(model)
    return model


def adapter(stage: Training, recipe: Recipe) -> LoraConfig | None:
    """The stage's adapter as peft takes it; frozen parts and heads get none, whatever the targets match."""
    lora = recipe.lora_of(stage)
    if lora is None:
        return None
    frozen = [prefix for part in recipe.freeze_of(stage) for prefix in policy.PARTS[part]]
    # An adapter would change the names under which a head is saved.
    prefixes = [re.escape(prefix) for prefix in [*frozen, f"{carried.MODULE}."]]
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        exclude_modules=rf"({'|'.join(prefixes)}).*",
        task_type="CAUSAL_LM",
    )


class RunLog(TrainerCallback):  # type: ignore[misc]
    """Writes what a trainer logs to `metrics.jsonl` and to TensorBoard events, seals checkpoints, and tells a terminal-less user
    of progress. It adds `step_seconds` (mean over the steps since the last line, waiting for clips not counted) and `peak_memory_mb`."""

    def __init__(self, out: Path, name: str) -> None:
        self.out = out
        self.name = name
        self.path = out / LOG
        self.writer: Events | None = None
        self.bar: tqdm[Any] | None = None
        # What was waited for clips so far within steps: of a trainer that reads them between steps nothing.
        self.waited: Callable[[], float] = lambda: 0.0
        self._began = 0.0
        self._taken: list[float] = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self.out.mkdir(parents=True, exist_ok=True)
        # A killed run may have logged steps that its last checkpoint does not hold; they are done again.
        rows, lost = files.read_log(self.path) if self.path.exists() else ([], 0)
        if lost:
            lines = "line could not be read and is" if lost == 1 else "lines could not be read and are"
            say(f"warning: {self.path}: {lost} {lines} gone; the other steps' stay")
        files.write_lines(self.path, [row for row in rows if row["step"] <= state.global_step])
        self.writer = Events(self.out / "events", begins=state.global_step + 1)
        self.bar = tqdm(desc=self.name, total=state.max_steps, initial=state.global_step, disable=None, leave=False)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._began = time.monotonic() - self.waited()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._taken.append(time.monotonic() - self.waited() - self._began)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.writer is None or not logs:
            return
        numbers = {key: float(value) for key, value in logs.items() if isinstance(value, int | float | str) and _is_number(value)}
        if "loss" in numbers and self._taken:
            numbers |= {"step_seconds": sum(self._taken) / len(self._taken), "peak_memory_mb": peak_memory_mb()}
            self._taken.clear()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step} | numbers) + "\n")
        for key, value in numbers.items():
            self.writer.add_scalar(f"{self.name}/{key}", value, state.global_step)
        self.writer.flush()
        self._show(state, {key: round(numbers[key], 3) for key in SHOWN if key in numbers})

    def _show(self, state: TrainerState, numbers: Mapping[str, float]) -> None:
        """On a terminal the bar; elsewhere five lines a stage."""
        if self.bar is None or not numbers:
            return
        self.bar.update(state.global_step - self.bar.n)
        self.bar.set_postfix(numbers)
        if self.bar.disable and state.global_step % max(1, state.max_steps // 5) == 0:
            said = ", ".join(f"{key} {value}" for key, value in numbers.items())
            print(f"  {self.name}: step {state.global_step} of {state.max_steps}, {said}", file=sys.stderr, flush=True)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            files.seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.writer is not None:
            self.writer.close()
        if self.bar is not None:
            self.bar.close()


def peak_memory_mb() -> float:
    """The most memory that was taken so far: of the GPU by this stage's tensors, or where there is none, of the machine by this process."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 1e6
    # Linux counts in units of 1024 bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def train(trainer: Trainer, out: Path, processor: Qwen2_5OmniProcessor, shown: Presentation, stage: Training) -> None:
    """Train from the newest whole checkpoint of `out`, if any; then write the plain model folder `out/model`, sealed last.

    A stage whose model is chosen leaves its checkpoints alone, the last of which holds the last weights (`stages.choose`).
    """
    # It would print every step's whole log.
    trainer.remove_callback(PrinterCallback)
    checkpoint = newest(out / "checkpoints")
    if checkpoint:
        say(f"  going on from {checkpoint}")
    with disk_full_is_said(out):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, SaveAndStop):
                preemption.between(callback)
        if stage.choose is None:
            save_model(trainer, out / "model", processor, shown)
        else:
            on_main(lambda: files.write_json(out / TRAINED, {"steps": trainer.state.global_step}))
    # Else the model that is measured next would be spread over the ranks as it is loaded, too.
    unset_hf_deepspeed_config()
    asked.stop_if_asked()


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole, bit by bit; says which newer ones are not."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        damage = files.damage(path)
        if damage is None:
            return path
        say(f"  {path} is left out: {damage}")
    return None


class DiskFullError(OmnistageError):
    """There is no room for what a stage has to write."""


@contextmanager
def disk_full_is_said(out: Path) -> Iterator[None]:
    """Has a full disk end a stage in one line, with what is whole and what to do; what was half written is removed.

    safetensors and torch hide the error of the disk in one of their own.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        if not full and shutil.disk_usage(out).free > LEAST_FREE:
            raise
        for path in [*(out / "checkpoints").glob("checkpoint-*"), out / "model"]:
            if path.is_dir() and not files.is_whole(path):
                shutil.rmtree(path, ignore_errors=True)
        whole = files.newest_checkpoint(out / "checkpoints")
        told = f"the last whole checkpoint is {whole}" if whole else "no checkpoint is there yet"
        raise DiskFullError(f"{out}: the disk is full; {told}, and the same command goes on from it when there is room") from error


def save_model(trainer: Trainer, folder: Path, processor: Qwen2_5OmniProcessor, shown: Presentation) -> None:
    """Write thinker (adapters merged) and processor as a Hugging Face folder that loads from any path."""
    accelerator = trainer.accelerator
    model = accelerator.unwrap_model(trainer.model)
    adapted = hasattr(model, "merge_and_unload")
    state = None
    if policy.is_sharded_fully(model):
        # Each process merges its slices.
        model = model.merge_and_unload() if adapted else model
        state, adapted = fully_sharded.whole_state(model), False
    elif policy.is_sharded(model) and not adapted:
        state = accelerator.get_state_dict(trainer.model_wrapped)
    with policy.whole(model) if adapted else nullcontext():
        if PartialState().is_main_process:
            shutil.rmtree(folder, ignore_errors=True)
            if adapted:
                model = model.merge_and_unload()
                state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
            write_folder(model, folder, processor, shown, state)
    PartialState().wait_for_everyone()


def write_folder(
    model: PreTrainedModel,
    folder: Path,
    processor: Qwen2_5OmniProcessor,
    shown: Presentation,
    state: dict[str, torch.Tensor] | None = None,
) -> None:
    """Save a thinker, its processor and how it was shown its clips to `folder`, the manifest last."""
    # transformers takes what it leaves out from the dictionary that it is given.
    model.save_pretrained(folder, state_dict=None if state is None else dict(state), safe_serialization=True)
    carried.write(model, folder, state)
    processor.save_pretrained(folder)
    presentation.save(shown, folder)
    files.seal(folder)


def callbacks(out: Path, stage: Training, log: RunLog | None = None) -> Sequence[TrainerCallback]:
    """The callbacks of every training stage; `log` where others write to it, too."""
    return [log or RunLog(out, stage.name), Retention(out, stage), NoStaleGradients(), SkipNonFinite(out, stage.name), SaveAndStop()]
