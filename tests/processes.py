"""Work in several processes that have found one another (torch.distributed, gloo on the CPU)."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

FORKS = pytest.mark.skipif(torch.cuda.is_available(), reason="forks, which CUDA forbids")


def in_processes(count: int, work: Callable[..., None], folder: Path, *args: Any) -> None:
    """Do `work(*args)` in processes that have found one another."""
    start = (count, folder / "store", work, args)
    torch.multiprocessing.start_processes(joined, start, nprocs=count, start_method="fork")


def joined(rank: int, count: int, store: Path, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ["WORLD_SIZE"] = str(count)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    work(*args)
    dist.destroy_process_group()
