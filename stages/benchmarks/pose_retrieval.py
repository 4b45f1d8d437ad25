"""Does a pose that was made from a description lead back to it? Recall at 5, 10 and 20 by an embedding that the user brings.

    def embed(texts, rotations):        # N texts, rotations [N, 24, 3, 3]
        return text_vectors, pose_vectors        # [N, D] each, compared by their dot product

`p2t`: the made pose asks for its description among those of all items; `t2p`: the description asks for its pose among those that were made
for all items. A hit at k: fewer than k others are as near as the right one or nearer. The figures hang on the embedding and on how many
items there are, so they are compared with those of no other embedding and of no other set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from omnistage.data.errors import InputError
from omnistage.data.records import Modality, Record
from omnistage.data.rotations import Floats
from omnistage.data.user_code import function_of_file, function_of_module, one_line
from omnistage.stages.benchmarks.answered_pose import REST_J33, made_of
from omnistage.stages.benchmarks.base import Scored
from omnistage.stages.benchmarks.figures import Figure
from omnistage.stages.benchmarks.items import Score

AT = (5, 10, 20)
WAYS = ("p2t", "t2p")
Embedding = Callable[[list[str], Floats], tuple[Any, Any]]


def embedding(name: str) -> Embedding:
    """The function that `path/file.py:function` or `package.module:function` names. Raises `InputError` where it leads nowhere."""
    place, colon, attribute = name.rpartition(":")
    if not colon:
        raise InputError(f"embedding {name!r}: allowed: 'path/file.py:function' or 'package.module:function'")
    found = (function_of_file if place.endswith(".py") else function_of_module)(place, attribute, "embedding")
    if not callable(found):
        raise InputError(f"embedding {name!r} is {type(found).__name__!r}, not a function")
    checked: Embedding = found
    return checked


def asked(record: Record) -> bool:
    """Whether the record's pose has a description: that of an image says nothing of it."""
    return record.modality is Modality.TEXT


def retrieved(items: Sequence[Scored], embed: Embedding) -> list[Score]:
    """The scores of one run with a hit (1 or 0) for each way and k under `numbers`; those of items without a description as they are.

    What has no pose has the rest pose. Raises `InputError` for an embedding that fails or gives something else than two arrays.
    """
    scores = [item.score for item in items]
    places = [at for at, item in enumerate(items) if asked(item.record)]
    if not places:
        return scores
    texts = [items[at].record.target for at in places]
    poses_NJ33 = np.stack([_pose(items[at]) for at in places])
    near_NN = np.matmul(*_vectors(embed, texts, poses_NJ33))
    ranks = {"p2t": _ranks(near_NN.T), "t2p": _ranks(near_NN)}
    for row, at in enumerate(places):
        hits = {f"{way}_at_{k}": float(ranks[way][row] < k) for way in WAYS for k in AT}
        scores[at] = replace(scores[at], numbers={**scores[at].numbers, **hits})
    return scores


def figures(records: Sequence[Record]) -> list[Figure]:
    """Recall of both ways at each k, over the items with a description. In a bootstrap the whole gallery stays."""
    places = tuple(at for at, record in enumerate(records) if asked(record))
    if not places:
        return []
    return [Figure(f"recall_{way}_at_{k}", (places,), column=f"{way}_at_{k}") for way in WAYS for k in AT]


def _pose(item: Scored) -> Floats:
    if item.prediction is None or not item.score.valid:
        return REST_J33
    # What was valid where tags were asked for stands in tags, and is read from them here too.
    made, _ = made_of(item.record, item.prediction)
    return REST_J33 if made is None else made


def _vectors(embed: Embedding, texts: list[str], poses_NJ33: Floats) -> tuple[Floats, Floats]:
    """Vectors of texts [N, D] and of poses [D, N]."""
    try:
        found = embed(texts, poses_NJ33)
    except Exception as error:
        raise InputError(f"embedding: it fails: {one_line(error)}") from error
    try:
        of_texts, of_poses = (np.asarray(vectors, np.float64) for vectors in found)
    except (TypeError, ValueError) as error:
        raise InputError(f"embedding: it gives {type(found).__name__!r}; allowed: two arrays [N, D]") from error
    if of_texts.ndim != 2 or len(of_texts) != len(texts) or of_texts.shape != of_poses.shape:
        shapes = f"{list(of_texts.shape)} and {list(of_poses.shape)}"
        raise InputError(f"embedding: its arrays have the shapes {shapes}; allowed: twice [{len(texts)}, D]")
    if not (np.isfinite(of_texts).all() and np.isfinite(of_poses).all()):
        raise InputError("embedding: its arrays hold numbers that are not finite; allowed: finite numbers")
    return of_texts, of_poses.T


def _ranks(near_QG: Floats) -> Floats:
    """For each query [Q] how many others of the gallery [G] are as near as the right one, which stands at the query's own place."""
    ranks: Floats = (near_QG >= np.diag(near_QG)[:, None]).sum(1) - 1
    return ranks
