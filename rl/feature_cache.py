"""Features of frozen towers on disk: what a clip is to a tower is computed once on a machine, not once per rank, stage and run.

An entry holds what one tower made of one prompt's pictures or sounds, a tensor [tokens, hidden] in the type that the tower made, as a
safetensors file. Its name is a digest of the very tensors that the tower is given (patches and grids, or mel frames: the clip's content and
the processor's settings in one), of what the tower is, and of the versions of torch and transformers. So two questions about one clip share
an entry, and another clip, another crop, another weight or another kernel has another one. Sizes: 1,000 tokens of a 7B model take 7 MB.

Processes share the folder (`omnistage.data.bounded_folder`). Of those that want an entry that is not there, one runs its tower and the
others wait. An entry carries a CRC-32; one that is damaged, or that this package did not write, is dropped and made again.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from omnistage.data.bounded_folder import BoundedFolder

FORMAT = "omnistage features 1"
_FEATURES = "features"


def key_of(media: Sequence[Tensor], sense: str, tower: str) -> str:
    """The name of what a tower makes of these tensors for one sense; `tower` says all that its features depend on beside them."""
    made_by = json.dumps([FORMAT, sense, tower, torch.__version__, transformers.__version__])
    digest = hashlib.sha256(made_by.encode())
    for tensor in media:
        digest.update(f"\0{tensor.dtype} {list(tensor.shape)}\0".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


class FeatureCache:
    """At most `max_bytes` of features in `folder`, oldest use removed first.

    A folder that cannot be written, or a full disk, is said once; nothing more is kept then.

    Raises:
        InputError: `max_bytes` is not positive.
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        self._folder = BoundedFolder("feature cache", folder, max_bytes)
        # What cannot be made is said when the first features are to be kept. Until then a folder of others may be read.
        with suppress(OSError):
            self._folder.make()

    def get(self, key: str) -> Tensor | None:
        """The features [tokens, hidden] under a key, on the CPU; `None` when they are not there or damaged."""
        return self._folder.read(key, lambda path: _load(path, key))

    def put(self, key: str, features: Tensor) -> None:
        """Keep features [tokens, hidden] under a key, if they fit."""
        told = {FORMAT: str(_checksum(key, features))}
        self._folder.store(key, [save({_FEATURES: features.detach().cpu().contiguous()}, metadata=told)])

    def get_or_make(self, key: str, make: Callable[[], Tensor]) -> tuple[Tensor, bool]:
        """The features under a key and whether they were there; `make` makes them where no other process does so meanwhile."""
        found = self.get(key)
        if found is None:
            with self._folder.alone(key):
                found = self.get(key)
                if found is None:
                    made = make()
                    self.put(key, made)
                    return made, False
        return found, True


class FeatureMemory:
    """The same in memory, for one process: at most `max_bytes` of features, oldest use let go first."""

    def __init__(self, max_bytes: int = 2**30) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._held = 0

    def get_or_make(self, key: str, make: Callable[[], Tensor]) -> tuple[Tensor, bool]:
        """As `FeatureCache.get_or_make`."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found, True
        made = make()
        self._kept[key] = made
        self._held += made.nbytes
        while self._held > self.max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._held -= dropped.nbytes
        return made, False


def _load(path: Path, key: str) -> Tensor | None:
    """The features of an entry; `None` when it is damaged or foreign. Raises `OSError` when it is not there."""
    try:
        with safe_open(path, framework="pt") as file:
            checksum = (file.metadata() or {}).get(FORMAT)
            if checksum is None:
                return None
            # A copy: what is mapped would end the process, should the file be cut while it is in use.
            features: Tensor = file.get_tensor(_FEATURES).clone()
    except SafetensorError:
        return None
    return features if checksum == str(_checksum(key, features)) else None


def _checksum(key: str, features: Tensor) -> int:
    """Of the values, and of what they are: an entry under another's name does not match either."""
    return zlib.crc32(_bytes(features), zlib.crc32(f"{key} {features.dtype} {list(features.shape)}".encode()))


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
