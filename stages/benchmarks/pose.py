"""Body poses from a description (PoseScript, ChatPose's SPG) or an image (RPE-Refined and others), as ChatPose asks for them.

Each error stands beside that of the rest pose, in which nothing is turned: what has learned nothing should not be much worse. An answer
without a pose has the rest pose's errors and is not valid; nothing is left out of a mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from omnistage.data.records import AnswerKind, Record
from omnistage.stages.benchmarks import pose_retrieval
from omnistage.stages.benchmarks.answered_pose import REST_J33, errors, joints_of, made_of, right_of
from omnistage.stages.benchmarks.base import Benchmark, Scored
from omnistage.stages.benchmarks.figures import Figure, by
from omnistage.stages.benchmarks.items import Prediction, Score
from omnistage.stages.benchmarks.upstream import rpe

NAME = "pose"
# The headline first; nobody has published a definition of MPJRE.
UNITS = {"pa_mpjpe_mm": "mm", "mpjpe_mm": "mm", "geodesic_deg": "degrees", "mpjre_l1x100": "x100, unofficial"}
REST = "rest_pose/"


def in_numbers(record: Record) -> Record:
    """The question with the form of an answer that can be read without a head."""
    form = "Answer with 72 numbers and nothing else: of each of SMPL's 24 joints, the pelvis first, its axis-angle rotation in radians."
    return replace(record, question=f"{record.question} {form}")


def score(record: Record, prediction: Prediction, tagged: bool) -> Score:
    """PA-MPJPE in mm as the value, and all errors of the answer and of the rest pose as `numbers`.

    Raises `InputError` for a record without a pose, and a head that puts out none.
    """
    right, joints = right_of(record), joints_of(record)
    made, whence = made_of(record, prediction, tagged)
    of_rest = errors(REST_J33, right, joints)
    found = of_rest if made is None else errors(made, right, joints)
    numbers = found | {REST + name: error for name, error in of_rest.items()}
    reason = whence if made is not None else f"{whence}; the rest pose stands in"
    answer = None if made is None else (prediction.raw or whence).strip()
    return Score(record.id, prediction.run, NAME, found["pa_mpjpe_mm"], made is not None, answer, reason, numbers)


def at_rest(records: Sequence[Record]) -> list[Score]:
    """What whoever answers with the rest pose would score."""
    nothing = [Prediction(record.id, "rest pose", None, "ok") for record in records]
    return [replace(score(record, answer, False), valid=True) for record, answer in zip(records, nothing, strict=True)]


def figures(records: Sequence[Record], *, retrieval: bool = False) -> list[Figure]:
    """The four errors beside those of the rest pose; of several tasks the means over tasks, and then each task on its own."""
    tasks = by([record.task for record in records])
    out = _errors("", tuple(tasks.values()))
    if retrieval:
        out += pose_retrieval.figures(records)
    if len(tasks) > 1:
        for task, places in tasks.items():
            out += _errors(f"{task}/", (places,))
    return out


def _errors(before: str, groups: tuple[tuple[int, ...], ...]) -> list[Figure]:
    return [
        Figure(f"{before}{who}{name}", groups, column=f"{who}{name}", higher_is_better=False, unit=unit)
        for name, unit in UNITS.items()
        for who in ("", REST)
    ]


def with_embedding(name: str) -> Benchmark:
    """The benchmark with retrieval by an embedding, `path/file.py:function`. Raises `InputError` where that leads nowhere."""
    embed = pose_retrieval.embedding(name)
    return replace(
        BENCHMARK,
        figures=partial(figures, retrieval=True),
        together=lambda items: pose_retrieval.retrieved(items, embed),
        notes=BENCHMARK.notes.replace(
            _NO_RETRIEVAL, f"Retrieval is by the embedding {name}, among the poses and texts of these items alone."
        ),
    )


def upstream(items: Sequence[Scored], tagged: bool = False) -> dict[str, Any]:
    """What RPE-Refined's own rule says of the same answers."""
    return rpe.by_image_name(items)


_NO_RETRIEVAL = "Retrieval recall (recall_p2t_at_5 and others) is absent: it takes an embedding of texts and poses."
BENCHMARK = Benchmark(
    name=NAME,
    title="Body poses from descriptions and images",
    formats=("chatpose",),
    prompts=("plain", "think_answer", "short"),
    figures=figures,
    score=score,
    options={"numbers": in_numbers},
    upstream=upstream,
    baseline=("rest pose", at_rest),
    kinds=frozenset({AnswerKind.POSE}),
    notes=(
        "Joints are placed by the lengths of our own body of 1.7 m, not by SMPL's, so that MPJPE and PA-MPJPE differ a little from tables "
        "made with it. Joints 22 and 23 of PoseScript's poses are fingers, and left out. A missing pose is the rest pose. mpjre_l1x100 is "
        f"no official figure: MPJRE has no published definition. {_NO_RETRIEVAL}"
    ),
)
