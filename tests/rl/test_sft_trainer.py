"""The cold start's batches: labels on the response alone, positions that go on behind the media."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from omnistage.data.errors import RecordError
from omnistage.rl.sft_trainer import Collator, check_demonstrations
from omnistage.rl.towers import raw_media
from world import World, reference_log_probs


def test_labels_are_the_response_and_the_loss_is_its_cross_entropy(world: World) -> None:
    """Over a mixed padded batch the model's mean loss equals minus the mean of the plain per-row log-probs."""
    model = world.model()
    records = [world.records(m, "cold_start")[i] for m in ("video", "audio") for i in range(2)]
    collator = Collator(world.encoder(model), {r.id: r for r in records})
    batch = collator([{"record_id": r.id} for r in records])
    tokenizer = collator.tokenizer
    for record, ids, labels in zip(records, batch["input_ids"], batch["labels"], strict=True):
        kept = labels[labels != -100]
        assert tokenizer.decode(kept) == f"{record.response}<|im_end|>"
        assert torch.equal(ids[labels != -100], kept)
    rows = batch.pop("encoded")
    loss = model(**batch, **raw_media(rows, torch.device("cpu"))).loss
    expected = torch.cat([reference_log_probs(model, row, collator.response_ids(r)) for row, r in zip(rows, records, strict=True)])
    assert float(loss.detach()) == pytest.approx(-float(expected.mean()), abs=1e-5)


def test_a_row_without_a_demonstration_is_named(world: World) -> None:
    good = world.records("video", "cold_start")
    check_demonstrations(good)
    with pytest.raises(RecordError, match="record 2: has no 'response'"):
        check_demonstrations([*good[:2], replace(good[2], response=None)])
