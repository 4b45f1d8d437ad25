"""The best checkpoint of a stage by validation data becomes the stage's model.

A stage with `choose` keeps all of its checkpoints (or those that `keep` says), the last of which holds the last weights. Those of every
`save_every` steps and the last are asked the validation data by the code of every evaluation (`choice/step-N/`). The best by the figure, of
several the earliest, is put in `model/`, and then all but the newest checkpoints are removed. Whatever is killed goes on:
`choice/trained.json` says that training is done, `choice.json` which checkpoint it is to be, and `model/` is sealed last.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import Qwen2_5OmniProcessor

from omnistage.data.records import Record
from omnistage.rl.encoding import Encoder
from omnistage.rl.heads import carried
from omnistage.stages import files, merge, presentation, retention, training
from omnistage.stages.benchmarks import items, scoring
from omnistage.stages.main_process import on_main, say
from omnistage.stages.measure import evaluate
from omnistage.stages.measure.judged import figure_of
from omnistage.stages.presentation import Presentation
from omnistage.stages.recipe.schema import Choice, Measurement, Recipe, Training

NAME = "choice.json"
# What a trainer leaves beside a model's own files is not copied.
_MODEL_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", carried.ABOUT)


def measurement(recipe: Recipe, choice: Choice) -> Measurement:
    """How the candidates are asked: the run's own benchmark and ways to ask, on the choice's data."""
    own = recipe.evaluation
    asked = {} if own is None else {"benchmark": own.benchmark, "ask": own.ask, "head": own.head}
    return Measurement(data=choice.data, batch_size=choice.batch_size, max_new_tokens=choice.max_new_tokens, **asked)


def check(stage: Training, recipe: Recipe, choice: Choice, records: Sequence[Record]) -> None:
    """Raises `InputError` for records that nobody could answer rightly, and for a figure that they do not make."""
    asked = measurement(recipe, choice)
    evaluate.check(records, asked)
    figure_of(stage, choice.figure, asked.benchmark, records, f"stages.{stage.name}.choose")


def is_trained(out: Path) -> bool:
    """Whether the stage in `out` has all of its checkpoints."""
    return (out / training.TRAINED).exists()


def run(
    stage: Training,
    recipe: Recipe,
    choice: Choice,
    out: Path,
    encoder: Encoder,
    records: Sequence[Record],
    load: Callable[[str], Any],
    start: str,
) -> None:
    """Measure every checkpoint that is not measured yet, and leave the best as `out/model`; `load` gives a model to ask from a checkpoint,
    `start` is the model under adapters."""
    asked, shown = measurement(recipe, choice), presentation.of_recipe(recipe)
    figure = figure_of(stage, choice.figure, asked.benchmark, records, f"stages.{stage.name}.choose")
    entries = []
    for step, checkpoint in candidates(stage, out):
        folder = out / "choice" / f"step-{step}"
        if not (folder / scoring.FIGURES).exists():
            say(f"  measuring step {step}")
            model, path = load(str(checkpoint)), str(checkpoint)
            evaluate.measure(model, encoder, records, folder, asked, with_controls=False, checkpoint=path, shown=shown, seed=recipe.seed)
            del model
        found = files.read_json(folder / scoring.FIGURES)["runs"][items.GREEDY]["figures"][figure.name]
        entries.append({"step": step} | {name: found[name] for name in ("value", "low", "high", "n")})
    step = best(entries, higher_is_better=figure.higher_is_better)
    result = {"figure": figure.name, "unit": figure.unit, "higher_is_better": figure.higher_is_better, "chosen": step, "steps": entries}
    on_main(lambda: files.write_json(out / NAME, result))
    checkpoint = dict(candidates(stage, out))[step]
    on_main(lambda: _write(checkpoint, out / "model", encoder.processor, shown, start, recipe))


def best(entries: Sequence[Mapping[str, Any]], *, higher_is_better: bool) -> int:
    """The step with the best value, the earliest of several; the last one where no value could be had."""
    known = [entry for entry in entries if entry["value"] is not None]
    if not known:
        return int(entries[-1]["step"])
    # Of equals, max gives the first.
    chosen = max(known, key=lambda entry: entry["value"] if higher_is_better else -entry["value"])
    return int(chosen["step"])


def candidates(stage: Training, out: Path) -> list[tuple[int, Path]]:
    """The checkpoints of a trained stage that may be chosen, by their steps, in order: those of every `save_every` steps, and the last.

    Where a run was asked to stop it has left another one. What is chosen must not depend on that.
    """
    last = files.read_json(out / training.TRAINED)["steps"]
    return [(step, path) for step, path in retention.whole(out) if step == last or step % (stage.save_every or 1) == 0]


def tidy(out: Path) -> None:
    """Of a stage whose model is chosen, remove all but the newest checkpoints, as other stages keep them."""
    for _, path in retention.whole(out)[: -retention.NEWEST.newest]:
        retention.remove(path)


def kept(out: Path) -> dict[str, Any] | None:
    """What stands in `choice.json` of a stage's folder."""
    path = out / NAME
    return dict(files.read_json(path)) if path.exists() else None


def _write(checkpoint: Path, folder: Path, processor: Qwen2_5OmniProcessor, shown: Presentation, start: str, recipe: Recipe) -> None:
    """A model folder as every stage leaves it, sealed last."""
    shutil.rmtree(folder, ignore_errors=True)
    if (checkpoint / merge.ADAPTER).is_file():
        model, _ = merge.merged(checkpoint, start, dtype=recipe.model.dtype)
        training.write_folder(model, folder, processor, shown, merge.state_of(model))
        return
    folder.mkdir(parents=True)
    for pattern in _MODEL_FILES:
        for path in sorted(checkpoint.glob(pattern)):
            shutil.copyfile(path, folder / path.name)
    processor.save_pretrained(folder)
    presentation.save(shown, folder)
    files.seal(folder)
