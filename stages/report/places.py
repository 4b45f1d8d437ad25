"""Where a clip of a run lies now: as the run noted it, or inside the run directory where that was moved or copied."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class Places:
    """Finds clips by the paths that a run noted."""

    def __init__(self, run: Path, recipe: dict[str, Any]) -> None:
        self.run = run
        self._began = str(recipe.get("run_dir", ""))

    def of(self, noted: str) -> str | None:
        """The path under which the clip is there; None where it is nowhere."""
        if "\0" in noted:
            return None
        if os.path.exists(noted):
            return noted
        inside = self._inside(noted)
        return str(self.run / inside) if inside is not None and (self.run / inside).exists() else None

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
