"""Levels of a policy that answers in words: the probability of each word at its place in a sentence (Q-Align, arXiv 2312.17090).

A policy that learned "The quality ... is good." says more than its likeliest word: how probable each of the ordered words is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from omnistage.data.errors import InputError
from omnistage.data.records import Record
from omnistage.rl.encoding import Encoded, Encoder
from omnistage.rl.heads.predict import Prediction
from omnistage.rl.sft_trainer import right_padded
from omnistage.rl.towers import Towers

PLACE = "{level}"


class WordReader:
    """Reads levels off a policy: `sentence` holds `{level}` once, `words` are ordered from the worst to the best.

    Raises:
        InputError: the sentence has no place for the word, or fewer than two words are given.
    """

    def __init__(self, thinker: Qwen2_5OmniThinkerForConditionalGeneration, encoder: Encoder, sentence: str, words: Sequence[str]) -> None:
        if sentence.count(PLACE) != 1:
            raise InputError(f"--sentence {sentence!r}: must hold {PLACE} once")
        if len(set(words)) != len(words) or len(words) < 2:
            raise InputError(f"--levels {' '.join(words)}: at least two words, each another")
        self.thinker = thinker
        self.encoder = encoder
        self.words = list(words)
        self.towers = Towers(thinker)
        tokenizer = encoder.processor.tokenizer
        self.pad_id: int = tokenizer.pad_token_id
        self.answers: list[list[int]] = [tokenizer(sentence.replace(PLACE, word))["input_ids"] for word in words]

    def __call__(self, records: Sequence[Record]) -> Iterator[Prediction]:
        """For each record the likeliest `level`, the `probabilities` of all words, and their mean place, 1 for the worst (`values`)."""
        for record in records:
            shares = self.log_probs(self.encoder(record)).double().softmax(-1)
            mean = float((shares * torch.arange(1, len(shares) + 1)).sum())
            value: dict[str, Any] = {"level": self.words[int(shares.argmax())]}
            value |= {"probabilities": dict(zip(self.words, shares.tolist(), strict=True)), "values": {"level": mean}}
            yield Prediction([value])

    @torch.no_grad()
    def log_probs(self, row: Encoded) -> Tensor:
        """The log-probability [K] of the sentence with each of the words as the answer to a prompt."""
        device = self.thinker.device
        rows = [row] * len(self.answers)
        ids, mask, positions = (tensor.to(device) for tensor in right_padded(rows, self.answers, self.pad_id))
        made = self.thinker.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, **self.towers.media(rows, device)
        )
        start = len(row.ids)
        scores = self.thinker.lm_head(made.last_hidden_state[:, start - 1 : -1]).float().log_softmax(-1)
        of_token = scores.gather(-1, ids[:, start:, None])[..., 0]
        total: Tensor = (of_token * mask[:, start:]).sum(1)
        return total.cpu()
