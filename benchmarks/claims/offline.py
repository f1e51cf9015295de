"""LeRobot's policies that are built on downloaded encoders, without downloads: importing this file is what makes it so.

Multi-task DiT builds two CLIP encoders by their names on the Hub. Here the vision encoder is a CLIP vision transformer
for pictures of 64x64, trained from scratch like everything else. A frozen text encoder that was never trained would
tell the policy nothing, so the frozen features of our words stand in for its output; the learned projection behind it
is the policy's own.

FastWAM loads Wan's video VAE and its text encoder, both frozen. Our training-free video codec and our word tokens, the
very ones of our nano preset, stand in for them; both of its experts are its own, small and from scratch.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from lerobot.policies.fastwam import modeling_fastwam
from lerobot.policies.multi_task_dit import modeling_multi_task_dit, processor_multi_task_dit
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from benchmarks.claims.text_features import TEXT_FEATURES, WORD_DIM, WORDS, TextFeatures
from lerobot_wam.codecs.text import WordHashTextCodec
from lerobot_wam.codecs.video import SpaceTimeDCTCodec

VISION = CLIPVisionConfig.from_dict(
    {
        "image_size": 64,
        "patch_size": 8,
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 256,
    }
)


class SmallVision(CLIPVisionModel):
    """A small CLIP vision transformer, at random."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> "SmallVision":
        """Build it, whatever its name."""
        return cls(VISION)


class WordFeatures(nn.Module):
    """Stands in for a frozen CLIP text encoder: its output is what the pre-processor wrote in place of the tokens."""

    config = SimpleNamespace(hidden_size=TEXT_FEATURES)

    @classmethod
    def from_pretrained(cls, name: str) -> "WordFeatures":
        """Build it, whatever its name."""
        return cls()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        """Pass the features [B, F] on."""
        return SimpleNamespace(pooler_output=input_ids)


def text_step(**tokenizer: Any) -> TextFeatures:
    """Stands in for the tokenizer's step, whatever its options."""
    return TextFeatures(as_tokens=True)


class VideoCodec(SpaceTimeDCTCodec):
    """Stands in for Wan's VAE."""

    upsampling_factor, temporal_downsample_factor, z_dim = 16, 4, 96

    def __init__(self, **loading: Any) -> None:
        super().__init__(self.upsampling_factor, self.z_dim)

    def encode(self, video: Tensor | Sequence[Tensor], **tiling: Any) -> Tensor:
        """Latents [B, C, F, h, w] of clips [B, 3, T, H, W] in [-1, 1], or of a list of clips."""
        return super().encode(video if isinstance(video, Tensor) else torch.stack(list(video)))


class WordTokens(nn.Module):
    """Stands in for the tokenizer and the text encoder: the one encodes, the other passes on."""

    def __init__(self, **loading: Any) -> None:
        super().__init__()
        self.codec = WordHashTextCodec(WORD_DIM, WORDS)

    def forward(self, texts: str | list[str], return_mask: bool, add_special_tokens: bool) -> tuple[Tensor, Tensor]:
        """Tokens [B, L, D] and mask [B, L]."""
        return self.codec.encode([texts] if isinstance(texts, str) else texts)


class PassOn(nn.Module):
    """See `WordTokens`."""

    def __init__(self, **loading: Any) -> None:
        super().__init__()

    def forward(self, tokens_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the tokens."""
        return tokens_BLD


modeling_multi_task_dit.CLIPVisionModel = SmallVision
modeling_multi_task_dit.CLIPTextModel = WordFeatures
processor_multi_task_dit.TokenizerProcessorStep = text_step
modeling_fastwam.load_pretrained_wan_vae = VideoCodec
modeling_fastwam.build_wan_tokenizer = WordTokens
modeling_fastwam.load_pretrained_wan_text_encoder = PassOn
