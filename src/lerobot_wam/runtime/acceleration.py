"""How the closed loop's network passes are run: as they are, compiled, or replayed from CUDA graphs.

The network is one and the same in every case. What cannot run here falls back, with a line that says why.
"""

import logging
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import sdpa_kernel

from lerobot_wam.model.transformer import Block, SelfAttention
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.presets import CHOICES
from lerobot_wam.runtime.attention import KERNELS, fastest_attention
from lerobot_wam.runtime.graphs import CudaCapture, Graphs
from lerobot_wam.runtime.quantization import is_quantized, quantize

Pass = Callable[..., tuple[Tensor, ...]]
BACKEND = "inductor"
_SPECIALISATIONS = 64  # of a block's code: a window has some five places, with three kinds of pass each

logger = logging.getLogger(__name__)


class Passes(Protocol):
    """Runs network passes."""

    def run(
        self, function: Pass, persistent: tuple[Tensor, ...], inputs: tuple[Tensor, ...], key: Hashable
    ) -> tuple[Tensor, ...]:
        """Return what `function(*inputs)` returns.

        Args:
            function: The pass. It may be called several times, or not at all when an earlier call is replayed: it
                depends on `key`, `persistent` and `inputs` alone, and all it may change is the contents of
                `persistent`, to the same each time.
            persistent: Tensors read or written in place that outlive the call, such as K/V storage and the
                context's keys and values.
            inputs: What is new at every call; their contents are copied where the pass is replayed.
            key: Names everything else that the pass depends on: place in the window, guided or not, and so on.

        Returns:
            Tensors that the caller may keep.
        """
        ...


class Eager:
    """Runs a pass as it is."""

    def run(
        self, function: Pass, persistent: tuple[Tensor, ...], inputs: tuple[Tensor, ...], key: Hashable
    ) -> tuple[Tensor, ...]:
        """Call the function."""
        return function(*inputs)


EAGER = Eager()


class Compiled:
    """Runs passes with compiled blocks: all layers share one block's code, compiled once per shape of the sequence.

    Blocks are compiled only while a pass runs, so training never meets compiled code.

    Args:
        passes: How passes are run otherwise.
        blocks: The network's blocks.
    """

    def __init__(self, passes: Passes, blocks: nn.ModuleList) -> None:
        self._passes, self._blocks, self._failed = passes, blocks, False
        self._forward = torch.compile(Block.forward, fullgraph=True, dynamic=False, backend=BACKEND)

    def run(
        self, function: Pass, persistent: tuple[Tensor, ...], inputs: tuple[Tensor, ...], key: Hashable
    ) -> tuple[Tensor, ...]:
        """Run with compiled blocks; where the compiler fails, with plain ones from then on."""
        from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

        if not self._failed:
            try:
                with self._in_place():
                    return self._passes.run(function, persistent, inputs, key)
            except (TorchDynamoException, FailOnRecompileLimitHit) as error:
                self._failed = True
                reason = " ".join(str(error).splitlines()[:2])  # which backend raised, and what
                logger.warning(f"torch.compile is off, {reason}: blocks run as they are")
        return self._passes.run(function, persistent, inputs, key)

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        for block in self._blocks:
            block.forward = MethodType(self._forward, block)
        try:
            with torch._dynamo.config.patch(recompile_limit=_SPECIALISATIONS):
                yield
        finally:
            for block in self._blocks:
                del block.forward


@dataclass(frozen=True)
class WithKernel:
    """Runs passes with one attention kernel, and torch's plain one for what it does not take.

    Attributes:
        passes: How passes are run otherwise.
        kernel: Its name among `KERNELS`.
    """

    passes: Passes
    kernel: str

    def run(
        self, function: Pass, persistent: tuple[Tensor, ...], inputs: tuple[Tensor, ...], key: Hashable
    ) -> tuple[Tensor, ...]:
        """Run with the kernel."""
        with sdpa_kernel(list(dict.fromkeys([KERNELS[self.kernel], KERNELS["math"]])), set_priority=True):
            return self.passes.run(function, persistent, inputs, key)


@dataclass(frozen=True)
class AccelerationSettings:
    """How passes are accelerated.

    Attributes:
        passes: "eager"; "compile": blocks compiled, q, k and v as one product; "graphs": that, replayed from CUDA
            graphs.
        quantization: Of the blocks' matrices. "fp8": weights and activations, row-wise (Hopper and later); "int8" and
            "int4": weights only, for small memories. An approximation.
        attention: Kernel of scaled dot product attention; "auto" takes the fastest one measured on a CUDA device.

    Raises:
        ValueError: An unknown choice.
    """

    passes: str = "eager"
    quantization: str = "none"
    attention: str = "auto"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}.")


def accelerate(model: WorldActionModel, settings: AccelerationSettings, frame_tokens: int) -> tuple[Passes, list[str]]:
    """Prepare a model for inference under these settings, in place.

    Quantised weights stay quantised; everything else leaves the weights, their names and training as they are.

    Args:
        model: On its device, in its dtype. It may have been accelerated before.
        settings: What to apply.
        frame_tokens: Tokens of one latent frame, which the attention kernels are measured at.

    Returns:
        How passes are run, and a line on everything that was chosen, rounded or cannot be done here.

    Raises:
        ModuleNotFoundError: Quantisation without torchao.
    """
    passes: Passes = EAGER
    lines = []
    device = model.patch_embedding.weight.device
    if settings != AccelerationSettings(attention=settings.attention) and not is_quantized(model):
        fuse_projections(model)
        if settings.quantization != "none":
            lines.append(quantize(model, settings.quantization))
    if settings.passes != "eager":
        passes = Compiled(passes, model.blocks)
        lines.append(f"passes {settings.passes}: the first passes of each kind compile, which takes minutes")
    if settings.attention != "auto" or device.type == "cuda":
        kernel, line = _choose_kernel(model, settings.attention, frame_tokens, device)
        passes = passes if kernel is None else WithKernel(passes, kernel)
        lines.append(line)
    if settings.passes == "graphs" and device.type == "cuda":
        passes = Graphs(passes, CudaCapture())
    elif settings.passes == "graphs":
        lines.append(f"passes graphs: needs a CUDA GPU, the model is on {device.type}; its blocks are compiled only")
    return passes, lines


def fuse_projections(model: WorldActionModel) -> None:
    """Make q, k and v of every self-attention one product, except where adapters sit on them."""
    for module in model.modules():
        if isinstance(module, SelfAttention) and all(type(x) is nn.Linear for x in (module.q, module.k, module.v)):
            module.fuse()


def _choose_kernel(
    model: WorldActionModel, wanted: str, frame_tokens: int, device: torch.device
) -> tuple[str | None, str]:
    """Return the attention kernel, None for torch's own choice, and a line about it."""
    config = model.config
    chunk = config.frames_per_chunk * frame_tokens + config.actions_per_chunk + config.states_per_chunk
    window = (config.max_frames - config.frames_per_chunk) * frame_tokens
    sizes = (chunk + frame_tokens, chunk + window)  # keys at the window's first chunk and at its last
    shapes = [(1, config.num_heads, chunk, keys, config.head_dim) for keys in sizes]
    kernels = tuple(KERNELS) if wanted == "auto" else (wanted,)
    kernel, table = fastest_attention(device, model.dtype, shapes, kernels)
    if kernel is None:
        return None, f"attention {wanted}: does not run on {device.type} at head width {config.head_dim}; torch chooses"
    measured = ", ".join(f"{name} {milliseconds:.3f} ms" for name, milliseconds in table.items())
    return kernel, f"attention {kernel}: measured {measured}"
