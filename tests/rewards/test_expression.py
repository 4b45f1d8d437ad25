"""Plain mathematical expressions are read exactly; prose, hostile and ambiguous ones are not read at all."""

from __future__ import annotations

import threading
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnistage.rewards.expression import MOST_CHARACTERS, is_compound, is_expression, number_of, same, value_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\frac{1}{2}", "0.5"),
        (r"\frac12", "0.5"),
        (r"$\dfrac{3}{4}$", "0.75"),
        (r"\boxed{\frac{1}{2}}", "0.5"),
        (r"$$\boxed{4}$$", "4"),
        (r"\(3\)", "3"),
        (r"\[1/2\]", "0.5"),
        ("**1/2**", "0.5"),
        ("1/2.", "0.5"),
        (" 1 / 2 ", "0.5"),
        ("\uff11\uff0f\uff12", "0.5"),
        ("1/3", "1/3"),
        ("-1/3", "-1/3"),
        (r"\frac{-3}{4}", "-0.75"),
        ("2e3", "2000"),
        ("2E-3", "0.002"),
        ("1/2e3", "0.0005"),
        ("3*4", "12"),
        ("3 × 4", "12"),
        (r"3 \times 4", "12"),
        (r"3\cdot 4", "12"),
        ("5÷2", "2.5"),
        ("1,000/4", "250"),
        ("0.1+0.2", "0.3"),
        ("1-1/2", "0.5"),
        ("(1+2)*3", "9"),
        (r"\left(1+2\right)^2", "9"),
        ("-2^2", "-4"),
        ("2^10", "1024"),
        ("2^{-2}", "0.25"),
        ("2/3*4", "8/3"),
        ("-(3)", "-3"),
        (r"\sqrt{4}", "2"),
        (r"\sqrt4", "2"),
        (r"2\sqrt{3}", "2*sqrt(3)"),
        (r"2\pi", "2*pi"),
        ("4", "4"),
        ("-4.50", "-4.5"),
    ],
)
def test_the_value_of_an_expression(text: str, value: str) -> None:
    assert value_of(text) == value


PROSE = ["", " ", ".", "$", "4 people", "there are 4", "four", "nan", "inf", "50%", "x", "x+1", "1=1", "1;2", "__import__('os')"]
AMBIGUOUS = ["3-4", "3 - 4", "$3-4$", "2020-01-02", "1/2/2020", "2/3/4", "10:30", "1,2", "10,00", "2.5.1", "1 1/2", "3 4", "2(3)"]
WITHOUT_VALUE = ["1/0", r"\frac{0}{0}", r"\sqrt{-1}", "4+", "/2", "(1", "1)", "()", "{1}", r"\frac{1}", r"\frac{1}{}", "<5", "≥ 5", "±5"]
NOT_PLAIN = ["5!", r"5\!", r"\int 1", r"\input{a}", r"50\%", "½", "²", "2**3", "2^x", "2^(1/2)", r"2^{\frac{1}{2}}", "2^3^4", "1e400"]


@pytest.mark.parametrize("text", [*PROSE, *AMBIGUOUS, *WITHOUT_VALUE, *NOT_PLAIN, r"1\frac{1}{2}"])
def test_what_is_no_plain_expression_has_no_value(text: str) -> None:
    assert value_of(text) is None
    assert number_of(text) is None
    assert not same(text, text)


HOSTILE = [
    "9^9^9^9",
    "9^" * 50_000 + "9",
    "9^9^" * 49 + "9",
    "((9^99)^99)^99",
    "9" * 190 + "^99",
    "99999!",
    "(" * 100_000,
    "(" * 95 + "1" + ")" * 95,
    "(((((1)))))",
    r"\frac{" * 30,
    r"\frac{" * 8 + "1" + "}{2}" * 8,
    r"\sqrt{" * 20 + "2" + "}" * 20,
    r"\sqrt2+\sqrt3+\sqrt5+\sqrt7",
    "1+" * 100_000 + "1",
    "{" * 200,
    "1" * 100_000,
    "$" * 200,
    r"\boxed{" * 28,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: f"{text[:12]}-{len(text)}")
def test_a_hostile_expression_is_refused_before_anything_is_computed(text: str) -> None:
    start = time.process_time()
    assert not is_expression(text)
    assert value_of(text) is None
    assert time.process_time() - start < 0.5


def test_the_longest_and_largest_that_are_read() -> None:
    assert value_of("1+" * (MOST_CHARACTERS // 2 - 1) + "1") == str(MOST_CHARACTERS // 2)
    assert value_of("1+" * (MOST_CHARACTERS // 2) + "1") is None
    assert value_of("99^99") == str(99**99)
    assert value_of("(9^9)^9") == str(9**81)
    assert value_of("((9^9)^9)^9") is None
    power = str(2**600)
    assert value_of(f"1/{power}^8") == f"0.{str(5**4800).zfill(4800)}"
    assert number_of("1e99*1e99*1e99*1e99") == float("inf")
    assert number_of("-1e99*1e99*1e99*1e99") == -float("inf")


def test_compound_is_more_than_a_number_in_digits() -> None:
    assert all(map(is_compound, ["1/2", "2e3", "(4)", "3*3", r"\sqrt{4}", "-(3)"]))
    assert not any(map(is_compound, ["4", "-4", "+4.5", "$4$", r"\boxed{4}", "1,000", "4 people", "3-4", ""]))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.5", r"\frac{1}{2}"),
        ("12", "3*4"),
        (r"\frac{\sqrt{2}}{2}", r"1/\sqrt{2}"),
        (r"(\sqrt{2}+1)*(\sqrt{2}-1)", "1"),
        (r"\frac{\pi}{2}", r"0.5\pi"),
    ],
)
def test_the_same_value(one: str, other: str) -> None:
    assert same(one, other)
    assert same(other, one)


@pytest.mark.parametrize(
    ("one", "other"), [("0.333333", "1/3"), (r"\pi", "22/7"), (r"\sqrt{2}", "1.41421356"), ("0.1+0.2", "0.30000001"), ("1/0", "1/0")]
)
def test_close_is_not_the_same(one: str, other: str) -> None:
    assert not same(one, other)


def test_it_works_off_the_main_thread() -> None:
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(value_of(r"\frac{3}{8}+\sqrt{4}")))
    thread.start()
    thread.join()
    assert found == ["2.375"]


NUMBERS = st.one_of(st.integers(0, 999).map(str), st.decimals("0", "99", places=2).map(str))


@st.composite
def arithmetic(draw: st.DrawFn, depth: int = 2) -> tuple[str, Fraction]:
    """An expression in LaTeX or plain signs, and its value."""
    if depth == 0 or draw(st.booleans()):
        number = draw(NUMBERS)
        return number, Fraction(number)
    one, other = draw(arithmetic(depth=depth - 1)), draw(arithmetic(depth=depth - 1))
    match draw(st.sampled_from(["+", "-", "*", "frac"])):
        case "+":
            return f"({one[0]}+{other[0]})", one[1] + other[1]
        case "-":
            return f"({one[0]}*1 - {other[0]})", one[1] - other[1]
        case "*":
            return rf"({one[0]} \times {other[0]})", one[1] * other[1]
        case _:
            value = one[1] / other[1] if other[1] else None
            return (rf"\frac{{{one[0]}}}{{{other[0]}}}", value) if value is not None else one


@settings(max_examples=60, deadline=None)
@given(arithmetic())
def test_arithmetic_is_exact(case: tuple[str, Fraction]) -> None:
    text, value = case
    read = value_of(text)
    assert read is None or Fraction(read) == value
    assert read is not None or len(text) > 60 or not is_expression(text)


PIECES = [*"0123456789.,+-*/^(){}$ \\eE!x", r"\frac", r"\frac{1}{", r"\sqrt", r"\pi", r"\boxed{", r"\left(", r"\right)"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join) | st.text(st.characters(exclude_categories=()), max_size=300))
def test_no_text_raises(text: str) -> None:
    value = value_of(text)
    assert value is None or any(character in text for character in "0123456789π") or r"\pi" in text
    number_of(text), same(text, "1/2"), is_compound(text)
