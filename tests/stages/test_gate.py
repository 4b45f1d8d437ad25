"""What a gate says of two evaluations, with numbers that are worked out, and what it asks of a recipe and of records."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from answered import MILLIMETRES, answered, questions
from omnistage.data.errors import RecipeError
from omnistage.data.records import AnswerKind, Modality, Record
from omnistage.stages import gate
from omnistage.stages.benchmarks import registry
from omnistage.stages.measure.statistics import Z_95
from omnistage.stages.recipe import loading as recipes
from omnistage.stages.recipe.gate import Gate

SHARED: dict[str, Any] = {"data": [{"path": "a.json"}], "learning_rate": 1e-3, "steps": 4}
SFT = {"name": "first", "kind": "sft", **SHARED}
GRPO = {"name": "video", "kind": "grpo", "modality": "video", "rewards": [{"name": "accuracy"}], **SHARED}


def built(*stages: dict[str, Any], **given: Any) -> recipes.Recipe:
    evaluation = {"data": [{"path": "b.json"}]}
    whole = {"run_dir": "run", "model": {"tiny": {}}, "evaluation": evaluation, "stages": list(stages)} | given
    return recipes.build(recipes.Recipe, whole, "recipe")


def verdict(given: Gate, evaluation: Path, start: Path | None) -> dict[str, Any]:
    [stage] = built(SFT).stages
    assert isinstance(stage, recipes.SftStage)
    return gate.judge(stage, given, evaluation, start)


def right(count: int, of: int) -> list[str]:
    return ["A"] * count + ["B"] * (of - count)


def test_a_start_is_lost_where_all_of_the_interval_is_worse(tmp_path: Path) -> None:
    """Ten items, all right at the start. Seven lost: three clips are unlike the others, so Bonett and Price: up 1/12, down 8/12, -7/12 +-
    z sqrt((9/12 - (7/12)^2) / 12) = [-0.945, -0.221]. Two lost: up 1/12, down 3/12, -2/12 +- z sqrt((4/12 - (2/12)^2) / 12) = [-0.479,
    0.146], which holds 0."""
    records = questions(10)
    start = answered(tmp_path / "start", records, right(10, 10))
    lost = verdict(Gate(), answered(tmp_path / "seven", records, right(3, 10)), start)
    half = Z_95 * math.sqrt((9 / 12 - (7 / 12) ** 2) / 12)
    assert (lost["figure"], lost["passed"], lost["value"]) == ("all items", False, pytest.approx(0.3))
    assert (lost["change"]["low"], lost["change"]["high"]) == pytest.approx((-7 / 12 - half, -7 / 12 + half))
    assert lost["said"] == (
        "gate of stage 'first' failed: all items 30.0 % [10.8 %, 60.3 %], at its start 100.0 %, difference -70.0 [-94.5, -22.1]; "
        "asked: not surely worse than its start"
    )
    held = verdict(Gate(), answered(tmp_path / "two", records, right(8, 10)), start)
    assert held["passed"]
    assert held["change"]["high"] == pytest.approx(-2 / 12 + Z_95 * math.sqrt((4 / 12 - (2 / 12) ** 2) / 12))
    assert held["said"].startswith("gate of stage 'first' passed: all items 80.0 %")


def test_a_value_is_reached_or_not(tmp_path: Path) -> None:
    """Seven of ten: 0.7 passes 0.7, and nothing above it. Without a measured start there is no difference to tell."""
    seven = answered(tmp_path / "seven", questions(10), right(7, 10))
    assert verdict(Gate(at_least=0.7), seven, None)["passed"]
    failed = verdict(Gate(at_least=0.71), seven, None)
    assert (failed["passed"], failed["change"]) == (False, None)
    assert failed["said"] == "gate of stage 'first' failed: all items 70.0 % [39.7 %, 89.2 %]; asked: at least 71.0 %"
    again = "all items 70.0 % [39.7 %, 89.2 %], with nothing to compare it with: its start holds another model now; asked: not surely worse"
    assert verdict(Gate(), seven, None)["said"].startswith(f"gate of stage 'first' passed: {again}")
    # The value alone decides, however surely the model lost.
    start = answered(tmp_path / "start", questions(10), right(10, 10))
    assert verdict(Gate(at_least=0.3), answered(tmp_path / "three", questions(10), right(3, 10)), start)["passed"]


def test_of_an_error_less_is_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six errors of 60 mm against six of 100: every draw differs by 40, so that the interval is that number."""
    monkeypatch.setitem(registry.BENCHMARKS, "mm", MILLIMETRES)
    near = answered(tmp_path / "near", questions(6), ["60"] * 6, "mm")
    far = answered(tmp_path / "far", questions(6), ["100"] * 6, "mm")
    assert verdict(Gate(), near, far)["passed"]
    worse = verdict(Gate(), far, near)
    assert (worse["passed"], worse["change"]["low"], worse["change"]["value"]) == (False, 40, 40)
    assert [verdict(Gate(at_least=bar), near, None)["passed"] for bar in (59.0, 60.0)] == [False, True]
    assert verdict(Gate(at_least=80), far, near)["said"] == (
        "gate of stage 'first' failed: error 100.0 mm [100.0 mm, 100.0 mm], at its start 60.0 mm, difference +40.0 [+40.0, +40.0]; "
        "asked: at most 80.0 mm"
    )


def test_what_cannot_be_computed_passes_no_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BENCHMARKS, "mm", MILLIMETRES)
    nothing = answered(tmp_path / "nothing", questions(6), [""] * 6, "mm")
    something = answered(tmp_path / "something", questions(6), ["5"] * 6, "mm")
    for given in (Gate(), Gate(at_least=10.0)):
        found = verdict(given, nothing, something)
        assert (found["passed"], found["value"]) == (False, None)
        assert "failed: error has no value; asked:" in found["said"]
    # Where nothing could be said of the start, nothing says that the model is worse.
    assert verdict(Gate(), something, nothing)["passed"]


def test_a_grpo_stage_is_judged_by_its_own_modality(tmp_path: Path) -> None:
    """Video lost six of six, audio gained six of six: the headline stands still, the modality does not."""
    records = questions(6) + questions(6, Modality.AUDIO)
    start = answered(tmp_path / "start", records, right(6, 12))
    after = answered(tmp_path / "after", records, right(6, 12)[::-1])
    [stage] = built(GRPO).stages
    assert isinstance(stage, recipes.GrpoStage)
    own = gate.judge(stage, Gate(), after, start)
    assert (own["figure"], own["passed"], own["change"]["value"]) == ("modality video", False, -1)
    assert gate.judge(stage, Gate(figure="all items"), after, start)["passed"]
    # Held-out data of other modalities alone: the headline.
    heard = answered(tmp_path / "heard", questions(6, Modality.AUDIO), right(3, 6))
    assert gate.judge(stage, Gate(at_least=0.5), heard, None)["figure"] == "all items"


def test_figures_are_checked_before_anything_is_trained() -> None:
    [stage] = built(GRPO).stages
    assert isinstance(stage, recipes.GrpoStage)

    def said(given: Gate, benchmark: str = "choice", records: list[Record] | None = None) -> str:
        with pytest.raises(RecipeError) as caught:
            gate.check(stage, given, benchmark, records or questions(2))
        return str(caught.value).removeprefix("stages.video.gate: ")

    assert said(Gate(figure="modality vidoe")) == (
        "unknown figure of benchmark 'choice' 'modality vidoe'; did you mean 'modality video'? known: all items, modality video, task way"
    )
    assert said(Gate(at_least=65)) == "at_least is 65 and 'modality video' is a share; allowed: 0 to 1"
    asked = [Record("a", Modality.VIDEO, "t", AnswerKind.OPEN, "what is it ?", "a cat")]
    assert said(Gate(), "open", asked) == (
        "figure 'modality video' of benchmark 'open' is made by a judge, whom a run does not ask; take another"
    )
    gate.check(stage, Gate(figure="task way", at_least=1.0), "choice", questions(2))


def test_a_gate_needs_what_it_judges_by() -> None:
    def fault(*stages: dict[str, Any], **given: Any) -> str:
        with pytest.raises(RecipeError) as caught:
            built(*stages, **given)
        return str(caught.value).removeprefix("recipe: ")

    gated = GRPO | {"gate": {}}
    unmeasured = {"data": [{"path": "b.json"}], "before": False}
    assert fault(gated, evaluation=None) == "stages[0] (video): gate is given and evaluation is null; a gate judges by the run's evaluation"
    assert fault(gated | {"evaluate": False}) == (
        "stages[0] (video): gate is given and evaluate is false; a gate judges by the evaluation after its stage"
    )
    before = "stages[0] (video): gate.at_least is 'start' and evaluation.before is false; measure it, or give a number"
    assert fault(gated, evaluation=unmeasured) == before
    told = "gate.at_least is 'start' and stage 'first', which it starts from, has evaluate: false; measure it, or give a number"
    assert fault(SFT | {"evaluate": False}, gated) == f"stages[1] (video): {told}"
    for bar, shown in (("begin", "'begin'"), (True, "True"), (math.nan, "nan")):
        assert fault(GRPO | {"gate": {"at_least": bar}}) == f"stages[0] (video).gate.at_least: is {shown}; allowed: start, or a number"
    # A number needs no start, and another start may be measured.
    built(GRPO | {"gate": {"at_least": 1}}, evaluation=unmeasured)
    built(SFT, SFT | {"name": "second", "evaluate": False}, gated | {"start": "first"}, evaluation=unmeasured)


def test_a_recipe_with_judges_describes_them_and_comes_back() -> None:
    chosen = {"save_every": 2, "choose": {"data": [{"path": "v.json"}]}, "gate": {"at_least": 0.5, "otherwise": "say"}}
    recipe = built(SFT | {"gate": {}}, GRPO | chosen)
    assert recipes.build(recipes.Recipe, recipes.dump(recipe), "again") == recipe
    told = recipes.describe(recipe)
    assert "gate         headline: not surely worse than its start; otherwise stop" in told
    assert "gate         modality video, else headline: at least 0.5; otherwise say" in told
    assert "chooses      the checkpoint with the best modality video, else headline, of\n   validation   v.json" in told
