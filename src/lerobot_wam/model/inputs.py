"""What the joint denoiser reads: the context of a window, and its noisy part.

Shape suffixes: B batch, C channels, F latent frames, h/w latent height and width, N chunks, T action steps or text
tokens, A action width, D model width.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Context:
    """What the whole window is conditioned on, embedded to the model's width.

    Attributes:
        text: Text tokens [B, T, D], padding included.
        pooled_text: What the visual summary reads of the text [B, D], or None without one.
        image: First-frame image tokens [B, I, D], or None without an image branch.
        text_kv: Each layer's keys and values of the text [layers, 2, B, T, D], or None where every pass makes them.
        image_kv: Likewise of the image tokens, [layers, 2, B, I, D].
    """

    text: Tensor
    pooled_text: Tensor | None = None
    image: Tensor | None = None
    text_kv: Tensor | None = None
    image_kv: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is there."""
        return tuple(value for name in _BATCH_AXIS if (value := getattr(self, name)) is not None)

    @staticmethod
    def stack(contexts: "list[Context]") -> "Context":
        """Join contexts of one model along the batch; a single one is returned as it is."""
        if len(contexts) == 1:
            return contexts[0]
        parts = {name: [getattr(c, name) for c in contexts] for name in _BATCH_AXIS}
        return Context(**{name: torch.cat(p, _BATCH_AXIS[name]) for name, p in parts.items() if p[0] is not None})

    def rows(self, which: slice) -> "Context":
        """Return some of the batch's rows; nothing is copied."""
        return self._each(lambda value, axis: value[(slice(None),) * axis + (which,)])

    def pick(self, which: slice) -> "Context":
        """Return some of the batch's rows, with storage of their own."""
        return self.rows(which)._each(lambda value, _: value.clone())

    def without_image(self) -> "Context":
        """Return the text alone, which outlasts a window."""
        return replace(self, image=None, image_kv=None)

    def stored_in(self, other: "Context") -> "Context":
        """Return this context in the storage of another one of the same shapes, which is given up."""
        for mine, theirs in zip(self.tensors, other.tensors, strict=True):
            theirs.copy_(mine)
        return other

    def _each(self, make: Callable[[Tensor, int], Tensor]) -> "Context":
        found: dict[str, Any] = {}
        for name, axis in _BATCH_AXIS.items():
            value = getattr(self, name)
            found[name] = None if value is None else make(value, axis)
        return Context(**found)


_BATCH_AXIS = {"text": 0, "pooled_text": 0, "image": 0, "text_kv": 2, "image_kv": 2}


@dataclass(frozen=True)
class NoisyWindow:
    """A window of noisy video and actions with everything that the denoiser reads besides the context.

    Attributes:
        video: Noisy latents [B, C, F, h, w]. In training the window's frames (frame 0 first where it is denoised
            too); at inference the frames of one chunk.
        video_timestep: Noise level per latent frame, [B, F], in 0..1000.
        action: Noisy normalised actions [B, T, A].
        action_timestep: Noise level per action step, [B, T], in 0..1000.
        state: Normalised states [B, N, S].
        category: Index of each sample's embodiment, [B].
        condition: First-frame conditioning channels for the same frames, [B, Cc, F, h, w], or None.
        summary: Visual summary of each chunk [B, N, D], or None.
        has_robot: Samples with a robot's states and actions [B], None for all. Without them, no video token reads
            what `state` and `action` hold.
    """

    video: Tensor
    video_timestep: Tensor
    action: Tensor
    action_timestep: Tensor
    state: Tensor
    category: Tensor
    condition: Tensor | None = None
    summary: Tensor | None = None
    has_robot: Tensor | None = None
