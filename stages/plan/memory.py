"""Bytes of one GPU (or one process on a CPU) in a training step, part by part, for each engine.

N parameters, N_t of them trained (adapters and a head's included), W processes; `e` bytes a number that is computed with, `r` one of the
residual stream (4 where weights are float32, else `e`), h hidden size, i intermediate size, k key and value heads x head size,
V vocabulary, L layers. A term is what stays allocated at the peak of its phase; the peak is that of the largest phase.

    weights      of each part 4 N where `single`, `ddp` or `fsdp2` train it whole, else e N; adapters 4 each (`zero3`: e)
    casts        e for each trained weight of linear layers that is float32 while e is 2: autocast keeps them until a forward ends
    reference    the weights once more, in the policy's type, with `beta` above 0 and no adapters
    gradients    4 N_t; `ddp` as much again, for its buckets are copies
    optimizer    8 N_t, two float32 moments of AdamW (from the second step on); DeepSpeed 12 N_t / W, with a float32 copy
    zero2        weights whole; gradients e N_t / W; two buckets of e min(N_t, 5e8); 4 N_t / W float32 gradients in its step
    fsdp2        weights, gradients (4 N_t), moments and reference / W, but frozen towers whole; gathered weights e of the vocabulary's
                 tables and of two layers of the language model; a layer's gradients e, and 4 of them as they are sent
    zero3        weights and reference / W; gathered weights e min(N, 1e9); gradients e N_t / W; a bucket; float32 gradients of at most
                 1e9 parameters at a time
    offload      bucket and gathered weights alone; weights, optimizer and gradients are in the CPU's memory of the machine
    activations  T tokens x L layers x `layer_bytes`; with checkpointing the layers' inputs, r T h L, and one layer computed again;
                 towers that are trained alike
    workspace    what a layer's backward holds beside: gradients of the widest products, (3 e i + 2 r h) T
    logits       TRL's fused head: a tile of min(S, 4096) x 32768 numbers for S scored tokens, float32 gradients of their states, and
                 4 V h where the head is trained
    KV cache     2 k L e a token: prompts once where they are shared (twice while they are laid out), else once a completion
    sampling     `SCORES` float32 arrays of rows x V

`zero3` and `fsdp2` gather all weights on each GPU for a rollout (`zero3`: TRL's `ds3_gather_for_generation`). Not counted: CUDA's context
(about 0.5 GB), what the allocator cannot use for want of a whole block, communication buffers of NCCL, and features of frozen towers on
their way.

A layer saves for its backward, for each token:

    norms        2 x 4 h, and 2 x r h where their weights train
    inputs       e h before q, k, v and e h before gate, up where a weight or an adapter there needs it (before each of them where a wider
                 type is cast: float32 weights under autocast, adapters)
    attention    e (h + 2 k) rotated queries, keys, values; e h output; e h its copy in a packed row; `cat` also 2 k e of each
                 completion's copy of the prompt
    MLP          3 e i, and e i before `down` where it trains or has an adapter
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from omnistage.stages.plan.sizes import Parameters
from omnistage.stages.recipe.choices import DEEPSPEED, Engine, Part

Phase = Literal["rollout", "backward", "optimizer"]
# TRL's fused head (trl.kernels.chunked_logprob) and the columns that `rl.shared_prefix.forward` gives it.
TILE_ROWS, TILE_COLUMNS = 4096, 32768
# Float32 arrays as large as a tile that the head's backward holds where Triton is not (a CPU).
TILE_COPIES_CPU = 6
# Arrays [rows, V] that live at once in a step of sampling: scores, their log-softmax, shaped scores, chances, random numbers, quotient.
SCORES = 6
# DeepSpeed's defaults: `reduce_bucket_size`, `stage3_max_live_parameters`, `sub_group_size`.
BUCKET, LIVE, SUB_GROUP = 5e8, 1e9, 1e9
FLOAT32 = 4
TOWERS: tuple[Part, ...] = ("vision", "audio")


@dataclass(frozen=True)
class Dimensions:
    """Of the language model: hidden, intermediate, layers, key and value heads x head size, vocabulary. Of a tower: the first three."""

    hidden: int
    intermediate: int
    layers: int
    kept: int = 0
    vocabulary: int = 0


@dataclass(frozen=True)
class Load:
    """What one process computes at a time.

    A training pass has `tokens` tokens of the language model, of which `scored` are projected, and `copied` whose keys and values are
    copies; `pairs` are those of query and key. `patches` and `frames` go through towers that are trained. `packed`: a prompt once. A step
    has `passes` of them. A rollout draws `rows` completions of `prompts` prompts at once, `prompt_tokens` and `completion` long (0 rows: no
    rollout).
    """

    tokens: int
    scored: int
    copied: int = 0
    patches: int = 0
    frames: int = 0
    packed: bool = True
    rows: int = 0
    prompts: int = 0
    prompt_tokens: int = 0
    completion: int = 0
    passes: int = 1
    pairs: float = 0.0


@dataclass(frozen=True)
class Setting:
    """How a stage trains: engine, processes in all and on each machine, bytes of a number that is computed with, whether activations are
    checkpointed, whether a KL reference is held, whether the device is a CPU, and dropout in adapters."""

    engine: Engine = "single"
    world: int = 1
    on_machine: int = 1
    compute: int = 2
    checkpointing: bool = True
    reference: bool = False
    cpu: bool = False
    dropout: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes by phase and part, and the bytes of all processes of a machine that an engine keeps in the CPU's memory."""

    phases: Mapping[Phase, Mapping[str, float]]
    on_cpu: float = 0.0

    @property
    def peak_phase(self) -> Phase:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def peak(self) -> float:
        """The most bytes at once."""
        return sum(self.phases[self.peak_phase].values())

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "peak": round(self.peak),
            "peak_phase": self.peak_phase,
            "phases": {phase: {part: round(size) for part, size in parts.items() if size} for phase, parts in self.phases.items()},
            "on_cpu": round(self.on_cpu),
        }


@dataclass(frozen=True)
class Model:
    """Parameters with the dimensions of the language model and of both towers."""

    parameters: Parameters
    language: Dimensions
    vision: Dimensions
    audio: Dimensions


def model_of(config: Any, parameters: Parameters) -> Model:
    """The dimensions of a thinker's configuration."""
    text, vision, audio = config.text_config, config.vision_config, config.audio_config
    size = text.hidden_size // text.num_attention_heads
    return Model(
        parameters,
        Dimensions(text.hidden_size, text.intermediate_size, text.num_hidden_layers, text.num_key_value_heads * size, text.vocab_size),
        Dimensions(vision.hidden_size, vision.intermediate_size, vision.depth, vision.hidden_size),
        Dimensions(audio.d_model, audio.encoder_ffn_dim, audio.encoder_layers, audio.d_model),
    )


def estimate(model: Model, setting: Setting, load: Load) -> Memory:
    """Bytes of one process by phase and part."""
    layer = (model.parameters.base["language"] - model.parameters.embeddings) / model.language.layers
    held, gathered, on_cpu = _held(model.parameters, setting, layer)
    gradients, buckets, step = _gradients(model.parameters, setting, layer)
    casts = setting.compute * _linear(model.parameters) if _casts(setting) and setting.compute < FLOAT32 else 0
    forward, activations, workspace = _activations(model, setting, load)
    logits = _logits(model, setting, load)
    phases: dict[Phase, dict[str, float]] = {}
    if load.rows:
        cache, sampling = _rollout(model, setting, load)
        there = _kept_towers(model.parameters, setting) if setting.engine == "fsdp2" else 0.0
        every = setting.compute * model.parameters.total - there if gathered else 0
        phases["rollout"] = held | {"gathered weights": every, "casts": casts, "KV cache": cache, "sampling": sampling, "buckets": buckets}
    # As a pass goes back through the layers its activations go and gradients come, unless an earlier pass has left them there. Casts end
    # with the forward where layers are computed again.
    of_head = FLOAT32 * model.language.vocabulary * model.language.hidden if model.parameters.trained["language"] else 0
    start = {"activations": activations, "workspace": workspace, "logits": logits, "gradients": gradients if (load.passes > 1) else 0.0}
    end = {"activations": activations / model.language.layers, "workspace": workspace, "logits": 0.0, "gradients": gradients}
    made = {"activations": forward, "workspace": workspace, "logits": 0.0, "gradients": gradients if (load.passes > 1) else 0.0}
    start["logits"] += of_head if not (load.passes > 1) or not _casts(setting) else 0
    with_casts = [made | {"casts": float(casts)}, start | {"casts": 0.0}] if setting.checkpointing else [start | {"casts": float(casts)}]
    worst = max([*with_casts, end | {"casts": 0.0}], key=lambda parts: sum(parts.values()))
    phases["backward"] = held | worst | {"gathered weights": gathered, "buckets": buckets}
    phases["optimizer"] = held | {"gradients": gradients, "float32 gradients": step, "buckets": buckets}
    return Memory(phases, on_cpu)


def _is_whole(setting: Setting) -> bool:
    """Whether what is trained whole is kept in float32."""
    return setting.engine not in DEEPSPEED


def _casts(setting: Setting) -> bool:
    """Whether a pass meets float32 weights and casts them; FSDP2 gathers them cast, DeepSpeed holds them so."""
    return _is_whole(setting) and setting.engine != "fsdp2"


def _weights(parameters: Parameters, setting: Setting) -> float:
    """Bytes of all weights, in one piece."""
    total = sum(
        count * (FLOAT32 if _is_whole(setting) and parameters.trained[part] else setting.compute) for part, count in parameters.base.items()
    )
    own = setting.compute if setting.engine.startswith("zero3") else FLOAT32
    return float(total + own * (parameters.adapters + parameters.head))


def _held(parameters: Parameters, setting: Setting, layer: float) -> tuple[dict[str, float], float, float]:
    """What stays from step to step; weights that are gathered for a layer at a time; bytes on the CPU of a machine."""
    weights, sharded, offload = _weights(parameters, setting), setting.engine.startswith("zero3"), setting.engine == "zero3_offload"
    reference = weights if setting.reference and not parameters.adapters else 0.0
    moments = 2.0 * FLOAT32 * parameters.learned
    if setting.engine in DEEPSPEED:
        moments = (moments + FLOAT32 * parameters.learned) / setting.world
    if setting.engine == "fsdp2":
        return _of_fsdp2(parameters, setting, layer, weights, reference)
    if sharded:
        weights, reference = weights / setting.world, reference / setting.world
    gathered = setting.compute * min(parameters.total, LIVE) if sharded else 0.0
    if offload:
        gradients = FLOAT32 * parameters.learned / setting.world
        return (
            {"weights": 0.0, "reference": 0.0, "optimizer": 0.0},
            gathered,
            setting.on_machine * (weights + reference + moments + gradients),
        )
    return {"weights": weights, "reference": reference, "optimizer": moments}, gathered, 0.0


def _kept_towers(parameters: Parameters, setting: Setting) -> float:
    """Bytes of frozen towers, which FSDP2 leaves whole."""
    return float(sum(setting.compute * parameters.base[part] for part in TOWERS if not parameters.trained[part]))


def _of_fsdp2(
    parameters: Parameters, setting: Setting, layer: float, weights: float, reference: float
) -> tuple[dict[str, float], float, float]:
    """As `_held`."""
    whole = _kept_towers(parameters, setting)
    # The reference is frozen, both of its towers too.
    of_reference = float(sum(setting.compute * parameters.base[part] for part in TOWERS)) if reference else 0.0
    moments = 2.0 * FLOAT32 * parameters.learned / setting.world
    held = {
        "weights": whole + (weights - whole) / setting.world,
        "reference": of_reference + max(reference - of_reference, 0.0) / setting.world,
        "optimizer": moments,
    }
    return held, float(setting.compute * (parameters.embeddings + parameters.head + 2 * layer)), 0.0


def _gradients(parameters: Parameters, setting: Setting, layer: float) -> tuple[float, float, float]:
    """Gradients, buckets in which they are sent, and float32 gradients in the optimizer's step."""
    learned, shared = parameters.learned, parameters.learned / setting.world
    bucket = setting.compute * min(learned, BUCKET)
    if setting.engine == "fsdp2":
        return FLOAT32 * shared, (setting.compute + FLOAT32) * min(layer, learned), 0.0
    if setting.engine == "zero2":
        return setting.compute * shared, 2 * bucket, FLOAT32 * shared
    if setting.engine == "zero3":
        return setting.compute * shared, bucket, FLOAT32 * min(shared, SUB_GROUP)
    if setting.engine == "zero3_offload":
        return 0.0, bucket, 0.0
    return float(FLOAT32 * learned), float(FLOAT32 * learned) if setting.engine == "ddp" else 0.0, 0.0


def _linear(parameters: Parameters) -> int:
    """Trained weights that autocast casts: those of linear layers; embeddings are looked up, and the head casts a tile at a time."""
    trained = sum(parameters.trained.values())
    return trained - parameters.embeddings if parameters.trained["language"] else trained


def layer_bytes(size: Dimensions, setting: Setting, *, trained: bool, adapted: tuple[str, ...] = (), packed: bool = False) -> float:
    """Bytes that one layer saves for its backward, for each token."""
    e, h, i, k = setting.compute, size.hidden, size.intermediate, size.kept
    residual = FLOAT32 if trained and _casts(setting) else e
    norms = 2 * FLOAT32 * h + (2 * residual * h if trained else 0)

    def inputs(names: tuple[str, ...], width: int) -> float:
        here = [name for name in names if trained or name in adapted]
        # In half precision autocast (or peft) makes a copy for each layer that is wider than what it computes in.
        apart = residual != e or (not trained and e != FLOAT32)
        copies = len(here) if apart and names[0] not in ("o_proj", "down_proj") else min(len(here), 1)
        dropped = (FLOAT32 + 1) * len(here) * width if setting.dropout and not trained else 0
        return e * copies * width + dropped

    # The output of attention is what `o_proj` is given, but in a packed row, where the latter is a copy.
    attention = e * (h + 2 * k) + e * h + (inputs(("o_proj",), h) if packed else 0) + inputs(("q_proj", "k_proj", "v_proj"), h)
    mlp = 3 * e * i + inputs(("gate_proj", "up_proj"), h) + inputs(("down_proj",), i)
    return norms + attention + mlp


def _activations(model: Model, setting: Setting, load: Load) -> tuple[float, float, float]:
    """Bytes at the end of a forward, at the start of the backward, and of what a layer's backward holds beside."""
    parameters = model.parameters
    parts = (
        (model.language, load.tokens, bool(parameters.trained["language"]), parameters.adapted),
        (model.vision, load.patches, bool(parameters.trained["vision"]), ()),
        (model.audio, load.frames, bool(parameters.trained["audio"]), ()),
    )
    saved, one_layer, inputs, workspace = 0.0, 0.0, 0.0, 0.0
    for size, tokens, trained, adapted in parts:
        residual = FLOAT32 if trained and _casts(setting) else setting.compute
        packed = load.packed and size is model.language
        layer = tokens * layer_bytes(size, setting, trained=trained, adapted=adapted, packed=packed)
        if size is model.language:
            layer += 2 * size.kept * setting.compute * load.copied
        saved += layer * size.layers
        one_layer = max(one_layer, layer)
        inputs += tokens * residual * size.hidden * size.layers
        workspace = max(workspace, tokens * (3 * setting.compute * size.intermediate + 2 * residual * size.hidden))
    if setting.checkpointing:
        return inputs, inputs + one_layer, workspace
    return saved, saved, workspace


def _logits(model: Model, setting: Setting, load: Load) -> float:
    """The fused head's tile and the float32 gradient of the states that are scored (that of its weights is counted apart)."""
    rows, columns = min(load.scored, TILE_ROWS), min(model.language.vocabulary, TILE_COLUMNS)
    # A CPU gives no memory to columns of the tile that a small vocabulary leaves untouched.
    tile = rows * columns * (setting.compute + TILE_COPIES_CPU * FLOAT32) if setting.cpu else rows * TILE_COLUMNS * setting.compute
    return float(tile + load.scored * model.language.hidden * (FLOAT32 + setting.compute))


def _rollout(model: Model, setting: Setting, load: Load) -> tuple[float, float]:
    """Bytes of the KV cache and of a step of sampling."""
    size = model.language
    token = 2 * size.kept * size.layers * setting.compute
    sharded = setting.engine.startswith("zero3")
    if load.packed and not sharded:
        cache = token * (2 * load.prompts * load.prompt_tokens + load.rows * load.completion)
    else:
        cache = token * (load.prompts * load.prompt_tokens + load.rows * (load.prompt_tokens + load.completion))
    return float(cache), float(SCORES * FLOAT32 * load.rows * size.vocabulary)
