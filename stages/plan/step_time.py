"""Seconds of a step from floating-point operations and stated rates. An estimate: no rate here has been measured on a GPU.

N weights of the language model's layers, N_h of the head of the vocabulary, a = 4 x layers x hidden operations a pair of query and key:

    forward of a pass   2 N tokens + a pairs + 2 N_h scored (a prompt once in a pass where it is shared)
    policy              forward x (1 + 2 for all weights, + 1 for adapters, + 1 for layers that are computed again)
    reference           forward, where a KL reference is held;   old log-probs: forward, where a rollout serves several steps
    towers              2 N_v patches + 2 N_a frames; with the policy's factor where trained, else once a prompt
    rollout             prefill of the prompts, then a step a token: `DECODE_FLOOR_S`, or weights and KV cache read once if that is longer

Training passes run at `TRAIN_SHARE` and others at `FORWARD_SHARE` of the device's matrix rate. Not counted: reading and decoding of clips,
rewards and judges, what processes send to each other, and the optimizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omnistage.stages.plan.memory import Load, Model, Setting
from omnistage.stages.plan.tokens import Prompt
from omnistage.stages.plan.work import FRAMES, PATCHES

# Of an H100: dense bfloat16 operations and bytes a second, as its maker states them.
MATRIX_RATE, BANDWIDTH = 989e12, 3.35e12
TRAIN_SHARE, FORWARD_SHARE = 0.40, 0.45
# Of a decoding step that is captured as a CUDA graph, and of one that is launched kernel by kernel (transformers' own loop).
DECODE_FLOOR_S, DECODE_LAUNCHED_S = 0.008, 0.030


@dataclass(frozen=True)
class Seconds:
    """Of an optimizer step of one process."""

    rollout: float
    scoring: float
    policy: float

    @property
    def step(self) -> float:
        """The whole step."""
        return self.rollout + self.scoring + self.policy

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"rollout_s": self.rollout, "scoring_s": self.scoring, "policy_s": self.policy, "step_s": self.step}


def forward(model: Model, load: Load) -> float:
    """Operations of one pass of the language model."""
    head = model.language.vocabulary * model.language.hidden
    layers = model.parameters.base["language"] - model.parameters.embeddings
    return 2 * layers * load.tokens + 4 * model.language.layers * model.language.hidden * load.pairs + 2 * head * load.scored


def estimate(model: Model, setting: Setting, load: Load, prompt: Prompt, *, iterations: int = 1, rate: float = MATRIX_RATE) -> Seconds:
    """Seconds of a step whose prompts are all like `prompt`; a rollout serves `iterations` steps."""
    factor = 2 + (0 if model.parameters.adapters else 1) + setting.checkpointing
    once = forward(model, load)
    base, trained = model.parameters.base, model.parameters.trained
    towers = 2 * (base["vision"] * load.patches * bool(trained["vision"]) + base["audio"] * load.frames * bool(trained["audio"]))
    policy = load.passes * factor * (once + towers) / (TRAIN_SHARE * rate)
    frozen = 2 * (base["vision"] * PATCHES * prompt.seen * (not trained["vision"]))
    frozen += 2 * (base["audio"] * FRAMES * prompt.heard * (not trained["audio"]))
    prompts = load.prompts or load.passes * max(1, load.tokens // max(prompt.total, 1))
    if not load.rows:
        return Seconds(0.0, 0.0, policy + prompts * frozen / (FORWARD_SHARE * rate))
    also = setting.reference + (iterations > 1)
    scoring = load.passes * also * (once + towers) / (FORWARD_SHARE * rate) / iterations
    return Seconds((_rollout(model, setting, load, rate) + prompts * frozen / (FORWARD_SHARE * rate)) / iterations, scoring, policy)


def _rollout(model: Model, setting: Setting, load: Load, rate: float) -> float:
    layers = model.parameters.base["language"] - model.parameters.embeddings
    prefill = 2 * layers * load.prompt_tokens + 4 * model.language.layers * model.language.hidden * load.prompt_tokens**2 / 2
    launched = not load.packed or setting.engine.startswith("zero3")
    copies = load.rows if launched else load.prompts
    cache = 2 * model.language.kept * model.language.layers * setting.compute
    read = setting.compute * model.parameters.base["language"] + cache * (copies * load.prompt_tokens + load.rows * load.completion / 2)
    step = max(DECODE_LAUNCHED_S if launched else DECODE_FLOOR_S, read / BANDWIDTH)
    return load.prompts * prefill / (FORWARD_SHARE * rate) + load.completion * step
