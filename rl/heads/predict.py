"""What a trained head says of records: a forward for a head at the prompt's end; for one at a token the policy answers first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from omnistage.data.errors import InputError
from omnistage.data.records import Record
from omnistage.rl import policy, rollout
from omnistage.rl.encoding import Encoded, Encoder, check_not_blind
from omnistage.rl.heads import anchor
from omnistage.rl.heads.carried import Head
from omnistage.rl.sft_trainer import right_padded
from omnistage.rl.towers import Towers


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a head said of one record: a value for each state that was read (none: the answer did not hold the token), and the answer."""

    values: list[dict[str, Any]] = field(default_factory=list)
    text: str | None = None


class Reader:
    """Reads one head of a policy, or (no head) its answers alone. The head's dropout is on if the head is in training mode."""

    def __init__(
        self, thinker: Qwen2_5OmniThinkerForConditionalGeneration, encoder: Encoder, head: Head | None, *, towers: Towers | None = None
    ) -> None:
        self.thinker = thinker
        self.encoder = encoder
        self.head = head
        self.towers = towers or Towers(thinker, encoder.feature_cache)
        tokenizer = encoder.processor.tokenizer
        self.pad_id: int = tokenizer.pad_token_id
        token = None if head is None else head.spec.token
        if head is not None and token is not None and token not in tokenizer.get_vocab():
            raise InputError(f"head {head.spec.name!r} reads the token {token!r}, which the checkpoint's tokenizer does not know")
        self.token_id: int | None = None if token is None else int(tokenizer.convert_tokens_to_ids(token))

    def __call__(self, records: Sequence[Record], *, batch_size: int = 16, max_new_tokens: int = 64) -> Iterator[Prediction]:
        """One prediction for each record, in order. Raises `InputError` for a clip that cannot be read."""
        for start in range(0, len(records), batch_size):
            rows = [self.encoder(record) for record in records[start : start + batch_size]]
            answers: list[list[int]] = [[] for _ in rows]
            if self.token_id is not None:
                answers = self.answers(rows, max_new_tokens)
            values = self.values(rows, answers)
            for found, ids in zip(values, answers, strict=True):
                text = self.encoder.processor.tokenizer.decode(ids, skip_special_tokens=False) if self.token_id is not None else None
                yield Prediction(found, text)

    def answers(self, rows: Sequence[Encoded], max_new_tokens: int) -> list[list[int]]:
        """The policy's greedy answers, as token ids without the end of the turn."""
        ends = policy.end_tokens(self.thinker, self.encoder.processor)
        drawn = rollout.generate(
            self.thinker,
            self.towers,
            rows,
            num_generations=1,
            pad_id=self.pad_id,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=ends,
            pad_token_id=self.pad_id,
            suppress_tokens=policy.forbidden_tokens(self.encoder.processor),
        )
        return [[i for i in ids if i not in ends] for ids in rollout.until_end(drawn, ends)]

    @torch.no_grad()
    def values(self, rows: Sequence[Encoded], answers: Sequence[Sequence[int]]) -> list[list[dict[str, Any]]]:
        """What the head says of prompts followed by answers (token ids).

        Raises `InputError` where that is no finite number: weights have run away.
        """
        if self.head is None:
            raise ValueError("there is no head to read")
        device = self.thinker.device
        ids, mask, positions = (tensor.to(device) for tensor in right_padded(rows, answers, self.pad_id))
        check_not_blind(self.thinker, ids, rows)
        found = anchor.places(self.head.spec, ids, mask, [len(row.ids) for row in rows], self.token_id)
        values: list[list[dict[str, Any]]] = [[] for _ in rows]
        # Sharded weights want all ranks in every forward, whatever each of them has found.
        if not len(found) and not policy.is_sharded(self.thinker):
            return values
        hidden = self.thinker.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, **self.towers.media(rows, device)
        ).last_hidden_state
        outputs = self.head(anchor.states(hidden, found))
        if not torch.isfinite(outputs).all():
            raise InputError(
                f"head {self.head.spec.name!r} puts out numbers that are not finite; its weights or the policy's have run away"
            )
        for (row, _), value in zip(found.tolist(), self.head.codec.decode(outputs), strict=True):
            values[row].append(value)
        return values
