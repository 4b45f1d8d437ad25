"""Makes the sounds of a clip: tones, sweeps, beeps and timbres over faint noise.

Every function returns `sound_N`, float32 mono at 16 kHz in -1..1, N = 32 000 (2.0 s). What a class does not fix (pitch, start, length,
noise) is drawn from `rng`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16_000
LENGTH_S = 2.0
BEEP_S = 0.14
TONE_S = 0.7
TONES_HZ = {"low": 300.0, "middle": 900.0, "high": 2700.0}

Sound = NDArray[np.float32]
Wave = NDArray[np.float64]


def beeps(rng: np.random.Generator, count: int) -> Sound:
    """Up to 4 beeps of one pitch, each in a half second of its own with at least 0.16 s of silence to the next."""
    pitch_hz = rng.uniform(700, 1400)
    halves = rng.permutation(4)[:count]
    return _mixed(rng, [(0.5 * half + rng.uniform(0.05, 0.25), 0.5 * _tone(pitch_hz, BEEP_S)) for half in halves])


def beep_in(rng: np.random.Generator, slot: int) -> Sound:
    """One beep that lies in the half second `slot` (0 to 3), at least 0.08 s from its ends."""
    start_s = 0.5 * slot + rng.uniform(0.08, 0.42 - BEEP_S)
    return _mixed(rng, [(start_s, 0.5 * _tone(rng.uniform(700, 1400), BEEP_S))])


def sweep(rng: np.random.Generator, way: str) -> Sound:
    """A tone whose pitch grows ("rises") or shrinks ("falls") by a factor of 3 to 4.5."""
    low_hz = rng.uniform(300, 600)
    pitch_hz = np.geomspace(low_hz, low_hz * rng.uniform(3, 4.5), _samples(rng.uniform(1.0, 1.5)))
    return _mixed(rng, [(rng.uniform(0.05, 0.45), 0.5 * _tone(pitch_hz if way == "rises" else pitch_hz[::-1]))])


def tones(rng: np.random.Generator, *names: str) -> Sound:
    """At most two steady tones of 0.7 s, one after the other in any order; only the noise when none is named."""
    parts = []
    for slot, which in enumerate(rng.permutation(len(names))):
        pitch_hz = TONES_HZ[names[which]] * rng.uniform(0.88, 1.12)
        parts.append((0.1 + 0.95 * slot + rng.uniform(0, 0.1), 0.4 * _tone(pitch_hz, TONE_S)))
    return _mixed(rng, parts)


def timbre(rng: np.random.Generator, name: str) -> Sound:
    """A bell (few partials that die away), a buzz (all harmonics of a low pitch), a hiss (high noise) or clicks (7 to 11 a second)."""
    made = {"bell": _bell, "buzz": _buzz, "hiss": _hiss, "click": _clicks}[name](rng, _samples(rng.uniform(1.1, 1.5)))
    return _mixed(rng, [(rng.uniform(0.05, 0.45), 0.5 * made / np.abs(made).max())])


def _bell(rng: np.random.Generator, length: int) -> Wave:
    t_s = np.arange(length) / RATE_HZ
    pitch_hz = rng.uniform(900, 1300)
    partials = [(1.0, 1.0), (2.76, 0.6), (5.4, 0.3)]
    return sum((part * np.sin(2 * np.pi * pitch_hz * ratio * t_s) for ratio, part in partials), np.zeros(length)) * np.exp(-3 * t_s)


def _buzz(rng: np.random.Generator, length: int) -> Wave:
    return _faded(2 * ((rng.uniform(90, 150) * np.arange(length) / RATE_HZ) % 1.0) - 1)


def _hiss(rng: np.random.Generator, length: int) -> Wave:
    # The difference of neighbouring samples takes the low half out of white noise.
    return _faded(np.diff(rng.normal(0, 1, length + 2), n=2))


def _clicks(rng: np.random.Generator, length: int) -> Wave:
    train = np.zeros(length)
    for start in np.arange(0, length - 64, RATE_HZ / rng.uniform(7, 11)).astype(int):
        click = rng.normal(0, 1, 64) * np.linspace(1, 0, 64)
        # Equally loud, so that none is lost beside a louder one.
        train[start : start + 64] = click / np.abs(click).max()
    return train


def _tone(pitch_hz: float | Wave, length_s: float = 0.0) -> Wave:
    """A sine: of one pitch for `length_s`, or following a pitch given for each sample."""
    track_hz = np.full(_samples(length_s), pitch_hz) if isinstance(pitch_hz, float) else pitch_hz
    return _faded(np.sin(2 * np.pi * np.cumsum(track_hz) / RATE_HZ))


def _faded(wave: Wave, fade_s: float = 0.01) -> Wave:
    # Without soft ends each sound would begin and end with a click, which is a class of its own.
    ramp = np.linspace(0, 1, _samples(fade_s))
    wave[: len(ramp)] *= ramp
    wave[-len(ramp) :] *= ramp[::-1]
    return wave


def _mixed(rng: np.random.Generator, parts: list[tuple[float, Wave]]) -> Sound:
    """`parts` are (start in seconds, wave)."""
    sound = rng.normal(0, 0.003, _samples(LENGTH_S))
    for start_s, wave in parts:
        start = _samples(start_s)
        sound[start : start + len(wave)] += wave
    return sound.clip(-1, 1).astype(np.float32)


def _samples(length_s: float) -> int:
    return round(length_s * RATE_HZ)
