"""Dynamic sampling: a prompt whose completions are all worth the same is replaced by another one.

Group-relative advantages are zero where a group's rewards are equal, as they are for a prompt that is always or never answered: its tokens
are in the loss's denominator and teach nothing. DAPO (Yu et al. 2025, arXiv 2503.14476, section 3.2) draws further prompts until a step is
full of groups that differ. Here, unlike there, the number of rounds is bounded: what has no spread then stays.

A step's completions are drawn and scored first. Groups without spread are replaced, place by place, by new prompts of the step's pool
whose completions differ; then TRL's own method goes over the final set once, and is handed its completions and rewards instead of drawing
them. Padding, old and reference log-probs, advantages, the number of tokens and what is logged are thus TRL's, of the final set alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather, gather_object
from torch import Tensor

from omnistage.rewards import base, rollouts
from omnistage.rewards.extract import text_of
from omnistage.rl import credit
from omnistage.rl.encoding import Encoded
from omnistage.rl.rewarded import Rewarded, heads_text, scored
from omnistage.rl.sampler import Pool

# Sets these random numbers apart from the sampler's. Not 0: numpy takes [seed, n] and [seed, n, 0] for the same seed.
_STREAM = 1


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """G completions of one prompt as they were drawn: rows, what the model read, token ids, messages, rewards [G, F] (NaN: not scored),
    and the columns that rewards logged."""

    rows: list[dict[str, Any]]
    encoded: list[Encoded]
    ids: list[list[int]]
    completions: list[Any]
    values: Tensor
    extra: dict[str, list[Any]]


class Refilling(Rewarded):
    """A trainer that replaces groups without spread, in at most `refill_rounds` further draws a step (0: never).

    Each draw takes as many prompts on every process as the process with most such groups needs: generation and scoring are collective.
    Of these, those that differ take the places; the others are dropped. Which prompts are drawn follows from the seed and the number of
    the step, so that a resumed run draws the same. Adds `groups/no_spread` (share of the step's groups, before), `groups/no_spread_after`,
    `groups/refilled` (share that was replaced), `groups/drawn_again` (further groups drawn, per group of the step) and
    `reward_before_refill` (as TRL's `reward`, of the prompts as they came) to the metrics.
    """

    refill_rounds: int = 0
    pools: list[Pool]
    _rows: list[Encoded]
    _settled: list[Group] | None = None
    _dropped: Sequence[Group] = ()

    def _shown(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows with all that rewards get of them; `_rows` is what the model reads of them."""
        raise NotImplementedError

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not self.refill_rounds or not self.model.training:
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
            return output
        self._settled, self._dropped = self._filled(inputs)
        self._rows = [row for group in self._settled for row in group.encoded]
        seen = self.state.num_input_tokens_seen
        try:
            output = super()._generate_and_score_completions([row for group in self._settled for row in group.rows])
        finally:
            self._settled, self._dropped = None, ()
        # They were counted as they were drawn, the dropped ones too.
        self.state.num_input_tokens_seen = seen
        self._metrics[self._mode]["num_tokens"] = [seen]
        return output

    def _settled_ids(self) -> list[list[int]] | None:
        """Token ids of the final set while TRL goes over it, else None."""
        return None if self._settled is None else [ids for group in self._settled for ids in group.ids]

    def _scores(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        if self._settled is None:
            return super()._scores(inputs, prompts, completions, completion_ids_list)
        for column in dict.fromkeys(name for group in self._settled for name in group.extra):
            of_groups = [group.extra.get(column, [None] * len(group.rows)) for group in self._settled]
            self._log_completion_extra(column, [value for values in of_groups for value in values])
        of_all: Tensor = gather(torch.cat([group.values for group in self._settled]))
        return of_all

    # What is drawn before TRL goes over the final set.

    def _filled(self, inputs: list[dict[str, Any]]) -> tuple[list[Group], list[Group]]:
        """This process's final groups, in the places of those that were drawn first, and the groups that were dropped."""
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        groups, differs = self._draw(inputs, note=True)
        # Every process knows all places, so that all take the same decisions.
        waiting = [[place for place, has in enumerate(own) if not has] for own in _by_process(differs, processes)]
        before, drawn_again = sum(map(len, waiting)), 0
        dropped: list[Group] = []
        further = self._further(inputs) if before else []
        for _ in range(self.refill_rounds):
            count = min(max(map(len, waiting)), len(further) // processes)
            if not count:
                break
            mine = further[rank * count : (rank + 1) * count]
            del further[: processes * count]
            drawn_again += processes * count
            chosen = [self.train_dataset[at] for at in mine]
            new, differs = self._draw(self._shown([dict(row) for row in chosen for _ in range(self.num_generations)]))
            for process, own in enumerate(_by_process(differs, processes)):
                fit = [at for at, has in enumerate(own) if has][: len(waiting[process])]
                if process == rank:
                    for place, at in zip(waiting[rank], fit, strict=False):
                        dropped.append(groups[place])
                        groups[place] = new[at]
                    dropped += [group for at, group in enumerate(new) if at not in fit]
                del waiting[process][: len(fit)]
        total, after = len(groups) * processes, sum(map(len, waiting))
        self._note("groups/no_spread", before / total)
        self._note("groups/no_spread_after", after / total)
        self._note("groups/refilled", (before - after) / total)
        self._note("groups/drawn_again", drawn_again / total)
        return groups, dropped

    def _draw(self, inputs: list[dict[str, Any]], *, note: bool = False) -> tuple[list[Group], list[bool]]:
        """Draw and score completions of rows that were shown; which groups, of all processes, differ. `note` logs their mean reward."""
        prompts, rows, size = [row["prompt"] for row in inputs], self._rows, self.num_generations
        with self._unlogged():
            _, ids, _, completions, *_ = self._generate(prompts)
        values = self._scores(inputs, prompts, completions, ids)
        if note:
            sums = (self._to_sum(values) * self.reward_weights.to(values.device)).nansum(dim=1)
            self._note("reward_before_refill", float(sums[~self._to_sum(values).isnan().all(dim=1)].mean()))
        own = values[self.accelerator.process_index * len(inputs) :][: len(inputs)]
        extra = {name: list(column) for name, column in self._pending_extra_logs.items() if len(column) == len(inputs)}
        self._pending_extra_logs.clear()
        groups = [
            Group(inputs[part], rows[part], ids[part], completions[part], own[part], {name: extra[name][part] for name in extra})
            for part in (slice(start, start + size) for start in range(0, len(inputs), size))
        ]
        return groups, self._differing(values).tolist()

    def _differing(self, values: Tensor) -> Tensor:
        """Which groups [N / G] of rewards [N, F] have a completion with an advantage, as a whole or of a segment."""
        by_segment = [columns for columns in self._segments.values() if columns]
        whole = [at for at in range(values.shape[1]) if not any(at in columns for columns in by_segment)]
        weights = self.reward_weights.to(values.device)
        parts = [
            credit.has_spread(values[:, part], weights[part], self.num_generations, aggregation=self.multi_objective_aggregation)
            for part in (whole, *by_segment)
            if part
        ]
        return torch.stack(parts).any(dim=0)

    def _further(self, inputs: Sequence[Mapping[str, Any]]) -> list[int]:
        """Rows of the step's pool that are not in the step, in the order in which they may be drawn; the same on all processes."""
        taken = {self._places[record_id] for record_id in gather_object([row["record_id"] for row in inputs])}
        drawn_from = next(at for at, pool in enumerate(self.pools) if not taken.isdisjoint(pool.rows))
        return [row for row in self._order(drawn_from) if row not in taken]

    def _order(self, pool: int) -> list[int]:
        """All rows of a pool in a random order of this step's own."""
        # Which steps are done is restored with a checkpoint, and falls between two steps, where the count of passes inside one starts anew.
        passes = self.args.gradient_accumulation_steps
        number = self.state.global_step * passes + self._step % passes
        order: list[int] = np.random.default_rng([self.args.seed, number, _STREAM]).permutation(self.pools[pool].rows).tolist()
        return order

    @cached_property
    def _places(self) -> dict[str, int]:
        """The training row of each record, by its id."""
        return {record_id: at for at, record_id in enumerate(self.train_dataset["record_id"])}

    # What is logged and recorded.

    def _note(self, name: str, value: float) -> None:
        self._metrics[self._mode][name].append(value)

    @contextmanager
    def _unlogged(self) -> Iterator[None]:
        """Lengths of completions are logged once, of the final set."""
        logged = self._metrics[self._mode]
        before = {name: list(values) for name, values in logged.items()}
        yield
        logged.clear()
        logged.update(before)

    def _recorded_rows(self, inputs: Sequence[Mapping[str, Any]], by_segment: Mapping[base.Segment, Tensor]) -> list[dict[str, Any]]:
        rows = super()._recorded_rows(inputs, by_segment)
        if self._settled is None:
            return rows
        dropped = gather_object([self._recorded_group(group) for group in self._dropped])
        if not self.accelerator.is_main_process:
            return []
        first = len(rows) // self.num_generations
        rows = [row | {rollouts.DROPPED: False} for row in rows]
        return rows + [row | {"group": first + at, rollouts.DROPPED: True} for at, group in enumerate(dropped) for row in group]

    def _recorded_group(self, group: Group) -> list[dict[str, Any]]:
        """What is recorded of completions that are not trained on: no advantage was made of them."""
        rows = []
        for at, row in enumerate(group.rows):
            found = {"record_id": row["record_id"], "completion_ids": list(group.ids[at]), "shuffled": row.get("shuffled")}
            found |= {"heads": heads_text(row)} if self.needs_heads else {}
            found |= self.recorded(row["record_id"]) | {"messages": json.dumps(row["prompt"])}
            found |= {"completion": text_of(group.completions[at]), "advantage": None}
            values = group.values[at].tolist()
            found |= {f"{rollouts.REWARD}{name}": scored(value) for name, value in zip(self.reward_func_names, values, strict=True)}
            found |= {f"{rollouts.EXTRA}{name}": column[at] for name, column in group.extra.items()}
            rows.append(found)
        return rows


def _by_process(of_groups: Sequence[bool], processes: int) -> list[Sequence[bool]]:
    each = len(of_groups) // processes
    return [of_groups[process * each : (process + 1) * each] for process in range(processes)]
