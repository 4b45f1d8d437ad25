"""Head stages by the real commands: trained, measured, merged, read, and talked with."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import head_data
from head_data import POSES, SCORES
from omnistage.launch import cli
from omnistage.rl import policy
from omnistage.rl.heads import carried
from omnistage.stages import asking, chat, files, pipeline
from omnistage.stages.recipe import loading as recipes
from small_run import command, omnistage, recipe, write

READER = Path(head_data.__file__)


def source(split: str, function: str) -> dict[str, Any]:
    root = "${run_dir}/data"
    return {"path": f"{root}/{split}_video.json", "media_root": root, "modality": "video", "format": f"{READER}:{function}"}


def head_stage(head: dict[str, Any], function: str, **changes: Any) -> dict[str, Any]:
    stage: dict[str, Any] = {
        "name": head["name"],
        "kind": "head",
        "head": head,
        "data": [source("train", function)],
        "batch_size": 8,
        "learning_rate": 5e-3,
        "steps": 4,
        "save_every": 2,
        "evaluation": {"data": [source("held_out", function)], "controls": ["blank"], "batch_size": 5, "max_new_tokens": 8},
        "evaluate": False,
    }
    return stage | changes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores with all weights, then poses with adapters, of which the last checkpoint stays, too."""
    folder = tmp_path_factory.mktemp("heads")
    mos = SCORES | {"body": {"sizes": [16], "dropout": 0.2}}
    poses = head_stage(POSES, "poses", lora={"rank": 4}, learning_rate=2e-2, steps=40, save_every=20, answers=["{token}"])
    synth = {"path": "${run_dir}/data", "seed": 3, "cold_start": 0, "train": 16, "held_out": 12}
    write(folder / "recipe.yaml", recipe(stages=[head_stage(mos, "scores"), poses], evaluation=None, synth=synth))
    done = omnistage("run", "recipe.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "said.txt").write_text(done.stdout)
    return folder


def test_a_run_measures_its_heads(run: Path) -> None:
    """Every held-out record has its line; the figures follow from the lines; the table shows them."""
    summary = files.read_json(run / "run" / "summary.json")
    rows = files.read_lines(run / "run" / "01-mos" / "head" / "predictions.jsonl")
    assert len(rows) == 24
    plain = [row for row in rows if row["control"] is None]
    errors = [row["value"]["values"]["score"] - row["target_values"][0] for row in plain]
    tasks = summary["heads"]["mos"]["tasks"]
    assert sum(entry["n"] for entry in tasks.values()) == 12
    squared = sum(entry["n"] * entry["score"]["rmse"]["value"] ** 2 for entry in tasks.values())
    assert squared == pytest.approx(float(np.square(errors).sum()), rel=1e-6)
    blank = {row["id"]: row["value"]["values"]["score"] for row in rows if row["control"] == "blank"}
    assert blank.keys() == {row["id"] for row in plain}
    assert all(blank[row["id"]] != row["value"]["values"]["score"] for row in plain)
    poses = summary["heads"]["pose"]["tasks"]
    assert all({"mpjpe_mm", "pa_mpjpe_mm", "geodesic_deg"} <= entry.keys() for entry in poses.values())
    said = (run / "said.txt").read_text()
    assert "head mos after mos" in said
    assert re.search(r"score srcc +-?\d\.\d\d \[", said)
    assert "mean pose" in said
    logged = files.read_lines(run / "run" / "02-pose" / "metrics.jsonl")
    assert {"pose/text", "pose/body", "pose/root"} <= logged[0].keys()
    assert logged[-2]["pose/text"] < logged[0]["pose/text"]


def test_a_killed_head_stage_is_done_again_to_the_same_weights(run: Path, tmp_path: Path) -> None:
    """The stage that lost its model goes on from its checkpoint; both heads travel with the last model."""
    model = run / "run" / "02-pose" / "model"
    assert set(files.read_json(model / carried.ABOUT)) == {"mos", "pose"}
    before = {name: files.digest(model / name) for name in ("model.safetensors", carried.WEIGHTS)}
    model.rename(tmp_path / "model")
    done = omnistage("run", "recipe.yaml", cwd=run)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {name: files.digest(model / name) for name in before} == before


class Here:
    """The command in this process: its exit code, and what it printed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.chdir(folder)
        self.capsys = capsys

    def __call__(self, *words: str | Path) -> tuple[int, str, str]:
        self.capsys.readouterr()
        code = cli.main([str(word) for word in words])
        printed = self.capsys.readouterr()
        return code, printed.out, printed.err

    def predicted(self, checkpoint: str, data: Path, *more: str | Path, head: str = "mos") -> list[dict[str, Any]]:
        reading = (
            () if "--format" in more else ("--format", f"{READER}:{ {'mos': 'scores', 'pose': 'poses'}[head] }", "--modality", "video")
        )
        shared = ("--media-root", Path("run/data").absolute(), "--head", head, "--json")
        code, out, err = self("predict", checkpoint, "--data", data, *reading, *shared, *more)
        assert code == 0, err[-3000:]
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


@pytest.fixture
def here(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(run, monkeypatch, capsys)


def test_answers_do_not_leak_into_predictions(here: Here, tmp_path: Path) -> None:
    """Gen3DHF's layout with other level words and other scores: the same values, bit for bit."""
    clips = [row["video_path"] for row in json.loads(Path("run/data/held_out_video.json").read_text())]
    question = "<video>Please rate the quality of the human face in this video."
    for name, level, score in (("one", "good", 51.87), ("other", "bad", 7.5)):
        sentence = f"The quality of the human face in this video is {level}. ({score})"
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": sentence}]
        (tmp_path / f"{name}.json").write_text(json.dumps([{"messages": messages, "videos": clip} for clip in clips]))
    one, other = (here.predicted("run/01-mos/model", tmp_path / f"{name}.json", "--format", "gen3dhf") for name in ("one", "other"))
    assert [row["values"] for row in one] == [row["values"] for row in other]
    assert len({row["values"][0]["values"]["score"] for row in one}) == len(clips) == 12


def test_what_a_run_measured_is_what_predict_says(here: Here) -> None:
    """The head has dropout, which is off in both."""
    lines = files.read_lines(Path("run/01-mos/head/predictions.jsonl"))
    measured = {row["id"]: row["value"]["values"]["score"] for row in lines if row["control"] is None}
    said = here.predicted("run/01-mos/model", Path("run/data/held_out_video.json"), "--batch-size", "5")
    assert {row["id"]: row["values"][0]["values"]["score"] for row in said} == pytest.approx(measured, abs=1e-4)


def test_predict_gives_intervals_from_dropout(here: Here) -> None:
    data = Path("run/data/held_out_video.json")
    [row] = here.predicted("run/01-mos/model", data, "--limit", "1", "--dropout", "20")
    [value] = row["values"]
    low, high = value["intervals"]["score"]
    assert low < value["values"]["score"] < high
    asked = ("--format", f"{READER}:poses", "--modality", "video", "--media-root", "run/data", "--head", "pose", "--out", "x")
    code, _, told = here("predict", "run/02-pose/model", "--data", data, *asked, "--dropout", "4")
    assert (code, "has no dropout" in told) == (2, True)


def test_merged_adapters_say_what_the_model_with_adapters_said(here: Here, tmp_path: Path) -> None:
    """`merge` of the stage's last checkpoint equals the model that the stage left, which was merged as it ended; poses within 1e-5."""
    last = "run/02-pose/checkpoints/checkpoint-40"
    code, out, err = here("merge", last, "--out", tmp_path / "merged")
    assert code == 0, err
    assert "heads: mos, pose" in out
    data = Path("run/data/held_out_video.json")
    left = here.predicted("run/02-pose/model", data, "--out", tmp_path / "left", head="pose")
    merged = here.predicted(str(tmp_path / "merged"), data, "--out", tmp_path / "right", head="pose")
    assert [row["answer"] for row in left] == [row["answer"] for row in merged]
    assert left[0]["answer"] == "<POSE>"
    for one, other in zip(left, merged, strict=True):
        poses = [files.read_json(tmp_path / folder / row["values"][0]["pose"]) for folder, row in (("left", one), ("right", other))]
        apart = np.abs(np.array(poses[0]["rotation_matrices"]) - np.array(poses[1]["rotation_matrices"])).max()
        assert apart <= 1e-5
    for words, told in (
        (("merge", last, "--out", tmp_path / "merged"), "holds files"),
        (("merge", "run/02-pose/model", "--out", tmp_path / "no"), "nothing to merge"),
        (("merge", last, "--out", "said.txt"), "--out said.txt: cannot be written to"),
        (("merge", last, "--out", tmp_path / "new", "--base", "nowhere"), "--base: 'nowhere' does not exist"),
        (("predict", last, "--question", "x"), "omnistage merge"),
        (("predict", "nowhere", "--question", "x"), "checkpoint: 'nowhere' does not exist"),
        (("predict", "run/01-mos/model", "--question", "x", "--body", "SMPL_NEUTRAL.pkl"), "--body is for poses"),
        (("predict", "run/00-start/model", "--question", "x"), "run/00-start/model carries no head"),
        (("predict", "run/01-mos/model", "--question", " "), "question: is empty"),
        (("predict", "run/01-mos/model", "--question", "x", "--out", "said.txt"), "--out said.txt: cannot be written to"),
        (("predict", "run/01-mos/model", "--question", "x", "--media", "."), "has neither picture nor sound"),
        (("predict", "run/02-pose/model", "--head", "pose", "--question", "x"), "--out"),
        (("predict", "run/02-pose/model", "--question", "x"), "carries the heads"),
        (("predict", "run/02-pose/model", "--head", "mos", "--question", "x", "--media", "no.mp4"), "no.mp4: no such file"),
    ):
        code, _, err = here(*words)
        assert (code, told in err) == (2, True), (words, err)


def test_poses_are_written_and_drawn(run: Path, here: Here, tmp_path: Path) -> None:
    """JSON with three forms of a pose, a picture, and a page that turns them; also of one question about one clip."""
    clip = json.loads((run / "run" / "data" / "held_out_video.json").read_text())[0]["video_path"]
    out = tmp_path / "out"
    asked = ("--head", "pose", "--question", "what is the pose ?", "--media", run / "run" / "data" / clip)
    code, said, err = here("predict", "run/02-pose/model", *asked, "--out", out)
    assert code == 0, err
    assert "a pose of 24 joints" in said
    [row] = files.read_lines(out / "predictions.jsonl")
    pose = files.read_json(out / row["values"][0]["pose"])
    rotations = np.array(pose["rotation_matrices"])
    assert rotations.shape == (24, 3, 3)
    assert np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max() < 1e-5
    with Image.open(out / row["values"][0]["pose"].replace(".json", ".png")) as picture:
        assert len(set(picture.convert("L").tobytes())) > 3
    HTMLParser().feed((out / "poses.html").read_text())


def test_a_chat_takes_media_and_shows_poses(run: Path, tmp_path: Path) -> None:
    """Two turns about one clip; a wrong path is told and the conversation goes on."""
    clip = run / "run" / "data" / json.loads((run / "run" / "data" / "held_out_video.json").read_text())[0]["video_path"]
    typed = f"/see {clip}\nwhat is the pose ?\n/see nowhere.mp4\n/frobnicate\nand now ?\n/reset\n/quit\nnever asked\n"
    words = command("chat", "run/02-pose/model", "--out", tmp_path / "poses", "--max-new-tokens", "8")
    done = subprocess.run(words, cwd=run, input=typed, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "<POSE>" in done.stdout
    assert "nowhere.mp4: no such file" in done.stdout
    assert "/frobnicate: no such command" in done.stdout
    assert "(forgotten)" in done.stdout
    assert done.stdout.count("<POSE>") == len(list((tmp_path / "poses").glob("*.png"))) > 0


def test_heads_that_branch_off_one_policy_know_their_own_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the one stage taught the tokenizer is not in the other's, in one go as after a restart: there it would be another id."""
    monkeypatch.chdir(tmp_path)
    shared: dict[str, Any] = {"steps": 1, "save_every": None, "evaluation": None}
    stages = [head_stage(SCORES, "scores", freeze=["vision", "audio", "language"], **shared)]
    for name in ("pose", "second"):
        head = POSES | {"name": name, "anchor": {"at": "token", "token": f"<{name}>"}}
        stages.append(head_stage(head, "poses", start="mos", **shared))
    synth = {"path": "${run_dir}/data", "seed": 3, "cold_start": 0, "train": 8, "held_out": 2}
    pipeline.run(recipes.build(recipes.Recipe, recipe(stages=stages, evaluation=None, synth=synth), "recipe"))
    tokenizers = {name: policy.load_processor(f"run/{name}/model").tokenizer for name in ("01-mos", "02-pose", "03-second")}
    assert "<pose>" not in tokenizers["03-second"].get_vocab()
    assert tokenizers["03-second"].convert_tokens_to_ids("<second>") == len(tokenizers["01-mos"])
    assert set(files.read_json(Path("run/03-second/model") / carried.ABOUT)) == {"mos", "second"}
    # The first stage trained its head alone.
    before, after = (load_file(f"run/{name}/model/model.safetensors") for name in ("00-start", "01-mos"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_chat_goes_on_after_an_answer_with_a_control_token(run: Path, here: Here, tmp_path: Path) -> None:
    """A policy may make one up; in the next question's history it would be refused."""
    model, encoder = asking.load(str(run / "run" / "02-pose" / "model"))
    under_way = chat.Chat(model, encoder, chat.token_head(model), tmp_path / "taken", max_new_tokens=4)
    tokenizer = encoder.processor.tokenizer
    made_up = tokenizer("<|im_start|>user what is it ?")["input_ids"]
    under_way.reader.answers = lambda rows, max_new_tokens: [made_up]  # type: ignore[method-assign]
    assert list(under_way.say("what is it ?")) == ["user what is it ?"]
    assert list(under_way.say("and now ?")) == ["user what is it ?"]
    under_way.reader.answers = lambda rows, max_new_tokens: [tokenizer("<POSE>")["input_ids"]]  # type: ignore[method-assign]
    (tmp_path / "taken").write_text("a file")
    told: list[str] = []
    chat.converse(under_way, ["the pose ?", "/see ~/nothing.mp4", "/quit"], told.append)
    assert "cannot be written to" in told[0]
    assert told[1] == f"({Path.home()}/nothing.mp4: no such file)"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"start": "nobody"}, "start is 'nobody', which is no earlier stage that trains"),
        ({"answers": ["nothing"]}, "must hold {token} once"),
        ({"data": [source("train", "scores") | {"format": "humansense"}]}, "says nothing that the head 'mos' puts out"),
        ({"batch_size": 0}, "batch_size: is 0; must be at least 1"),
        ({"head": SCORES | {"name": "type"}}, "stages.mos.head: name is 'type', which torch's modules have for themselves"),
        (
            {"head": POSES | {"anchor": {"at": "token", "token": "red"}}, "data": [source("train", "poses")], "evaluation": None},
            "stages.mos.head.anchor: token 'red' is an ordinary piece",
        ),
        ({"head": SCORES | {"codec": {"kind": "affine", "low": 0.0}}}, "high: is missing"),
    ],
)
def test_a_wrong_head_stage_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], told: str
) -> None:
    spec = POSES if "answers" in changes else SCORES
    name = "mos" if "head" in changes else spec["name"]
    synth = {"path": "${run_dir}/data", "seed": 3, "cold_start": 0, "train": 4, "held_out": 4}
    stage = head_stage(spec, "scores") | {"name": name} | changes
    write(tmp_path / "recipe.yaml", recipe(stages=[stage], evaluation=None, synth=synth))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "recipe.yaml"]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("omnistage:")]
    assert told in line
