r"""An answer that is a plain mathematical expression, as a number: `\frac{1}{2}`, `$1/2$`, `\boxed{3*4}`, `2e3`, `2\sqrt{3}`.

math-verify computes and compares; this file decides what it gets to see. It looks for mathematics anywhere in a text, so it would take a
number out of prose, and it computes whatever it finds, so `9^9^9^9` would not end. What passes here is one expression from its first
to its last character, of numbers, + - * /, small powers, roots and fractions, at most three deep and with at most 1,500 digits
to its value. Such an expression is quick to compute, so no timer is needed, and it can be read off the main thread.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from omnistage.rewards.lexer import plain

MOST_CHARACTERS = 200
# Python writes integers of up to 4,300 digits, and a fraction may have 2.4 times as many as a decimal number.
_MOST_DIGITS = 1500
_MOST_DEPTH = 3
_MOST_ROOTS = 2

_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), (r"\boxed{", "}"), ("**", "**"))
_SIGNS = str.maketrans({"×": "*", "·": "*", "⋅": "*", "÷": "/"})
_CHARACTERS = re.compile(r"[0-9A-Za-z.,+*/^(){}\\\s-]++")
_SPACE = r"\s*+"
_DIGITS = r"(?:(?:[0-9]{1,3}+(?:,[0-9]{3})++(?![0-9,])|[0-9]++)(?:\.[0-9]++)?+|\.[0-9]++)"
_NUMBER = rf"{_DIGITS}(?:[eE][-+]?+[0-9]{{1,2}}+)?+"
_POWER = rf"\^{_SPACE}(?:-?+[0-9]{{1,2}}+|\{{-?+[0-9]{{1,2}}+\}})"
# '#' stands for a bracket or a fraction that has been read, '@' for a root.
_FACTOR = rf"(?:{_NUMBER}(?:{_SPACE}(?:\\pi(?![A-Za-z])|@))?+|\\pi(?![A-Za-z])|\\[dt]?frac[0-9]{{2}}|[#@])(?:{_SPACE}{_POWER})?+"
_OPERATOR = r"(?:[-+*/]|\\(?:times|cdot|div)(?![A-Za-z]))"
_FLAT = rf"{_SPACE}[-+]?+{_SPACE}{_FACTOR}(?:{_SPACE}{_OPERATOR}{_SPACE}-?+{_SPACE}{_FACTOR})*+{_SPACE}"
_BRACKET = re.compile(rf"\\left\({_FLAT}\\right\)|\({_FLAT}\)|\\[dt]?frac\{{{_FLAT}\}}\{{{_FLAT}\}}")
_ROOT = re.compile(rf"\\sqrt(?:\{{{_FLAT}\}}|[0-9])")
_WHOLE = re.compile(_FLAT)
_PLAIN_NUMBER = re.compile(rf"[-+]?+{_DIGITS}")
# '3-4' is a range, '2020-01-02' and '1/2/2020' are dates.
_NO_ARITHMETIC = re.compile(rf"{_DIGITS}(?:{_SPACE}-{_SPACE}{_DIGITS})++|{_DIGITS}(?:/{_DIGITS}){{2,}}+")
_PART = re.compile(rf"\^{_SPACE}\{{?+(?P<power>-?+[0-9]++)\}}?+|(?P<number>{_NUMBER})")


def is_expression(text: str) -> bool:
    """Whether a text is one plain mathematical expression, a single number among them, and nothing else."""
    return _latex(text) is not None


def is_compound(text: str) -> bool:
    """Whether a text is an expression that is more than a number in digits: '1/2', '2e3', '(4)', but not '-4'."""
    return is_expression(text) and not _PLAIN_NUMBER.fullmatch(_unwrapped(text))


def value_of(text: str) -> str | None:
    """The value of an expression in the normal form of a number ('0.5', '12'), as '1/3' or 'sqrt(2)' where digits cannot say it.

    None for anything that is no expression (`is_expression`) or has no value ('1/0'). Never raises.
    """
    found = _parsed(text)
    if found is None:
        return None
    return _written(Fraction(int(found.p), int(found.q))) if found.is_Rational else str(found)


def number_of(text: str) -> float | None:
    """The value of an expression as a float, infinite where it is too large for one; None for anything that is no expression."""
    found = _parsed(text)
    try:
        return None if found is None else float(found)
    except OverflowError:
        return math.copysign(math.inf, found)


def same(one: str, other: str) -> bool:
    """Whether two expressions have the same value: exactly, irrational ones in 15 digits. False where either is none. Never raises."""
    values = _parsed(one), _parsed(other)
    if values[0] is None or values[1] is None:
        return False
    if values[0].is_Rational and values[1].is_Rational:
        return bool(values[0] == values[1])
    return bool(_math_verify().verify(values[0], values[1], timeout_seconds=None))


def _parsed(text: str) -> Any:
    """The text as a real, finite sympy number, or None."""
    latex = _latex(text)
    return None if latex is None else _computed(latex)


@lru_cache(maxsize=4096)
def _computed(latex: str) -> Any:
    library = _math_verify()
    config = [library.LatexExtractionConfig()]
    found = library.parse(f"${latex}$", extraction_config=config, fallback_mode="no_fallback", parsing_timeout=None)
    if len(found) != 1:
        return None
    try:
        value = found[0].doit()
        return value if value.is_real and value.is_finite else None
    # What sympy raises for an expression that it cannot compute is not documented, and the text is a model's.
    except Exception:  # noqa: BLE001
        return None


@lru_cache(maxsize=1)
def _math_verify() -> Any:
    """math-verify, imported when first needed (it brings sympy). Its warning that nothing stops a long computation is not for us."""
    import math_verify
    from math_verify import grader, parser

    parser.TIMEOUT_WARNING_SHOWN = grader.TIMEOUT_WARNING_SHOWN = True
    return math_verify


def _latex(text: str) -> str | None:
    """The expression in LaTeX with its numbers as integers and fractions, or None where it is none or too much to compute."""
    bare = _unwrapped(text)
    if not bare or _NO_ARITHMETIC.fullmatch(bare) or not _is_well_built(bare):
        return None
    latex = _PART.sub(_exact, bare)
    powers = [abs(int(power)) for power in re.findall(r"\^\{(-?[0-9]+)\}", latex)]
    return latex if len(latex) * math.prod(max(power, 1) for power in powers) <= _MOST_DIGITS else None


def _unwrapped(text: str) -> str:
    """The text without white space, the point and the mathematical or Markdown marks around it; empty for a long one."""
    if len(text) > MOST_CHARACTERS:
        return ""
    bare = plain(text).translate(_SIGNS).strip()
    for _ in range(_MOST_DEPTH):
        bare = bare.removesuffix(".").rstrip()
        for opening, closing in _WRAPPERS:
            if bare.startswith(opening) and bare.endswith(closing) and len(bare) > len(opening + closing):
                bare = bare[len(opening) : -len(closing)].strip()
                break
    return bare


def _is_well_built(bare: str) -> bool:
    if not _CHARACTERS.fullmatch(bare) or bare.count(r"\sqrt") > _MOST_ROOTS:
        return False
    for _ in range(_MOST_DEPTH):
        bare = _ROOT.sub("@", _BRACKET.sub("#", bare))
    return _WHOLE.fullmatch(bare) is not None


def _exact(part: re.Match[str]) -> str:
    """A power in braces; a number as an integer or a fraction, since decimals would be rounded."""
    if part["power"] is not None:
        return f"^{{{part['power']}}}"
    if part["number"].isdecimal():
        return part["number"]
    value = Fraction(part["number"].replace(",", ""))
    return str(value) if value.denominator == 1 else rf"(\frac{{{value.numerator}}}{{{value.denominator}}})"


def _written(value: Fraction) -> str:
    """'0.5', '12', '-2.25', or '1/3' for a value that no decimal number is."""
    rest, places = value.denominator, 0
    for prime in (2, 5):
        times = 0
        while rest % prime == 0:
            rest, times = rest // prime, times + 1
        places = max(places, times)
    if rest != 1:
        return str(value)
    digits = str(abs(value.numerator) * (10**places // value.denominator)).zfill(places + 1)
    whole, fraction = digits[: len(digits) - places], digits[len(digits) - places :]
    return ("-" if value < 0 else "") + whole + (f".{fraction}" if fraction else "")
