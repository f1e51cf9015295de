"""The kernel of scaled dot product attention, chosen by measurement.

The closed loop's attention needs no mask (see `model.layout.segments`), so every kernel of torch can take it, and there
is nothing that flex-attention, whose strength is sparse masks, could add.
"""

import warnings
from collections.abc import Collection, Sequence
from contextlib import suppress

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer

KERNELS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
_SECONDS = 0.05  # that each kernel is measured for


def fastest_attention(
    device: torch.device,
    dtype: torch.dtype,
    shapes: Sequence[tuple[int, int, int, int, int]],
    kernels: Collection[str] = tuple(KERNELS),
) -> tuple[str | None, dict[str, float]]:
    """Measure the kernels that run here.

    Args:
        device: Where.
        dtype: Of queries, keys and values.
        shapes: Batch, heads, queries, keys and head width of every attention that counts.
        kernels: Names among `KERNELS`.

    Returns:
        The fastest one's name, None where none of them runs; and the milliseconds of each for all shapes together.
    """
    inputs = [
        tuple(torch.randn(b, n, h, k, device=device, dtype=dtype).transpose(1, 2) for n in (queries, keys, keys))
        for b, h, queries, keys, k in shapes
    ]
    table = {}
    for name in kernels:
        # A kernel that does not run here says so in warnings and an error.
        with warnings.catch_warnings(action="ignore"), suppress(RuntimeError), sdpa_kernel(KERNELS[name]):
            timers = [Timer("attend(*x)", globals={"attend": F.scaled_dot_product_attention, "x": x}) for x in inputs]
            table[name] = 1000 * sum(timer.blocked_autorange(min_run_time=_SECONDS).median for timer in timers)
    return min(table, key=table.__getitem__, default=None), table
