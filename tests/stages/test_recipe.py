"""The recipe: what is shipped loads, what is wrong is one line that says where and what is allowed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from omnistage.data import formats
from omnistage.data.errors import RecipeError
from omnistage.data.records import Modality
from omnistage.rewards import registry
from omnistage.stages.recipe import loading as recipes
from omnistage.stages.recipe.engines import deepspeed_settings
from omnistage.stages.recipe.yaml_file import parse_yaml

GOOD = """
run_dir: runs/test
model: {tiny: {}}
stages:
  - {name: start, kind: sft, learning_rate: 1e-3, steps: 2, data: [{path: a.json}]}
  - name: video
    kind: grpo
    modality: video
    learning_rate: 1e-6
    epochs: 0.5
    data: [{path: b.json, modality: video}, {path: c.json, modality: audio, weight: 0.5}]
    rewards: [{name: accuracy}]
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(GOOD)
    return path


def fault(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        recipes.load(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", sorted(recipes.shipped()))
def test_shipped_recipe_loads_describes_and_round_trips(name: str) -> None:
    recipe = recipes.load(name)
    text = recipes.describe(recipe)
    for number, stage in enumerate(recipe.stages, start=1):
        assert f"{number:02d} {stage.name}" in text
    assert recipes.build(recipes.Recipe, json.loads(json.dumps(recipes.dump(recipe))), "again") == recipe


def test_published_settings() -> None:
    """The numbers of the published scripts (identical in the three of them)."""
    recipe = recipes.load("humansense_7b")
    assert [stage.name for stage in recipe.stages] == ["video", "audio", "audio_video"]
    assert (recipe.launch.engine, recipe.launch.processes, recipe.media.max_frames, recipe.media.max_pixels) == ("zero3", 8, 16, 360 * 420)
    assert recipe.model.freeze == []
    for stage in recipe.stages:
        assert isinstance(stage, recipes.GrpoStage)
        assert (stage.num_generations, stage.prompts_per_step, stage.learning_rate, stage.beta) == (8, 8, 1e-6, 0.1)
        assert (stage.reference, stage.temperature, stage.max_completion_length, stage.epochs) == ("stage_start", 1.0, 2048, 1)
        assert [(reward.name, reward.weight) for reward in stage.rewards] == [("accuracy", 1.0), ("format", 1.0)]
        assert stage.data[0].modality == stage.modality == Modality(stage.name)


def test_demo_follows_its_run_dir() -> None:
    recipe = recipes.load("demo", ["run_dir=elsewhere/x"])
    assert recipe.synth is not None
    assert recipe.evaluation is not None
    paths = [source.path for part in [recipe.evaluation, *recipe.stages] for source in part.data]
    roots = {source.media_root for part in [recipe.evaluation, *recipe.stages] for source in part.data}
    assert recipe.synth.path == "elsewhere/x/data"
    assert roots == {"elsewhere/x/data"}
    assert all(re.fullmatch(r"elsewhere/x/data/(cold_start|train|held_out)_(video|audio|audio_video)\.json", path) for path in paths)


def test_a_file_wins_over_a_shipped_name_and_a_folder_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    assert recipes.load("demo").run_dir == "runs/demo"
    Path("demo").rmdir()
    Path("demo").write_text(GOOD)
    assert recipes.load("demo").run_dir == "runs/test"


def test_defaults_and_folders(good: Path) -> None:
    recipe = recipes.load(good)
    video = recipe.stages[1]
    assert isinstance(video, recipes.GrpoStage)
    assert (video.reference, video.completions_per_step) == ("none", 64)
    assert recipe.stage_dir("video") == Path("runs/test/02-video")


HEAD = """
run_dir: runs/test
model: {tiny: {}}
stages:
  - name: pose
    kind: head
    head:
      name: pose
      anchor: {at: token}
      codec: {kind: affine, low: 0.0, high: 1.0}
      losses: [{name: l1}]
    batch_size: 8
    learning_rate: 1e-3
    steps: 2
    data: [{path: a.json}]
    evaluation: {data: [{path: b.json}]}
"""


def test_a_head_may_be_trained_alone(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(HEAD)
    recipe = recipes.load(path, ["stages.pose.freeze=[vision, audio, language]", "stages.pose.head.anchor={at: prompt_end}"])
    assert "trains       the head; frozen: vision, audio, language" in recipes.describe(recipe)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["stages.pose.lora={rank: 4}", "launch={engine: zero3, processes: 2}"],
            "stages[0] (pose): lora is given, the head is at a token and launch.engine is 'zero3'; peft cannot save a token's rows "
            "from sharded weights; allowed: single, ddp, zero2",
        ),
        (
            ["stages.pose.head.losses=[{name: correlation}]", "stages.pose.trainer={gradient_accumulation_steps: 8}"],
            "stages[0] (pose): losses has nothing but 'correlation'; a forward pass takes 1 record of the 8 in batch_size, and a "
            "correlation needs at least 2",
        ),
        (
            ["stages.pose.evaluation.data.0.pass_rate={file: r.jsonl}"],
            "stages[0] (pose).evaluation.data: b.json has a pass_rate; what a model is measured on must not be chosen by what a model "
            "answers",
        ),
    ],
)
def test_rules_of_a_head_stage(tmp_path: Path, overrides: list[str], message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(HEAD)
    assert fault(path, *overrides) == message


def test_reference_follows_beta_unless_it_is_given(good: Path) -> None:
    derived = recipes.load(good, ["stages.video.beta=0.1"]).stages[1]
    given = recipes.load(good, ["stages.video.beta=0.1", "stages.video.reference=base"]).stages[1]
    assert isinstance(derived, recipes.GrpoStage)
    assert isinstance(given, recipes.GrpoStage)
    assert (derived.reference, given.reference) == ("stage_start", "base")


def test_stage_settings_come_before_the_models(good: Path) -> None:
    overrides = ["model.freeze=[vision]", "model.lora={rank: 4}", "stages.video.freeze=[]", "stages.video.lora={rank: 8}"]
    recipe = recipes.load(good, overrides)
    start, video = recipe.stages
    assert isinstance(start, recipes.SftStage)
    assert isinstance(video, recipes.GrpoStage)
    ranks = [lora.rank for lora in (recipe.lora_of(start), recipe.lora_of(video)) if lora]
    assert (recipe.freeze_of(start), recipe.freeze_of(video), ranks) == (["vision"], [], [4, 8])


def test_recipes_are_frozen(good: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        recipes.load(good).seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("seed=7", lambda r: r.seed == 7),
        ("stages.video.rewards.0.only={kind: number}", lambda r: r.stages[1].rewards[0].only.columns() == {"kind": {"number"}}),
        (
            "stages.video.rewards.0.only={modality: [audio, video], task: count}",
            lambda r: r.stages[1].rewards[0].only.columns() == {"modality": {"audio", "video"}, "task": {"count"}},
        ),
        ("stages.video.rewards.0.name=mine.py:seen", lambda r: r.stages[1].rewards[0].name == "mine.py:seen"),
        ("media.fps=4", lambda r: r.media.fps == 4.0),
        ("stages.video.learning_rate=2e-6", lambda r: r.stages[1].learning_rate == 2e-6),
        ("stages.video.shared_prefix=off", lambda r: r.stages[1].shared_prefix == "off"),
        ("stages.video.dynamic_sampling={rounds: 2}", lambda r: r.stages[1].dynamic_sampling.rounds == 2),
        (
            "stages.video.data.0.pass_rate={file: r.jsonl}",
            lambda r: [r.stages[1].data[0].pass_rate.keeps(p) for p in (0, 0.5, 1)] == [0, 1, 0],
        ),
        ("stages.1.num_generations=4", lambda r: r.stages[1].num_generations == 4),
        ("stages.video.data.1.weight=3", lambda r: [s.weight for s in r.stages[1].data] == [1.0, 3.0]),
        ("stages.video.rewards.accuracy.weight=-2.5", lambda r: r.stages[1].rewards[0].weight == -2.5),
        ("stages.video.trainer.max_grad_norm=0.5", lambda r: r.stages[1].trainer == {"max_grad_norm": 0.5}),
        ("model={path: org/name, freeze: [audio]}", lambda r: (r.model.path, r.model.freeze) == ("org/name", ["audio"])),
        ('model.system_prompt="a=b: c"', lambda r: r.model.system_prompt == "a=b: c"),
    ],
)
def test_override(good: Path, override: str, read: Any) -> None:
    assert read(recipes.load(good, [override]))


def test_overriding_one_stage_leaves_the_others_that_share_its_anchor() -> None:
    stages = recipes.load("humansense_7b", ["stages.audio.rewards.format.weight=0.5", "stages.audio.trainer.logging_steps=3"]).stages
    grpo = [stage for stage in stages if isinstance(stage, recipes.GrpoStage)]
    assert [[reward.weight for reward in stage.rewards] for stage in grpo] == [[1, 1], [1, 0.5], [1, 1]]
    assert [stage.trainer["logging_steps"] for stage in grpo] == [1, 3, 1]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=true"], "seed: is True; must be a whole number"),
        (["media.fps=.nan"], "media.fps: is nan; must be a finite number"),
        (["run_dir="], "run_dir: is null; must be text"),
        (["stages=[]"], "stages: has 0 entries; must have at least 1"),
        (["stages.video.num_generations=1"], "stages[1] (video).num_generations: is 1; must be at least 2"),
        (["stages.video.data.1.weight=0"], "stages[1] (video).data[1].weight: is 0; must be more than 0"),
        (
            ["stages.video.rewards.0.only={modality: vido}"],
            "stages[1] (video).rewards[0] (accuracy).only.modality[0]: unknown value 'vido'; did you mean 'video'? known: "
            "audio, audio_video, image, text, video",
        ),
        (
            ["stages.video.rewards.0.only={task: []}"],
            "stages[1] (video).rewards[0] (accuracy).only.task: has 0 entries; must have at least 1",
        ),
        (
            ["stages.video.rewards.0.only={color: red}"],
            "stages[1] (video).rewards[0] (accuracy).only: unknown key 'color'; known: kind, modality, task",
        ),
        (
            ["stages.video.rewards.0.only={}"],
            "stages[1] (video).rewards[0] (accuracy).only: names no column; give modality, task or kind, or leave it out",
        ),
        (
            ["stages.video.rewards.0.config={partal: true}"],
            "stages[1] (video).rewards[0] (accuracy): reward 'accuracy': unknown setting 'partal'; did you mean 'partial'? known: partial",
        ),
        (
            ["stages.video.rewards.0.config={partial: 3}"],
            "stages[1] (video).rewards[0] (accuracy): reward 'accuracy': setting 'partial' is 3: input should be a valid boolean",
        ),
        (
            ["stages.video.rewards.0.label='a/b'"],
            "stages[1] (video).rewards[0] (accuracy).label: is 'a/b'; must match ^[\\w.-]+$",
        ),
        (
            ["stages.video.rewards.0.on_error=zero"],
            "stages[1] (video).rewards[0] (accuracy).on_error: unknown value 'zero'; known: mask, stop",
        ),
        (
            ["stages.video.rewards.0.segment=thinking"],
            "stages[1] (video).rewards[0] (accuracy).segment: unknown value 'thinking'; "
            "did you mean 'think'? known: answer, context, think",
        ),
        (
            ["stages.video.rewards=[{name: accuracy}, {name: accuracy, weight: 2}]"],
            "stages[1] (video).rewards: has two that are logged as 'accuracy'; give one of them a label",
        ),
        (
            ["stages.video.aggregation=mean"],
            "stages[1] (video).aggregation: unknown value 'mean'; known: normalize_then_sum, sum_then_normalize",
        ),
        (["stages.video.rewards.0.weight=x"], "stages[1] (video).rewards[0] (accuracy).weight: is 'x'; must be a number"),
        (["stages.video.kind=grop"], "stages[1] (video).kind: unknown value 'grop'; did you mean 'grpo'? known: evaluate, grpo, head, sft"),
        (
            ["stages.video.modality=vido"],
            "stages[1] (video).modality: unknown value 'vido'; did you mean 'video'? known: audio, audio_video, image, text, video",
        ),
        (
            ["model.attention=spda"],
            "model.attention: unknown value 'spda'; did you mean 'sdpa'? known: auto, eager, flash_attention_2, sdpa",
        ),
        (
            ["launch.procesess=2"],
            "launch: unknown key 'procesess'; did you mean 'processes'? known: engine, nodes, processes, restart, threads, wait_min",
        ),
        (
            ["stages.start.data.0.format=humansens"],
            "stages[0] (start).data[0].format: unknown format 'humansens'; did you mean 'humansense'? known: "
            f"{', '.join(formats.known())}; your own: package.module:function or path/file.py:function",
        ),
        (
            ["stages.video.rewards.0.name=acuracy"],
            "stages[1] (video).rewards[0] (acuracy).name: unknown reward 'acuracy'; did you mean 'accuracy'? known: "
            f"{', '.join(registry.known())}; your own: package.module:function or path/file.py:function",
        ),
        (["launch.wait_min=1e+300"], "launch.wait_min: is 1e+300; must be at most 43200"),
        (["stages.1.name=start"], "stages[0] and stages[1] are both named 'start'; names must be unique"),
        (["stages.1.name=A b"], "stages[1] (A b).name: is 'A b'; must match ^[a-z0-9_]+$"),
        (["stages.video.trainer.beta=1"], "stages[1] (video).trainer: sets 'beta', which is a field of the stage itself; set it there"),
        (["stages.video.trainer={a-b: 1}"], "stages[1] (video).trainer: has the key 'a-b', which cannot name a field of TRL's config"),
        (
            ["model.lora.targets=("],
            "model.lora.targets: is '(', which is no regular expression: missing ), unterminated subpattern at position 0",
        ),
        (["synth={path: x, train: 1, held_out: 1}"], "synth.cold_start: is missing"),
        (["synth={path: x, cold_start: 1, train: 1, held_out: 1, pose: {train: 3}}"], "synth.pose.held_out: is missing"),
        (
            ["seed=a", "stages.video.temperature=0"],
            "seed: is 'a'; must be a whole number | stages[1] (video).temperature: is 0; must be more than 0",
        ),
    ],
)
def test_wrong_value(good: Path, overrides: list[str], message: str) -> None:
    assert fault(good, *overrides) == message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.path=org/name"], "model: path is 'org/name' and tiny is given too; give exactly one"),
        (["model.tiny=null"], "model: has neither path nor tiny; give exactly one"),
        (["model.tiny.hidden=65"], "model.tiny: hidden is 65 and heads is 4; hidden must be a multiple of heads"),
        (["model.tiny.tower_hidden=6"], "model.tiny: tower_hidden is 6 and heads is 4; tower_hidden must be a multiple of heads"),
        (
            ["model.attention=flash_attention_2", "model.dtype=float32"],
            "model: attention is 'flash_attention_2' and dtype is 'float32'; flash attention needs 'bfloat16' or 'float16'",
        ),
        (["media={min_pixels: 9, max_pixels: 4}"], "media: min_pixels is 9 and max_pixels is 4; min_pixels must not be larger"),
        (
            ["media={cache: {path: x, max_gb: 1}, feature_cache: {path: x, max_gb: 1}}"],
            "media: cache.path and feature_cache.path are both 'x'; each needs a folder of its own",
        ),
        (
            ["launch.processes=2"],
            "launch: engine is 'single' and processes is 2; 'single' runs one process (or take ddp, fsdp2, zero2, zero3)",
        ),
        (["stages.video.steps=3"], "stages[1] (video): steps is 3 and epochs is 0.5; give exactly one (the other null)"),
        (["stages.video.epochs=null"], "stages[1] (video): has neither steps nor epochs; give exactly one"),
        (
            ["stages.video.reference=base"],
            "stages[1] (video): reference is 'base' and beta is 0; reference must be 'none' exactly when beta is 0",
        ),
        (
            ["stages.video.reference=none", "stages.video.beta=0.04"],
            "stages[1] (video): reference is 'none' and beta is 0.04; reference must be 'none' exactly when beta is 0",
        ),
        (
            ["stages.video.modality=audio_video"],
            "stages[1] (video): modality is 'audio_video' and its sources hold audio, video; at least one must hold 'audio_video'",
        ),
        (
            ["model.dtype=float16", "launch={engine: fsdp2, processes: 2}"],
            "model.dtype is 'float16' and launch.engine is 'fsdp2'; dtype must be auto, bfloat16 or float32",
        ),
        (
            ["stages.video.per_device_batch=24"],
            "stages[1] (video): prompts_per_step x num_generations is 64 and per_device_batch x launch.processes is 24; "
            "the first must be a multiple of the second",
        ),
        (
            ["stages.video.num_generations=6", "stages.video.per_device_batch=4"],
            "stages[1] (video): per_device_batch is 4 and num_generations is 6; one must be a multiple of the other "
            "(a forward pass takes whole groups, or an equal slice of one)",
        ),
        (
            ["stages.video.per_device_batch=12"],
            "stages[1] (video): per_device_batch is 12 and num_generations is 8; one must be a multiple of the other "
            "(a forward pass takes whole groups, or an equal slice of one)",
        ),
        (["stages.video.dynamic_sampling={rounds: 0}"], "stages[1] (video).dynamic_sampling.rounds: is 0; must be at least 1"),
        (["stages.video.dynamic_sampling={}"], "stages[1] (video).dynamic_sampling.rounds: is missing"),
        (
            ["stages.video.data.0.pass_rate={file: r.jsonl, at_least: 0.9, at_most: 0.1}"],
            "stages[1] (video).data[0].pass_rate: at_least is 0.9 and at_most is 0.1; at_least must not be larger",
        ),
        (
            ["stages.video.data.0.pass_rate={file: r.jsonl, at_least: 1.5}"],
            "stages[1] (video).data[0].pass_rate.at_least: is 1.5; must be at most 1",
        ),
        (
            ["evaluation={data: [{path: held.json, pass_rate: {file: r.jsonl}}]}"],
            "evaluation.data: held.json has a pass_rate; what a model is measured on must not be chosen by what a model answers",
        ),
        (
            [
                "stages.start={name: start, kind: head, learning_rate: 1e-3, steps: 2, data: [{path: a.json}], "
                "head: {name: mos, codec: {kind: affine, low: 0, high: 1}, losses: [{name: l1}]}, "
                "evaluation: {data: [{path: held.json, pass_rate: {file: r.jsonl}}]}}"
            ],
            "stages[0] (start).evaluation.data: held.json has a pass_rate; what a model is measured on must not be chosen by what "
            "a model answers",
        ),
        (
            ["model.attention=eager", "stages.video.shared_prefix=cat"],
            "stages[1] (video): shared_prefix is 'cat' and model.attention is 'eager', which cannot share; "
            "shared_prefix must be auto or off (both score plainly), or the attention another one",
        ),
        (
            ["launch={engine: ddp, processes: 3}", "stages.start.batch_size=15"],
            "stages[1] (video): prompts_per_step is 8 and launch.processes is 3; the first must be a multiple of the second",
        ),
        (
            ["launch={engine: ddp, processes: 3}"],
            "stages[0] (start): batch_size is 16 and launch.processes is 3; the first must be a multiple of the second",
        ),
        (
            ["stages.start.freeze=[vision, audio, language]"],
            "stages[0] (start): freeze names vision, audio and language; nothing is left to train "
            "(adapters go to parts that are not frozen)",
        ),
        (
            ["stages.start.freeze=[language]", "model.lora={}"],
            "stages[0] (start): freeze names language, and lora.targets match nothing else; nothing is left to train",
        ),
        (
            ["stages.video.reference=base", "stages.video.beta=0.1", "model.lora={}"],
            "stages[1] (video): reference is 'base' and lora is given; adapters are held to the model under them, 'stage_start'",
        ),
        (
            ["stages.video.iterations=2", "stages.video.save_every=3"],
            "stages[1] (video): save_every is 3 and iterations is 2; save_every must be a multiple of iterations",
        ),
        (
            ["stages.video.rollout={mode: server}"],
            "stages[1] (video).rollout: engine is 'policy' and mode is given, which is vLLM's; take engine: vllm, or leave it out",
        ),
        (
            ["stages.video.rollout={engine: vllm, server_port: 9000}"],
            "stages[1] (video).rollout: mode is 'colocate' and server_port is given, which the other mode takes",
        ),
        (
            ["stages.video.rollout={engine: vllm, mode: server, sleep: true}"],
            "stages[1] (video).rollout: mode is 'server' and sleep is given, which the other mode takes",
        ),
        (
            ["stages.video.rollout={engine: vllm, mode: server, server_url: 'http://x', server_port: 9000}"],
            "stages[1] (video).rollout: server_url is 'http://x' and server_host or server_port is given; give one of the two",
        ),
        (
            ["stages.video.rollout={engine: vllm}", "stages.video.dynamic_sampling={rounds: 1}"],
            "stages[1] (video): rollout.engine is 'vllm' and dynamic_sampling is given; allowed: dynamic_sampling null, or rollout.engine "
            "policy",
        ),
        (
            ["stages.video.rollout={engine: vllm}", "stages.video.data.1.modality=audio_video"],
            "stages[1] (video): rollout.engine is 'vllm' and a modality is 'audio_video', whose interleaved tokens vLLM reads at other "
            "positions; allowed: image, video, audio, text, or rollout.engine policy",
        ),
        (
            ["stages.video.rollout={engine: vllm}", "stages.video.trainer={vllm_importance_sampling_correction: false}"],
            "stages[1] (video): rollout.engine is 'vllm' and trainer.vllm_importance_sampling_correction is not true, which it must be",
        ),
        (
            ["stages.video.rollout={engine: vllm}", "launch={engine: zero3, processes: 2}"],
            "stages[1] (video): rollout.engine is 'vllm' and launch.engine is 'zero3'; weights spread over processes are not handed over "
            "to vLLM yet; allowed: single, ddp, zero2",
        ),
        (
            ["stages.video.rollout={engine: vllm, tensor_parallel: 2}"],
            "stages[1] (video): rollout.tensor_parallel is 2, of which 1 processes are no multiple",
        ),
        (
            ["synth={path: x, cold_start: 1, train: 1, held_out: 1, wrong_answers: {text: 0.5}}"],
            "synth.wrong_answers: names 'text', which has no clips; allowed: video, audio, audio_video",
        ),
    ],
)
def test_broken_rule_says_both_values(good: Path, overrides: list[str], message: str) -> None:
    assert fault(good, *overrides) == message


def test_rules_let_their_neighbours_through(good: Path) -> None:
    """Each just inside a rule that the test above breaks."""
    recipes.load(good, ["stages.start.freeze=[vision, audio]", "model.lora={}"])
    recipes.load(good, ["stages.start.freeze=[language]", "model.lora={targets: [qkv]}"])
    recipes.load(good, ["stages.video.reference=stage_start", "stages.video.beta=0.1", "model.lora={}"])
    recipes.load(good, ["stages.video.iterations=2", "stages.video.save_every=4"])
    recipes.load(good, ["stages.video.modality=audio_video", "stages.video.data.0.modality=null"])
    recipes.load(good, ["media={min_pixels: 4, max_pixels: 4}"])
    recipes.load(good, ["stages.video.rollout={engine: vllm, tensor_parallel: 2}", "launch={engine: ddp, processes: 4}"])
    recipes.load(good, ["stages.video.rollout={engine: vllm, mode: server, server_url: 'http://127.0.0.1:8000'}"])
    recipes.load(good, ["stages.video.rollout={engine: policy}", "stages.video.dynamic_sampling={rounds: 1}"])
    recipes.load(good, ["media={cache: {path: x, max_gb: 1}, feature_cache: {path: y, max_gb: 1}}"])
    recipes.load(good, ["launch={engine: ddp, processes: 2}", "stages.video.per_device_batch=32"])
    recipes.load(good, ["stages.video.per_device_batch=4"])
    recipes.load(good, ["stages.video.data.0.pass_rate={file: r.jsonl, at_least: 0.5, at_most: 0.5}"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "--set seed: must read KEY=VALUE, with dots between the parts of KEY"),
        ("a..b=1", "--set a..b=1: must read KEY=VALUE, with dots between the parts of KEY"),
        ("seed=[1", "--set seed=[1: line 1: expected ',' or ']', but got '<stream end>'"),
        ("seed.x=1", "--set seed.x=1: seed is 3, which has no parts"),
        ("stages.vidoe.steps=1", "--set stages.vidoe.steps=1: unknown entry of stages 'vidoe'; did you mean 'video'? known: start, video"),
        ("stages.2.steps=1", "--set stages.2.steps=1: stages has 2 entries, counted from 0; '2' is none of them"),
        (
            "sede=1",
            "unknown key 'sede'; did you mean 'seed'? known: evaluation, launch, media, model, prompt, run_dir, seed, stages, synth",
        ),
    ],
)
def test_wrong_override(good: Path, override: str, message: str) -> None:
    assert fault(good, "seed=3", override) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run_dir: a\nseed: 1\nseed: 2\n", "line 3: duplicate key 'seed'"),
        ("run_dir: a\nmodel: {tiny: {}\n", "line 3: expected ',' or '}', but got '<stream end>'"),
        (
            "run_dir: !!python/name:os.system\n",
            "line 1: could not determine a constructor for the tag 'tag:yaml.org,2002:python/name:os.system'",
        ),
        ("", "must hold a mapping (run_dir, model, stages, ...), not nothing"),
        ("- 1\n", "must hold a mapping (run_dir, model, stages, ...), not a list"),
        ("a: &a [*a]\n", "is nested too deeply, or holds itself"),
        ("a: " + "[" * 5000, "is nested too deeply, or holds itself"),
    ],
)
def test_wrong_yaml(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert fault(path) == message


def test_not_text_and_not_there(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"seed: \xff")
    assert fault(path) == "is not UTF-8 text (invalid start byte at byte 6)"
    assert fault(tmp_path) == "is no file; give the recipe's YAML file"
    with pytest.raises(RecipeError, match=r"^dmeo: no such file, and unknown shipped recipe 'dmeo'; did you mean 'demo'\?"):
        recipes.load("dmeo")


def test_many_faults_are_cut(good: Path) -> None:
    entries = ", ".join("{path: 1}" for _ in range(10))
    assert fault(good, f"stages.start.data=[{entries}]").endswith("stages[0] (start).data[7].path: is 1; must be text | and 2 more")


@pytest.mark.parametrize(
    ("text", "value"), [("1e-6", 1e-6), ("-2E3", -2000.0), ("1.5e2", 150.0), ("12", 12), ("1e", "1e"), ("0x10", 16), ("1.0e-6", 1e-6)]
)
def test_numbers_with_exponents(text: str, value: object) -> None:
    assert parse_yaml(text, "x") == value
    assert type(parse_yaml(text, "x")) is type(value)


def test_a_merged_key_may_be_overridden() -> None:
    merged = parse_yaml("deep: {er: &b {<<: {k: 0, l: 5}, k: 1}}\nc: {<<: *b, k: 2}", "x")
    assert merged == {"deep": {"er": {"k": 1, "l": 5}}, "c": {"k": 2, "l": 5}}


def test_every_field_is_described() -> None:
    schema = recipes.json_schema()
    sections = {"Recipe": schema, **{name: part for name, part in schema["$defs"].items() if part["type"] == "object"}}
    assert {"Recipe", "Model", "Tiny", "Lora", "RunMedia", "Synth", "Launch", "Source", "GrpoStage", "SftStage", "EvaluateStage"} <= set(
        sections
    )
    for name, section in sections.items():
        assert section["additionalProperties"] is False, name
        for field, entry in section["properties"].items():
            assert entry.get("description"), f"{name}.{field}"


def test_what_is_rendered_for_heads_is_described(good: Path) -> None:
    counts = "quality: {train: 20, held_out: 5}, pose: {train: 9, held_out: 0}"
    given = recipes.load(good, [f"synth={{path: x, cold_start: 1, train: 2, held_out: 3, {counts}}}"])
    lines = [line.strip() for line in recipes.describe(given).splitlines()]
    assert "quality: train 20, held_out 5" in lines
    assert "pose: train 9, held_out 0" in lines
    plain = recipes.describe(recipes.load(good, ["synth={path: x, cold_start: 1, train: 2, held_out: 3}"]))
    assert "quality" not in plain


def test_description_chains_the_folders(good: Path) -> None:
    with_check = GOOD + "  - {name: check, kind: evaluate, data: [{path: d.json}], controls: [blank]}\n"
    with_check += "  - {name: more, kind: sft, learning_rate: 1e-3, steps: 2, data: [{path: a.json}]}\n"
    good.write_text(with_check)
    text = recipes.describe(recipes.load(good, ["launch={engine: zero2, processes: 2}", "stages.video.beta=0.1"]))
    assert re.findall(r"starts from +(.*)", text) == ["the tiny model", "runs/test/01-start/model", *["runs/test/02-video/model"] * 2]
    written = ["01-start/model", "02-video/model", "03-check", "04-more/model"]
    assert re.findall(r"writes +runs/test/(.*)", text) == written
    assert "8 prompts x 8 = 64 completions" in text
    assert "beta 0.1, reference stage_start" in text
    assert "c.json (humansense, audio), weight 0.5 of 1.5" in text
    (printed,) = re.findall(r"DeepSpeed on GPUs: (.*)", text)
    assert json.loads(printed) == deepspeed_settings("zero2", gpu=True)
    assert "python -m torch.distributed.run --standalone --nproc_per_node 2 -m omnistage.launch.worker RESOLVED.json" in text
