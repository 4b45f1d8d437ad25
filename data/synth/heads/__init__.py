"""Renders what heads learn from: clips of a face with opinion scores, and figures in poses with their descriptions and rotations.

    paths = render_heads(Path("heads-demo"), seed=1, quality=(2000, 300), pose=(2000, 300))

writes scores and levels in Gen3DHF's layout under `quality`, and poses in the layouts of PoseScript (from a description) and of 4D-Humans
(from an image) under `pose`; the readers `gen3dhf` and `chatpose` read them.
"""

from __future__ import annotations

from omnistage.data.synth.heads.sets import render_heads

__all__ = ["render_heads"]
