"""Image codecs: the first frame of a window to tokens for cross-attention (spec §1.6)."""

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import CLIPVisionModel

# Mean and standard deviation of the pixels that CLIP was trained on.
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ImageCodec(Protocol):
    """What a model with an image branch needs. It works on the device of what it is given."""

    dim: int

    def encode(self, frame: Tensor) -> Tensor:
        """Frames [B,3,H,W] in [-1,1] to image tokens [B,I,dim] float32."""
        ...


class ClipImageCodec:
    """CLIP's hidden states before its last block, without the final norm: 257 tokens of a ViT-H/14.

    Args:
        vision_model: transformers' `CLIPVisionModel`; frozen here.
    """

    def __init__(self, vision_model: "CLIPVisionModel") -> None:
        self.vision_model = vision_model.eval().requires_grad_(False)
        self.dim = vision_model.config.hidden_size

    @torch.no_grad()
    def encode(self, frame: Tensor) -> Tensor:
        """Tokens [B,I,dim] of frames [B,3,H,W] in [-1,1], squashed to CLIP's square by bicubic, not antialiased."""
        model = self.vision_model.to(frame.device)
        side = model.config.image_size
        pixels = functional.interpolate(frame.float(), size=(side, side), mode="bicubic") / 2 + 0.5
        mean, std = (pixels.new_tensor(numbers)[:, None, None] for numbers in (_CLIP_MEAN, _CLIP_STD))
        hidden = model(((pixels - mean) / std).to(model.dtype), output_hidden_states=True).hidden_states
        return hidden[-2].float()
