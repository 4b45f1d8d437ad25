"""From a record's answer to the numbers that a head learns, and from a head's outputs back to values.

Outputs are [N, size], a row for each state that was read.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from omnistage.data.errors import RecordError
from omnistage.data.records import LEVELS, AnswerKind, Record
from omnistage.rl import body
from omnistage.rl.heads.spec import Affine, HeadSpec, Levels, LossName, Rotations


class Codec(Protocol):
    """What a head's outputs stand for."""

    size: int

    def targets(self, record: Record) -> Tensor:
        """What the head should put out for a record, [values, T]: one row for each state that is read, none where it is not asked.

        Raises `RecordError` for an answer that does not fit, and for a value that is no finite number.
        """
        ...

    def constant(self, targets: Tensor) -> Tensor:
        """The outputs [size], before a last sigmoid, that stand for the middle of targets [N, T]: where a new head begins."""
        ...

    def loss(self, name: LossName, outputs: Tensor, targets: Tensor) -> Tensor:
        """One loss term of outputs [N, size] and targets [N, T], N >= 1, none of them NaN."""
        ...

    def decode(self, outputs: Tensor) -> list[dict[str, Any]]:
        """Plain values of outputs [N, size], as JSON can hold them."""
        ...


class Numbers:
    """One number or several, each a line from `low` (0) to `high` (1)."""

    def __init__(self, spec: Affine, *, bounded: bool = False) -> None:
        self.spec = spec
        self.size = len(spec.names)
        self.bounded = bounded

    def targets(self, record: Record) -> Tensor:
        """[1, size]; a level word stands for the middle of its fifth of the line."""
        if record.kind is AnswerKind.SCALAR:
            given = _finite(record)
        elif record.kind is AnswerKind.LEVEL and self.size == 1:
            if record.target not in LEVELS:
                raise _unfit(record, f"has the level {record.target!r}; known: {', '.join(LEVELS)}")
            given = [self.of_level(record.target)]
        else:
            return torch.empty(0, self.size)
        if len(given) != self.size:
            raise _unfit(record, f"has {len(given)} values and the head puts out {self.size} ({', '.join(self.spec.names)})")
        if self.bounded and not all(self.spec.low <= value <= self.spec.high for value in given):
            raise _unfit(record, f"has the value {given}, and the head's sigmoid reaches {self.spec.low:g} to {self.spec.high:g}")
        scaled = [(value - self.spec.low) / (self.spec.high - self.spec.low) for value in given]
        return torch.tensor([scaled], dtype=torch.float32)

    def of_level(self, word: str) -> float:
        """The middle of a level word's fifth of the line."""
        step = (self.spec.high - self.spec.low) / len(LEVELS)
        return self.spec.low + (LEVELS.index(word) + 0.5) * step

    def constant(self, targets: Tensor) -> Tensor:
        """The mean."""
        mean = targets.mean(0)
        return mean.clamp(0.01, 0.99).logit() if self.bounded else mean

    def loss(self, name: LossName, outputs: Tensor, targets: Tensor) -> Tensor:
        """`l1` and `l2` of the scaled numbers; `correlation`: 1 - Pearson's r over the rows of a batch, mean over the numbers."""
        if name == "l1":
            return (outputs - targets).abs().mean()
        if name == "l2":
            return (outputs - targets).square().mean()
        return correlation_loss(outputs, targets)

    def decode(self, outputs: Tensor) -> list[dict[str, Any]]:
        """`values` by name."""
        values = self.spec.low + outputs.double() * (self.spec.high - self.spec.low)
        return [{"values": dict(zip(self.spec.names, row, strict=True))} for row in values.tolist()]


class Words:
    """Probabilities of ordered words, and the mean of the words' numbers under them."""

    def __init__(self, spec: Levels) -> None:
        self.spec = spec
        self.size = len(spec.words)
        self.centres = torch.tensor(spec.centres, dtype=torch.float32)

    def targets(self, record: Record) -> Tensor:
        """[1, words]: 1 at the right word; a number is shared between the two words whose centres it lies between."""
        if record.kind is AnswerKind.LEVEL:
            if record.target not in self.spec.words:
                raise _unfit(record, f"has the level {record.target!r}; the head's words are {', '.join(self.spec.words)}")
            value = self.spec.centres[self.spec.words.index(record.target)]
        elif record.kind is AnswerKind.SCALAR and len(record.values) == 1:
            value = min(max(_finite(record)[0], self.spec.centres[0]), self.spec.centres[-1])
        else:
            return torch.empty(0, self.size)
        above = next(index for index, centre in enumerate(self.spec.centres) if centre >= value)
        shares = torch.zeros(1, self.size)
        if above == 0:
            shares[0, 0] = 1
            return shares
        low, high = self.spec.centres[above - 1], self.spec.centres[above]
        part = (value - low) / (high - low)
        shares[0, above - 1], shares[0, above] = 1 - part, part
        return shares

    def constant(self, targets: Tensor) -> Tensor:
        """Logarithms of the mean shares."""
        return targets.mean(0).clamp(min=1e-3).log()

    def loss(self, name: LossName, outputs: Tensor, targets: Tensor) -> Tensor:
        """`cross_entropy` with the shares; `l1` of the mean numbers, as a part of the distance from the first to the last centre."""
        if name == "cross_entropy":
            return -(targets * outputs.log_softmax(-1)).sum(-1).mean()
        centres = self.centres.to(outputs.device)
        span = centres[-1] - centres[0]
        return ((outputs.softmax(-1) - targets) @ centres).abs().mean() / span

    def decode(self, outputs: Tensor) -> list[dict[str, Any]]:
        """The likeliest `level`, the `probabilities` of all words, and `values`: the mean number."""
        shares = outputs.double().softmax(-1).cpu()
        means = (shares @ self.centres.double()).tolist()
        return [
            {
                "level": self.spec.words[int(row.argmax())],
                "probabilities": dict(zip(self.spec.words, row.tolist(), strict=True)),
                "values": {"score": mean},
            }
            for row, mean in zip(shares, means, strict=True)
        ]


class Poses:
    """Joint rotations as matrices, from six numbers a joint."""

    def __init__(self, spec: Rotations) -> None:
        self.spec = spec
        self.size = 6 * spec.joints

    def targets(self, record: Record) -> Tensor:
        """[poses, 9 x joints]: the matrices of each pose, row by row, in the order of the answer."""
        each = 9 * self.spec.joints
        if record.kind is not AnswerKind.POSE:
            return torch.empty(0, each)
        if not record.values or len(record.values) % each:
            raise _unfit(record, f"has {len(record.values)} values; a pose has {each}, {self.spec.joints} matrices row by row")
        return torch.tensor(_finite(record), dtype=torch.float32).view(-1, each)

    def constant(self, targets: Tensor) -> Tensor:
        """The rotation nearest to all of each joint's: from a body that stands on its head the way back is long."""
        mean = targets.view(-1, self.spec.joints, 3, 3).mean(0)
        return body.matrices_to_six(body.nearest_rotation(mean), self.spec.layout).flatten()

    def loss(self, name: LossName, outputs: Tensor, targets: Tensor) -> Tensor:
        """L1 of the matrices' numbers, of the first joint (`root`) or of all others (`body`); `joints`: of the joints' places in metres."""
        made, right = self.rotations(outputs), targets.view(-1, self.spec.joints, 3, 3)
        if name == "joints":
            return (body.joints_m(made) - body.joints_m(right)).abs().mean()
        kept = slice(0, 1) if name == "root" else slice(1, None)
        return (made[:, kept] - right[:, kept]).abs().mean()

    def rotations(self, outputs: Tensor) -> Tensor:
        """Matrices [N, joints, 3, 3] of outputs [N, 6 x joints]."""
        return body.six_to_matrices(outputs.view(-1, self.spec.joints, 6), self.spec.layout)

    def decode(self, outputs: Tensor) -> list[dict[str, Any]]:
        """`rotations`: matrices [joints][3][3]."""
        return [{"rotations": pose} for pose in self.rotations(outputs.double()).tolist()]


def codec_of(spec: HeadSpec) -> Codec:
    """The codec that a head's specification names."""
    match spec.codec:
        case Affine():
            return Numbers(spec.codec, bounded=spec.body.final == "sigmoid")
        case Levels():
            return Words(spec.codec)
        case Rotations():
            return Poses(spec.codec)


def correlation_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """1 - Pearson's r of each column of [N, D] over the rows, mean over columns; 0 of fewer than two rows or of equal targets."""
    if len(targets) < 2:
        return outputs.sum() * 0
    made, right = outputs - outputs.mean(0), targets - targets.mean(0)
    spread = right.square().sum(0).sqrt()
    # A root of 0 has no slope: outputs that are all alike, those of a dead layer say, would turn every weight to NaN.
    r = (made * right).sum(0) / ((made.square().sum(0) + 1e-12).sqrt() * spread).clamp(min=1e-8)
    return ((1 - r) * (spread > 0)).mean()


def _finite(record: Record) -> list[float]:
    if not all(math.isfinite(value) for value in record.values):
        raise _unfit(record, f"has the values {', '.join(f'{value:g}' for value in record.values[:9])}; allowed: finite numbers")
    return list(record.values)


def _unfit(record: Record, told: str) -> RecordError:
    return RecordError(f"{record.source or record.id}: {told}")
