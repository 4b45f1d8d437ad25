"""Supervised training of a head, and of the policy under it: TRL's `SFTTrainer` with a second output.

    loss = w_text * cross-entropy of the answer's tokens + sum over terms of w_term * term(head(states), targets)

Rows without a target for the head (instruction data that is mixed in) carry the text's part alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen2_5OmniProcessor

from omnistage.data.errors import InputError, RecordError
from omnistage.data.records import Record
from omnistage.rl.encoding import Encoder
from omnistage.rl.heads import anchor, carried
from omnistage.rl.heads.codec import codec_of
from omnistage.rl.heads.spec import HeadSpec
from omnistage.rl.policy import thinker_of
from omnistage.rl.sft_trainer import Collator, OmniSFTTrainer

DEFAULT_ANSWERS = ("It is {token}.",)


def answer_of(record: Record, spec: HeadSpec, answers: Sequence[str] = DEFAULT_ANSWERS) -> str | None:
    """What the policy answers to a record: its own demonstration, or, for a head at a token, one of `answers`, always the same for an id.

    None: nothing, which does for a head at the prompt's end.
    """
    if record.response is not None or spec.token is None:
        return record.response
    chosen = answers[zlib.crc32(record.id.encode()) % len(answers)]
    return chosen.replace("{token}", spec.token)


def check_records(records: Sequence[Record], spec: HeadSpec, answers: Sequence[str] = DEFAULT_ANSWERS) -> None:
    """See that every record can be learned from, and that the head has anything to learn.

    Raises:
        RecordError: an answer does not fit the head, or does not hold its token once for each value.
        InputError: no record has an answer for the head.
    """
    codec = codec_of(spec)
    asked = 0
    for record in records:
        count = len(codec.targets(record))
        asked += count
        where = record.source or record.id
        answer = answer_of(record, spec, answers) if count or record.response else record.response
        if spec.token is None:
            if not count and not (answer and spec.text_weight):
                raise RecordError(f"{where}: says nothing that the head {spec.name!r} puts out (kind {record.kind}), and has no 'response'")
        elif not answer:
            raise RecordError(f"{where}: has no 'response' and no value for the head {spec.name!r}")
        elif answer.count(spec.token) != count:
            raise RecordError(f"{where}: its answer holds {spec.token} {answer.count(spec.token)} times, and it has {count} values for it")
    if not asked:
        raise InputError(f"none of {len(records)} records has an answer for the head {spec.name!r} ({spec.codec.kind})")


def learn_token(thinker: Any, processor: Qwen2_5OmniProcessor, token: str) -> int:
    """The id of a token that the tokenizer knows, or is taught, as one piece; the embeddings grow where they have no row left for it."""
    tokenizer = processor.tokenizer
    if token not in tokenizer.get_vocab():
        tokenizer.add_tokens([token], special_tokens=True)
    if len(tokenizer) > thinker.get_input_embeddings().num_embeddings:
        thinker.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return int(tokenizer.convert_tokens_to_ids(token))


class HeadCollator(Collator):
    """A batch of the SFT trainer with `head_reads` {name: places [N, 2]} and `head_targets` [N, T].

    A batch in which nothing is asked of the head reads one state with a target of NaN: ranks wait for each other's gradients.
    """

    def __init__(self, encoder: Encoder, records: Mapping[str, Record], spec: HeadSpec, answers: Sequence[str]) -> None:
        super().__init__(encoder, records)
        self.spec = spec
        self.answers = answers
        self.codec = codec_of(spec)
        self.token_id = None if spec.token is None else int(self.tokenizer.convert_tokens_to_ids(spec.token))

    def response_ids(self, record: Record) -> list[int]:
        """The answer and the end of the turn; nothing where no token of an answer is learned."""
        answer = answer_of(record, self.spec, self.answers)
        if answer is None or (self.spec.token is None and not self.spec.text_weight):
            return []
        return [*self.tokenizer(answer)["input_ids"], self.tokenizer.eos_token_id]

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        batch = super().__call__(features)
        rows = batch["encoded"]
        targets = [self.codec.targets(self.records[feature["record_id"]]) for feature in features]
        lengths = [len(row.ids) for row in rows]
        found = anchor.places(self.spec, batch["input_ids"], batch["attention_mask"], lengths, self.token_id)
        # The prompt's end is found in every row, also in those that ask nothing of the head.
        found = found[torch.tensor([len(targets[row]) > 0 for row in found[:, 0].tolist()], dtype=torch.bool)]
        wanted = torch.cat(targets)
        if len(found) != len(wanted):
            raise RuntimeError(f"{len(found)} states for {len(wanted)} values of the head {self.spec.name!r}")
        if not len(found):
            found, wanted = torch.zeros(1, 2, dtype=torch.long), torch.full((1, wanted.shape[1]), torch.nan)
        return batch | {"head_reads": {self.spec.name: found}, "head_targets": wanted}


class HeadTrainer(OmniSFTTrainer):
    """Trains one head of a thinker and whatever else of it is not frozen.

    `learning_rate` is the head's own, None that of everything else. `answers` are what a record without a demonstration is answered with.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        spec: HeadSpec,
        *,
        answers: Sequence[str] = DEFAULT_ANSWERS,
        head_learning_rate: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.spec = spec
        self.answers = tuple(answers)
        self.head_learning_rate = head_learning_rate
        thinker = thinker_of(model)
        self.head = carried.add(thinker, spec)
        super().__init__(model, **kwargs)
        # Adapters have frozen all that is not theirs.
        self.head.requires_grad_(True)
        carried.install(thinker)

    def check(self, records: Sequence[Record]) -> None:
        check_records(records, self.spec, self.answers)

    def collator(self, encoder: Encoder, records: Mapping[str, Record]) -> Collator:
        return HeadCollator(encoder, records, self.spec, self.answers)

    def create_optimizer(self, model: Any = None) -> Any:
        optimizer = super().create_optimizer(model)
        rate = self.head_learning_rate
        own = {id(parameter) for parameter in self.head.parameters()}
        if rate is None or any("of_head" in group for group in optimizer.param_groups):
            return optimizer
        for group in list(optimizer.param_groups):
            moved = [parameter for parameter in group["params"] if id(parameter) in own]
            if moved:
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in own]
                settings = {name: value for name, value in group.items() if name != "params"}
                optimizer.add_param_group(settings | {"params": moved, "lr": rate, "of_head": True})
        return optimizer

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        targets = inputs.pop("head_targets")
        labels = inputs.pop("labels")
        outputs = model(**inputs, labels=labels if self.spec.text_weight else None)
        loss = self._head_loss(outputs["heads"][self.spec.name], targets)
        if num_items_in_batch is not None:
            # The trainer then leaves it to the loss to be spread over the micro-batches of a step.
            loss = loss / self.current_gradient_accumulation_steps
        if self.spec.text_weight:
            loss = loss + self.spec.text_weight * self._text_loss(outputs["text_logits"], labels, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _text_loss(self, logits: Tensor, labels: Tensor, of_step: Any) -> Tensor:
        """Cross-entropy of the labelled tokens: their sum over the number of the whole step's, `of_step`, where the trainer counts them."""
        wanted = labels[:, 1:]
        wanted = wanted[wanted != -100]
        total = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="sum")
        mode = "train" if self.model.training else "eval"
        if len(wanted):
            self._metrics[mode][f"{self.spec.name}/text"].append(total.item() / len(wanted))
            self._metrics[mode]["mean_token_accuracy"].append((logits.argmax(-1) == wanted).float().mean().item())
        if of_step is None:
            return total / max(1, len(wanted))
        # It counts the tokens of all ranks, whose gradients are averaged.
        shared = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        return total * shared / torch.as_tensor(of_step, device=total.device).clamp(min=1)

    def _head_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The weighted terms of outputs [N, size], which are logged one by one; 0 where nothing is asked."""
        asked = ~targets.isnan().any(1)
        total = outputs.sum() * 0
        if not asked.any():
            return total
        mode = "train" if self.model.training else "eval"
        for term in self.spec.losses:
            if term.name == "text":
                continue
            value = self.head.codec.loss(term.name, outputs[asked], targets[asked].to(outputs.device))
            self._metrics[mode][f"{self.spec.name}/{term.name}"].append(value.item())
            total = total + term.weight * value
        return total
