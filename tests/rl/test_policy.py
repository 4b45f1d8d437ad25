"""Loading, freezing, and the tiny model as a checkpoint like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

from omnistage.data.errors import InputError
from omnistage.rl import policy, tiny
from world import World


def test_the_tiny_model_reloads_like_any_checkpoint(world: World) -> None:
    """transformers' own classes load it, with the same weights, and its processor has all its parts."""
    ours = world.model()
    theirs = AutoModelForMultimodalLM.from_pretrained(world.checkpoint)
    assert type(theirs) is type(ours)
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    processor = AutoProcessor.from_pretrained(world.checkpoint)
    assert processor.tokenizer.convert_tokens_to_ids("<|VIDEO|>") == ours.config.video_token_id
    assert processor.feature_extractor.feature_size == 32


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        tiny.build(tmp_path / name, ["red blue"], seed=seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def test_words_of_the_corpus_are_single_tokens(world: World) -> None:
    tokenizer = policy.load_processor(str(world.checkpoint)).tokenizer
    text = "<think>the tone rises</think><answer>yes</answer>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer(text)["input_ids"]) == 8
    odd = "Žluťoučký 車 \u200b"
    assert tokenizer.decode(tokenizer(odd)["input_ids"]) == odd


def test_parts_cover_the_model_and_freeze_alone(world: World) -> None:
    model = world.model()
    names = [name for part in policy.PARTS for name, _ in policy.parameters_of(model, part)]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    policy.freeze(model, ["audio"])
    assert policy.frozen_parts(model) == {"audio"}
    policy.freeze(model, [])
    assert policy.frozen_parts(model) == frozenset()


def test_a_fingerprint_is_that_of_the_part(world: World) -> None:
    model = world.model()
    before = {part: policy.fingerprint(model, part) for part in policy.PARTS}
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    assert {part for part in policy.PARTS if policy.fingerprint(model, part) != before[part]} == {"language"}


@pytest.mark.parametrize(
    ("config", "said"),
    [(None, "has no config.json"), ("{", "is not valid JSON"), (json.dumps({"model_type": "llama"}), "is a 'llama' model; known: ")],
)
def test_what_is_no_checkpoint_is_said_in_one_line(tmp_path: Path, config: str | None, said: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(InputError, match=said):
        policy.load(str(tmp_path))


def test_a_missing_folder_is_not_asked_of_the_hub(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        policy.load(str(tmp_path / "absent"))
