"""RPE-Refined's own rule for poses of people in images (arXiv 2507.13314), faults included.

Predictions are kept by the name of the image's file, without its folder: of two questions about images of one name, the later pose stands
for both. A question without a pose is left out of the means. The errors are MPJPE with the root at 0 and PA-MPJPE. The published scorer
takes the joints from SMPL-X, whose files may not be passed on; here they are those of our own body, so that values differ a little.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from omnistage.data.records import Record
from omnistage.data.rotations import Floats
from omnistage.stages.benchmarks.answered_pose import errors, joints_of, made_of, right_of
from omnistage.stages.benchmarks.base import Scored


def by_image_name(items: Sequence[Scored], tagged: bool = False) -> dict[str, Any]:
    """`mpjpe_mm` and `pa_mpjpe_mm` (None where nothing is left), `n`, and how many poses were `overwritten` and questions `skipped`.

    Items without an image are not asked there, and not counted.
    """
    shown = [item for item in items if any(ref.kind == "image" for ref in item.record.media)]
    kept: dict[str, Floats] = {}
    overwritten = 0
    for item in shown:
        made = None if item.prediction is None or not item.score.valid else made_of(item.record, item.prediction)[0]
        if made is not None:
            overwritten += _name(item.record) in kept
            kept[_name(item.record)] = made
    found = [
        errors(kept[_name(item.record)], right_of(item.record), joints_of(item.record)) for item in shown if _name(item.record) in kept
    ]
    out: dict[str, Any] = {"n": len(found), "overwritten": overwritten, "skipped": len(shown) - len(found)}
    for name in ("mpjpe_mm", "pa_mpjpe_mm"):
        out[name] = float(np.mean([error[name] for error in found])) if found else None
    return out


def _name(record: Record) -> str:
    return next(os.path.basename(ref.path) for ref in record.media if ref.kind == "image")
