"""Says in each log line how a trainer's passes came by the features of frozen towers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from omnistage.rl.encoding import Encoder
from omnistage.rl.towers import Origin, Towers

ORIGINS: tuple[Origin, ...] = ("encoded", "memory", "disk")


class LogsFeatures:
    """Mixed into a TRL trainer in front of it: adds to the metrics of each logged step, over all processes,

    - `features/encoded`: how often a frozen tower ran since the last log line, once for each row and sense;
    - `features/hits_memory`, `features/hits_disk`: how often a pass found a row's features with the prompt, or on disk, instead;
    - `features/hit_rate`: the share of both in all three; about (n - 1) / n where each prompt is new and n passes read it;
    - `features/bytes`: bytes of features that are held in memory as the step is logged.

    A step in which no pass asked a frozen tower for anything has none of them.
    """

    model: Any
    accelerator: Any
    encoder: Encoder
    _metrics: dict[str, dict[str, list[float]]]
    _logged: Counter[Origin] | None = None

    def towers_in_use(self) -> Sequence[Towers]:
        """The towers of all models that have read media so far."""
        raise NotImplementedError

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self._count_features()
        super().log(logs, start_time)  # type: ignore[misc]

    def _count_features(self) -> None:
        origins = sum((towers.origins for towers in self.towers_in_use()), Counter[Origin]())
        before = self._logged or Counter[Origin]()
        since = [origins[name] - before[name] for name in ORIGINS]
        self._logged = origins
        counts = torch.tensor([*since, self.encoder.feature_bytes], device=self.accelerator.device)
        encoded, memory, disk, held = self.accelerator.reduce(counts).tolist()
        asked = encoded + memory + disk
        if not asked:
            return
        found = {"encoded": encoded, "hits_memory": memory, "hits_disk": disk, "hit_rate": (memory + disk) / asked, "bytes": held}
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name, value in found.items():
            metrics[f"features/{name}"].append(value)
