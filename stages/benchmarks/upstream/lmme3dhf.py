"""LMME3DHF's own rule for its scores (arXiv 2504.20466): rank and linear correlations over quality and authenticity pooled.

The two dimensions are about the same clips and have scales of their own, so that a predictor which tells the dimensions apart, and clips
not at all, already gains. There is no error in the unit of the scores, no fitted curve, and no rule for answers in words. Its published
evaluation shows the model the right level word; that is a matter of how answers are made, and not repeated here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from scipy import stats

from omnistage.data.records import AnswerKind
from omnistage.stages.benchmarks.base import Scored


def pooled(items: Sequence[Scored], tagged: bool = False) -> dict[str, Any]:
    """`srcc`, `plcc` and `krcc` over all scores at once (None where they are not defined), and over how many items.

    Its head gives every clip a number, so items without one are left out, and counted as `without_a_number`.
    """
    scalars = [item for item in items if item.record.kind is AnswerKind.SCALAR]
    read = [item.score.numbers for item in scalars if item.score.valid]
    made, right = [numbers["made"] for numbers in read], [numbers["right"] for numbers in read]
    out: dict[str, Any] = {"n": len(read), "without_a_number": len(scalars) - len(read)}
    defined = len(set(made)) > 1 and len(set(right)) > 1
    for name, metric in {"srcc": stats.spearmanr, "plcc": stats.pearsonr, "krcc": stats.kendalltau}.items():
        found = float(metric(made, right).statistic) if defined else math.nan
        out[name] = found if math.isfinite(found) else None
    return out
