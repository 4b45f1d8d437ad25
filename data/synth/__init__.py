"""Renders small clips with known answers: a real picture, a real sound, really encoded, so that the whole pipeline runs with no download.

    paths = render(Path("clips-demo"), seed=1, cold_start=240, train=240, held_out=120, wrong={"video": 0.3})

writes `cold_start_video.json`, `train_video.json`, `held_out_video.json` and so on for each modality, in HumanSense's layout, beside a
folder `clips`. Rows of the cold start hold a demonstration; a share `wrong` of them answers wrongly on purpose (see `render`).
"""

from __future__ import annotations

from omnistage.data.synth.sets import HELD_OUT_SEED, render
from omnistage.data.synth.tasks import TASKS, corpus, majority

__all__ = ["HELD_OUT_SEED", "TASKS", "corpus", "majority", "render"]
