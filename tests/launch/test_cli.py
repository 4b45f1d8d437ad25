"""The command line: what it answers, what it refuses in one line with exit code 2, and what it leaves unloaded and unwritten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from omnistage.data.errors import MediaError, RewardError
from omnistage.launch import cli, failures, processes, worker
from omnistage.rewards import registry
from omnistage.stages.recipe import loading as recipes
from world import World

HEAVY = {"torch", "transformers", "trl", "pydantic", "yaml", "numpy", "av"}
GOOD = """run_dir: out/run
model: {tiny: {}}
stages:
  - {name: start, kind: sft, learning_rate: 1e-3, steps: 2, data: [{path: a.json}]}
  - {name: video, kind: grpo, modality: video, learning_rate: 1e-6, steps: 2, data: [{path: a.json}], rewards: [{name: accuracy}]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(GOOD)
    return tmp_path


def omnistage(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "omnistage.launch", *arguments], capture_output=True, text=True, timeout=120)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that must be refused."""
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("omnistage: ")
    assert err.count("\n") == 1
    return err.removeprefix("omnistage: ").rstrip("\n")


@pytest.mark.parametrize("command", [[], ["run"], ["demo"], ["plan"], ["evaluate"], ["data", "passrate"], ["rewards", "list"], ["schema"]])
def test_help_loads_nothing_heavy(command: list[str]) -> None:
    code = f"""
import sys
from omnistage.launch.cli import main
try:
    main({[*command, "--help"]!r})
except SystemExit as done:
    assert done.code == 0
    print("loaded", sorted({HEAVY!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("usage: omnistage")
    assert done.stdout.endswith("loaded []\n"), done.stderr


def test_dry_run_and_refusal_load_no_torch(folder: Path) -> None:
    code = """
import sys
from omnistage.launch.cli import main
codes = [main(["run", "demo", "--dry-run"]), main(["run", "recipe.yaml", "--set", "seed=x"])]
codes += [main(["schema"]), main(["schema", "--markdown"])]
print(codes, sorted({"torch", "transformers", "trl"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[0, 2, 0, 0] []", done.stderr


@pytest.mark.parametrize("name", sorted(recipes.shipped()))
def test_dry_run_of_shipped_recipes(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", name, "--dry-run", "--run-dir", "else: where"]) == 0
    shown = capsys.readouterr().out
    assert shown == recipes.describe(recipes.load(name, ['run_dir="else: where"'])) + "\n"
    assert f"writes       else: where/01-{recipes.load(name).stages[0].name}/model" in shown
    assert os.listdir(folder) == ["recipe.yaml"]


BAD = {
    "unknown_key": ("seed: 1\nsede: 2", "unknown key 'sede'; did you mean 'seed'?"),
    "unknown_section_key": ("media: {fsp: 2}", "media: unknown key 'fsp'; did you mean 'fps'?"),
    "wrong_type": ("seed: many", "seed: is 'many'; must be a whole number"),
    "out_of_range": ("media: {fps: 0}", "media.fps: is 0; must be more than 0"),
    "unknown_choice": ("prompt: think_answers", "prompt: unknown value 'think_answers'; did you mean 'think_answer'?"),
    "missing_key": ("synth: {path: x, cold_start: 1, train: 1}", "synth.held_out: is missing"),
    "rule": ("launch: {processes: 2}", "launch: engine is 'single' and processes is 2"),
    "rule_of_two_sections": ("launch: {engine: ddp, processes: 3}", "stages[0] (start): batch_size is 16 and launch.processes is 3"),
    "duplicate_key": ("run_dir: again", "line 6: duplicate key 'run_dir'"),
    "syntax": ("media: {fps: 2", "line 7: expected ',' or '}'"),
    "two_faults": ("seed: -1\nmedia: {fps: x}", "seed: is -1; must be at least 0 | media.fps: is 'x'; must be a number"),
    "executable_tag": ("seed: !!python/object/apply:os.getpid []", "line 6: could not determine a constructor"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_recipe_is_one_line_and_writes_nothing(kind: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra, message = BAD[kind]
    # a syntax error needs a line after it that shows where the mapping was to end
    (folder / "recipe.yaml").write_text(GOOD.rstrip("\n") + "\n" + extra + "\n" + ("evaluation: null\n" if kind == "syntax" else ""))
    assert refusal(capsys, "run", "recipe.yaml").startswith(f"recipe.yaml: {message}")
    assert os.listdir(folder) == ["recipe.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nope.yaml"], "nope.yaml: no such file, and unknown shipped recipe 'nope.yaml'; known: chatpose, demo"),
        (["run", "recipe.yaml", "--from", "vido"], "recipe.yaml: unknown stage 'vido'; did you mean 'video'? known: start, video"),
        (["run", "recipe.yaml", "--only", "x", "--dry-run"], "recipe.yaml: unknown stage 'x'; known: start, video"),
        (["run", "recipe.yaml", "--set", "steps"], "--set steps: must read KEY=VALUE, with dots between the parts of KEY"),
        (["demo", "--set", "stages.vido.steps=1"], "--set stages.vido.steps=1: unknown entry of stages 'vido'; did you mean 'video'?"),
        (
            ["run", "recipe.yaml", "--set", "stages.video.num_generations=1"],
            "recipe.yaml: stages[1] (video).num_generations: is 1; must be",
        ),
        (["run", "recipe.yaml", "--set", "a\nb=1"], "recipe.yaml: unknown key 'a\\nb'; known: "),
        (["evaluate", "model", "--data", "none.json", "--out", "o"], "--data none.json: no such file"),
        (["evaluate", "model", "--data", "recipe.yaml", "--out", "o", "--format", "humansens"], "evaluate: data[0].format: unknown format"),
    ],
)
def test_bad_argument_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert refusal(capsys, *arguments).startswith(message)
    assert os.listdir(folder) == ["recipe.yaml"]


def test_the_real_command_refuses_too(folder: Path) -> None:
    done = omnistage("run", "recipe.yaml", "--set", "stages.video.beta=0.1", "--set", "stages.video.reference=none")
    line = (
        "omnistage: recipe.yaml: stages[1] (video): reference is 'none' and beta is 0.1; reference must be 'none' exactly when beta is 0\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["trian"],
        ["run"],
        ["run", "demo", "--from", "video", "--only", "audio"],
        ["demo", "--seed", "-1"],
        ["evaluate", "model", "--out", "o"],
        ["evaluate", "model", "--data", "f", "--out", "o", "--limit", "0"],
        ["evaluate", "model", "--data", "f", "--out", "o", "--controls", "blnk"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.main(arguments)
    assert done.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("omnistage: ")
    assert err.count("\n") == 1
    assert err.endswith(" --help)\n")


def test_schema_is_the_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == recipes.json_schema()


def test_rewards_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rewards", "list"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == registry.known()
    assert {"accuracy", "format"} <= set(lines)


def test_errors_and_their_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """Bad input ends with 2, failed work with 1; a message of several lines is printed as one."""
    assert cli.report(MediaError("clip.mp4:\nno sound")) == 2
    assert cli.report(RewardError("reward 'x' failed")) == 1
    assert capsys.readouterr().err == "omnistage: clip.mp4: no sound\nomnistage: reward 'x' failed\n"


def test_two_workers_are_heard_once(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Two real workers refuse a resolved recipe that was spoilt after it was validated; torchrun alone would end with 1, and at length."""
    recipe = recipes.load("recipe.yaml", ["launch={engine: ddp, processes: 2, threads: 1}"]).model_copy(update={"seed": -1})
    assert processes.start(recipe, Path("recipe.yaml"), None, None) == 2
    assert capfd.readouterr().err == "omnistage: recipe.json: seed: is -1; must be at least 0\n"
    assert os.listdir(folder) == ["recipe.yaml"]


def test_worker_leaves_its_failure_where_it_is_asked_to(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv(failures.VARIABLE, str(folder / "left"))
    (folder / "resolved.json").write_text(json.dumps(recipes.dump(recipes.load("recipe.yaml")) | {"seed": -1}))
    assert worker.main(["resolved.json"]) == 2
    assert sorted(os.listdir(folder / "left")) == ["failure_3.json", "process_3"]
    assert failures.processes(folder / "left") == [os.getpid()]
    assert failures.lowest(folder / "left") == failures.Failure(2, "resolved.json: seed: is -1; must be at least 0")
    assert capsys.readouterr().err == ""


def test_worker_that_was_started_by_hand_prints_its_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "resolved.json").write_text(json.dumps(recipes.dump(recipes.load("recipe.yaml")) | {"seed": -1}))
    assert worker.main(["resolved.json"]) == 2
    assert capsys.readouterr().err == "omnistage: resolved.json: seed: is -1; must be at least 0\n"
    assert sorted(os.listdir(folder)) == ["recipe.yaml", "resolved.json"]


def test_evaluate_leaves_out_what_is_in_quarantine(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clip that is gone ends an evaluation; put aside by `data check`, its row is left out and said to be."""
    rows = json.loads((world.data / "held_out_video.json").read_text())
    rows[2]["video_path"] = "clips/gone.mp4"
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    monkeypatch.chdir(tmp_path)
    reading = ["--media-root", str(world.data), "--modality", "video"]
    evaluate = ["evaluate", str(world.checkpoint), "--data", "rows.json", *reading, "--prompt", "short", "--max-new-tokens", "2"]
    assert cli.main([*evaluate, "--out", "no"]) == 2
    assert "gone.mp4" in capsys.readouterr().err
    assert cli.main(["data", "check", "rows.json", *reading, "--quarantine", "put_aside.jsonl"]) == 1
    assert cli.main([*evaluate, "--out", "yes", "--quarantine", "put_aside.jsonl"]) == 0
    assert json.loads(Path("yes/scores.json").read_text())["runs"]["greedy"]["counts"]["items"] == len(rows) - 1
    assert f"1 of {len(rows)} records are left out" in "".join(capsys.readouterr())
