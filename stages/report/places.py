"""Where a clip of a run lies now: as the run noted it, or inside the run directory where that was moved or copied; and nowhere else than
where the run's recipe has its media, whatever the files of a run name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from omnistage.data.records import MediaRef

MISSING = "the file is not where the run found it"
OUTSIDE = "outside the run's media"


class Places:
    """Finds clips by the paths that a run noted."""

    def __init__(self, run: Path, recipe: dict[str, Any]) -> None:
        self.run = run
        self._began = str(recipe.get("run_dir") or "")
        real = os.path.realpath(run)
        # Relative paths of the recipe are of the folder in which the run began, which its own path tells.
        folders = [os.getcwd()]
        if self._began and not os.path.isabs(self._began):
            before, found, after = f"{real}/".rpartition(f"/{os.path.normpath(self._began)}/")
            folders += [before or "/"] if found and not after else []
        self._folders = folders
        named = {self._named(path) for path in _folders(recipe)}
        self._roots = {real} | {os.path.realpath(os.path.join(folder, path)) for folder in folders for path in named}

    def of(self, ref: MediaRef) -> tuple[MediaRef, str | None]:
        """The clip as it lies now, and what is wrong with it: None where its files are there to be shown."""
        path, wrong = self._of(ref.path)
        sound, unheard = (None, None) if ref.sound is None else self._of(ref.sound)
        return replace(ref, path=path, sound=sound), wrong or unheard

    def file(self, named: str) -> str:
        """Where a file lies now that the recipe names: a relative one in the folder in which the run began, where that is known."""
        path = self._named(named)
        inside = self._inside(path)
        tries = [*(os.path.join(folder, path) for folder in reversed(self._folders)), *([] if inside is None else [str(self.run / inside)])]
        return next((one for one in tries if "\0" not in one and os.path.exists(one)), path)

    def _of(self, noted: str) -> tuple[str, str | None]:
        """A file's path now, and what is wrong with it."""
        if "\0" in noted:
            return noted, MISSING
        inside = self._inside(noted)
        there = [path for path in (noted, *([] if inside is None else [str(self.run / inside)])) if os.path.exists(path)]
        for path in there:
            if self._is_shown(path):
                return path, None
        return noted, OUTSIDE if there else MISSING

    def _is_shown(self, path: str) -> bool:
        real = os.path.realpath(path)
        return any(real == root or real.startswith(root.rstrip("/") + "/") for root in self._roots)

    def _named(self, path: str) -> str:
        return path.replace("${run_dir}", self._began)

    def _inside(self, noted: str) -> str | None:
        """The path within the run directory, of one that lay in it when the run began."""
        if not self._began:
            return None
        for began in (self._began, os.path.abspath(self._began)):
            if noted.startswith(f"{began}/"):
                return noted[len(began) + 1 :]
        # The run began in another working directory, so that its own path is the end of a longer one.
        _, found, after = noted.rpartition(f"/{self._began.strip('/')}/")
        return after if found else None


def _folders(recipe: dict[str, Any]) -> Iterator[str]:
    """Where a recipe has its media: of each annotation file, and those that it renders."""
    synth = recipe.get("synth")
    if isinstance(synth, dict) and isinstance(synth.get("path"), str):
        yield synth["path"]
    yield from _media_roots(recipe)


def _media_roots(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            yield from _media_roots(inner)
    elif isinstance(value, dict):
        if isinstance(root := value.get("media_root"), str):
            yield root
        elif "media_root" in value and isinstance(path := value.get("path"), str):
            # As readers have it.
            yield path
            if not os.path.isdir(path):
                yield os.path.dirname(path)
        for inner in value.values():
            yield from _media_roots(inner)
