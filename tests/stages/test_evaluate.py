"""An evaluation of a tiny model: three files keyed by id, no tower twice, and every clip that cannot be read is counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omnistage.data.errors import InputError
from omnistage.data.records import AnswerKind, MediaRef, Record
from omnistage.rl import policy
from omnistage.rl.feature_cache import FeatureCache
from omnistage.stages import presentation
from omnistage.stages.answering import local, plan
from omnistage.stages.benchmarks import items
from omnistage.stages.measure import evaluate
from omnistage.stages.recipe.schema import Evaluation
from world import World

FILES = ("setup.json", "items.jsonl", "predictions.jsonl", "scores.jsonl", "scores.json", "card.md")


def measurement(**given: Any) -> Evaluation:
    return Evaluation.model_validate({"data": [{"path": "a.json"}], "max_new_tokens": 6, "batch_size": 2} | given)


def measured(world: World, records: list[Record], out: Path, **given: Any) -> dict[str, Any]:
    model = world.model()
    shown = presentation.Presentation(prompt="short")
    checkpoint = str(world.checkpoint)
    asked = measurement(**given)
    return evaluate.measure(model, world.encoder(model), records, out, asked, with_controls=True, checkpoint=checkpoint, shown=shown)


def test_an_answer_without_a_grader_is_refused_before_anything_is_answered(world: World) -> None:
    record = replace(world.records("video")[0], kind=AnswerKind.SCALAR, target="3", values=(3.0,), options=())
    with pytest.raises(InputError, match="record 0: scalar answers are not graded by this grader; benchmark 'choice' needs answers"):
        evaluate.check([record], measurement())
    evaluate.check([world.records("video")[0]], measurement())


def test_a_way_to_ask_that_is_not_known_is_named(world: World) -> None:
    with pytest.raises(InputError, match="benchmark 'humansense': unknown way to ask 'guidde'; did you mean 'guided'"):
        evaluate.check(world.records("video"), measurement(benchmark="humansense", ask=["guidde"]))


def test_an_evaluation_leaves_three_files_keyed_by_id(world: World, tmp_path: Path) -> None:
    records = world.records("video")[:3] + world.records("audio_video")[:2]
    result = measured(world, records, tmp_path, samples=2, controls=["blank", "muted"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    found = items.read_items(tmp_path)
    assert found == records
    predictions = items.read_predictions(tmp_path, found)
    assert list(predictions) == ["greedy", "sample-0", "sample-1", "blank", "muted"]
    assert list(predictions["greedy"]) == [record.id for record in records]
    # Only what has two senses can be muted.
    assert list(predictions["muted"]) == [record.id for record in records[3:]]
    assert {run: of["counts"]["items"] for run, of in result["runs"].items()} == {
        "greedy": 5, "sample-0": 5, "sample-1": 5, "blank": 5, "muted": 2, "pass@1": 5, "pass@2": 5, "maj@2": 5,
    }  # fmt: skip
    assert len(items.read_scores(tmp_path)) == 37
    assert set(result["probes"]) == {"blank", "muted"}
    assert "## How it was made" in (tmp_path / "card.md").read_text()


def test_samples_of_an_item_differ_and_come_again(world: World, tmp_path: Path) -> None:
    records = world.records("audio")[:4]
    for name in ("one", "two"):
        measured(world, records, tmp_path / name, samples=3)
    texts = [(tmp_path / name / "predictions.jsonl").read_text() for name in ("one", "two")]
    assert texts[0] == texts[1]
    drawn = {(row["run"], row["raw"]) for row in map(json.loads, texts[0].splitlines()) if row["run"] != "greedy"}
    assert len({raw for _, raw in drawn}) > 3


def test_a_clip_that_cannot_be_read_is_counted_and_wrong(world: World, tmp_path: Path) -> None:
    records = world.records("video")[:3]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(records[1].media[0].path).read_bytes()[:700])
    records[1] = records[1].with_media((MediaRef("video", str(broken)),))
    result = measured(world, records, tmp_path / "out")
    counts = result["runs"]["greedy"]["counts"]
    assert (counts["items"], counts["error"]) == (3, 1)
    [failed] = [row for row in items.read_scores(tmp_path / "out") if row.id == records[1].id]
    assert (failed.value, failed.valid) == (0.0, False)
    assert "broken.mp4" in failed.reason
    figure = next(iter(result["runs"]["greedy"]["figures"].values()))
    assert figure["n"] == 3
    # The others were asked as they would have been without it.
    other = measured(world, [records[0], records[2]], tmp_path / "without", batch_size=1)
    assert other["runs"]["greedy"]["counts"]["error"] == 0
    kept = {row.id: row.raw for row in items.read_predictions(tmp_path / "out", records)["greedy"].values()}
    for name, prediction in items.read_predictions(tmp_path / "without", records)["greedy"].items():
        assert kept[name] == prediction.raw


def test_another_evaluation_is_not_mixed_in(world: World, tmp_path: Path) -> None:
    records = world.records("audio")[:2]
    measured(world, records, tmp_path)
    before = (tmp_path / "predictions.jsonl").stat().st_mtime_ns
    measured(world, records, tmp_path)
    assert (tmp_path / "predictions.jsonl").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"another evaluation stands there: drawing.max_new_tokens is 6 there and 7 here; choose another"):
        measured(world, records, tmp_path, max_new_tokens=7)
    with pytest.raises(InputError, match=r"another evaluation stands there: items.count is 2 there and 1 here"):
        measured(world, records[:1], tmp_path)


def test_an_answer_that_does_not_end_is_truncated(world: World, tmp_path: Path) -> None:
    """One token is the end of no answer of a model that was never trained, and 6 are the end of none either."""
    counts = measured(world, world.records("audio")[:4], tmp_path, max_new_tokens=1)["runs"]["greedy"]["counts"]
    assert counts["truncated"] == 4


def test_a_plain_question_is_answered_without_tags(world: World, tmp_path: Path) -> None:
    from omnistage.stages.benchmarks import scoring

    said = "The quality of the human face in this video is good."
    record = replace(world.records("video")[0], kind=AnswerKind.LEVEL, target="good", options=())
    right = []
    for tagged in (True, False):
        (tmp_path / "setup.json").write_text(json.dumps({"benchmark": "choice", "tagged": tagged}))
        (tmp_path / "items.jsonl").write_text(json.dumps(items.item_row(record, "choice")) + "\n")
        (tmp_path / "predictions.jsonl").write_text(json.dumps({"id": record.id, "run": "greedy", "raw": said, "status": "ok"}) + "\n")
        scoring.score(tmp_path)
        right.append(items.read_scores(tmp_path)[0].value)
    assert right == [0.0, 1.0]


def test_a_checkpoints_own_habits_do_not_bend_answers(world: World, tmp_path: Path) -> None:
    """A penalty for repeating, or beams, in generation_config.json."""
    batch = plan.batches(world.records("audio")[:2], plan.ways(0, []), 2, 0)[0]
    said = []
    for habits in ({}, {"repetition_penalty": 5.0, "num_beams": 3, "no_repeat_ngram_size": 1}):
        model = world.model()
        encoder = world.encoder(model)
        model.generation_config.update(**habits)
        answerer = local.Answerer(model, encoder, max_new_tokens=8)
        said.append(answerer.batch(batch, [encoder(record) for record in batch.records]))
    assert said[0] == said[1]


def test_weights_are_known_by_their_bytes(world: World, tmp_path: Path) -> None:
    import shutil

    model = world.model()
    copied = shutil.copytree(world.checkpoint, tmp_path / "copy")
    assert evaluate.weights_digest(str(copied), model) == evaluate.weights_digest(str(world.checkpoint), model)
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert evaluate.weights_digest(str(copied), model) != evaluate.weights_digest(str(world.checkpoint), model)


def test_answers_come_from_features_on_disk(world: World, tmp_path: Path) -> None:
    """A second model with the same towers answers the same without running them."""
    batch = plan.batches(world.records("audio_video")[:2], plan.ways(0, []), 2, 0)[0]
    said = []
    for runs in (True, False):
        model = world.model()
        policy.freeze(model, policy.PARTS)
        encoder = world.encoder(model)
        if not runs:
            model.model.visual.forward = model.model.audio_tower.forward = None
            with pytest.raises(TypeError, match="not callable"):
                local.Answerer(model, encoder, max_new_tokens=4).batch(batch, [encoder(record) for record in batch.records])
        encoder.feature_cache = FeatureCache(tmp_path, 10**9)
        answerer = local.Answerer(model, encoder, max_new_tokens=4)
        said.append(answerer.batch(batch, [encoder(record) for record in batch.records]))
    assert said[0] == said[1]
