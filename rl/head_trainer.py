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
        InputError: no record has an answer for the head, or the loss has text and no record has any.
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
    if spec.text_weight and spec.token is None and not any(record.response for record in records):
        raise InputError(f"losses of the head {spec.name!r} has 'text', and none of {len(records)} records has a 'response' to learn")


def check_token(tokenizer: Any, token: str) -> None:
    """Raises `InputError` for a token that the tokenizer knows as an ordinary piece of words: in a sentence it is written otherwise."""
    if token in tokenizer.get_vocab() and token not in tokenizer.get_added_vocab():
        raise InputError(f"token {token!r} is an ordinary piece of the model's words; choose one that no text holds, as '<POSE>'")


def learn_token(thinker: Any, processor: Qwen2_5OmniProcessor, token: str) -> int:
    """The id of a token that the tokenizer knows, or is taught, as one piece; the embeddings grow where they have no row left for it.

    Raises `InputError` as `check_token` does.
    """
    tokenizer = processor.tokenizer
    check_token(tokenizer, token)
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

    `head_learning_rate` is the head's own; None: that of everything else. `answers` are what a record without a demonstration is answered
    with.
    """

    # By what the whole step asks for: the trainer is not to divide again.
    loss_is_scaled_for_ga = True

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
        # Values and tokens that the step in hand learns; and of each term its sum and its number of them since the last line of the log.
        self._of_step: list[int] = [0, 0]
        self._noted = {name: [0.0, 0.0] for name in (*(term.name for term in spec.losses), _ACCURACY)}
        thinker = thinker_of(model)
        known = carried.heads_of(thinker).get(spec.name)
        goes_on = known is not None and spec.goes_on_from(known.spec)
        self.head = carried.add(thinker, spec)
        super().__init__(model, **kwargs)
        if not goes_on:
            self.head.begin_at(self.head.codec.constant(torch.cat([self.head.codec.targets(record) for record in kwargs["records"]])))
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

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The micro-batches of a step as the trainer takes them; counts what all of them, on all processes, ask of head and text."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = [[0, 0], *(_asked_for(batch["head_targets"], batch["labels"]) for batch in batches)]
        self._of_step = self.accelerator.reduce(torch.tensor(counts, device=device).sum(0)).tolist()
        return batches, items

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """The micro-batch's part of the step's loss.

        Each value of the step weighs the same, and each token, whichever micro-batch and process it fell to; the processes' gradients are
        averaged.
        """
        targets, labels = inputs.pop("head_targets"), inputs.pop("labels")
        outputs = model(**inputs, labels=labels if self.spec.text_weight else None)
        values, tokens = _asked_for(targets, labels)
        of_step, processes = (self._of_step, self.accelerator.num_processes) if self.model.training else ([values, tokens], 1)
        loss = self._head_loss(outputs["heads"][self.spec.name], targets) * (processes * values / max(1, of_step[0]))
        if self.spec.text_weight:
            text = self._text_loss(outputs["text_logits"], labels)
            loss = loss + self.spec.text_weight * text * (processes * tokens / max(1, of_step[1]))
        return (loss, outputs) if return_outputs else loss

    def _text_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of the labelled tokens; 0 where there is none."""
        wanted = _labelled(labels)
        total = torch.nn.functional.cross_entropy(logits.float(), wanted, reduction="sum")
        self._note("text", total.item(), len(wanted))
        self._note(_ACCURACY, float((logits.argmax(-1) == wanted).sum()), len(wanted))
        return total / max(1, len(wanted))

    def _head_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The weighted terms of outputs [N, size], means over the values asked for; 0 where nothing is asked."""
        asked = ~targets.isnan().any(1)
        total = outputs.sum() * 0
        if not asked.any():
            return total
        for term in self.spec.losses:
            if term.name == "text":
                continue
            value = self.head.codec.loss(term.name, outputs[asked], targets[asked].to(outputs.device))
            count = int(asked.sum())
            self._note(term.name, value.item() * count, count)
            total = total + term.weight * value
        return total

    def _note(self, name: str, total: float, count: int) -> None:
        self._noted[name][0] += total
        self._noted[name][1] += count

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds each term's mean since the last line over the values, or tokens, of all processes."""
        noted = torch.tensor(list(self._noted.values()), dtype=torch.float32, device=self.accelerator.device)
        for name, (total, count) in zip(self._noted, self.accelerator.reduce(noted).tolist(), strict=True):
            self._noted[name] = [0.0, 0.0]
            if count:
                key = name if name == _ACCURACY else f"{self.spec.name}/{name}"
                self._metrics["train" if self.model.training else "eval"][key].append(total / count)
        super().log(logs, start_time)


_ACCURACY = "mean_token_accuracy"


def _labelled(labels: Tensor) -> Tensor:
    """The ids of labels [B, T] that a token is predicted for."""
    return labels[:, 1:][labels[:, 1:] != -100]


def _asked_for(targets: Tensor, labels: Tensor) -> list[int]:
    """How many values of the head (targets [N, T], NaN where none is asked) and how many tokens a micro-batch learns."""
    return [int((~targets.isnan().any(1)).sum()), len(_labelled(labels))]
