"""A computation of fixed shapes: on a GPU it is recorded once, as a CUDA graph, and replayed; elsewhere it is called.

Replaying launches all kernels at once, where calling launches them one by one and the GPU waits in between. What is recorded
must read tensors that stay where they are, draw nothing, and look at no value of the device; tests hold ours to that without a
GPU. Recording and warm-up share a side stream, so that what libraries allocate for a stream is there before.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3  # calls on a side stream before recording, in which libraries allocate what they keep


class Captured:
    """Puts what `compute` returns into `outputs`, tensors of the same shapes that it may itself read."""

    def __init__(self, compute: Callable[[], Sequence[Tensor]], outputs: Sequence[Tensor]) -> None:
        self._compute, self._outputs = compute, outputs
        self._graph: Any = None

    def __call__(self) -> None:
        """Compute once. Returns before the device is done."""
        device = self._outputs[0].device
        if device.type != "cuda":
            self._write()
            return
        with torch.cuda.device(device):
            if self._graph is None:
                self._graph = self._recorded(device)
            self._graph.replay()

    def _write(self) -> None:
        for held, new in zip(self._outputs, self._compute(), strict=True):
            held.copy_(new)

    def _recorded(self, device: torch.device) -> Any:
        """Other threads may go on using the device meanwhile. The graph keeps a memory pool of its own while it lives."""
        aside: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it out
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self._compute()  # its results are dropped: nothing has moved yet
        torch.cuda.current_stream(device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=aside, capture_error_mode="thread_local"):
            self._write()
        return graph
