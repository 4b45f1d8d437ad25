"""What becomes of rewards in GRPO: which tokens they concern, what is logged of each, and a record of every completion."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer.utils import nanstd

from omnistage.rewards import base
from omnistage.rewards.extract import text_of
from omnistage.rl import credit, reward_metrics

# Called on the main process with each step's number and its completions, one row each.
Recorder = Callable[[int, list[dict[str, Any]]], None]


class Rewarded(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer whose rewards may concern a segment, are not zero where they are not scored, and are logged by modality and by task.

    Raises `ValueError` for two rewards of one name. `recorder`, where it is set, gets all completions of each step.
    """

    recorder: Recorder | None = None

    def __init__(self, model: Any, reward_funcs: Sequence[Any], **kwargs: Any) -> None:
        abouts = [base.about(function) for function in reward_funcs]
        self.needs_shuffled = any("shuffled" in about.needs for about in abouts)
        self.needs_heads = any("heads" in about.needs for about in abouts)
        self._segments = {s: [at for at, about in enumerate(abouts) if about.segment == s] for s in base.SEGMENTS}
        # Rewards [N, F] of the last rollouts of all processes as they were given, and token ids of this process's completions.
        self._values = torch.empty(0, len(reward_funcs))
        self._drawn: list[list[int]] = []
        super().__init__(model, list(reward_funcs), **kwargs)
        if len(set(self.reward_func_names)) != len(self.reward_func_names):
            raise ValueError(f"two rewards share a name: {', '.join(self.reward_func_names)}")

    def recorded(self, record_id: str) -> dict[str, Any]:
        """What a recorded completion says of its record."""
        raise NotImplementedError

    def head_values(self, completion_ids: Sequence[Sequence[int]]) -> list[dict[str, list[dict[str, Any]]]]:
        """What each head of the policy reads off the completions (token ids) of this process's rows."""
        raise NotImplementedError

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        # TRL keeps the last values of a column that is not logged in a step.
        self._logs["extra"].clear()
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        self._log_scored()
        by_segment = self._segment_advantages()
        output["advantages"] = self._with_segments(output, by_segment)
        self._record(inputs, by_segment)
        return output

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        """Rewards [N, F] of all processes' completions as TRL is to sum them.

        Those for a segment are NaN, not scored; of the others, what one did not score is the mean of its group (`credit.filled`).
        """
        self._values = self._scores(inputs, prompts, completions, completion_ids_list)
        self._drawn = completion_ids_list
        columns = {name: gather_object([row[name] for row in inputs]) for name in reward_metrics.SPLITS}
        for name, value in reward_metrics.metrics(self.reward_func_names, self._values, columns).items():
            self._metrics[self._mode][name].append(value)
        return self._to_sum(self._values)

    def _scores(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        """Rewards [N, F] of all processes' completions as they were given (NaN: not scored)."""
        if self.needs_heads:
            # Into the rows, which are recorded later.
            for row, read in zip(inputs, self.head_values(completion_ids_list), strict=True):
                row["heads"] = read
        values: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return values

    def _to_sum(self, values: Tensor) -> Tensor:
        """Rewards [N, F] as TRL is to sum them, of rewards as they were given."""
        whole = values.clone()
        whole[:, sorted(at for columns in self._segments.values() for at in columns)] = torch.nan
        return credit.filled(whole, self.num_generations) if self.multi_objective_aggregation == "sum_then_normalize" else whole

    @property
    def _mode(self) -> str:
        """Under which TRL keeps metrics."""
        return "train" if self.model.training else "eval"

    def _log_scored(self) -> None:
        """Put the mean and spread of what each reward scored in place of those of what TRL summed."""
        for at, name in enumerate(self.reward_func_names):
            for kind, value in (("mean", self._values[:, at].nanmean()), ("std", nanstd(self._values[:, at]))):
                self._metrics[self._mode][f"rewards/{name}/{kind}"][-1] = float(value)

    def _segment_advantages(self) -> dict[base.Segment, Tensor]:
        """Advantages [N] of all processes' completions for each segment that a reward concerns."""
        return {
            segment: credit.advantages(
                self._values[:, columns],
                self.reward_weights.to(self._values.device)[columns],
                self.num_generations,
                scale=self.scale_rewards,
                aggregation=self.multi_objective_aggregation,
            )
            for segment, columns in self._segments.items()
            if columns
        }

    def _with_segments(self, output: Mapping[str, Any], by_segment: Mapping[base.Segment, Tensor]) -> Tensor:
        """TRL's advantages [B] of this process, or those of each token [B, C] where a reward concerns a segment."""
        whole: Tensor = output["advantages"]
        if not by_segment:
            return whole
        ids, mask = output["completion_ids"], output["completion_mask"]
        first = self.accelerator.process_index * len(ids)
        by_token = whole.unsqueeze(1).repeat(1, ids.shape[1])
        for row, length in enumerate(mask.sum(dim=1).tolist()):
            for segment, values in by_segment.items():
                own = credit.segment_mask(self._decoded, ids[row, :length].tolist(), segment)
                by_token[row, :length] += values[first + row] * torch.tensor(own, device=ids.device)
        return by_token

    def _record(self, inputs: Sequence[Mapping[str, Any]], by_segment: Mapping[base.Segment, Tensor]) -> None:
        """Hand the step's completions of all processes to the recorder."""
        if self.recorder is None:
            return
        rows = self._recorded_rows(inputs, by_segment)
        if self.accelerator.is_main_process:
            self.recorder(self.state.global_step + 1, rows)

    def _recorded_rows(self, inputs: Sequence[Mapping[str, Any]], by_segment: Mapping[base.Segment, Tensor]) -> list[dict[str, Any]]:
        """What is recorded of the step's completions, those of all processes on the main one; all processes must ask."""
        own = [
            {"record_id": row["record_id"], "completion_ids": list(ids), "shuffled": row.get("shuffled")}
            for row, ids in zip(inputs, self._drawn, strict=True)
        ]
        if self.needs_heads:
            own = [drawn | {"heads": heads_text(row)} for drawn, row in zip(own, inputs, strict=True)]
        of_all = gather_object(own)
        if not self.accelerator.is_main_process:
            return []
        logs, values = self._logs, self._values.tolist()
        extra = {name: list(column) for name, column in logs["extra"].items() if len(column) == len(of_all)}
        rows = []
        for at, drawn in enumerate(of_all):
            row = drawn | self.recorded(drawn["record_id"]) | {"group": at // self.num_generations}
            row |= {"messages": json.dumps(logs["prompt"][at])}
            row |= {"completion": text_of(logs["completion"][at]), "advantage": logs["advantages"][at]}
            row |= {f"advantage/{segment}": advantages[at].item() for segment, advantages in by_segment.items()}
            row |= {f"reward/{name}": scored(value) for name, value in zip(self.reward_func_names, values[at], strict=True)}
            row |= {f"extra/{name}": column[at] for name, column in extra.items()}
            rows.append(row)
        return rows


def scored(value: float) -> float | None:
    """A reward as it is recorded: None where it is NaN, not scored."""
    return None if math.isnan(value) else value


def heads_text(row: Mapping[str, Any]) -> str:
    """What heads read off a row's completion, as text: a table's column holds no mixture of poses and numbers."""
    return json.dumps(row["heads"])
