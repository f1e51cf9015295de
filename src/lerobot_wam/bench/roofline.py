"""What this device can do at best, measured: a big matrix product and a big copy."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lerobot_wam.bench.cost import Cost
from lerobot_wam.runtime.stages import synchronize

_REPEATS = 5


@dataclass(frozen=True)
class Roofline:
    """The two limits of a pass.

    Attributes:
        flops: Operations per second of a big matrix product.
        bandwidth: Bytes per second, read and written, of a big copy.
    """

    flops: float
    bandwidth: float

    def seconds(self, cost: Cost) -> float:
        """Least time of a pass: the larger of computing at the peak and reading at the bandwidth."""
        return max(cost.flops / self.flops, cost.bytes / self.bandwidth)


@lru_cache
def measure_roofline(device: torch.device, dtype: torch.dtype) -> Roofline:
    """Measure both limits, once a process; takes about a second, and 2 GiB on an accelerator.

    Args:
        device: Where.
        dtype: Of the matrices; `torch.float8_e4m3fn` are multiplied with a scale per row.
    """
    side = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    if dtype == torch.float8_e4m3fn:
        scale = torch.ones(side, 1, device=device)
        left, right = a.to(dtype), b.to(dtype).t()

        def product() -> Tensor:
            return torch._scaled_mm(left, right, scale, scale.t(), out_dtype=torch.bfloat16)

    else:
        a, b = a.to(dtype), b.to(dtype)

        def product() -> Tensor:
            return a @ b

    source = torch.randn(2**24 if device.type == "cpu" else 2**28, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.numel() * source.element_size()
    return Roofline(2 * side**3 / _best(device, product), copied / _best(device, lambda: target.copy_(source)))


def _best(device: torch.device, work: Callable[[], Tensor]) -> float:
    """Least seconds of several runs; the first one warms up."""
    seconds = []
    for _ in range(1 + _REPEATS):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
