"""Completions drawn over one copy of each prompt: the same tokens, their log-probs, and what a trainer spares by them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from transformers import GenerationConfig

from omnistage.data.errors import BlindBatchError
from omnistage.rl import policy, rollout
from omnistage.rl.encoding import Encoded
from omnistage.rl.grpo_trainer import OmniGRPOTrainer
from omnistage.rl.policy import accept_encoded_audio, active_adapters, forbidden_tokens
from omnistage.rl.shared_prefix import decode, forward
from omnistage.rl.shared_prefix.decode import Drawn
from omnistage.rl.shared_prefix.graphed import Graphs
from omnistage.rl.shared_prefix.layout import pack
from omnistage.rl.towers import Towers
from trainers import trainer_for
from world import World, reference_log_probs

G = 3
TEMPERATURE = 0.7
SAMPLED = {"do_sample": True, "temperature": 0.9, "top_k": 50, "top_p": 0.95, "repetition_penalty": 1.1}
PROMPTS = [["video"], ["audio"], ["audio_video"], ["audio", "audio_video", "video"]]


def ready(world: World, device: str = "cpu") -> Any:
    model = world.model().to(device)
    policy.freeze(model, ("vision", "audio"))
    accept_encoded_audio(model)
    forward.install(model, temperature=TEMPERATURE)
    return model


def prompts(world: World, model: Any, modalities: list[str]) -> list[Encoded]:
    encoder = world.encoder(model)
    rows = [encoder(world.records(modality)[0]) for modality in modalities]
    assert len(rows) == 1 or len({len(row.ids) for row in rows}) > 1
    return rows


def draw(
    world: World, model: Any, rows: list[Encoded], *, ends: int = 1, way: Any = decode.generate, tokens: int = 24, **settings: Any
) -> Any:
    """Completions of `rows` from one seed; the more `ends`, ids that end a completion, the sooner it ends."""
    encoder = world.encoder(model)
    tokenizer = encoder.processor.tokenizer
    own: dict[str, Any] = {name: settings.pop(name) for name in ("static", "graphs") if name in settings}
    config = GenerationConfig(
        max_new_tokens=tokens,
        eos_token_id=[tokenizer.eos_token_id, *range(20, 20 + ends - 1)],
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=forbidden_tokens(encoder.processor),
        **settings,
    )
    if way is decode.generate:
        own["temperature"] = TEMPERATURE
    torch.manual_seed(5)
    return way(model, Towers(model), rows, num_generations=G, pad_id=tokenizer.pad_token_id, generation_config=config, **own)


def lengths_of(drawn: Drawn) -> list[int]:
    return (drawn.log_probs != 0).sum(1).tolist()


@pytest.mark.parametrize("static", [False, True], ids=["cut", "static"])
@pytest.mark.parametrize("settings", [SAMPLED, {"do_sample": False}], ids=["sampled", "greedy"])
@pytest.mark.parametrize("modalities", [["video"], ["audio", "audio_video", "video"]])
def test_the_same_tokens_are_drawn(world: World, settings: dict[str, Any], modalities: list[str], static: bool) -> None:
    model = ready(world)
    rows = prompts(world, model, modalities)
    expected = draw(world, model, rows, way=rollout.generate, **settings)
    found = draw(world, model, rows, static=static, **settings)
    assert torch.equal(found.ids, expected)
    assert expected.shape[0] == G * len(rows)
    assert len(expected.unique(dim=0)) == (G * len(rows) if settings["do_sample"] else len(rows))


@pytest.mark.parametrize("static", [False, True], ids=["cut", "static"])
@pytest.mark.parametrize("modalities", PROMPTS)
def test_log_probs_are_those_of_a_scoring_pass(world: World, modalities: list[str], static: bool) -> None:
    """Raw scores over the temperature: `top_k` and suppressed tokens shape the draw, not the log-probs."""
    model = ready(world)
    rows = prompts(world, model, modalities)
    found = draw(world, model, rows, ends=120, static=static, do_sample=True, temperature=TEMPERATURE, top_k=5)
    lengths = lengths_of(found)
    assert len(set(lengths)) > 1
    heads = [row for row in rows for _ in range(G)]
    mask = (torch.arange(found.ids.shape[1])[None] < torch.tensor(lengths)[:, None]).long()
    packed = pack(heads, found.ids, mask)
    with torch.no_grad():
        scored = model(packed=packed, packed_mode="cat", **Towers(model).media(packed.heads, torch.device("cpu"))).log_probs
    assert (found.log_probs - scored).abs().max() <= 1e-5
    for at, row in enumerate(heads):
        expected = reference_log_probs(model, row, found.ids[at, : lengths[at]].tolist(), TEMPERATURE)
        assert (found.log_probs[at, : lengths[at]] - expected).abs().max() <= 1e-5


def test_a_static_step_gives_what_a_cut_one_does(world: World) -> None:
    """A static step looks only now and then whether all is done, so some columns of padding may follow; the completions are the same."""
    model = ready(world)
    rows = prompts(world, model, ["audio", "video"])
    settings: dict[str, Any] = {"ends": 200, "tokens": 60, "do_sample": True, "temperature": TEMPERATURE}
    cut = draw(world, model, rows, static=False, **settings)
    static = draw(world, model, rows, static=True, **settings)
    width, ends = cut.ids.shape[1], list(range(20, 219))
    assert width < static.ids.shape[1] < 60, "all completions end before the last step"
    assert static.ids.shape[1] % decode.LOOK_EVERY == 0
    assert torch.equal(static.ids[:, :width], cut.ids)
    assert rollout.until_end(static.ids, ends) == rollout.until_end(cut.ids, ends)
    assert not static.log_probs[:, width:].any()
    assert (static.log_probs[:, :width] - cut.log_probs).abs().max() <= 1e-6


def test_both_forms_agree_under_autocast(world: World) -> None:
    """Under autocast keys come wider than values; the cache keeps both in the narrow type, and rounds as the products would."""
    model = ready(world)
    rows = prompts(world, model, ["audio", "video"])
    with torch.autocast("cpu", torch.bfloat16):
        cut, static = (draw(world, model, rows, static=static, do_sample=False, tokens=4) for static in (False, True))
    exact = draw(world, model, rows, do_sample=False, tokens=4)
    same = (cut.ids == exact.ids).cumprod(1).bool() & (static.ids == exact.ids).cumprod(1).bool()
    assert same[:, 0].all()
    for found in (cut, static):
        assert 0 < (found.log_probs - exact.log_probs).abs()[same].max() <= 0.1


def test_a_rollout_is_never_blind(world: World) -> None:
    model = ready(world)
    rows = prompts(world, model, ["audio", "video"])
    rows[1].pictures = None
    with pytest.raises(BlindBatchError, match="row 1 has video placeholders and no video features"):
        draw(world, model, rows, do_sample=True)


def test_broken_weights_are_no_completions(world: World) -> None:
    model = ready(world)
    model.lm_head.weight.data[7] = torch.nan
    with pytest.raises(RuntimeError, match="scores that are not finite"):
        draw(world, model, prompts(world, model, ["video"]), do_sample=True)


def test_a_step_that_cannot_be_captured_runs_as_it_is() -> None:
    """Reading a number from the device breaks a capture; without a device there is nothing to capture."""
    tokens = torch.ones(2, device="cuda" if torch.cuda.is_available() else "cpu", dtype=torch.long)

    def waits(tokens: Tensor) -> Tensor:
        return tokens * int(tokens.sum())

    graphs = Graphs()
    with pytest.warns(UserWarning, match="decode steps are not captured as a CUDA graph, and run one kernel at a time: "):
        assert graphs.captured(waits, tokens) is waits
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert graphs.captured(waits, tokens)(tokens).tolist() == [2, 2]


@pytest.mark.gpu
def test_a_captured_step_draws_what_an_uncaptured_one_does(world: World) -> None:
    model = ready(world, "cuda")
    rows = prompts(world, model, ["audio", "video"])
    settings: dict[str, Any] = {"ends": 40, "tokens": 60, "do_sample": True, "temperature": TEMPERATURE}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captured = draw(world, model, rows, graphs=Graphs(), **settings)
    for other in (draw(world, model, rows, **settings), draw(world, model, rows, graphs=Graphs(wanted=False), **settings)):
        assert torch.equal(other.ids, captured.ids)
        assert (other.log_probs - captured.log_probs).abs().max() <= 1e-5


class Counting(OmniGRPOTrainer):
    """Notes the passes over all rows, gradients or not; the checks of the shared way take two."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.passes: list[str] = []
        super().__init__(*arguments, **settings)

    def _count(self, model: Any, rows: Any) -> None:
        if len(rows) > 2:
            whose = "reference" if model is not self.model or (self._adapted and not active_adapters(model)) else "policy"
            self.passes.append(f"{whose}{'' if torch.is_grad_enabled() else ', scored'}")

    @property
    def _adapted(self) -> bool:
        return hasattr(self.model, "peft_config")

    def _plain(self, model: Any, rows: Any, *others: Any) -> Any:
        self._count(model, rows)
        return super()._plain(model, rows, *others)

    def _shared(self, model: Any, rows: Any, *others: Any) -> Any:
        self._count(model, rows)
        return super()._shared(model, rows, *others)


def run(world: World, tmp_path: Path, *, reuse: bool = True, **settings: Any) -> tuple[list[float], list[str], Counting]:
    """Losses of four optimizer steps, the passes made, and the trainer."""
    trainer = trainer_for(
        world,
        world.records("audio_video")[:4],
        tmp_path,
        kind=Counting,
        frozen=("vision", "audio"),
        **{"max_steps": 4, "max_completion_length": 8, "logging_steps": 1, "temperature": TEMPERATURE, "top_k": 20, **settings},
    )
    trainer.sharing.reuse &= reuse
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], trainer.passes, trainer


ADAPTER = LoraConfig(r=4, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False)


@pytest.mark.parametrize("settings", [{}, {"beta": 0.05}, {"beta": 0.05, "adapter": ADAPTER}], ids=["policy", "reference", "adapter"])
def test_the_rollout_policy_needs_no_pass_of_its_own(world: World, tmp_path: Path, settings: dict[str, Any]) -> None:
    """Two rollouts of two optimizer steps each: w_it of the second step is taken against the rollout's own log-probs."""
    losses, passes, _ = run(world, tmp_path, num_iterations=2, **settings)
    scored_losses, scored_passes, _ = run(world, tmp_path, num_iterations=2, reuse=False, **settings)
    reference = ["reference, scored"] if "beta" in settings else []
    assert passes == [*reference, "policy", "policy"] * 2
    assert scored_passes == ["policy, scored", *reference, "policy", "policy"] * 2
    assert losses == pytest.approx(scored_losses, abs=1e-5)
    assert len(losses) == 4
    assert max(map(abs, losses)) > 1e-3


def test_a_reference_is_never_taken_for_the_policy(world: World, tmp_path: Path) -> None:
    """With one step a rollout TRL asks for no log-probs but the reference's, of the policy's model with its adapters off."""
    losses, passes, _ = run(world, tmp_path, beta=0.5, adapter=ADAPTER)
    expected, _, _ = run(world, tmp_path, beta=0.5, adapter=ADAPTER, reuse=False)
    assert passes == ["reference, scored", "policy"] * 4
    assert losses == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("settings", [{"bf16": True}, {"shared_prefix": "off"}], ids=["half precision", "plain"])
def test_the_pass_is_made_otherwise(world: World, tmp_path: Path, settings: dict[str, Any]) -> None:
    """In half precision a rollout rounds otherwise than a pass; transformers' own loop notes no log-probs."""
    _, passes, trainer = run(world, tmp_path, num_iterations=2, **settings)
    assert passes == ["policy, scored", "policy", "policy"] * 2
    assert trainer._noted is None


def test_wrong_log_probs_of_a_rollout_are_found_out(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = decode._by_kernel

    def blind(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
        return right(query, key, torch.zeros_like(value), *others)

    monkeypatch.setattr(decode, "_by_kernel", blind)
    with pytest.warns(UserWarning, match="log-probs noted while sampling differ from the plain way by .*: those of the rollout policy are"):
        _, passes, _ = run(world, tmp_path, num_iterations=2)
    assert passes == ["policy, scored", "policy", "policy"] * 2


def first_batch(trainer: Counting) -> dict[str, Any]:
    """The rollout of the first step, scored."""
    trainer.model.train()
    torch.manual_seed(2)
    batch: dict[str, Any] = trainer._generate_and_score_completions(list(next(iter(trainer.get_train_dataloader()))))
    return batch


def test_the_pass_drops_no_units_either(world: World, tmp_path: Path) -> None:
    """Completions are drawn with all units of the adapters; so is their policy scored where a pass is made in place of what was noted."""
    adapter = LoraConfig(r=4, lora_dropout=0.5, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False)
    found = []
    for reuse in (True, False):
        trainer = trainer_for(world, world.records("audio")[:4], tmp_path, kind=Counting, adapter=adapter, num_iterations=2)
        trainer.sharing.reuse = reuse
        found.append(first_batch(trainer)["old_per_token_logps"])
        assert trainer.passes == ([] if reuse else ["policy, scored"])
    assert (found[0] - found[1]).abs().max() <= 1e-5


def test_a_pass_is_made_by_all_processes_or_none(world: World, tmp_path: Path) -> None:
    trainer = trainer_for(world, world.records("audio")[:4], tmp_path, kind=Counting, num_iterations=2)
    trainer._most = lambda value: max(value, 1.0)  # Another process holds groups that were replaced.
    first_batch(trainer)
    assert trainer.passes == ["policy, scored"]
