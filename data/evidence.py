"""What a record says is to be seen and heard in its clip: the reference of the reward for grounded thinking."""

from __future__ import annotations

from omnistage.data.errors import RecordError
from omnistage.data.records import Record

SENSES = ("sight", "sound")


def evidence_of(record: Record) -> dict[str, list[str]]:
    """`{"sight": [...], "sound": [...]}` from the record's field `evidence`; empty lists where it has none.

    Each text is something in the clip (`"red disc"`), or alternatives for the same thing joined by `|` (`"beep|tone"`).

    Raises:
        RecordError: the field is not an object of these two keys with lists of texts.
    """
    given = record.extra.get("evidence")
    if given is None:
        return {sense: [] for sense in SENSES}
    where = f"{record.source or record.id}: evidence"
    if not isinstance(given, dict) or not set(given) <= set(SENSES):
        raise RecordError(f"{where} is {given!r}; must be an object with the keys sight and sound")
    for sense, texts in given.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip(" |") for text in texts):
            raise RecordError(f"{where}.{sense} is {texts!r}; must be a list of texts")
    return {sense: list(given.get(sense, [])) for sense in SENSES}
