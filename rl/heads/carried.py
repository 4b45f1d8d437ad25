"""Heads inside a policy and beside its weights: they move, train, shard and are saved with it.

A head is a module of the thinker (`omni_heads.NAME`), so that DDP, DeepSpeed and FSDP see its parameters. On disk it stands beside the
policy's own weights, which any other program can then load as before:

    head.json           {"mos": {specification}, ...}
    head.safetensors    mos.layers.0.weight, ...
"""

from __future__ import annotations

import functools
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import ModelOutput

from omnistage.data.errors import InputError, unknown_name
from omnistage.rl.checkpoint import file_of
from omnistage.rl.heads import anchor
from omnistage.rl.heads.codec import Codec, codec_of
from omnistage.rl.heads.network import Network
from omnistage.rl.heads.spec import HeadSpec

ABOUT, WEIGHTS = "head.json", "head.safetensors"
MODULE = "omni_heads"
_PREFIX = f"{MODULE}."
# A head, or what is said of one.
AnyHead = TypeVar("AnyHead")


@dataclass
class HeadOutput(ModelOutput):  # type: ignore[misc]
    """What a forward that reads heads gives: outputs [N, size] by head, and logits [M, vocabulary] of the M labelled tokens."""

    # Not the other way round: a dictionary that comes first and alone would be taken for the fields themselves.
    text_logits: Tensor | None = None
    heads: dict[str, Tensor] | None = None


class Head(Network):
    """A network with what its outputs stand for."""

    def __init__(self, spec: HeadSpec, hidden: int) -> None:
        self.codec: Codec = codec_of(spec)
        super().__init__(spec.body, hidden, self.codec.size)
        self.spec = spec


def all_of(thinker: nn.Module) -> nn.ModuleDict:
    """The module of all heads that a thinker carries; an empty one where it carries none."""
    found: nn.ModuleDict = getattr(thinker, MODULE, nn.ModuleDict())
    return found


def heads_of(thinker: nn.Module) -> dict[str, Head]:
    """The heads that a thinker carries, by name."""
    carried: dict[str, Any] = dict(all_of(thinker).items())
    return carried


def chosen(heads: Mapping[str, AnyHead], name: str | None, where: str) -> AnyHead:
    """The head of that name, or the only one. Raises `InputError`, opening with `where`, if there is none or the choice is open."""
    if not heads:
        raise InputError(f"{where} carries no head; a stage of kind 'head' makes one")
    if name is None and len(heads) > 1:
        raise InputError(f"{where} carries the heads {', '.join(sorted(heads))}; name one of them (--head)")
    if name is not None and name not in heads:
        raise InputError(f"{where}: {unknown_name('head', name, heads)}")
    return heads[name] if name is not None else next(iter(heads.values()))


def check_name(name: str) -> None:
    """Raises `InputError` for a name of torch's own, which no module can have inside another."""
    if hasattr(nn.ModuleDict(), name):
        raise InputError(f"name is {name!r}, which torch's modules have for themselves; choose another")


def add(thinker: Any, spec: HeadSpec) -> Head:
    """The thinker's head of this specification, in the thinker's mode (training or not).

    One of that name that it carries goes on with its weights where they fit (`HeadSpec.goes_on_from`); else a new one takes its place.
    """
    carried = heads_of(thinker).get(spec.name)
    if carried is not None and carried.spec == spec:
        return carried
    head = Head(spec, int(thinker.config.get_text_config().hidden_size)).to(thinker.device, torch.float32)
    if carried is not None and spec.goes_on_from(carried.spec):
        head.load_state_dict(carried.state_dict())
    head.requires_grad_(False)
    # A module is born in training, with its dropout on.
    head.train(thinker.training)
    if getattr(thinker, MODULE, None) is None:
        setattr(thinker, MODULE, nn.ModuleDict())
    getattr(thinker, MODULE)[spec.name] = head
    # transformers leaves these out of the policy's own file.
    kept_apart = {f"{_PREFIX}{name}" for name in getattr(thinker, MODULE).state_dict()}
    thinker._keys_to_ignore_on_save = set(thinker._keys_to_ignore_on_save or ()) | kept_apart
    return head


def attach(thinker: Any, folder: str | Path) -> None:
    """Give a thinker the heads of a checkpoint (a folder, or a name on the hub); they are not trained until a stage says so.

    Raises:
        InputError: the files of the heads are damaged or do not fit the model.
    """
    specs = described(folder)
    if not specs:
        return
    path = file_of(folder, WEIGHTS) or Path(folder) / WEIGHTS
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    for spec in specs.values():
        head = add(thinker, spec)
        own = {name.removeprefix(f"{spec.name}."): value for name, value in weights.items() if name.startswith(f"{spec.name}.")}
        try:
            head.load_state_dict(own, strict=True)
        except RuntimeError as error:
            raise InputError(f"{path}: does not fit the model: {' '.join(str(error).split())}") from error


def write(thinker: nn.Module, folder: str | Path, state: Mapping[str, Tensor] | None = None) -> None:
    """Write the heads that a thinker carries into a folder; `state` holds whole tensors where the model's own are sharded."""
    heads = heads_of(thinker)
    if not heads:
        return
    if state is None:
        state = {f"{_PREFIX}{name}": value for name, value in all_of(thinker).state_dict().items()}
    # A wrapper puts its own names in front.
    found = {name.partition(_PREFIX)[2]: value for name, value in state.items() if _PREFIX in name}
    wanted = set(all_of(thinker).state_dict())
    if set(found) != wanted:
        raise RuntimeError(f"the weights to save lack {', '.join(sorted(wanted - set(found)))}")
    save_file({name: value.detach().cpu().float().contiguous() for name, value in found.items()}, Path(folder) / WEIGHTS)
    specs = {name: head.spec.model_dump(mode="json") for name, head in heads.items()}
    (Path(folder) / ABOUT).write_text(json.dumps(specs, indent=2) + "\n", encoding="utf-8")


def described(folder: str | Path) -> dict[str, HeadSpec]:
    """What the heads of a checkpoint are, by name; none where it carries none. Raises `InputError` for a damaged file."""
    about = file_of(folder, ABOUT)
    if about is None:
        return {}
    try:
        return {name: HeadSpec.model_validate(given) for name, given in json.loads(about.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise InputError(f"{about}: is no description of heads ({' '.join(str(error).split())})") from error


def install(thinker: Any) -> None:
    """Give a thinker `forward(..., head_reads={name: places [N, 2]}, labels=None)`, whose output holds `heads`: {name: outputs [N, size]}.

    With labels [B, T] (-100: not learned) it holds `text_logits` [M, vocabulary] too, of the positions that predict the M labelled tokens
    and of no other. The call enters through the model's own forward, so that wrappers and their hooks take part; the head of the
    vocabulary is called, not read, since an adapter may stand in its place. To be called behind whatever else replaces the forward.
    """
    original = thinker.forward

    @functools.wraps(type(thinker).forward)
    def forward(self: Any, *arguments: Any, head_reads: Mapping[str, Tensor] | None = None, **settings: Any) -> Any:
        if head_reads is None:
            return original(*arguments, **settings)
        labels = settings.pop("labels", None)
        # PEFT names the arguments that it was not given, too.
        given = {name: value for name, value in settings.items() if value is not None}
        hidden = self.base_model(*arguments, **given | {"use_cache": False}).last_hidden_state
        heads = heads_of(self)
        read = {name: heads[name](anchor.states(hidden, found)) for name, found in head_reads.items()}
        logits = None if labels is None else self.get_output_embeddings()(hidden[:, :-1][labels[:, 1:] != -100])
        return HeadOutput(heads=read, text_logits=logits)

    thinker.forward = types.MethodType(forward, thinker)
