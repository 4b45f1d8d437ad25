"""Spoils a clip in five ways, each with a strength from 0 (not at all) to 1, before it is encoded.

| way | what is seen at strength s |
|---|---|
| `blur` | a Gaussian of 2.2 s pixels |
| `blocks` | by a share s, the mean of each block of 7 x 7 pixels in place of its pixels |
| `noise` | a share 0.4 s of the pixels is black or white, others in each frame |
| `drops` | round(2 s) of the four frames did not arrive and are black |
| `jitter` | each frame jumps 6 s pixels aside, to and fro; what lies outside of the picture is black |

They are done in the order drops, jitter, blur, blocks, noise. All leave a trace in brightness or in contrast: a tower of two layers
finds that in a few hundred steps, but needs thousands for a frozen frame or for grain of mean 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from omnistage.data.synth.picture import FRAMES, SIZE

BLUR_PX = 2.2
BLOCK = 7
NOISE_SHARE = 0.4
MOST_DROPPED = 2
JITTER_PX = 6.0

Canvas = NDArray[np.float64]


def spoiled(rng: np.random.Generator, frames: NDArray[np.uint8], strengths: Mapping[str, float]) -> NDArray[np.uint8]:
    """The frames [4, 56, 56, 3] with each distortion of `strengths` (a name of `DISTORTIONS` -> 0..1)."""
    canvas = frames.astype(np.float64)
    for name, distort in DISTORTIONS.items():
        if strengths.get(name, 0.0) > 0:
            canvas = distort(rng, canvas, strengths[name])
    return canvas.clip(0, 255).round().astype(np.uint8)


def _drops(rng: np.random.Generator, canvas: Canvas, strength: float) -> Canvas:
    lost = rng.permutation(FRAMES)[: round(MOST_DROPPED * strength)]
    return np.where(np.isin(np.arange(FRAMES), lost)[:, None, None, None], 0.0, canvas)


def _jitter(rng: np.random.Generator, canvas: Canvas, strength: float) -> Canvas:
    way, moved = rng.uniform(0, 2 * np.pi), np.zeros_like(canvas)
    for index in range(FRAMES):
        # Half a turn further each time, so that neighbours never happen to jump alike.
        angle = way + np.pi * index + rng.uniform(-0.6, 0.6)
        x, y = (round(JITTER_PX * strength * part) for part in (np.cos(angle), np.sin(angle)))
        moved[index, _kept(y), _kept(x)] = canvas[index, _kept(-y), _kept(-x)]
    return moved


def _kept(step: int) -> slice:
    """Where the pixels of a line lie after `step`, as far as they stay inside."""
    return slice(max(step, 0), SIZE + min(step, 0))


def _blur(rng: np.random.Generator, canvas: Canvas, strength: float) -> Canvas:
    smooth = ImageFilter.GaussianBlur(BLUR_PX * strength)
    return np.stack([np.asarray(Image.fromarray(frame.astype(np.uint8)).filter(smooth), np.float64) for frame in canvas])


def _blocks(rng: np.random.Generator, canvas: Canvas, strength: float) -> Canvas:
    count = SIZE // BLOCK
    means = canvas.reshape(FRAMES, count, BLOCK, count, BLOCK, 3).mean((2, 4))
    blocks: Canvas = means.repeat(BLOCK, axis=1).repeat(BLOCK, axis=2)
    return (1 - strength) * canvas + strength * blocks


def _noise(rng: np.random.Generator, canvas: Canvas, strength: float) -> Canvas:
    hit = rng.random(canvas.shape[:3]) < NOISE_SHARE * strength
    return np.where(hit[..., None], 255.0 * rng.integers(0, 2, (*hit.shape, 1)), canvas)


# In the order in which they are done.
DISTORTIONS: dict[str, Callable[[np.random.Generator, Canvas, float], Canvas]] = {
    "drops": _drops,
    "jitter": _jitter,
    "blur": _blur,
    "blocks": _blocks,
    "noise": _noise,
}
