"""What a thinking mentions of what is in the clip."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnistage.data.errors import InputError, RewardError
from omnistage.rewards.extract import mentions
from omnistage.rewards.families.reasoning import evidence, reasoning

CLIP = {"sight": ["red disc", "blue square"], "sound": ["beep|tone"]}


def _scored(thinking: str, stated: dict[str, list[str]], **settings: Any) -> float | None:
    return evidence([f"<think>{thinking}</think><answer>B</answer>"], [stated], **settings)[0]


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ("A red disc and a blue square move, then a beep.", 1.0),
        ("A red disc moves, then a TONE sounds.", 0.75),
        ("A red disc and a blue square move.", 0.5),
        ("I hear a beep and a tone.", 0.5),
        ("A red disc.", 0.25),
        ("Red, disc; nothing else.", 0.25),
        ("A disc that is red.", 0.0),
        ("", 0.0),
    ],
)
def test_the_mean_over_the_senses_of_the_shares_mentioned(thinking: str, expected: float) -> None:
    assert _scored(thinking, CLIP) == expected


def test_a_sense_without_evidence_does_not_count_and_none_at_all_is_not_scored() -> None:
    assert _scored("a beep", {"sight": [], "sound": ["beep", "voice"]}) == 0.5
    assert _scored("a beep", {"sight": [], "sound": []}) is None
    assert _scored("a beep", {}) is None


def test_the_answer_and_what_stands_outside_the_thinking_do_not_count() -> None:
    texts = ["<think>x</think><answer>red disc</answer>", "red disc, blue square, beep", "<think></think>red disc<answer>B</answer>"]
    assert evidence(texts, [CLIP] * 3) == [0.0, 0.0, 0.0]


def test_a_list_of_everything_does_not_fit_into_most_words() -> None:
    everything = "red disc, green disc, blue disc, red square, green square, blue square, beep, tone, voice"
    assert _scored(everything, CLIP) == 1.0
    assert _scored(everything, CLIP, most_words=12) == 0.5
    assert _scored(everything, CLIP, most_words=2) == 0.25
    assert _scored(everything, CLIP, most_words=1) == 0.0


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("two dogs", "dog"),
        ("a dog", "dogs"),
        ("the boxes", "box"),
        ("the ladies", "lady"),
        ("glasses", "glass"),
        ("they are clapping hands", "clap hand"),
        ("he danced", "dance"),
        ("dancing", "dances"),
        ("she carried it", "carry"),
        ("a dog barking", "dog barks"),
        ("Red-haired man; a RED  disc", "red disc"),
        ("the man's hat", "man hat"),
        ("\u6709\u4e00\u4e2a\u7ea2\u8272\u7684\u5706", "\u7ea2\u8272"),
        ("no red disc at first. Then a red disc", "red disc"),
        ("the red disc is not moving", "red disc"),
        ("No, a red disc", "red disc"),
        ("not only a red disc", "red disc"),
        ("I am not sure, but a red disc", "red disc"),
    ],
)
def test_mentioned(text: str, phrase: str) -> None:
    assert mentions(text, [phrase]) == {phrase}


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("reddish", "red"),
        ("a discus", "disc"),
        ("a string", "str"),
        ("red and disc", "red disc"),
        ("no red disc", "red disc"),
        ("There is not a red disc", "red disc"),
        ("I do not see any red disc", "red disc"),
        ("I can't hear the sound of a beep", "beep"),
        ("no dog or cat", "cat"),
        ("neither a dog nor a cat", "cat"),
        ("without a beep", "beep"),
        ("a tone rather than a beep", "beep"),
        ("there was never a beep", "beep"),
        ("the red disc is not visible", "red disc"),
        ("the beep cannot be heard", "beep"),
        ("the red disc is missing", "red disc"),
        ("the red disc isn't there", "red disc"),
        ("\u6ca1\u6709\u7ea2\u8272", "\u7ea2\u8272"),
        ("", "dog"),
        ("dog", "..."),
    ],
)
def test_not_mentioned(text: str, phrase: str) -> None:
    assert mentions(text, [phrase]) == set()


def _both(thinking: str, answer: str, **settings: Any) -> float | None:
    text = f"<think>{thinking}</think><answer>{answer}</answer>"
    return reasoning([text], ["single_choice"], [["happy", "sad"]], [CLIP], **settings)[0]


def test_reasoning_is_consistency_unless_parts_say_otherwise() -> None:
    assert _both("A red disc, so B.", "B") == 1.0
    assert _both("A red disc, so B.", "A") == 0.0
    assert _both("A red disc.", "A") is None


def test_reasoning_is_the_mean_of_its_scored_parts_by_their_weights() -> None:
    """Consistency 1 and evidence 0.25, weighed 1 to 3: (1 + 0.75) / 4. Without a conclusion, evidence alone."""
    parts = {"consistency": 1.0, "evidence": 3.0}
    assert _both("A red disc, so B.", "B", parts=parts) == 0.4375
    assert _both("A red disc.", "B", parts=parts) == 0.25
    assert _both("A red disc, so B.", "A", parts={"evidence": 2.0}) == 0.25
    assert _both("A red disc, so B.", "B", parts={"evidence": 2.0}, most_words=2) == 0.0
    text = "<think>so B</think><answer>B</answer>"
    assert reasoning([text, text], ["single_choice", "open"], [["x", "y"], []], [{}, {}], parts=parts) == [1.0, None]  # type: ignore[arg-type]


@pytest.mark.parametrize("parts", [{}, {"quality": 1.0}, {"evidence": 0.0}, {"evidence": -1.0}, {"consistency": float("nan")}])
def test_parts_that_make_no_sense_are_refused(parts: dict[Any, float]) -> None:
    with pytest.raises(InputError, match="must be weights above 0 for consistency, evidence or both"):
        _both("x", "B", parts=parts)


def test_evidence_needs_its_column() -> None:
    with pytest.raises(RewardError, match="needs the column 'evidence'"):
        reasoning(["x"], ["open"], [[]], parts={"evidence": 1.0})


PIECES = [
    "red",
    "disc",
    "discs",
    "no",
    "not",
    "or",
    "nor",
    "is",
    "missing",
    "see",
    "'s",
    "ing",
    "ed",
    "ies",
    " ",
    " ",
    ",",
    ".",
    "\u6ca1",
    "\ud800",
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join) | st.text(st.characters(exclude_categories=()), max_size=300))
def test_no_text_raises_and_what_is_mentioned_stands_there(text: str) -> None:
    found = mentions(text, ["red disc", "see"])
    assert "red disc" not in found or ("red" in text.casefold() and "disc" in text.casefold())
    assert "see" not in found or "see" in text.casefold()
    assert mentions(text, ["red disc", "see"], most_words=1) <= {"see"}
