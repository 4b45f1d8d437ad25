"""Answers of a checkpoint on this machine: whole batches, media encoded once, one process or several."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from accelerate import PartialState
from tqdm import tqdm
from transformers import GenerationConfig, Qwen2_5OmniThinkerForConditionalGeneration

from omnistage.data.errors import MediaError
from omnistage.data.records import Record
from omnistage.rl import policy, rollout
from omnistage.rl.encoding import Encoded, Encoder
from omnistage.rl.feature_cache import FeatureMemory
from omnistage.rl.heads.carried import Head
from omnistage.rl.heads.predict import Reader
from omnistage.rl.prefetch import Prefetch
from omnistage.rl.shared_prefix import attention, decode
from omnistage.rl.towers import Towers
from omnistage.stages.answering.journal import Journal
from omnistage.stages.answering.plan import Batch
from omnistage.stages.benchmarks.items import Prediction, Status

CLIPS_KEPT = 8


@dataclass(frozen=True, slots=True)
class Text:
    """A drawn answer: its text without control tokens, its length, and whether it came to its end."""

    text: str
    tokens: int
    ended: bool

    def prediction(self, id: str, run: str) -> Prediction:
        """As a line of `predictions.jsonl`."""
        status: Status = "truncated" if not self.ended else "ok" if self.text.strip() else "empty"
        return Prediction(id, run, self.text, status, self.tokens)


class Answerer:
    """Draws answers of one policy; or, with a `head`, reads the head of each record."""

    def __init__(
        self,
        model: Qwen2_5OmniThinkerForConditionalGeneration,
        encoder: Encoder,
        *,
        max_new_tokens: int,
        head: Head | None = None,
    ) -> None:
        self.model = model
        self.encoder = encoder
        self.max_new_tokens = max_new_tokens
        self.head = head
        # Several questions are often about one clip.
        self.towers = Towers(model, encoder.feature_cache or FeatureMemory())
        self._tokenizer = encoder.processor.tokenizer
        self._ends = policy.end_tokens(model, encoder.processor)
        self._forbidden = policy.forbidden_tokens(encoder.processor)
        self._shares = False

    def batch(self, batch: Batch, rows: Sequence[Encoded | MediaError]) -> list[Prediction]:
        """All answers of one batch, item after item; an item whose clip could not be read has the error as its answer."""
        there = [(record, row) for record, row in zip(batch.records, rows, strict=True) if isinstance(row, Encoded)]
        self.model.eval()
        drawn = iter(self._drawn(batch, [row for _, row in there]) if there else [])
        out: list[Prediction] = []
        for record, row in zip(batch.records, rows, strict=True):
            if isinstance(row, Encoded):
                out += [self._of(record, run, answer) for run, answer in zip(batch.way.runs, next(drawn), strict=True)]
            else:
                out += [Prediction(record.id, run, None, "error", error=str(row)) for run in batch.way.runs]
        return out

    def _of(self, record: Record, run: str, answer: Text | Prediction) -> Prediction:
        if isinstance(answer, Text):
            return answer.prediction(record.id, run)
        return Prediction(record.id, run, answer.raw, answer.status, answer.tokens, answer.head)

    def _drawn(self, batch: Batch, rows: Sequence[Encoded]) -> Sequence[Sequence[Text | Prediction]]:
        if self.head is not None:
            return [[one] for one in self._read(self.head, rows)]
        if batch.way.samples:
            return self._sampled(batch, rows)
        return [[one] for one in self._greedy(rows)]

    def _greedy(self, rows: Sequence[Encoded]) -> list[Text]:
        settings = self._settings() | {"do_sample": False}
        ids = rollout.generate(self.model, self.towers, rows, num_generations=1, pad_id=self._tokenizer.pad_token_id, **settings)
        return self._texts(ids)

    def _sampled(self, batch: Batch, rows: Sequence[Encoded]) -> list[list[Text]]:
        if not self._shares:
            attention.install(self.model)
            self._shares = True
        chosen = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, **rollout.PLAIN}
        n = batch.way.samples
        with torch.random.fork_rng():
            torch.manual_seed(batch.seed)
            drawn = decode.generate(
                self.model,
                self.towers,
                rows,
                num_generations=n,
                pad_id=self._tokenizer.pad_token_id,
                generation_config=GenerationConfig(**self._settings(), **chosen),
            )
        texts = self._texts(drawn.ids)
        return [texts[at : at + n] for at in range(0, len(texts), n)]

    def _settings(self) -> dict[str, Any]:
        return {
            "max_new_tokens": self.max_new_tokens,
            "suppress_tokens": self._forbidden,
            "pad_token_id": self._tokenizer.pad_token_id,
            "eos_token_id": self._ends,
        }

    def _texts(self, ids: torch.Tensor) -> list[Text]:
        rows = rollout.until_end(ids, self._ends)
        texts = self._tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [Text(text, len(row), bool(row) and row[-1] in self._ends) for text, row in zip(texts, rows, strict=True)]

    def _read(self, head: Head, rows: Sequence[Encoded]) -> Iterator[Prediction]:
        reader = Reader(self.model, self.encoder, head, towers=self.towers)
        answers: list[list[int]] = [[] for _ in rows]
        if reader.token_id is not None:
            answers = reader.answers(rows, self.max_new_tokens)
        for values, ids in zip(reader.values(rows, answers), answers, strict=True):
            text = self._tokenizer.decode(ids, skip_special_tokens=False) if reader.token_id is not None else None
            status: Status = "ok" if values else "empty"
            yield Prediction("", "", text, status, len(ids) or None, {"name": head.spec.name, "values": values})


def keep_clips(encoder: Encoder) -> None:
    """Have an encoder hold the latest decoded clips: several questions are often about one, and stand together."""
    encoder.decode = lru_cache(maxsize=CLIPS_KEPT)(encoder.decode)


def ask(answerer: Answerer, plan: Sequence[Batch], journal: Journal, order: Sequence[str]) -> None:
    """Draw what the journal does not hold yet, shared out over the processes; all of it stands in `predictions.jsonl` afterwards.

    `order` has the ids of all items. The batches of a plan are the same for any number of processes.
    """
    state = PartialState()
    if not journal.is_finished:
        found = journal.done()
        state.wait_for_everyone()
        missing = [batch for batch in plan if batch.key not in found]
        # Sharded weights want every rank in every forward: then all of them draw everything, and one keeps it.
        shared_out = not policy.is_sharded(answerer.model)
        mine = missing[state.process_index :: state.num_processes] if shared_out else missing
        with journal, closing(drawn(answerer, mine)) as batches:
            for batch, predictions in batches:
                if shared_out or state.is_main_process:
                    journal.add(batch, predictions)
    state.wait_for_everyone()
    if state.is_main_process and not journal.is_finished:
        journal.finish(plan, order)
    elif state.is_main_process:
        journal.tidy()
    state.wait_for_everyone()


def drawn(answerer: Answerer, plan: Sequence[Batch]) -> Generator[tuple[Batch, list[Prediction]], None, None]:
    """The answers of each batch in turn; the clips of the next one are read meanwhile."""
    total = sum(len(batch.records) for batch in plan)
    ahead = _read_ahead(answerer.encoder, plan)
    with tqdm(total=total, unit="item", disable=None, leave=False) as bar, closing(ahead):
        for batch, rows in zip(plan, ahead, strict=True):
            bar.set_description(batch.way.name, refresh=False)
            yield batch, answerer.batch(batch, rows)
            bar.update(len(batch.records))


def _read_ahead(encoder: Encoder, plan: Sequence[Batch]) -> Generator[list[Encoded | MediaError], None, None]:
    """Inputs of each batch in turn, with the error in place of a row whose clip cannot be read."""
    with Prefetch(encoder) as prefetch:
        prefetch.follow([batch.records for batch in plan])
        for batch in plan:
            try:
                yield list(prefetch.take(batch.records))
            except MediaError:
                yield [_or_error(encoder, record) for record in batch.records]


def _or_error(encoder: Encoder, record: Record) -> Encoded | MediaError:
    try:
        return encoder(record)
    except MediaError as error:
        return error
