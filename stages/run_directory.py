"""What a run directory knows of its run: which recipe and files it belongs to, who is using it, and what each stage started from."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import PartialState

from omnistage.data.errors import InputError
from omnistage.stages import files, lock
from omnistage.stages.difference import first_difference
from omnistage.stages.main_process import on_main, say
from omnistage.stages.recipe.loading import dump
from omnistage.stages.recipe.schema import GrpoStage, HeadStage, Recipe, Training

VERSIONS = (
    *("omnistage", "torch", "transformers", "tokenizers", "trl", "accelerate", "peft", "deepspeed", "flash-attn", "vllm"),
    *("av", "decord", "qwen-omni-utils"),
)
AGAIN = "again.json"
# Keys of `media:` that change nothing that a run learns.
READING = ("cache", "feature_cache", "workers")
STARTED_FROM = "start.json"
# What a stage drew of each source, and how many records were left out.
DATA = "data.json"


def claim(recipe: Recipe, folder: Path, source: str | Path | None) -> None:
    """Write the resolved recipe and the digests of its files to `run.json`, or see that the run directory holds this very run.

    Raises:
        InputError: the directory holds a run of another recipe, or a file has changed since; the message names the first difference.
    """
    path = folder / "run.json"
    wanted = {"recipe": dump(recipe), "files": _digests(recipe)}
    claimed = path.exists()
    # Every process has looked before one of them writes.
    PartialState().wait_for_everyone()
    if claimed:
        held = files.read_json(path)
        difference = first_difference(_as_read(held.get("recipe", {})), _as_read(wanted["recipe"]))
        if difference:
            raise InputError(
                f"run_dir {str(folder)!r} holds a run of another recipe: {difference}; choose another run_dir, or remove that folder"
            )
        for name, digest in held.get("files", {}).items():
            if wanted["files"].get(name) != digest:
                raise InputError(
                    f"{name} has changed since run_dir {str(folder)!r} was begun; choose another run_dir, or remove that folder"
                )
        on_main(lambda: _note_versions(path, held))
        return
    on_main(lambda: files.write_json(path, wanted | {"source": str(source) if source else None, "versions": versions()}))


def versions() -> dict[str, str]:
    """The installed versions of what a run's numbers depend on."""
    return {name: importlib.metadata.version(name) for name in VERSIONS if _installed(name)}


def _note_versions(path: Path, run: dict[str, Any]) -> None:
    """Warn where this run was begun, or last gone on with, by other versions, and write those of now behind them."""
    now, before = versions(), (run.get("went_on_with") or [run.get("versions", {})])[-1]
    other = [f"{name} {before.get(name, 'none')} -> {now.get(name, 'none')}" for name in VERSIONS if before.get(name) != now.get(name)]
    if other:
        say(f"warning: {path.parent} was made with other versions ({', '.join(other)}); it goes on, and may not end with the same weights")
        files.write_json(path, run | {"went_on_with": [*run.get("went_on_with", []), now]})


def _digests(recipe: Recipe) -> dict[str, str]:
    """SHA-256 of the annotation files, of what leaves out some of their rows, and of rewards in files of their own; what this run renders
    follows from its seed."""
    sources = [source for stage in recipe.stages for source in stage.data]
    sources += [source for stage in recipe.stages if isinstance(stage, HeadStage) and stage.evaluation for source in stage.evaluation.data]
    sources += [source for stage in recipe.stages if isinstance(stage, Training) and stage.choose for source in stage.choose.data]
    sources += recipe.evaluation.data if recipe.evaluation else []
    names = [source.path for source in sources] if recipe.synth is None else []
    names += [source.quarantine for source in sources if source.quarantine is not None]
    names += [source.pass_rate.file for source in sources if source.pass_rate is not None]
    for stage in recipe.stages:
        if isinstance(stage, GrpoStage):
            names += [use.name.rpartition(":")[0] for use in stage.rewards if use.name.rpartition(":")[0].endswith(".py")]
    paths = [Path(name) for name in dict.fromkeys(names)]
    listed = [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    return {str(file): files.digest(file) for file in listed}


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _as_read(recipe: dict[str, Any]) -> dict[str, Any]:
    """Where clips and features are kept, and who reads them, changes nothing that a run learns: it may change between two starts."""
    return recipe | {"media": {key: value for key, value in recipe.get("media", {}).items() if key not in READING}}


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the run directory in its main process (`stages.lock`).

    Raises:
        InputError: another process holds it.
    """
    if not PartialState().is_main_process:
        yield
        return
    with lock.by_worker(folder):
        yield


def forget_once(folder: Path, chosen: Mapping[str, Path]) -> None:
    """Remove what the chosen stages left; when the same command comes again before they are done, it goes on instead."""
    path = folder / AGAIN
    if not chosen or (path.exists() and files.read_json(path) == list(chosen)):
        return
    for out in chosen.values():
        forget(out)
    on_main(lambda: files.write_json(path, list(chosen)))


def forgotten_is_done(folder: Path) -> None:
    """The stages that were to be done again are done: the next such command forgets them anew."""
    on_main(lambda: (folder / AGAIN).unlink(missing_ok=True))


def forget(out: Path) -> None:
    """Remove what a stage left."""
    PartialState().wait_for_everyone()
    on_main(lambda: shutil.rmtree(out, ignore_errors=True))


def note_start(out: Path, start: str) -> None:
    """Write beside a stage's results which model folder it starts from, and the digest of that folder's manifest."""
    on_main(lambda: files.write_json(out / STARTED_FROM, {"model": start, "manifest": _manifest(start)}))


def is_stale(out: Path, start: str) -> bool:
    """Whether the stage in `out` was started from other weights than those that `start` holds now; of weights that are not here nobody
    knows."""
    path, now = out / STARTED_FROM, _manifest(start)
    if not path.exists() or (now is None and not Path(start).exists()):
        return False
    return bool(files.read_json(path)["manifest"] != now)


def _manifest(folder: str) -> str | None:
    """None for a model that this program did not seal (a name on the hub, a downloaded folder)."""
    manifest = Path(folder) / files.MANIFEST
    return files.digest(manifest) if manifest.is_file() else None
