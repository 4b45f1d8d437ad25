"""A whole run: what is prepared, which stage comes next, what it starts from, and where it goes on after it was killed.

Everything that a run has done stands in its directory as sealed folders and whole files, so the same command again skips what is
done and goes
on from the last whole checkpoint. All input (recipe, annotation files, clips, rewards, settings of TRL) is checked before the first stage.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.metadata
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import set_seed

from omnistage.data import synth
from omnistage.data.errors import InputError, unknown_name
from omnistage.data.records import Record
from omnistage.rl import policy, tiny
from omnistage.rl.encoding import Encoder
from omnistage.rl.sampler import Pool
from omnistage.rl.sft import check_demonstrations
from omnistage.stages import evaluate, files, grpo, lineage, perception, rows, sft, summary, training
from omnistage.stages.recipe import dump
from omnistage.stages.schema import EvaluateStage, GrpoStage, Recipe, SftStage, Synth, Training

VERSIONS = ("omnistage", "torch", "transformers", "trl", "accelerate", "peft", "deepspeed", "av", "decord", "qwen-omni-utils")
START = "00-start"
AGAIN = "again.json"


@dataclass
class Run:
    """A run under way: the recipe, its rows (read once), and the encoder that stages share while the processor stays the same."""

    recipe: Recipe
    folder: Path
    base: str = ""
    train_rows: dict[str, tuple[list[Record], list[Pool]]] = field(default_factory=dict)
    held_out: dict[str, list[Record]] = field(default_factory=dict)
    encoder: Encoder | None = None

    def encoder_for(self, model_folder: str) -> Encoder:
        """The run's encoder; processor and positions do not change from stage to stage."""
        if self.encoder is None:
            self.encoder = perception.encoder(perception.of_recipe(self.recipe), model_folder)
        return self.encoder


def run(recipe: Recipe, *, first: str | None = None, only: str | None = None, source: str | Path | None = None) -> Path:
    """Do what is not done yet; returns the path of `summary.json`.

    `first` does that stage and those after it again, `only` that stage alone; both need the stage before it.

    Raises:
        InputError: something that the user gave is wrong; nothing has been trained then.
    """
    names = [stage.name for stage in recipe.stages]
    for chosen in (first, only):
        if chosen is not None and chosen not in names:
            raise InputError(unknown_name("stage", chosen, names))
    policy.quiet_libraries()
    if recipe.launch.threads:
        torch.set_num_threads(recipe.launch.threads)
    this = Run(recipe, Path(recipe.run_dir))
    _check_settings(recipe)
    if recipe.synth is None:
        _read_rows(this)
    with _one_at_a_time(this):
        _claim(this, source)
        if recipe.synth is not None:
            _render(this, recipe.synth)
            _read_rows(this)
        _start_model(this)
        chosen_stages = [only] if only else names[names.index(first) :] if first else []
        _forget_once(this, chosen_stages)
        for index, stage in enumerate(recipe.stages):
            if only is None or stage.name == only:
                _stage(this, index)
        _on_main(lambda: (this.folder / AGAIN).unlink(missing_ok=True))
    path = this.folder / "summary.json"
    if PartialState().is_main_process:
        result = summary.build(recipe, this.folder)
        files.write_json(path, result)
        print(summary.table(result))
        print(f"\nrun directory: {this.folder}")
    PartialState().wait_for_everyone()
    return path


# What is checked and prepared before the first stage.


def _check_settings(recipe: Recipe) -> None:
    """What a recipe asks of TRL, of rewards and of the model, before anything is written."""
    if recipe.model.path is not None:
        policy.check_folder(recipe.model.path)
    policy.attention_for(recipe.model.attention, recipe.model.dtype)
    for stage in recipe.stages:
        out, rows_known_later = recipe.stage_dir(stage.name), 1
        if isinstance(stage, SftStage):
            sft.config(stage, recipe, out, rows_known_later, recipe.seed)
        elif isinstance(stage, GrpoStage):
            grpo.config(stage, recipe, out, rows_known_later, recipe.seed)
            grpo.rewards_of(stage)


def _claim(this: Run, source: str | Path | None) -> None:
    """Write the resolved recipe and the digests of its files to `run.json`, or see that the run directory holds this very run.

    Raises:
        InputError: the directory holds a run of another recipe, or a file has changed since; the message names the first difference.
    """
    path = this.folder / "run.json"
    wanted = {"recipe": dump(this.recipe), "files": _digests(this)}
    claimed = path.exists()
    # Every process has looked before one of them writes.
    PartialState().wait_for_everyone()
    if claimed:
        held = files.read_json(path)
        difference = _difference(held.get("recipe", {}), wanted["recipe"])
        if difference:
            raise InputError(
                f"run_dir {str(this.folder)!r} holds a run of another recipe: {difference}; choose another run_dir, or remove that folder"
            )
        for name, digest in held.get("files", {}).items():
            if wanted["files"].get(name) != digest:
                raise InputError(f"{name} has changed since run_dir {str(this.folder)!r} was begun; choose another run_dir")
        return
    versions = {name: importlib.metadata.version(name) for name in VERSIONS if _installed(name)}
    _on_main(lambda: files.write_json(path, wanted | {"source": str(source) if source else None, "versions": versions}))


def _digests(this: Run) -> dict[str, str]:
    """SHA-256 of the annotation files and of rewards in files of their own; what this run renders follows from its seed."""
    sources = [source for stage in this.recipe.stages for source in stage.data]
    sources += this.recipe.evaluation.data if this.recipe.evaluation else []
    names = [source.path for source in sources] if this.recipe.synth is None else []
    for stage in this.recipe.stages:
        if isinstance(stage, GrpoStage):
            names += [use.name.rpartition(":")[0] for use in stage.rewards if use.name.rpartition(":")[0].endswith(".py")]
    return {name: files.digest(Path(name)) for name in dict.fromkeys(names)}


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _difference(held: Any, wanted: Any, where: str = "") -> str | None:
    """The first place in which two recipes differ."""
    if isinstance(held, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys([*wanted, *held]):
            found = _difference(held.get(key), wanted.get(key), f"{where}.{key}" if where else str(key))
            if found:
                return found
        return None
    if isinstance(held, list) and isinstance(wanted, list) and len(held) == len(wanted):
        for index, (a, b) in enumerate(zip(held, wanted, strict=True)):
            found = _difference(a, b, f"{where}[{index}]")
            if found:
                return found
        return None
    return None if held == wanted else f"{where} is {json.dumps(held)[:80]} there and {json.dumps(wanted)[:80]} here"


@contextmanager
def _one_at_a_time(this: Run) -> Iterator[None]:
    """Hold the run directory's lock, which the system drops when the process dies.

    Raises:
        InputError: another process holds it.
    """
    import fcntl

    if not PartialState().is_main_process:
        yield
        return
    this.folder.mkdir(parents=True, exist_ok=True)
    with (this.folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"run_dir {str(this.folder)!r}: another run is using it") from error
        yield


def _render(this: Run, given: Synth) -> None:
    began = time.monotonic()
    if PartialState().is_main_process:
        rendered = (Path(given.path) / "render.json").exists()
        synth.render(
            Path(given.path),
            seed=given.seed,
            cold_start=given.cold_start,
            train=given.train,
            held_out=given.held_out,
            held_out_seed=given.held_out_seed,
            wrong={str(key): value for key, value in given.wrong_answers.items()},
            progress=True,
        )
        if not rendered:
            _add_seconds(this.folder / START, "render_s", time.monotonic() - began)
    PartialState().wait_for_everyone()


def _read_rows(this: Run) -> None:
    """Read every row of the run, and check what can be checked without a model."""
    for stage in this.recipe.stages:
        if isinstance(stage, EvaluateStage):
            this.held_out[stage.name] = rows.read_sources(stage.data)
            evaluate.check_controls(this.held_out[stage.name], stage)
        else:
            this.train_rows[stage.name] = rows.pools(stage.data)
            if isinstance(stage, SftStage):
                check_demonstrations(this.train_rows[stage.name][0])
    if this.recipe.evaluation is not None:
        this.held_out[""] = rows.read_sources(this.recipe.evaluation.data)
        evaluate.check_controls(this.held_out[""], this.recipe.evaluation)
    _check_apart(this)
    if this.recipe.synth is None:
        for records in [*(found for found, _ in this.train_rows.values()), *this.held_out.values()]:
            rows.check_media(records)


def _check_apart(this: Run) -> None:
    """Raises `InputError` when a held-out clip is also a training clip (by path; by content is the data doctor's work)."""
    trained = {ref.path: r.source for records, _ in this.train_rows.values() for r in records for ref in r.media}
    for record in (record for records in this.held_out.values() for record in records):
        for ref in record.media:
            if ref.path in trained:
                raise InputError(
                    f"{record.source}: {ref.path} is also a training clip ({trained[ref.path]}); held-out clips must be unseen"
                )


def _start_model(this: Run) -> None:
    """The folder that the first stage starts from: a tiny model that is built, an exported thinker, or the given folder itself."""
    folder = this.folder / START / "model"
    model = this.recipe.model
    if model.path is not None and not _is_whole_omni(model.path):
        this.base = model.path
    else:
        this.base = str(folder)
        if not files.is_whole(folder) and PartialState().is_main_process:
            if model.path is not None:
                loaded = policy.load(model.path, dtype=model.dtype)
                training.write_folder(loaded, folder, policy.load_processor(model.path), perception.of_recipe(this.recipe))
            elif model.tiny is not None:
                size = tiny.TinySize(**model.tiny.model_dump())
                tiny.build(folder, _corpus(this), size=size, seed=this.recipe.seed)
                perception.save(perception.of_recipe(this.recipe), folder)
                files.seal(folder)
        PartialState().wait_for_everyone()
    if this.recipe.evaluation is not None and this.recipe.evaluation.before:
        _measure(this, this.folder / START, this.base, with_controls=False)


def _is_whole_omni(path: str) -> bool:
    """Whether a checkpoint holds talker and vocoder beside the thinker; TRL cannot load a KL reference from such a folder."""
    from transformers import AutoConfig

    return bool(AutoConfig.from_pretrained(path).model_type == "qwen2_5_omni")


def _corpus(this: Run) -> list[str]:
    """Text that a tiny tokenizer should know: what the renderer can say, and whatever the stages' rows say."""
    from omnistage.data import prompts

    records = [record for rows_, _ in this.train_rows.values() for record in rows_]
    said = [prompts.text(record, this.recipe.prompt) for record in records] + [r.response for r in records if r.response]
    return synth.corpus() + said if this.recipe.synth else said


# One stage.


def _stage(this: Run, index: int) -> None:
    stage = this.recipe.stages[index]
    out = this.recipe.stage_dir(stage.name)
    start = _previous_model(this, index)
    if not files.is_whole(Path(start)) and start != this.recipe.model.path:
        raise InputError(f"stage {stage.name!r} starts from {start}, which is not there yet; run the stage before it first")
    measured = (out / "evaluation" / "scores.json").exists()
    done = measured if isinstance(stage, EvaluateStage) else files.is_whole(out / "model")
    stale = lineage.is_stale(out, start)
    if stale and not done:
        _forget(out)
    if done and stale:
        _say(f"stage {stage.name!r} stands on an earlier model than {start} holds now; --from {stage.name} does it again")
    if not done:
        _announce(index, stage.name, stage.kind)
        _on_main(lambda: lineage.note(out, start))
    if isinstance(stage, EvaluateStage):
        if not done:
            encoder, records = this.encoder_for(start), this.held_out[stage.name]
            evaluate.measure(_load(this, start), encoder, records, out / "evaluation", stage, with_controls=True, seed=this.recipe.seed)
        return
    if not done:
        began = time.monotonic()
        _train(this, stage, index, out, start)
        _add_seconds(out, "train_s", time.monotonic() - began)
    if this.recipe.evaluation is not None:
        last = all(not isinstance(later, Training) for later in this.recipe.stages[index + 1 :])
        _measure(this, out, str(out / "model"), with_controls=last)


def _train(this: Run, stage: SftStage | GrpoStage, index: int, out: Path, start: str) -> None:
    begin = training.Start(start, this.base, seed=_stage_seed(this.recipe.seed, stage.name))
    set_seed(begin.seed)
    encoder = this.encoder_for(start)
    if isinstance(stage, SftStage):
        sft.run(stage, this.recipe, out, begin, encoder, this.train_rows[stage.name])
    else:
        grpo.run(stage, this.recipe, out, begin, encoder, this.train_rows[stage.name])
    # A trainer and its callbacks hold each other: without this the stage's weights would lie beside the next ones.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _stage_seed(seed: int, name: str) -> int:
    """A seed of the stage's own that does not change when stages are added before it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big")


def _previous_model(this: Run, index: int) -> str:
    for earlier in reversed(this.recipe.stages[:index]):
        if isinstance(earlier, Training):
            return str(this.recipe.stage_dir(earlier.name) / "model")
    return this.base


def _load(this: Run, folder: str) -> Any:
    model = policy.load(folder, dtype=this.recipe.model.dtype, attention=this.recipe.model.attention)
    policy.freeze(model, ["vision", "audio", "language"])
    return model.cuda() if torch.cuda.is_available() else model


def _measure(this: Run, out: Path, model_folder: str, *, with_controls: bool) -> None:
    evaluation = this.recipe.evaluation
    if evaluation is None or (out / "evaluation" / "scores.json").exists():
        return
    began = time.monotonic()
    evaluate.measure(
        _load(this, model_folder),
        this.encoder_for(model_folder),
        this.held_out[""],
        out / "evaluation",
        evaluation,
        with_controls=with_controls,
        seed=this.recipe.seed,
    )
    _add_seconds(out, "evaluate_s", time.monotonic() - began)


def _forget_once(this: Run, chosen: list[str]) -> None:
    """Remove what the chosen stages left; when the same command comes again before they are done, it goes on instead."""
    path = this.folder / AGAIN
    if not chosen or (path.exists() and files.read_json(path) == chosen):
        return
    for name in chosen:
        _forget(this.recipe.stage_dir(name))
    _on_main(lambda: files.write_json(path, chosen))


def _forget(out: Path) -> None:
    PartialState().wait_for_everyone()
    _on_main(lambda: shutil.rmtree(out, ignore_errors=True))


def _on_main(act: Callable[[], None]) -> None:
    """One process acts, all others wait for it."""
    if PartialState().is_main_process:
        act()
    PartialState().wait_for_everyone()


def _announce(index: int, name: str, kind: str) -> None:
    _say(f"stage {index + 1:02d}-{name} ({kind})")


def _say(text: str) -> None:
    if PartialState().is_main_process:
        print(text, flush=True)


def _add_seconds(out: Path, key: str, seconds: float) -> None:
    """Add to the stage's clock, which goes on over restarts (what a killed attempt had used is not known and not counted)."""
    if not PartialState().is_main_process:
        return
    path = out / "seconds.json"
    clock = files.read_json(path) if path.exists() else {}
    clock[key] = round(clock.get(key, 0.0) + seconds, 2)
    files.write_json(path, clock)
