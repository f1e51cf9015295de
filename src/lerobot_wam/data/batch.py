"""Names of what a batch of a mixture holds: windows of different robots in one form.

Shape legend: B batch, T video frames, N chunks, H actions per chunk, S and A the widths that states and actions are
padded to, C latent channels, F latent frames.
"""

from collections.abc import Sequence
from statistics import fmean

from torch import Tensor

WINDOW = "observation.images.window"
"""The tiled picture, uint8 [B, T, 3, H, W]."""
WINDOW_IS_PAD = f"{WINDOW}_is_pad"
"""Frames behind the end of the episode or its task, [B, T]."""
LATENT = "observation.latent"
"""Clean latents from a cache in place of the picture, [B, C, F, h, w]."""
ANCHOR = "observation.images.anchor"
"""With latents from a cache: the picture that each chunk starts from, uint8 [B, N, 3, H, W]."""
CONDITION = "observation.condition"
"""With latents from a cache: first-frame conditioning channels [B, Cc, F, h, w], for models that have them."""
CATEGORY = "observation.embodiment"
"""Index of each sample's robot among the policy's embodiments, int64 [B]."""
SOURCE = "observation.source"
"""Index of the dataset that each sample comes from, int64 [B]."""
STATE = "observation.state"
"""Physical states at each chunk's first step, zero-padded, [B, N, S]."""
ACTION = "action"
"""Physical absolute actions, zero-padded, [B, N * H, A]."""
ACTION_IS_PAD = "action_is_pad"
"""Steps without a real action, [B, N * H]."""


class SourceLosses:
    """The mean loss of each dataset in a batch; of one that a batch lacks, its last one.

    Processes average their logs key by key, so every one of them must name every dataset at every step.

    Args:
        names: The datasets, as `SOURCE` counts them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._last: dict[str, float | None] = dict.fromkeys(names)

    def of(self, loss_B: Tensor, source_B: Tensor) -> dict[str, float]:
        """Return a loss for every dataset; for one that no batch has held yet, that of the whole batch."""
        losses, names = loss_B.tolist(), list(self._last)
        own: dict[str, list[float]] = {}
        for index, value in zip(source_B.tolist(), losses, strict=True):
            own.setdefault(names[index], []).append(value)
        self._last |= {name: fmean(values) for name, values in own.items()}
        everyone = fmean(losses)
        return {f"loss/{name}": everyone if last is None else last for name, last in self._last.items()}
