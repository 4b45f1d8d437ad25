"""Renders small clips with known answers: a real picture, a real sound, really encoded, so that the whole pipeline runs with no download.

    paths = render(Path("clips-demo"), seed=1, cold_start=240, train=240, held_out=120, wrong={"video": 0.3})

writes `cold_start_video.json`, `train_video.json`, `held_out_video.json` and so on for each modality, in HumanSense's layout, beside a
folder `clips`. Rows of the cold start hold a demonstration; a share `wrong` of them answers wrongly on purpose (see `render`).
`render_heads` renders what heads learn from (see `synth.heads`).
"""

from __future__ import annotations

from omnistage.data.synth.heads import opinions, pairs, render_heads
from omnistage.data.synth.sets import HELD_OUT_SEED, render
from omnistage.data.synth.tasks import TASKS, corpus, majority

__all__ = ["HELD_OUT_SEED", "TASKS", "corpus", "heads_corpus", "majority", "render", "render_heads"]


def heads_corpus() -> list[str]:
    """Everything that rendered data for heads can ask, describe or answer, each line once, in a fixed order."""
    return list(dict.fromkeys([*opinions.corpus(), *pairs.corpus()]))
