"""One chunk on several GPUs: guidance's two branches, and the tokens of every pass, split over processes.

`cfg`: one process computes under the task, another under the negative prompt. Each keeps its own branch of the window;
after every pass they exchange velocities and go on with the same numbers.

`context`: the tokens of every pass are split over N processes; see `TokenExchange`.

All processes make the same calls on runtimes that `Parallel.share` has prepared, and end with the same actions. Where
one of them alone knows what to call, because it owns the robot, `following` tells the others.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from lerobot_wam.model.exchange import TokenExchange

if TYPE_CHECKING:
    from lerobot_wam.runtime.session import Runtime

MODES = ("cfg", "context", "cfg+context")
_IDLE = timedelta(days=365)  # a robot may rest; the others wait for its next observation


@dataclass(frozen=True)
class Parallel:
    """This process among those that compute one chunk together. Create it with `Parallel.join`.

    Attributes:
        mode: One of `MODES`.
        rank: Number of this process; 0 is the one that talks to the robot.
        control: All processes, for what travels between CPUs.
        branches: The processes of guidance's two branches: 0 the task's, 1 the negative prompt's. None without `cfg`.
        tokens: The processes that the tokens of a pass are split over; None without `context`.
    """

    mode: str
    rank: int
    control: dist.ProcessGroup
    branches: dist.ProcessGroup | None
    tokens: TokenExchange | None

    @property
    def text(self) -> str:
        """One line for results."""
        return f"{self.mode} over {self.control.size()} processes"

    @staticmethod
    def join(mode: str, device: torch.device) -> "Parallel":
        """Join the processes that torchrun started; every rank calls this once.

        Args:
            mode: One of `MODES`. With both, half of the processes compute each branch and split its tokens.
            device: What the model runs on; of several GPUs, every process of a machine takes its own.

        Raises:
            ValueError: An unknown mode, or a number of processes that it or the machine's GPUs cannot use.
        """
        if mode not in MODES:
            raise ValueError(f"parallel is {mode!r}; choose one of {', '.join(MODES)}.")
        world, branches = int(os.environ.get("WORLD_SIZE", "1")), 2 if "cfg" in mode else 1
        if world % branches or (world > branches) != ("context" in mode):
            expected = {"cfg": "2", "context": "2 or more", "cfg+context": "4, 6, 8, ..."}[mode]
            raise ValueError(
                f"parallel={mode} over {world} process{'es' * (world != 1)}, expected {expected}: start with "
                f"torchrun --nproc-per-node={2 * branches if 'context' in mode else 2}."
            )
        if device.type != "cpu":
            local, found = int(os.environ["LOCAL_RANK"]), torch.accelerator.device_count()
            if local >= found:
                raise ValueError(f"{found} GPUs for {local + 1} processes or more; start one process per GPU.")
            torch.accelerator.set_device_index(local)
        if not dist.is_initialized():
            dist.init_process_group()
        shape = (branches, world // branches)
        mesh = dist.init_device_mesh(device.type, shape, mesh_dim_names=("branches", "tokens"))
        return Parallel(
            mode,
            dist.get_rank(),
            dist.new_group(backend="gloo", timeout=_IDLE),
            mesh.get_group("branches") if shape[0] > 1 else None,
            TokenExchange(mesh.get_group("tokens")) if shape[1] > 1 else None,
        )

    def share(self, runtime: "Runtime") -> None:
        """Let a runtime compute this process's share of every chunk; all processes then make the same calls on theirs.

        Args:
            runtime: A new one, or one whose sessions are all over.

        Raises:
            ValueError: Guidance of 1 under `cfg`, or heads that the processes of `context` do not divide.
        """
        if self.branches is not None and runtime.sampler.guidance == 1.0:
            raise ValueError(
                f"parallel={self.mode} splits guidance's two branches, but guidance is 1: nothing to split. "
                "Use parallel=context, or a guidance above 1."
            )
        heads = runtime.model.config.num_heads
        if self.tokens is not None and heads % self.tokens.size:
            raise ValueError(
                f"{heads} attention heads cannot be split over {self.tokens.size} processes; "
                f"take a number that divides {heads}."
            )
        runtime.parallel = self
        if self.branches is not None:
            runtime.prompts = slice(self.branches.rank(), self.branches.rank() + 1)
        if self.tokens is not None:
            runtime.model.split_tokens(self.tokens)

    def gather(self, velocities: list[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """Return the velocities of both branches under `cfg`, and else what this process computed."""
        if self.branches is None:
            return velocities
        both = [tuple(torch.empty_like(x) for x in velocities[0]) for _ in range(2)]
        for own, *received in zip(velocities[0], *both, strict=True):
            dist.all_gather(received, own.contiguous(), group=self.branches)
        return both
