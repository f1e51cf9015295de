"""LeRobot's multi-task DiT without CLIP's weights: importing this file is what makes it so.

It builds both its encoders with `from_pretrained`, by names on the Hub. Here the vision encoder is a CLIP vision
transformer for pictures of 64x64, trained from scratch like everything else; a frozen text encoder that was never
trained would tell the policy nothing, so the frozen features of our words stand in for its output, and the learned
projection behind it is the policy's own.
"""

from types import SimpleNamespace
from typing import Any

from lerobot.policies.multi_task_dit import modeling_multi_task_dit, processor_multi_task_dit
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from benchmarks.claims.text_features import TEXT_FEATURES, TextFeatures

VISION = CLIPVisionConfig(
    image_size=64, patch_size=8, hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=256
)


class SmallVision(CLIPVisionModel):
    """A small CLIP vision transformer, at random."""

    @classmethod
    def from_pretrained(cls, name: str) -> "SmallVision":
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


modeling_multi_task_dit.CLIPVisionModel = SmallVision
modeling_multi_task_dit.CLIPTextModel = WordFeatures
processor_multi_task_dit.TokenizerProcessorStep = text_step
