"""Passes replayed from CUDA graphs: the host launches one graph instead of thousands of kernels."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Outputs = tuple[Tensor, ...]
RECORDINGS = 64
"""Graphs that are kept. A window has some five places with three kinds of pass each."""
_WARM_UPS = 2  # compilation and the libraries' workspaces must be behind us when the capture begins

logger = logging.getLogger(__name__)


class Capture(Protocol):
    """Records what a function computes, so that it can be computed again on the same addresses."""

    def __call__(self, function: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        """Return what computes it again, and the tensors in which the results then are."""
        ...


class CudaCapture:
    """Captures CUDA graphs. They share one memory pool: they run one after the other."""

    def __init__(self) -> None:
        self._pool: Any = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
        """Warm up on a stream aside, then capture."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = function()
        return graph.replay, outputs


@dataclass(frozen=True)
class _Recording:
    inputs: tuple[Tensor, ...]
    replay: Callable[[], None]
    outputs: Outputs


class Graphs:
    """Records each pass at its first call and replays it afterwards.

    A recording holds for one key, one set of shapes and one set of addresses of the persistent tensors; the least
    recently used one is dropped when there are too many. Where a capture fails, passes run without graphs from then on.

    Args:
        passes: How a pass is run while it is recorded.
        capture: What records it.
    """

    def __init__(self, passes: Any, capture: Capture) -> None:
        self._passes, self._capture = passes, capture
        self._recordings: OrderedDict[Hashable, _Recording] = OrderedDict()
        self._failed = False

    def run(
        self,
        function: Callable[..., Outputs],
        persistent: tuple[Tensor, ...],
        inputs: tuple[Tensor, ...],
        key: Hashable,
    ) -> Outputs:
        """Replay the pass on these inputs; the results are copies, which later replays leave alone."""
        if self._failed:
            return self._passes.run(function, persistent, inputs, key)
        at = (key, *((t.data_ptr(), *_form(t)) for t in persistent), *(_form(t) for t in inputs))
        if at not in self._recordings:
            own = tuple(t.clone() for t in inputs)
            try:
                recorded = self._capture(lambda: self._passes.run(function, persistent, own, key))
            except RuntimeError as error:
                self._failed = True
                logger.warning(f"CUDA graphs are off, {str(error).splitlines()[0]}: passes are launched one by one")
                return self._passes.run(function, persistent, inputs, key)
            self._recordings[at] = _Recording(own, *recorded)
            if len(self._recordings) > RECORDINGS:
                self._recordings.popitem(last=False)
        self._recordings.move_to_end(at)
        recording = self._recordings[at]
        for own_input, new in zip(recording.inputs, inputs, strict=True):
            own_input.copy_(new)
        recording.replay()
        return tuple(out.clone() for out in recording.outputs)


def _form(tensor: Tensor) -> tuple[Hashable, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype
