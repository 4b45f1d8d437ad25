"""What is planned before a device is used: parameters against real modules, bytes and operations worked out by hand, and real steps."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omnistage.data import synth
from omnistage.data.errors import InputError
from omnistage.launch import cli
from omnistage.rl import policy, published, tiny
from omnistage.stages.plan import fit, memory, report, sizes, step_time, tokens, work
from omnistage.stages.plan.memory import Dimensions, Load, Setting
from omnistage.stages.plan.sizes import Parameters
from omnistage.stages.recipe import loading as recipes
from omnistage.stages.recipe.schema import GrpoStage, Recipe, Training
from repository import ROOT

FULL = Parameters({"vision": 20, "audio": 10, "language": 100}, {"vision": 0, "audio": 0, "language": 100}, 0, 0, (), 40)
TOY = memory.Model(FULL, Dimensions(8, 16, 2, 4, 32), Dimensions(8, 16, 2, 8), Dimensions(8, 16, 2, 8))
PASS = Load(tokens=10, scored=4)
PLAIN = Setting(compute=4, checkpointing=False)


def loaded(name: str, *overrides: str) -> tuple[Recipe, Training]:
    recipe = recipes.load(name, overrides)
    stage = recipe.stages[0]
    assert isinstance(stage, Training)
    return recipe, stage


def planned(name: str, *overrides: str, gpu_gb: float = 80.0) -> dict[str, Any]:
    return report.plan(recipes.load(name, overrides), gpu_gb=gpu_gb)


def test_parameters_are_those_of_the_real_module(tmp_path: Path) -> None:
    """Rank 16 on q, k, v and o of 64 x 64 in 3 layers: 3 x 4 x 16 x (64 + 64) = 24,576."""
    tiny.build(tmp_path / "model", synth.corpus())
    recipe, stage = loaded("demo", "model.tiny=null", f"model.path={tmp_path / 'model'}", "model.freeze=[vision]")
    config, source = sizes.config_of(recipe)
    assert source.folder == str(tmp_path / "model")
    counted = sizes.parameters_of(config, stage, recipe)
    real = policy.load_for_training(str(tmp_path / "model"), ["vision"], whole_weights=True)
    for part in policy.PARTS:
        own = dict(policy.parameters_of(real, part))
        assert counted.base[part] == sum(p.numel() for p in own.values())
        assert counted.trained[part] == sum(p.numel() for p in own.values() if p.requires_grad)
    assert counted.trained["vision"] == 0
    recipe, stage = loaded("demo", "model.lora={rank: 16, alpha: 32}")
    adapted = sizes.parameters_of(sizes.config_of(recipe)[0], stage, recipe)
    assert (adapted.adapters, adapted.learned, adapted.adapted) == (24_576, 24_576, ("q_proj", "k_proj", "v_proj", "o_proj"))


@pytest.mark.parametrize(
    ("name", "layers", "hidden", "inner", "kept", "words"),
    [("Qwen/Qwen2.5-Omni-7B", 28, 3584, 18944, 512, 152064), ("Qwen/Qwen2.5-Omni-3B", 36, 2048, 11008, 256, 151936)],
)
def test_published_sizes(name: str, layers: int, hidden: int, inner: int, kept: int, words: int) -> None:
    """q and o, k and v with their biases, three of the MLP, two norms a layer; a last norm; two tables of words (7B: 7.62 billion)."""
    of_layer = 2 * hidden**2 + 2 * hidden * kept + hidden + 2 * kept + 3 * hidden * inner + 2 * hidden
    language = policy.parameters_of(sizes.thinker_of(published.config_of(name)), "language")
    assert sum(p.numel() for _, p in language) == layers * of_layer + hidden + 2 * words * hidden


def test_an_unknown_name_that_cannot_be_had_is_one_line() -> None:
    recipe, _ = loaded("humansense_7b", "model.path=Qwen/Qwen2.5-Omni-99B")
    with pytest.raises(InputError, match=r"model\.path: 'Qwen/Qwen2\.5-Omni-99B' is no folder here"):
        sizes.config_of(recipe)


def test_memory_of_a_toy_by_hand() -> None:
    """float32, all of the language model trained, h 8, i 16, k 4, two layers, 10 tokens of which 4 are scored.

    A layer saves 2 x 4 x 8 + 2 x 4 x 8 for norms, 4 x (8 + 2 x 4) + 4 x 8 + 4 x 8 of attention, 4 x 8 before q, 3 x 4 x 16 + 4 x 8 + 4 x 16
    of the MLP: 576 bytes a token. Behind it 3 x 4 x 16 + 2 x 4 x 8 = 256 a token; the head: a tile of 4 x 32768 x 4, 4 x 8 x (4 + 4) of
    states, 4 x 32 x 8 of its gradient.
    """
    made = memory.estimate(TOY, PLAIN, PASS)
    assert memory.layer_bytes(TOY.language, PLAIN, trained=True, packed=True) == 576
    assert {part: size for part, size in made.phases["backward"].items() if size} == {
        "weights": 520,
        "optimizer": 800,
        "activations": 2 * 10 * 576,
        "workspace": 2560,
        "logits": 524_288 + 256 + 1024,
    }
    assert sum(made.phases["optimizer"].values()) == 520 + 800 + 400
    again = memory.estimate(TOY, replace(PLAIN, checkpointing=True), PASS)
    assert again.phases["backward"]["activations"] == 10 * 4 * 8 * 2 + 10 * 576, "two layers' inputs and one layer computed again"


def test_memory_of_each_engine_by_hand() -> None:
    """Two bytes a number, 100 of 130 parameters trained, four processes: DeepSpeed keeps 12 bytes for each trained one on one of them."""
    whole = memory.estimate(TOY, Setting(checkpointing=False), PASS).phases["optimizer"]
    assert whole["weights"] == 4 * 100 + 2 * 30, "what is trained is float32"
    ddp = memory.estimate(TOY, Setting("ddp", 4, 4), PASS).phases["optimizer"]
    assert (ddp["weights"], ddp["optimizer"], ddp["gradients"], ddp["buckets"]) == (460, 800, 400, 400)
    fsdp2 = memory.estimate(TOY, Setting("fsdp2", 4, 4), PASS).phases["optimizer"]
    assert (fsdp2["weights"], fsdp2["optimizer"], fsdp2["gradients"]) == (60 + 400 / 4, 200, 100), (
        "30 parameters of frozen towers are whole"
    )
    zero2 = memory.estimate(TOY, Setting("zero2", 4, 4), PASS).phases["optimizer"]
    assert (zero2["weights"], zero2["optimizer"], zero2["gradients"], zero2["buckets"]) == (260, 300, 50, 400)
    zero3 = memory.estimate(TOY, Setting("zero3", 4, 4, reference=True), PASS).phases
    assert (zero3["optimizer"]["weights"], zero3["optimizer"]["reference"], zero3["optimizer"]["optimizer"]) == (65, 65, 300)
    assert zero3["backward"]["gathered weights"] == 260
    offload = memory.estimate(TOY, Setting("zero3_offload", 4, 4), PASS)
    assert offload.phases["optimizer"]["weights"] + offload.phases["optimizer"]["optimizer"] == 0
    assert offload.on_cpu == 4 * (65 + 300 + 100), "shares of weights, optimizer and float32 gradients of all four processes"


def test_rollout_by_hand() -> None:
    """2 x 4 x 2 x 4 = 64 bytes a token: two prompts of 100 tokens, twice while they are laid out, and 8 completions of 10; sampling 6
    float32 arrays of 8 x 32. Not shared: each row has its prompt beside."""
    load = replace(PASS, rows=8, prompts=2, prompt_tokens=100, completion=10)
    made = memory.estimate(TOY, PLAIN, load).phases["rollout"]
    assert (made["KV cache"], made["sampling"]) == (64 * (400 + 80), 6 * 4 * 8 * 32)
    plain = memory.estimate(TOY, PLAIN, replace(load, packed=False)).phases["rollout"]
    assert plain["KV cache"] == 64 * (200 + 8 * 110)


def test_a_pass_is_what_the_recipe_asks() -> None:
    """Two groups of 8 a process, one a pass: its prompt once, 8 completions of 2048, each over a copy of the prompt's keys (`cat`); towers
    are trained."""
    recipe, stage = loaded("humansense_7b", "launch.processes=4")
    assert isinstance(stage, GrpoStage)
    prompt = tokens.Prompt(1000, 700, 100)
    counted = tokens.Tokens({}, prompt, prompt, 0, None, "")
    made = work.load_of(recipe, stage, counted, prompt, cpu=False)
    assert (made.tokens, made.scored, made.copied, made.passes) == (1000 + 8 * 2048, 8 * 2048, 8 * 3048, 2)
    assert (made.patches, made.frames, made.rows, made.prompts) == (4 * 700, 2 * 100, 16, 2)
    plain = work.load_of(*loaded("humansense_7b", "stages.video.shared_prefix=off"), counted, prompt, cpu=False)
    assert (plain.tokens, plain.copied, plain.packed) == (8 * 3048, 0, False)


def test_sharing_saves_the_operations_that_it_should() -> None:
    """7B, P 4096, C 512, G 8: 2 N G (P + C) + a G (P + C)^2 / 2 against 2 N (P + G C) + a (P^2 / 2 + G C P + G C^2 / 2), both with
    2 N_h G C of the head: N 6.53e9, N_h 0.545e9, a 4 x 28 x 3584 give 5.20e14 and 1.22e14 operations, 4.26 times less."""
    recipe, stage = loaded("humansense_7b", "stages.video.max_completion_length=512", "stages.video.prompts_per_step=8")
    config, _ = sizes.config_of(recipe)
    model = memory.model_of(config, sizes.parameters_of(config, stage, recipe))
    prompt = tokens.Prompt(4096, 0, 0)
    counted = tokens.Tokens({}, prompt, prompt, 0, None, "")
    shared = step_time.forward(model, work.load_of(recipe, stage, counted, prompt, cpu=False))
    off, off_stage = loaded("humansense_7b", "stages.video.max_completion_length=512", "stages.video.shared_prefix=off")
    plain = step_time.forward(model, work.load_of(off, off_stage, counted, prompt, cpu=False))
    assert plain / shared == pytest.approx(4.26, abs=0.005)


def test_tokens_of_the_limits_and_of_rows(tmp_path: Path) -> None:
    """Of ten values the fifth is the median and the tenth the 95th percentile. Rows that are here are counted; six of eight are drawn."""
    assert [tokens.percentile(range(1, 11), share) for share in (50, 90, 95, 100)] == [5, 9, 10, 10]
    synth.render(tmp_path / "data", seed=0, cold_start=0, train=8, held_out=0, modalities=["video"], workers=1)
    data = f"stages.video.data=[{{path: {tmp_path}/data/train_video.json, media_root: {tmp_path}/data, modality: video}}]"
    recipe = recipes.load("demo", [data])
    stage = recipe.stages[1]
    assert isinstance(stage, GrpoStage)
    without = tokens.of_stage(recipe, stage, None, 6)
    assert (without.rows, without.longest.total) == (8, 512 + 8 * 16)
    tiny.build(tmp_path / "model", synth.corpus())
    counted = tokens.of_stage(recipe, stage, str(tmp_path / "model"), 6)
    assert counted.told == "6 of 8 rows"
    assert 0 < counted.longest.seen <= 8 * 16
    assert counted.percentiles["video"]["p100"] == counted.longest.total < without.longest.total


@pytest.mark.parametrize("name", sorted(recipes.shipped()))
def test_every_shipped_recipe_is_planned(name: str) -> None:
    found = planned(name)
    assert [stage["name"] for stage in found["stages"]] == [s.name for s in recipes.load(name).stages if isinstance(s, Training)]
    for stage in found["stages"]:
        assert stage["fits"] or stage["would_fit"], stage["name"]
    json.dumps(found)
    assert all(line.isascii() for line in report.lines(found))
    if name == "humansense_7b":
        assert all(stage["fits"] for stage in found["stages"]), "8 GPUs of 80 GB, as it was published"


def test_what_does_not_fit_names_settings_that_do() -> None:
    """All weights of 7B need about 18 bytes each on one GPU; what is named fits when it is planned."""
    found = planned("humansense_7b", "launch.engine=single", "launch.processes=1")
    stage = found["stages"][0]
    assert not stage["fits"]
    assert stage["memory"]["single"]["peak"] > 16 * 8.9e9
    assert stage["would_fit"]
    for remedy in stage["would_fit"]:
        changed = planned("humansense_7b", "launch.engine=single", "launch.processes=1", *remedy["settings"])["stages"][0]
        assert changed["fits"]
        assert changed["memory"][changed["engine"]]["peak"] == remedy["peak"]
    said = "\n".join(report.lines(found))
    assert "does NOT fit" in said
    assert str(fit.Remedy(tuple(stage["would_fit"][0]["settings"]), stage["would_fit"][0]["peak"])) in said


def test_the_largest_batch_is_the_last_that_fits() -> None:
    """Adapters on 3B, eight groups of 8: on 24 GB a pass of the named size fits and the next larger one does not."""
    stage = planned("humansense_3b_lora_1gpu", gpu_gb=24)["stages"][0]
    at, limit = stage["batch"]["largest"], fit.SAFE * 24e9
    peaks = {
        count: planned("humansense_3b_lora_1gpu", f"stages.video.per_device_batch={count}", gpu_gb=24)["stages"][0]["memory"]["single"][
            "peak"
        ]
        for count in (at, 2 * at)
    }
    assert peaks[at] <= limit < peaks[2 * at]


def test_disk_by_hand() -> None:
    """A model of 4 x 100 + 2 x 30 bytes, a checkpoint with 8 bytes more for each trained parameter, one for every 10 of 25 steps; two are
    kept and a third is there while it is written."""
    recipe, stage = loaded("demo", "stages.cold_start.save_every=10", "model.dtype=bfloat16")
    made = report.disk_of(recipe, recipe.stages[0], FULL, 25)  # type: ignore[arg-type]
    assert made == {"model": 460, "checkpoint": 1260, "checkpoints": 2, "bytes": 460 + 2 * 1260}
    assert report.disk_of(recipe, recipe.stages[0], FULL, None)["checkpoints"] == 3  # type: ignore[arg-type]
    assert stage.save_every == 10


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 when all fits, 1 when a stage does not; JSON holds what the lines say."""
    assert cli.main(["plan", "demo"]) == 0
    out = capsys.readouterr().out
    assert "trains       528,320 parameters, 0 frozen" in out
    assert "no rate here was measured" in out
    assert cli.main(["plan", "demo", "--json", "--gpu-gb", "0.9", "--set", "stages.video.num_generations=8"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["gpu_bytes"] == 9e8
    assert not found["stages"][0]["fits"]
    assert found["stages"][0]["would_fit"]


@pytest.mark.parametrize("case", ["full, checkpointing"])
def test_real_steps_take_what_was_planned(case: str) -> None:
    """The peak of two real steps (rollout, backward, AdamW) in a process of its own, within 25 %; docs/clusters.md has more settings."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "plan.py"), "--json", "--case", case], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    row = json.loads(done.stdout.strip().splitlines()[-1])
    assert row["measured"] > 100e6, "small enough to be noise"
    assert 0.75 < row["ratio"] < 1.25
