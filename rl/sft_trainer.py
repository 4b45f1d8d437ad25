"""Supervised fine-tuning on demonstrations with video and sound: TRL's `SFTTrainer` with our encoder as its collator.

The loss is the cross-entropy of the response's tokens; prompt and media tokens carry none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl import SFTConfig, SFTTrainer

from omnistage.data.errors import RecordError
from omnistage.data.records import Record
from omnistage.rl.encoding import Encoded, Encoder, check_not_blind
from omnistage.rl.feature_metrics import LogsFeatures
from omnistage.rl.fully_sharded import ShardsFully
from omnistage.rl.policy import thinker_of
from omnistage.rl.prefetch import Prefetch, PreparesAhead
from omnistage.rl.resume import ResumesWhole
from omnistage.rl.sampler import Pool, StepSampler
from omnistage.rl.towers import Towers


def check_demonstrations(records: Sequence[Record]) -> None:
    """Raises `RecordError` for the first record that has no response to learn."""
    for record in records:
        if not record.response:
            raise RecordError(f"{record.source or record.id}: has no 'response'; a supervised stage learns from demonstrations")


def right_padded(rows: Sequence[Encoded], responses: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts with responses behind them, padded on the right: ids [B, T], mask [B, T], positions [3, B, T] (0 under padding)."""
    width = max(len(row.ids) + len(response) for row, response in zip(rows, responses, strict=True))
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    positions = torch.zeros(3, len(rows), width, dtype=torch.long)
    for index, (row, response) in enumerate(zip(rows, responses, strict=True)):
        start, end = len(row.ids), len(row.ids) + len(response)
        ids[index, :end] = torch.tensor([*row.ids, *response])
        mask[index, :end] = 1
        positions[:, index, :start] = row.positions
        positions[:, index, start:end] = torch.arange(start, end) + row.delta
    return ids, mask, positions


class Collator:
    """Makes a right-padded batch of the records that rows name: ids, mask, positions [3, B, T], labels (-100 outside the response)
    and raw media."""

    def __init__(self, encoder: Encoder, records: Mapping[str, Record]) -> None:
        self.encoder = encoder
        self.prefetch = Prefetch(encoder)
        self.records = records
        self.tokenizer = encoder.processor.tokenizer

    def response_ids(self, record: Record) -> list[int]:
        """The response and the end of the turn."""
        ids: list[int] = self.tokenizer(record.response)["input_ids"]
        return [*ids, self.tokenizer.eos_token_id]

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        records = [self.records[feature["record_id"]] for feature in features]
        rows = self.prefetch.take(records)
        responses = [self.response_ids(record) for record in records]
        ids, mask, positions = right_padded(rows, responses, self.tokenizer.pad_token_id)
        labels = ids.masked_fill(mask == 0, -100)
        for index, row in enumerate(rows):
            labels[index, : len(row.ids)] = -100
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, "position_ids": positions, "encoded": rows}


class OmniSFTTrainer(ShardsFully, ResumesWhole, PreparesAhead, LogsFeatures, SFTTrainer):  # type: ignore[misc]
    """TRL's supervised trainer for a Qwen2.5-Omni thinker; `pools` say which rows are drawn together and how often."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        args: SFTConfig,
        records: Sequence[Record],
        pools: Sequence[Pool],
        encoder: Encoder,
        **kwargs: Any,
    ) -> None:
        from datasets import Dataset

        self.check(records)
        self.pools = list(pools)
        self.encoder = encoder
        self.records = {record.id: record for record in records}
        collator = self.collator(encoder, self.records)
        self.prefetch = collator.prefetch
        args.remove_unused_columns = False
        args.max_length = None
        args.dataset_kwargs = {"skip_prepare_dataset": True}
        rows = Dataset.from_list([{"prompt": r.question, "completion": r.response or "", "record_id": r.id} for r in records])
        super().__init__(
            model,
            args=args,
            train_dataset=rows,
            data_collator=collator,
            processing_class=encoder.processor,
            **kwargs,
        )
        self._omni_towers: Towers | None = None

    def check(self, records: Sequence[Record]) -> None:
        """Raises `RecordError` for a record that this trainer cannot learn from."""
        check_demonstrations(records)

    def collator(self, encoder: Encoder, records: Mapping[str, Record]) -> Collator:
        """What makes a batch of rows."""
        return Collator(encoder, records)

    def towers_in_use(self) -> Sequence[Towers]:
        return [self._omni_towers] if self._omni_towers is not None else []

    def _get_train_sampler(self, dataset: Any = None) -> StepSampler:
        per_step = self.args.per_device_train_batch_size * self.accelerator.num_processes * self.args.gradient_accumulation_steps
        return StepSampler(self.pools, prompts=per_step, steps=self.args.max_steps, seed=self.args.seed)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The next step's batches, as the trainer's own."""
        # A data loader's own processes have no threads of this one.
        if self.args.dataloader_num_workers == 0:
            accumulated = self.args.gradient_accumulation_steps
            self._follow(self.args.per_device_train_batch_size, self.state.global_step * accumulated, depth=accumulated)
        batches = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._log_media("train")
        return batches

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        rows = inputs.pop("encoded")
        if self._omni_towers is None:
            self._omni_towers = Towers(self.model, self.encoder.feature_cache)
        check_not_blind(thinker_of(self.model), inputs["input_ids"], rows)
        prepared: dict[str, Any] = super()._prepare_inputs(inputs)
        return prepared | self._omni_towers.media(rows, self.accelerator.device)
