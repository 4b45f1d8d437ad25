"""Which way rows are scored, and the proof that the shared way gives what the plain one does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from omnistage.rl.encoding import Encoded
from omnistage.rl.shared_prefix.attention import Mode
from omnistage.rl.shared_prefix.layout import pack

Setting = Literal["auto", "off", "dense", "cat", "cascade", "flex"]
# Log-probs [B, C] (and entropies) of rows with ids [B, P + C] and mask [B, P + C], C the last argument.
Score = Callable[[Sequence[Encoded], Tensor, Tensor, int], tuple[Tensor, Tensor | None]]
# `cascade` copies least and is as quick on a CPU; its CUDA branch is not run yet.
AUTO: dict[str, Mode] = {"cpu": "cascade", "cuda": "cat"}
COMPARED = 2
# In float32 the largest difference of a token; in half precision, where each way is as far from the truth, the mean one.
TOLERANCE = 1e-4
HALF_TOLERANCE = 0.03


class Sharing:
    """How a stage scores completions: `mode` is one of the shared ways, or None for the plain one.

    The first time that a class of shapes is met (prompts and completions up to a power of two), a few rows are scored both ways; where they
    differ by more than the tolerance, this says so once and scores plainly from then on. Log-probs that a rollout noted (`drawn`) are held
    against such rows the first time that a class comes with them, which a step whose groups were replaced does not; `reuse`, whether
    they may stand for a pass, is never so in half precision and ends where they differ. `agree` makes one number of those of all ranks, the
    largest, so that all of them check and fall back together. `half` says that weights or products are of half precision, `device` which
    kind of device scores.
    """

    def __init__(self, setting: Setting, agree: Callable[[float], float], *, half: bool, device: str) -> None:
        self.mode: Mode | None = None if setting == "off" else AUTO.get(device, "cat") if setting == "auto" else setting
        self.agree = agree
        self.half = half
        self.reuse = not half
        self.checks = 0
        self._seen: set[tuple[int, int]] = set()
        self._seen_noted: set[tuple[int, int]] = set()

    def prove(
        self, rows: Sequence[Encoded], ids: Tensor, mask: Tensor, width: int, plain: Score, shared: Score, drawn: Tensor | None = None
    ) -> None:
        """Check the shapes of these rows if they are new, and fall back to the plain way where the two differ."""
        if self.mode is None:
            return
        layout = pack(rows, ids[:, -width:], mask[:, -width:]).layout
        met = {group.size_class for group in layout.groups}
        met_noted = set[tuple[int, int]]() if drawn is None else met
        if not self.agree(float(bool(met - self._seen or met_noted - self._seen_noted))):
            return
        self._seen |= met
        self._seen_noted |= met_noted
        self.checks += 1
        # Rows of one group, the longest prompt's: what is wrong with sharing shows there.
        longest = max(rows, key=lambda row: len(row.ids))
        few = [at for at, row in enumerate(rows) if row is longest][:COMPARED]
        some = [rows[at] for at in few]
        with torch.no_grad():
            first, second = (score(some, ids[few], mask[few], width)[0].float() for score in (plain, shared))
        asked = mask[few][:, -width:].bool()
        worst = self._apart(first, second, asked)
        noted = self._apart(first, first if drawn is None else drawn[few], asked)
        if self.reuse and not noted <= TOLERANCE:
            warnings.warn(
                f"log-probs noted while sampling differ from the plain way by {noted:.2g}: those of the rollout policy are scored",
                stacklevel=2,
            )
            self.reuse = False
        if not worst <= (HALF_TOLERANCE if self.half else TOLERANCE):
            warnings.warn(
                f"shared_prefix {self.mode!r} differs from the plain way by {worst:.2g} in log-probability: completions are scored plainly",
                stacklevel=2,
            )
            self.mode = None

    def _apart(self, first: Tensor, second: Tensor, asked: Tensor) -> float:
        """The difference of two ways [B, C] where tokens are asked: the mean in half precision, else the largest."""
        apart = (first - second).abs()[asked]
        return self.agree(float(apart.mean() if self.half else apart.max()) if len(apart) else 0.0)
