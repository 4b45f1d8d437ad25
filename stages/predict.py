"""A head's values for people: of a file of records or of one question, as lines, JSON, pictures and a page that turns the poses.

`OUT/predictions.jsonl` holds one line a record: `id`, `source`, `task`, `answer` (of a head at a token), and `values`, a list:

    {"values": {"score": 61.2}, "intervals": {"score": [58.0, 64.1]}}           numbers; intervals where passes with dropout were asked for
    {"level": "good", "probabilities": {"bad": 0.01, ...}, "values": {...}}     words
    {"pose": "poses/ID-1.json"}                                                 rotations, axis-angle and joints in mm; `.png` beside it
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omnistage.data.body import drawing
from omnistage.data.body.skeleton import Skeleton, joints_m
from omnistage.data.errors import InputError
from omnistage.data.records import Record
from omnistage.rl.encoding import Encoder
from omnistage.rl.heads.carried import Head
from omnistage.rl.heads.predict import Prediction, Reader
from omnistage.rl.heads.spec import BODY_JOINTS, HeadSpec
from omnistage.stages import files

# Drawn into one page that turns them; every pose has its own files.
MOST_ON_A_PAGE = 100


def check(spec: HeadSpec, passes: int) -> None:
    """Raises `InputError` for passes with dropout of a head that has none, or that puts out poses."""
    if passes and not spec.body.dropout:
        raise InputError(f"--dropout: head {spec.name!r} has no dropout, so that all passes would say the same")
    if passes and spec.codec.kind == "rot6d":
        raise InputError(f"--dropout: head {spec.name!r} puts out poses; intervals are of numbers")


def predictions(
    model: Any, encoder: Encoder, head: Head, records: Sequence[Record], *, batch_size: int = 16, max_new_tokens: int = 64, passes: int = 0
) -> Iterator[Prediction]:
    """One prediction a record. With `passes` (2 or more) its numbers are means over as many passes with the head's dropout on, and hold
    `intervals`: the 2.5th and the 97.5th percentile.

    Raises:
        InputError: a clip cannot be read, or as `check`.
    """
    check(head.spec, passes)
    reader = Reader(model, encoder, head)
    settings = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
    if not passes:
        return reader(records, **settings)
    head.train()
    torch.manual_seed(0)
    try:
        drawn = [list(reader(records, **settings)) for _ in range(passes)]
    finally:
        head.eval()
    return (_spread(of_record) for of_record in zip(*drawn, strict=True))


def _spread(drawn: Sequence[Prediction]) -> Prediction:
    """Means and intervals of several predictions of one record."""
    values = []
    for of_state in zip(*(prediction.values for prediction in drawn), strict=True):
        numbers = {name: [value["values"][name] for value in of_state] for name in of_state[0]["values"]}
        means = {name: float(np.mean(given)) for name, given in numbers.items()}
        spans = {name: np.percentile(given, [2.5, 97.5]).tolist() for name, given in numbers.items()}
        merged = {"values": means, "intervals": spans}
        if "probabilities" in of_state[0]:
            shares = {word: float(np.mean([value["probabilities"][word] for value in of_state])) for word in of_state[0]["probabilities"]}
            merged |= {"level": max(shares, key=lambda word: shares[word]), "probabilities": shares}
        values.append(merged)
    return Prediction(values, drawn[0].text)


def write(out: Path, records: Sequence[Record], found: Sequence[Prediction], body: Skeleton | None = None) -> list[dict[str, Any]]:
    """Write `predictions.jsonl`, and files of each pose, with the places of `body`'s joints (ours unless given); returns the lines."""
    rows: list[dict[str, Any]] = []
    on_page: dict[str, Any] = {}
    for number, (record, prediction) in enumerate(zip(records, found, strict=True), start=1):
        values = []
        for at, value in enumerate(prediction.values, start=1):
            # Our body has places for its own joints only; the rotations of others stay in the line.
            if len(value.get("rotations", ())) == BODY_JOINTS:
                # Numbered, since ids may be alike once what no file name holds is taken out.
                name = f"{number:04d}-{re.sub(r'[^A-Za-z0-9_-]+', '-', record.id)[:60]}-{at}"
                joints = write_pose(out / "poses" / name, value["rotations"], label=f"{record.id} {at}", body=body)
                if len(on_page) < MOST_ON_A_PAGE:
                    on_page[f"{number}.{at} {record.id}"] = joints
                value = {"pose": f"poses/{name}.json"}
            values.append(value)
        rows.append({"id": record.id, "source": record.source, "task": record.task, "answer": prediction.text, "values": values})
    files.write_lines(out / "predictions.jsonl", rows)
    if on_page:
        files.write_text(out / "poses.html", drawing.page(on_page, "Poses"))
    return rows


def write_pose(stem: Path, rotations: Any, *, label: str, body: Skeleton | None = None) -> Any:
    """Write a pose [24, 3, 3] as `stem.json` and `stem.png`; returns its joints [24, 3] in metres."""
    joints = joints_m(rotations, body)
    files.write_json(stem.with_name(f"{stem.name}.json"), drawing.pose_json(rotations, body))
    drawing.draw({label: joints}).save(stem.with_name(f"{stem.name}.png"))
    return joints


def line(record: Record, prediction: Prediction) -> str:
    """One prediction for a terminal."""
    if not prediction.values:
        return f"{record.id}: no value: the answer was {prediction.text!r}"
    return f"{record.id}: {'; '.join(_words(value) for value in prediction.values)}"


def _words(value: Mapping[str, Any]) -> str:
    if "rotations" in value:
        return f"a pose of {len(value['rotations'])} joints"
    parts = []
    if "level" in value:
        shares = ", ".join(f"{word} {share:.2f}" for word, share in value["probabilities"].items())
        parts.append(f"{value['level']} ({shares})")
    for name, number in value["values"].items():
        span = value.get("intervals", {}).get(name)
        parts.append(f"{name} {number:.2f}" + (f" [{span[0]:.2f}, {span[1]:.2f}]" if span else ""))
    return ", ".join(parts)
