"""Answers of a server in the batches of a plan, kept and gone on with as those of a checkpoint are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from omnistage.rewards.judges.service import Service
from omnistage.stages.answering.endpoint import Asking, answer
from omnistage.stages.answering.journal import Journal
from omnistage.stages.answering.parts import Shown
from omnistage.stages.answering.plan import Batch
from omnistage.stages.benchmarks.items import Prediction

# A sample is drawn as a checkpoint's is.
SAMPLED: Mapping[str, Any] = {"top_p": 1.0}


def ask(service: Service, shown: Shown, plan: Sequence[Batch], journal: Journal, order: Sequence[str]) -> None:
    """Ask what the journal does not hold yet; all of it stands in `predictions.jsonl` afterwards. `order` has the ids of all items.

    Greedy answers are asked for at temperature 0, samples at 1, each with a seed of its own.

    Raises:
        InputError: as `endpoint.answer`.
    """
    if journal.is_finished:
        journal.tidy()
        return
    found = journal.done()
    missing = [batch for batch in plan if batch.key not in found]
    with journal, tqdm(total=sum(len(batch.records) for batch in missing), unit="item", disable=None, leave=False) as bar:
        for batch in missing:
            journal.add(batch, _answers(service, shown, batch))
            bar.update(len(batch.records))
    journal.finish(plan, order)


def _answers(service: Service, shown: Shown, batch: Batch) -> list[Prediction]:
    """The answers of a batch, item after item."""
    found: dict[tuple[str, str], Prediction] = {}
    for number, run in enumerate(batch.way.runs):
        sampled = {**SAMPLED, "seed": (batch.seed + number) % 2**31} if batch.way.samples else {}
        asked = replace(service, temperature=1.0) if batch.way.samples else service
        for some in answer(batch.records, asked, Asking(shown, run, sampled)):
            found |= {(one.id, one.run): one for one in some}
    return [found[record.id, run] for record in batch.records for run in batch.way.runs]
