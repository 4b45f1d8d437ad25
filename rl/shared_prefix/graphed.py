"""A decode step as a CUDA graph: captured once, then replayed without Python and without a launch for each kernel."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor], Tensor]


class Graphs:
    """Captures steps while `wanted`; a capture that fails is told once, and none is tried again."""

    def __init__(self, *, wanted: bool = True) -> None:
        self.wanted = wanted

    def captured(self, step: Step, tokens: Tensor) -> Step:
        """`step` as a replay of its kernels, or `step` itself where it cannot be captured.

        `step` reads `tokens` [B] and tensors that keep their places, waits for nothing, and may run again without harm: it runs here
        once to warm up. Its result is overwritten by the next replay. The graph's memory is given back with the last reference to it.
        """
        if not self.wanted:
            return step
        try:
            return _captured(step, tokens)
        except RuntimeError as error:
            self.wanted = False
            reason = " ".join(str(error).split())[:200]
            warnings.warn(f"decode steps are not captured as a CUDA graph, and run one kernel at a time: {reason}", stacklevel=2)
            return step


def _captured(step: Step, tokens: Tensor) -> Step:
    with torch.cuda.device_of(tokens):
        fixed = tokens.clone()
        # What libraries and autocast make at their first use has to be there before the capture.
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step(fixed)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads (pinned memory, collectives) may go on with their calls.
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            result = step(fixed)

    def replay(tokens: Tensor) -> Tensor:
        fixed.copy_(tokens)
        graph.replay()
        return result

    return replay
