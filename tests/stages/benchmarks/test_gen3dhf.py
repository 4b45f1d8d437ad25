from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from figures_of import figures_of, scored
from omnistage.data.errors import InputError
from omnistage.data.formats.gen3dhf import level_of
from omnistage.data.records import LEVELS, AnswerKind, MediaRef, Modality, Record
from omnistage.stages.benchmarks.base import Scored
from omnistage.stages.benchmarks.gen3dhf import BENCHMARK, METRICS, figures, score, upstream
from omnistage.stages.benchmarks.items import Prediction, Score
from omnistage.stages.benchmarks.logistic import fitted


def opinion(number: int, mos: float, dimension: str = "quality") -> Record:
    media = (MediaRef("video", f"seed{number:04d}.mp4"),)
    return Record(
        f"{dimension}-{number}", Modality.VIDEO, dimension, AnswerKind.SCALAR, f"Rate the {dimension}.", f"{mos:g}", media, values=(mos,)
    )


def word(number: int, level: str, dimension: str = "quality") -> Record:
    return Record(f"{dimension}-word-{number}", Modality.VIDEO, dimension, AnswerKind.LEVEL, f"Rate the {dimension}.", level)


def head(record: Record, value: dict[str, Any] | None, raw: str | None = None) -> Prediction:
    values = [] if value is None else [value]
    return Prediction(record.id, "greedy", raw, "ok", head={"name": "mos", "values": values})


def number(record: Record, made: float) -> Prediction:
    return head(record, {"values": {"score": made}})


def said(record: Record, text: str) -> Prediction:
    return Prediction(record.id, "greedy", text, "ok")


def of(record: Record, prediction: Prediction, tagged: bool = False) -> Score:
    return score(record, prediction, tagged)


def test_scores_of_a_head_by_hand() -> None:
    """Right 10, 20, 30, 40, 50 and made 20, 10, 30, 50, 40. Ranks differ by 1, 1, 0, 1, 1: SRCC = 1 - 6·4/(5·24) = 0.8. Of 10 pairs 2
    are the wrong way round: KRCC = (8 - 2)/10 = 0.6. Around their means the sum of products is 200 + 200 + 0 + 200 + 200 = 800, of squares
    1000 each: PLCC = 0.8. Errors 10, 10, 0, 10, 10: RMSE = sqrt(80), and the mean of the values 8."""
    records = [opinion(at, 10.0 * (at + 1)) for at in range(5)]
    items = scored(BENCHMARK, records, [number(r, made) for r, made in zip(records, (20, 10, 30, 50, 40), strict=True)])
    found = figures_of(BENCHMARK, items)
    assert next(iter(found)) == "quality/srcc"
    assert found["quality/srcc"] == pytest.approx(0.8, abs=1e-12)
    assert found["quality/krcc"] == pytest.approx(0.6, abs=1e-12)
    assert found["quality/plcc"] == pytest.approx(0.8, abs=1e-12)
    assert found["quality/rmse"] == pytest.approx(math.sqrt(80), abs=1e-12)
    assert [item.score.value for item in items] == [10, 10, 0, 10, 10]
    assert all(item.score.valid for item in items)


def test_dimensions_are_not_pooled_here_and_are_upstream() -> None:
    """Quality 10, 20 made 20, 10; authenticity 50, 60 made 60, 50: the wrong way round in both, SRCC = PLCC = KRCC = -1. Pooled, ranks
    1, 2, 3, 4 against 2, 1, 4, 3: SRCC = 1 - 6·4/(4·15) = 0.6, KRCC = (4 - 2)/6 = 1/3; around the mean 35 the products are
    375 + 375 + 375 + 375 = 1500, squares 625 + 225 + 225 + 625 = 1700: PLCC = 15/17."""
    records = [opinion(0, 10), opinion(1, 20), opinion(0, 50, "authenticity"), opinion(1, 60, "authenticity")]
    items = scored(BENCHMARK, records, [number(r, made) for r, made in zip(records, (20, 10, 60, 50), strict=True)])
    found = figures_of(BENCHMARK, items)
    assert {name: found[name] for name in found if "fitted" not in name} == pytest.approx(
        {
            **{f"{dimension}/{name}": -1 for dimension in ("quality", "authenticity") for name in ("srcc", "plcc", "krcc")},
            "quality/rmse": 10,
            "authenticity/rmse": 10,
        },
        abs=1e-12,
    )
    assert upstream(items) == pytest.approx({"n": 4, "without_a_number": 0, "srcc": 0.6, "plcc": 15 / 17, "krcc": 1 / 3}, abs=1e-12)


def test_upstream_leaves_out_what_has_no_number_and_here_it_is_the_middle() -> None:
    """Right 10, 20, 90; made 10, 20 and nothing, which is 50 here: RMSE = sqrt(40²/3), SRCC 1. Upstream two items are left."""
    records = [opinion(0, 10), opinion(1, 20), opinion(2, 90)]
    items = scored(BENCHMARK, records, [number(records[0], 10), number(records[1], 20), None])
    assert (items[2].score.valid, items[2].score.numbers["made"], items[2].score.reason) == (False, 50, "no answer")
    found = figures_of(BENCHMARK, items)
    assert (found["quality/rmse"], found["quality/srcc"]) == pytest.approx((math.sqrt(1600 / 3), 1.0), abs=1e-12)
    assert upstream(items) == pytest.approx({"n": 2, "without_a_number": 1, "srcc": 1, "plcc": 1, "krcc": 1}, abs=1e-12)
    assert upstream(items[2:]) == {"n": 0, "without_a_number": 1, "srcc": None, "plcc": None, "krcc": None}


@pytest.mark.parametrize(
    ("text", "made", "answer"),
    [
        ("The quality of the human face in this video is good. (51.87)", 51.87, "51.87"),
        ("62", 62, "62"),
        # Five bins over 6.3619 to 65.7502, 11.87766 wide: the fourth's middle is 6.3619 + 3.5 · 11.87766.
        ("The quality of the human face in this video is good.", 47.93371, "good"),
        ("Bad.", 6.3619 + 0.5 * 11.87766, "bad"),
    ],
)
def test_what_is_read_off_a_text(text: str, made: float, answer: str) -> None:
    found = of(opinion(0, 50), said(opinion(0, 50), text))
    assert (found.valid, found.answer) == (True, answer)
    assert found.numbers["made"] == pytest.approx(made, abs=1e-9)


@pytest.mark.parametrize("text", ["", "fair to good", "85/100", "8 out of 10", "-3", "100.5", "I cannot tell."])
def test_what_cannot_be_read_is_the_middle_of_the_scale_and_not_valid(text: str) -> None:
    found = of(opinion(0, 30), said(opinion(0, 30), text))
    assert (found.valid, found.answer, found.numbers, found.value) == (False, None, {"made": 50.0, "right": 30.0}, 20.0)
    assert found.reason.endswith("the middle of the scale stands in")


def test_a_question_may_name_its_scale() -> None:
    asked = BENCHMARK.options["scale"]
    assert asked(opinion(0, 30)).question == "Rate the quality. Give a score from 0 (worst) to 100 (best)."
    assert asked(word(0, "good")) == word(0, "good")


def test_where_tags_are_asked_for_only_what_stands_in_them_counts() -> None:
    record = opinion(0, 30)
    assert not of(record, said(record, "40"), tagged=True).valid
    assert of(record, said(record, "<think>90</think><answer>40</answer>"), tagged=True).numbers["made"] == 40


def test_a_head_counts_against_the_text_and_may_name_dimensions() -> None:
    record = opinion(0, 30, "authenticity")
    both = head(record, {"values": {"quality": 10.0, "authenticity": 20.0}}, raw="90")
    assert (of(record, both).numbers["made"], of(record, both).answer) == (20.0, "20")
    assert of(record, head(record, None, raw="90")).numbers["made"] == 50
    assert not of(record, head(record, None, raw="90")).valid


def test_a_mean_place_among_the_levels_is_a_score() -> None:
    """Place 4.5 lies between the middles of the fourth and the fifth bin: 6.3619 + 4 · 11.87766, where the bins meet."""
    record = opinion(0, 30)
    value = {"level": "good", "probabilities": {}, "values": {"level": 4.5}}
    assert of(record, head(record, value)).numbers["made"] == pytest.approx(53.87254, abs=1e-9)


def test_a_head_that_says_something_else_is_refused() -> None:
    record = opinion(0, 30)
    with pytest.raises(InputError, match=r"^quality-0: head 'mos' puts out blur, noise; allowed: one number, or one named 'quality'$"):
        of(record, head(record, {"values": {"blur": 1.0, "noise": 2.0}}))
    with pytest.raises(InputError, match="puts out no number; allowed"):
        of(record, head(record, {"rotations": []}))
    with pytest.raises(InputError, match="puts out nan; allowed: finite numbers"):
        of(record, number(record, math.nan))


def test_records_of_other_data_are_refused() -> None:
    other = Record("a", Modality.VIDEO, "beauty", AnswerKind.SCALAR, "?", "1", values=(1.0,))
    with pytest.raises(InputError, match=r"^a: its task is 'beauty'; allowed: quality, authenticity$"):
        of(other, said(other, "1"))
    choice = Record("b", Modality.VIDEO, "quality", AnswerKind.YES_NO, "?", "yes")
    with pytest.raises(InputError, match=r"^b: is of kind yes_no with 0 values; allowed: a level, or a scalar with one value$"):
        of(choice, said(choice, "yes"))


def test_level_accuracy_of_each_dimension() -> None:
    """Quality: 'good' for good, 'fair' for good, and nothing: 1 of 3. Authenticity: by a head's word, and by its number (55 is excellent
    from 54.737 on): 2 of 2. The headline of words alone is the accuracy of quality."""
    records = [word(at, "good") for at in range(3)] + [word(at, "excellent", "authenticity") for at in range(2)]
    answers = [
        said(records[0], "The quality of the human face in this video is good."),
        said(records[1], "fair"),
        None,
        head(records[3], {"level": "excellent", "probabilities": {}, "values": {"score": 4.0}}),
        number(records[4], 55.0),
    ]
    items = scored(BENCHMARK, records, answers)
    assert figures_of(BENCHMARK, items) == pytest.approx({"quality/level_accuracy": 1 / 3, "authenticity/level_accuracy": 1}, abs=1e-12)
    assert [item.score.valid for item in items] == [True, True, False, True, True]
    assert upstream(items) == {"n": 0, "without_a_number": 0, "srcc": None, "plcc": None, "krcc": None}


def test_the_published_levels_of_scores_are_told_by_their_own_words() -> None:
    """A predictor that knows the level alone puts each score into its own bin again."""
    for mos in (6.4, 20.0, 35.0, 50.0, 65.0):
        record = opinion(0, mos)
        made = of(record, said(record, level_of(mos, 6.3619, 65.7502))).numbers["made"]
        assert level_of(made, 6.3619, 65.7502) == level_of(mos, 6.3619, 65.7502)
        assert abs(made - mos) <= 11.87766 / 2
    assert LEVELS[0] == "bad"


def test_figures_name_units_and_which_way_is_better() -> None:
    found = {figure.name: figure for figure in figures([opinion(0, 1), word(0, "good")])}
    assert list(found) == [f"quality/{name}" for name in (*METRICS, "level_accuracy")]
    assert [name for name, figure in found.items() if not figure.higher_is_better] == ["quality/rmse", "quality/rmse_fitted"]
    assert (found["quality/rmse"].unit, found["quality/srcc"].unit) == ("points", "correlation")
    assert found["quality/level_accuracy"].groups == ((1,),)


def test_a_logistic_bend_is_taken_out_and_never_from_the_plain_figure() -> None:
    """Opinions 50 + 20 tanh(x), predicted as x = -3, -2.9 ... 3: after the curve PLCC is 1 and RMSE 0. The plain ones stay: PLCC below
    0.97, and RMSE above 50, of numbers around 0 for opinions around 50."""
    made = np.linspace(-3, 3, 61)
    right = 50 + 20 * np.tanh(made)
    assert METRICS["plcc_fitted"](made, right) == pytest.approx(1, abs=1e-9)
    assert METRICS["rmse_fitted"](made, right) == pytest.approx(0, abs=1e-3)
    assert METRICS["plcc"](made, right) < 0.97
    assert METRICS["rmse"](made, right) > 50


def test_an_upside_down_predictor_is_not_turned_over_by_the_curve() -> None:
    """Opinions 0 to 10 predicted as 10 to 0: the best rising curve is flat, so PLCC is 0 and RMSE their spread, sqrt(10)."""
    right = np.arange(11.0)
    assert METRICS["plcc"](right[::-1], right) == pytest.approx(-1, abs=1e-12)
    assert METRICS["plcc_fitted"](right[::-1], right) == 0
    assert METRICS["rmse_fitted"](right[::-1], right) == pytest.approx(math.sqrt(10), abs=1e-12)


def test_what_the_curve_makes_of_a_line_of_a_constant_and_of_too_few() -> None:
    """On a line no bend is left to take out; four points would fit anything, so that there is no curve."""
    right = np.arange(20.0)
    assert METRICS["plcc_fitted"](3 * right + 2, right) == pytest.approx(1, abs=1e-5)
    curve = fitted(np.ones(20), right)
    assert curve is not None
    assert set(curve) == {9.5}
    assert fitted(right[:4], right[:4]) is None
    assert math.isnan(METRICS["plcc_fitted"](right[:4], right[:4]))
    assert math.isnan(METRICS["rmse_fitted"](right[:4], right[:4]))


def test_the_baseline_is_the_mean_score_and_the_most_frequent_level() -> None:
    """Quality 10, 20, 60: the mean 30 is off by 20, 10 and 30, so RMSE = sqrt(1400/3). Authenticity 40 alone. Of good, good, bad: 2/3."""
    records = [opinion(0, 10), word(0, "good"), opinion(1, 20), word(1, "good"), opinion(2, 60), word(2, "bad")]
    records.append(opinion(0, 40, "authenticity"))
    assert BENCHMARK.baseline is not None
    made = BENCHMARK.baseline[1](records)
    assert [one.id for one in made] == [record.id for record in records]
    found = figures_of(BENCHMARK, [Scored(record, None, one) for record, one in zip(records, made, strict=True)])
    assert found["quality/rmse"] == pytest.approx(math.sqrt(1400 / 3), abs=1e-12)
    assert [found[name] for name in ("quality/srcc", "authenticity/rmse", "quality/level_accuracy")] == pytest.approx([0, 0, 2 / 3])


def test_a_constant_correlates_with_nothing() -> None:
    made, right = np.full(6, 3.0), np.arange(6.0)
    assert [METRICS[name](made, right) for name in ("srcc", "plcc", "krcc", "plcc_fitted")] == [0, 0, 0, 0]
