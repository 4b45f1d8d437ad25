"""A whole run: what is prepared, which stage comes next, what it starts from, and where it goes on after it was killed.

Everything that a run has done stands in its directory as sealed folders and whole files, so the same command again skips what is
done and goes
on from the last whole checkpoint. All input (recipe, annotation files, clips, rewards, settings of TRL) is checked before the first stage.
"""

from __future__ import annotations

import gc
import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from transformers import Qwen2_5OmniProcessor

from omnistage.data import synth
from omnistage.data.errors import GateError, InputError, unknown_name
from omnistage.rl import policy, tiny
from omnistage.rl.encoding import Encoder
from omnistage.stages import checks, choose, files, gate, grpo, head, merge, presentation, run_directory, sft, training
from omnistage.stages.main_process import on_main, say
from omnistage.stages.measure import against, evaluate, head_values, summary
from omnistage.stages.recipe.schema import EvaluateStage, GrpoStage, HeadStage, Recipe, SftStage, Training
from omnistage.stages.recipe.surroundings import Synth

START = "00-start"


@dataclass
class Run:
    """A run under way: the recipe, its rows (read once), and the encoder that stages share while the tokenizer stays the same."""

    recipe: Recipe
    folder: Path
    base: str = ""
    rows: checks.Rows = field(default_factory=checks.Rows)
    encoder: Encoder | None = None

    def encoder_for(self, model_folder: str) -> Encoder:
        """The run's encoder; another one where the folder's tokenizer has other tokens, as it has behind a head that brings its own."""
        if self.encoder is None or _tokens(policy.load_processor(model_folder)) != _tokens(self.encoder.processor):
            self.encoder = presentation.encoder(presentation.of_recipe(self.recipe), model_folder)
        return self.encoder


def _tokens(processor: Qwen2_5OmniProcessor) -> dict[str, int]:
    added: dict[str, int] = processor.tokenizer.get_added_vocab()
    return added


def run(
    recipe: Recipe,
    *,
    first: str | None = None,
    only: str | None = None,
    until: str | None = None,
    source: str | Path | None = None,
    goes_on: bool = False,
) -> Path:
    """Do what is not done yet; returns the path of `summary.json`.

    `first` does that stage and those after it again, `only` that stage alone; both need the stage before it. `until` ends behind that
    stage; with `goes_on` another process does the stages after it, and the summary waits for that one.

    Raises:
        InputError: something that the user gave is wrong; nothing has been trained then.
        GateError: a stage's model does not pass the stage's gate; the stages after it have not run, and the summary is written.
    """
    names = [stage.name for stage in recipe.stages]
    for chosen in (first, only, until):
        if chosen is not None and chosen not in names:
            raise InputError(unknown_name("stage", chosen, names))
    policy.quiet_libraries()
    if recipe.launch.threads:
        torch.set_num_threads(recipe.launch.threads)
    this = Run(recipe, Path(recipe.run_dir))
    checks.check_settings(recipe)
    if recipe.synth is None:
        this.rows = checks.read(recipe)
    checks.note_other_presentation(recipe)
    with run_directory.held(this.folder):
        run_directory.claim(recipe, this.folder, source)
        if recipe.synth is not None:
            _render(this, recipe.synth)
            this.rows = checks.read(recipe)
        _start_model(this)
        if first is not None:
            _previous_is_there(this, names.index(first))
        chosen_stages = [only] if only else names[names.index(first) :] if first else []
        run_directory.forget_once(this.folder, {name: recipe.stage_dir(name) for name in chosen_stages})
        stopped: str | None = None
        for index, stage in enumerate(recipe.stages):
            if only is None or stage.name == only:
                _stage(this, index)
                # Whoever goes on from a stage has seen what the gates before it say.
                stopped = _gate(this, index, passed_over=first is not None and index < names.index(first))
            if stopped is not None or (stage.name == until and index < len(names) - 1):
                break
        else:
            run_directory.forgotten_is_done(this.folder)
    path = this.folder / "summary.json"
    if PartialState().is_main_process and (stopped is not None or not goes_on):
        result = summary.build(recipe, this.folder)
        files.write_json(path, result)
        print(summary.table(result))
        print(f"\nrun directory: {this.folder}")
    PartialState().wait_for_everyone()
    if stopped is not None:
        raise GateError(stopped)
    return path


# What is prepared before the first stage.


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
        if given.quality or given.pose:
            rendered = rendered and (Path(given.path) / "render_heads.json").exists()
            quality, pose = ((sets.train, sets.held_out) if sets else (0, 0) for sets in (given.quality, given.pose))
            seeds = {"seed": given.seed, "held_out_seed": given.held_out_seed}
            synth.render_heads(Path(given.path), quality=quality, pose=pose, progress=True, **seeds)
        if not rendered:
            _add_seconds(this.folder / START, "render_s", time.monotonic() - began)
    PartialState().wait_for_everyone()


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
                training.write_folder(loaded, folder, policy.load_processor(model.path), presentation.of_recipe(this.recipe))
            elif model.tiny is not None:
                size = tiny.TinySize(**model.tiny.model_dump())
                tiny.build(folder, _corpus(this), size=size, seed=this.recipe.seed)
                presentation.save(presentation.of_recipe(this.recipe), folder)
                files.seal(folder)
        PartialState().wait_for_everyone()
    for stage in this.recipe.stages:
        if isinstance(stage, HeadStage):
            head.check_token(stage, policy.load_processor(this.base).tokenizer)
    if this.recipe.evaluation is not None and this.recipe.evaluation.before:
        _measure(this, this.folder / START, this.base, with_controls=False)


def _is_whole_omni(path: str) -> bool:
    """Whether a checkpoint holds talker and vocoder beside the thinker; TRL cannot load a KL reference from such a folder."""
    from transformers import AutoConfig

    return bool(AutoConfig.from_pretrained(path).model_type == "qwen2_5_omni")


def _corpus(this: Run) -> list[str]:
    """Text that a tiny tokenizer should know: what the renderer can say, and whatever the stages' rows say."""
    from omnistage.data import prompts

    records = [record for rows_, _ in this.rows.train.values() for record in rows_]
    said = [prompts.text(record, this.recipe.prompt) for record in records] + [r.response for r in records if r.response]
    if this.recipe.synth is None:
        return said
    heads = synth.heads_corpus() if this.recipe.synth.quality or this.recipe.synth.pose else []
    return synth.corpus() + heads + said


# One stage.


def _stage(this: Run, index: int) -> None:
    stage = this.recipe.stages[index]
    out = this.recipe.stage_dir(stage.name)
    start = _previous_model(this, index)
    _previous_is_there(this, index)
    measured = (out / "evaluation" / "scores.json").exists()
    done = measured if isinstance(stage, EvaluateStage) else files.is_whole(out / "model")
    stale = run_directory.is_stale(out, start)
    if stale and not done:
        run_directory.forget(out)
    if done and stale:
        say(f"stage {stage.name!r} stands on an earlier model than {start} holds now; --from {stage.name} does it again")
    _announce(index, stage.name, "is done" if done else f"({stage.kind})")
    if not done:
        run_directory.note_start(out, start)
    if isinstance(stage, EvaluateStage):
        if not done:
            encoder, records = this.encoder_for(start), this.rows.held_out[stage.name]
            evaluate.measure(
                _load(this, start),
                encoder,
                records,
                out / "evaluation",
                stage,
                with_controls=True,
                checkpoint=start,
                shown=presentation.of_recipe(this.recipe),
                seed=this.recipe.seed,
            )
        earlier = {one.name: this.recipe.stage_dir(one.name) for one in this.recipe.stages[:index] if isinstance(one, EvaluateStage)}
        on_main(lambda: against.note(out, earlier))
        return
    if not done and not choose.is_trained(out):
        on_main(lambda: files.write_json(out / run_directory.DATA, [block.counts() for block in this.rows.kept[stage.name]]))
        began = time.monotonic()
        _train(this, stage, index, out, start)
        _add_seconds(out, "train_s", time.monotonic() - began)
    if stage.choose is not None:
        if not done:
            _choose(this, stage, out, start)
        on_main(lambda: choose.tidy(out))
    if isinstance(stage, HeadStage) and stage.evaluation is not None:
        _measure_head(this, stage, out)
    if this.recipe.evaluation is not None and stage.evaluate:
        last = not any(isinstance(later, Training) and later.evaluate for later in this.recipe.stages[index + 1 :])
        _measure(this, out, str(out / "model"), with_controls=last)


def _train(this: Run, stage: SftStage | GrpoStage | HeadStage, index: int, out: Path, start: str) -> None:
    begin = training.Start(start, this.base, seed=_stage_seed(this.recipe.seed, stage.name))
    set_seed(begin.seed)
    encoder = this.encoder_for(start)
    if isinstance(stage, SftStage):
        sft.run(stage, this.recipe, out, begin, encoder, this.rows.train[stage.name])
    elif isinstance(stage, HeadStage):
        head.run(stage, this.recipe, out, begin, encoder, this.rows.train[stage.name])
    else:
        grpo.run(stage, this.recipe, out, begin, encoder, this.rows.train[stage.name])
    # A trainer and its callbacks hold each other: without this the stage's weights would lie beside the next ones.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _choose(this: Run, stage: Training, out: Path, start: str) -> None:
    if stage.choose is None:
        return
    began = time.monotonic()

    def load(checkpoint: str) -> Any:
        return _load(this, checkpoint, under=start)

    choose.run(stage, this.recipe, stage.choose, out, this.encoder_for(start), this.rows.validation[stage.name], load, start)
    _add_seconds(out, "evaluate_s", time.monotonic() - began)


def _gate(this: Run, index: int, *, passed_over: bool) -> str | None:
    """Judge a stage once, say so every time, and return why the run must not go on, if so."""
    stage = this.recipe.stages[index]
    if not isinstance(stage, Training) or stage.gate is None:
        return None
    out, asked, trains = this.recipe.stage_dir(stage.name), stage.gate, stage
    start = Path(_previous_model(this, index))
    before = this.folder / START if str(start) == this.base else start.parent
    # What a stage gained over a model that it was not trained from says nothing.
    known = (before / "evaluation" / "scores.json").exists() and not run_directory.is_stale(out, str(start))

    def judge() -> None:
        if gate.kept(out) is None:
            verdict = gate.judge(trains, asked, out / "evaluation", before / "evaluation" if known else None)
            files.write_json(out / gate.NAME, verdict)

    on_main(judge)
    verdict = gate.kept(out) or {}
    if verdict["passed"] or asked.otherwise == "say" or passed_over:
        say(verdict["said"])
        return None
    following = next((later.name for later in this.recipe.stages[index + 1 :]), None)
    return f"{verdict['said']}; {gate.how_to_go_on(following)}"


def _stage_seed(seed: int, name: str) -> int:
    """A seed of the stage's own that does not change when stages are added before it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big")


def _previous_is_there(this: Run, index: int) -> None:
    start = _previous_model(this, index)
    if not files.is_whole(Path(start)) and start != this.recipe.model.path:
        name = this.recipe.stages[index].name
        raise InputError(f"stage {name!r} starts from {start}, which is not there yet; run the stage before it first")


def _previous_model(this: Run, index: int) -> str:
    stage = this.recipe.stages[index]
    if isinstance(stage, Training) and stage.start is not None:
        return str(this.recipe.stage_dir(stage.start) / "model")
    for earlier in reversed(this.recipe.stages[:index]):
        if isinstance(earlier, Training):
            return str(this.recipe.stage_dir(earlier.name) / "model")
    return this.base


def _load(this: Run, folder: str, *, under: str | None = None) -> Any:
    """A frozen model to ask; `under` is the one that the adapters of a checkpoint stand on."""
    given = this.recipe.model
    if under is not None and (Path(folder) / merge.ADAPTER).is_file():
        model, _ = merge.merged(Path(folder), under, dtype=given.dtype, attention=given.attention)
    else:
        model = policy.load(folder, dtype=given.dtype, attention=given.attention)
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
        this.rows.held_out[""],
        out / "evaluation",
        evaluation,
        with_controls=with_controls,
        checkpoint=model_folder,
        shown=presentation.of_recipe(this.recipe),
        seed=this.recipe.seed,
    )
    _add_seconds(out, "evaluate_s", time.monotonic() - began)


def _measure_head(this: Run, stage: HeadStage, out: Path) -> None:
    if stage.evaluation is None or (out / head_values.FOLDER / "scores.json").exists():
        return
    began = time.monotonic()
    folder = str(out / "model")
    trained_on, _ = this.rows.train[stage.name]
    head_values.measure(
        _load(this, folder), this.encoder_for(folder), this.rows.held_out[stage.name], trained_on, out, stage, seed=this.recipe.seed
    )
    _add_seconds(out, "evaluate_s", time.monotonic() - began)


def _announce(index: int, name: str, what: str) -> None:
    say(f"stage {index + 1:02d}-{name} {what}")


def _add_seconds(out: Path, key: str, seconds: float) -> None:
    """Add to the stage's clock, which goes on over restarts (what a killed attempt had used is not known and not counted)."""
    if not PartialState().is_main_process:
        return
    path = out / "seconds.json"
    clock = files.read_json(path) if path.exists() else {}
    clock[key] = round(clock.get(key, 0.0) + seconds, 2)
    files.write_json(path, clock)
