"""Which tokens a segment's reward reaches, and that its advantage follows TRL's own rules."""

from __future__ import annotations

import pytest
import torch

from omnistage.rl import policy
from omnistage.rl.credit import advantages, segment_mask
from world import World

TEXTS = {
    "both": "<think>so red</think><answer>B</answer>",
    "spaces": "so <think> so red </think> <answer> B </answer> end",
    "no thinking": "<answer>B</answer>",
    "no answer": "<think>so red</think> B",
    "twice": "<think>so</think><answer>A</answer> <think>red</think><answer>B</answer>",
    "split character": "<think>é 红 \U0001f600</think><answer>\U0001f600</answer>",
    "context": "<context>a red disc</context><think>so red</think><answer>B</answer>",
    "empty": "",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
@pytest.mark.parametrize("segment", ["context", "think", "answer"])
def test_the_masked_tokens_write_the_segment(world: World, text: str, segment: str) -> None:
    tokenizer = policy.load_processor(str(world.checkpoint)).tokenizer
    ids = tokenizer(text).input_ids

    def decode(some: object) -> str:
        return str(tokenizer.decode(some, skip_special_tokens=True))

    written = decode(ids)
    mask = segment_mask(decode, [*ids, tokenizer.eos_token_id], segment)  # type: ignore[arg-type]
    opening, closing = f"<{segment}>", f"</{segment}>"
    if opening not in written:
        assert not any(mask)
        return
    expected = written[written.rindex(opening) : written.rindex(closing) + len(closing)]
    masked = decode([token for token, kept in zip(ids, mask, strict=False) if kept])
    assert masked.strip() == expected
    assert not mask[-1], "the end token belongs to no segment"
    places = [at for at, kept in enumerate(mask) if kept]
    assert places == list(range(places[0], places[-1] + 1))


def test_a_token_over_two_segments_belongs_to_both() -> None:
    pieces = ["<think>", "x", "</think><ans", "wer>", "B", "</answer>"]

    def decode(ids: object) -> str:
        return "".join(pieces[i] for i in ids)  # type: ignore[attr-defined]

    ids = list(range(len(pieces)))
    assert segment_mask(decode, ids, "think") == [True, True, True, False, False, False]
    assert segment_mask(decode, ids, "answer") == [False, False, True, True, True, True]


NAN = float("nan")


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("none", [0.5, -0.5, 0.0, 0.0]),
        ("group", [0.5 / (0.5**0.5 + 1e-4), -0.5 / (0.5**0.5 + 1e-4), 0.0, 0.0]),
        ("batch", [0.5 / (0.5 + 1e-4), -0.5 / (0.5 + 1e-4), 0.0, 0.0]),
    ],
)
def test_advantages_by_hand(scale: str, expected: list[float]) -> None:
    values = torch.tensor([[1.0], [0.0], [1.0], [1.0]])
    made = advantages(values, torch.tensor([1.0]), 2, scale=scale, aggregation="sum_then_normalize")
    torch.testing.assert_close(made, torch.tensor(expected))


def test_what_was_not_scored_moves_nothing() -> None:
    """Hazard 21: a judge that timed out is no zero."""
    values = torch.tensor([[1.0], [0.0], [NAN], [1.0], [0.0], [NAN]])
    made = advantages(values, torch.tensor([1.0]), 3, scale="none", aggregation="sum_then_normalize")
    torch.testing.assert_close(made, torch.tensor([0.5, -0.5, 0.0, 0.5, -0.5, 0.0]))


def test_not_scored_is_neither_worse_nor_better_than_scored() -> None:
    """With a second reward: a sum that takes a missing judgement for zero ranks it as the worst one."""
    judged = torch.tensor([[1.0, 0.8], [1.0, NAN], [0.0, 0.8], [1.0, 0.4]])
    weights = torch.tensor([1.0, 1.0])
    for sign in (1.0, -1.0):
        made = advantages(judged * torch.tensor([1.0, sign]), weights, 4, scale="none", aggregation="sum_then_normalize")
        first, missing, _, worse = made.tolist()
        low, high = sorted((first, worse))
        assert low < missing < high
