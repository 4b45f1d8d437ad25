"""What several samples of each item are worth together: pass@k and maj@n.

pass@k is the share of items that at least one of k samples gets right, estimated without bias from n >= k samples of each (Chen et al.
2021, arXiv 2107.03374, equation 1). maj@n is the value of the answer that most of n samples give; of answers given as often, that of the
first sample. An answer that cannot be read has no vote.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import comb

from omnistage.data.records import AnswerKind
from omnistage.stages.benchmarks.base import Scored
from omnistage.stages.benchmarks.items import SAMPLE, Score

# Kinds whose value is an error.
_ERRORS = frozenset({AnswerKind.SCALAR, AnswerKind.POSE})


def derived(runs: Mapping[str, Sequence[Scored]]) -> dict[str, list[Scored]]:
    """`pass@1, 2, 4 ... n` and `maj@n` of the sampled runs of an evaluation, none with fewer than two of them."""
    sampled = [of_run for run, of_run in runs.items() if run.startswith(SAMPLE)]
    n = len(sampled)
    if n < 2:
        return {}
    of_items = list(zip(*sampled, strict=True))
    # Only what is right or wrong passes; marks and errors have no such reading, whatever their values happen to be.
    if any(scored.score.scorer == "judge" or scored.record.kind in _ERRORS for of_item in of_items for scored in of_item):
        return {}
    sizes = sorted({2**power for power in range(n.bit_length()) if 2**power <= n} | {n})
    out = {f"pass@{k}": [_passed(of_item, k) for of_item in of_items] for k in sizes}
    return out | {f"maj@{n}": [_majority(of_item, f"maj@{n}") for of_item in of_items]}


def pass_at(right: int, n: int, k: int) -> float:
    """The chance that k of n samples, `right` of which are right, hold a right one."""
    return 1.0 - comb(n - right, k) / comb(n, k)


def _passed(of_item: Sequence[Scored], k: int) -> Scored:
    right = sum(scored.score.value == 1.0 for scored in of_item)
    run = f"pass@{k}"
    score = Score(
        of_item[0].record.id,
        run,
        "pass",
        pass_at(right, len(of_item), k),
        any(scored.score.valid for scored in of_item),
        None,
        f"{right} of {len(of_item)} samples are right",
    )
    return Scored(of_item[0].record, of_item[0].prediction, score)


def _majority(of_item: Sequence[Scored], run: str) -> Scored:
    votes = Counter(scored.score.answer for scored in of_item if scored.score.valid)
    if not votes:
        return Scored(of_item[0].record, of_item[0].prediction, replace(of_item[0].score, run=run, scorer="majority"))
    most = max(votes.values())
    first = next(scored for scored in of_item if scored.score.valid and votes[scored.score.answer] == most)
    reason = f"{most} of {len(of_item)} samples say so; {first.score.reason}"
    return Scored(first.record, first.prediction, replace(first.score, run=run, scorer="majority", reason=reason))
