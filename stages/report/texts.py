"""What a model wrote, cut into its parts and to a length that a page can hold."""

from __future__ import annotations

from typing import Any

from omnistage.rewards.extract import segment_of

# Characters of one part (thinking, answer, what stands around them) that a page holds: of a longer one its first and its last.
FIRST, LAST = 3000, 800
# Characters of a question, a target, a reason.
SHORT = 2000


def parts_of(text: str) -> list[dict[str, Any]]:
    """The text in order as `{"kind": think | answer | tag | text, "text"}`, with `{"cut": n, "end"}` where n characters are left out before
    `end`. What is thinking and what is the answer is what graders read."""
    places = []
    for kind in ("think", "answer"):
        found = segment_of(text, kind)
        if found is not None:
            places.append((*found, kind))
    out: list[dict[str, Any]] = []
    at = 0
    for start, end, kind in sorted(places):
        # An answer may be named inside the thinking.
        if start < at:
            continue
        _add(out, "text", text[at:start])
        opening, closing = f"<{kind}>", f"</{kind}>"
        out.append({"kind": "tag", "text": opening})
        _add(out, kind, text[start + len(opening) : end - len(closing)])
        out.append({"kind": "tag", "text": closing})
        at = end
    _add(out, "text", text[at:])
    return out


def _add(out: list[dict[str, Any]], kind: str, text: str) -> None:
    if text:
        out.append({"kind": kind} | cut(text))


def cut(text: str, first: int = FIRST, last: int = LAST) -> dict[str, Any]:
    """`{"text"}`, or of a long text `{"text", "cut", "end"}`: its beginning, the number of characters left out, and its end."""
    if len(text) <= first + last:
        return {"text": text}
    return {"text": text[:first], "cut": len(text) - first - last, "end": text[-last:] if last else ""}


def short(text: Any) -> str:
    """A text that is not the model's, cut at `SHORT` characters, with the number of those left out."""
    told = text if isinstance(text, str) else str(text)
    return told if len(told) <= SHORT else f"{told[:SHORT]} … {len(told) - SHORT} more characters"
