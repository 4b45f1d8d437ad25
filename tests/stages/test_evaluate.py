"""Scores: nothing leaves the denominator, and the majority class is that of each task. Answers: no tower runs twice on a clip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omnistage.data.errors import InputError
from omnistage.data.records import AnswerKind
from omnistage.rl import policy
from omnistage.rl.feature_cache import FeatureCache
from omnistage.stages.measure import evaluate
from omnistage.stages.recipe.schema import Evaluation
from world import World


def row(task: str, target: str, score: float | None, answer: str | None = "x", modality: str = "video") -> dict[str, Any]:
    return {"id": "r", "modality": modality, "task": task, "target": target, "score": score, "answer": answer, "reason": "why"}


def test_unanswered_items_count_as_wrong() -> None:
    found = evaluate.scores([row("a", "A", 1.0), row("a", "B", 0.0, None), row("b", "yes", 0.0), row("b", "no", 1.0)])["video"]
    assert (found["n"], found["accuracy"], found["unanswered"]) == (4, 0.5, 1)
    assert found["tasks"] == {"a": {"n": 2, "accuracy": 0.5}, "b": {"n": 2, "accuracy": 0.5}}


def test_partial_credit_is_not_a_right_answer() -> None:
    assert evaluate.scores([row("a", "A,C", 0.5), row("a", "B", 1.0)])["video"]["accuracy"] == 0.5


def test_majority_is_the_best_constant_of_each_task() -> None:
    """Task a: 2 of 3 are A; task b: 1 of 2: (2 + 1) / 5."""
    rows = [row("a", t, 0.0) for t in "AAB"] + [row("b", t, 0.0) for t in ("yes", "no")]
    assert evaluate.majority(rows) == 3 / 5


def test_modalities_are_scored_apart() -> None:
    found = evaluate.scores([row("a", "A", 1.0), row("a", "A", 0.0, modality="audio")])
    assert {modality: entry["accuracy"] for modality, entry in found.items()} == {"video": 1.0, "audio": 0.0}


def test_an_answer_without_a_grader_is_refused() -> None:
    with pytest.raises(InputError, match="r: why"):
        evaluate.scores([row("a", "free text", None)])


def test_an_answer_without_a_grader_is_refused_before_anything_is_answered(world: World) -> None:
    record = replace(world.records("video")[0], kind=AnswerKind.SCALAR, target="3", values=(3.0,), options=())
    measurement = Evaluation.model_validate({"data": [{"path": "a.json"}]})
    with pytest.raises(InputError, match="record 0: scalar answers are not graded by this grader; an evaluation needs answers"):
        evaluate.check([record], measurement)
    evaluate.check([world.records("video")[0]], measurement)


def test_a_plain_question_is_answered_without_tags(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "The quality of the human face in this video is good."
    monkeypatch.setattr(evaluate, "answers", lambda *given, **settings: [said])
    record = replace(world.records("video")[0], kind=AnswerKind.LEVEL, target="good", options=())
    model = world.model()
    encoder = world.encoder(model)
    scores = []
    for template in ("short", "plain"):
        encoder.template = template
        [found] = evaluate.predictions(model, encoder, [record], evaluate.Drawing())
        scores.append(found["score"])
    assert scores == [0.0, 1.0]


def test_answers_come_from_features_on_disk(world: World, tmp_path: Path) -> None:
    """A second model with the same towers answers the same without running them."""
    records, drawing = world.records("audio_video")[:2], evaluate.Drawing(max_new_tokens=4)
    said = []
    for runs in (True, False):
        model = world.model()
        policy.freeze(model, policy.PARTS)
        encoder = world.encoder(model)
        if not runs:
            model.model.visual.forward = model.model.audio_tower.forward = None
            with pytest.raises(TypeError, match="not callable"):
                evaluate.answers(model, world.encoder(model), records, drawing)
        encoder.feature_cache = FeatureCache(tmp_path, 10**9)
        said.append(evaluate.answers(model, encoder, records, drawing))
    assert said[0] == said[1]
