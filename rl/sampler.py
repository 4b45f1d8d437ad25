"""Which prompts a step sees: one source, and so one modality, a step on all ranks; sources are drawn by weight.

Replay of other stages' rows comes as whole steps: a mixed step would make ranks run different towers, which dead-locks sharded training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler


@dataclass(frozen=True, slots=True)
class Pool:
    """Rows of one modality, drawn with `weight` against the other pools; `rows` are indices into the training set."""

    rows: tuple[int, ...]
    weight: float


class StepSampler(Sampler[int]):
    """Row indices of all steps of a stage, in order.

    A step takes `prompts` rows from one pool; each row stands `repeats` times in a row (a group), and the whole step is given `passes`
    times (once per reuse of its completions). Pools take turns in proportion to their weights, without chance: after any number of steps
    no pool is more than about one step away from its share. Inside a pool rows come in a new random order each epoch. Everything follows
    from `seed`.
    """

    def __init__(self, pools: Sequence[Pool], *, prompts: int, steps: int, repeats: int = 1, passes: int = 1, seed: int = 0) -> None:
        for pool in pools:
            if not pool.rows:
                raise ValueError("a pool without rows")
        self.pools = list(pools)
        self.prompts = prompts
        self.steps = steps
        self.repeats = repeats
        self.passes = passes
        self.seed = seed
        self._given = 0
        self._skipped = 0

    def __len__(self) -> int:
        return self.prompts * self.repeats * self.passes * self.steps

    def state_dict(self) -> dict[str, int]:
        """How many indices the last iteration has given so far; with the constructor's arguments that is the whole state."""
        return {"given": self._given}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Let the next iteration go on behind what `state` has given. Raises `ValueError` for a state of a longer stage."""
        if not 0 <= state["given"] <= len(self):
            raise ValueError(f"a state of {state['given']} indices for a stage of {len(self)}")
        self._given = self._skipped = state["given"]

    def turns(self) -> list[int]:
        """The pool of each step."""
        shares = np.array([pool.weight for pool in self.pools], dtype=float)
        shares /= shares.sum()
        credit = np.zeros(len(shares))
        turns = []
        for _ in range(self.steps):
            credit += shares
            turn = int(credit.argmax())
            credit[turn] -= 1.0
            turns.append(turn)
        return turns

    def __iter__(self) -> Iterator[int]:
        skipped, self._skipped = self._skipped, 0
        for given, index in enumerate(self._indices(), start=1):
            self._given = given
            if given > skipped:
                yield index

    def batches(self, rows: int, *, process: int = 0, processes: int = 1) -> Iterator[list[int]]:
        """The batches of one process, in order, each row of a group once and each step once, whatever `repeats` and `passes`.

        `rows` counts the groups of a batch. Processes take turns: of a step's batches one gets the first, the next one the second, as
        accelerate deals them out. It is a look at the plan: the sampler's own iteration, and a state that it has loaded, stay as they are.
        """
        for step in self._rows_of_steps():
            for start in range(process * rows, len(step), processes * rows):
                yield step[start : start + rows]

    def _indices(self) -> Iterator[int]:
        for rows in self._rows_of_steps():
            step = [row for row in rows for _ in range(self.repeats)]
            for _ in range(self.passes):
                yield from step

    def _rows_of_steps(self) -> Iterator[list[int]]:
        generators = [np.random.default_rng([self.seed, index]) for index in range(len(self.pools))]
        queues: list[list[int]] = [[] for _ in self.pools]
        for turn in self.turns():
            rows: list[int] = []
            while len(rows) < self.prompts:
                if not queues[turn]:
                    order = generators[turn].permutation(self.pools[turn].rows).tolist()
                    # Rows that this step has already are put last (the queue is emptied from its end), so that no step has one twice.
                    queues[turn] = sorted(order, key=lambda row: row not in rows)
                rows.append(queues[turn].pop())
            yield rows
