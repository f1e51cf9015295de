"""The instruction for LeRobot's policies that hear none: frozen features of its words, from our text codec.

ACT and Diffusion Policy take a vector beside the robot's state, LeRobot's `observation.environment_state`: ACT as a
token of its own, Diffusion Policy in the conditioning of its U-Net. Multi-task DiT takes the output of a frozen CLIP
text encoder; these features stand in for that, see `offline.py`. One registered step of the pre-processor writes
them, so checkpoints, training and evaluation stay LeRobot's own. Our `visual_summary` lets the words steer the
convolutions (FiLM); that is part of our network, and none of the others gets it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from lerobot.configs import PipelineFeatureType, PolicyFeature
from lerobot.processor import ObservationProcessorStep, ProcessorStepRegistry, TransitionKey
from lerobot.utils.constants import OBS_ENV_STATE, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS, OBS_STATE
from torch import Tensor

from lerobot_wam.codecs.text import WordHashTextCodec

WORD_DIM, WORDS = 64, 24
TEXT_FEATURES = 2 * WORD_DIM
_SCALE = 8.0
"""Words of a typical instruction: the features of one have a root mean square near 1."""
_CODEC = WordHashTextCodec(WORD_DIM, WORDS)


def text_features(texts: list[str]) -> Tensor:
    """The words' frozen vectors [B, TEXT_FEATURES]: their sum, and their sum weighted by the word's place.

    The second half tells the order: without it, two stages and the same two swapped would read alike. Nothing depends
    on the text's length, so a word in a place adds the same to every instruction.
    """
    tokens_BLD, _ = _CODEC.encode(texts)
    place_L1 = torch.arange(WORDS)[:, None] / _SCALE
    return torch.cat([tokens_BLD.sum(1), (place_L1 * tokens_BLD).sum(1)], dim=1) / _SCALE**0.5


@dataclass
@ProcessorStepRegistry.register("wam_text_features")
class TextFeatures(ObservationProcessorStep):
    """Writes the features of the task into an observation.

    Attributes:
        as_tokens: In the place of a tokenizer's output [B, F]; else as environment state [B, F], or [B, T, F] where
            the robot's state has T frames.
    """

    as_tokens: bool = False

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """Add the features."""
        features = text_features(self.transition[TransitionKey.COMPLEMENTARY_DATA]["task"])
        if self.as_tokens:
            mask = torch.ones(len(features), 1, dtype=torch.bool)
            return observation | {OBS_LANGUAGE_TOKENS: features, OBS_LANGUAGE_ATTENTION_MASK: mask}
        frames = observation[OBS_STATE].shape[1:-1]
        spread = features.reshape(len(features), *(1 for _ in frames), -1).expand(-1, *frames, -1)
        return observation | {OBS_ENV_STATE: spread}

    def get_config(self) -> dict[str, Any]:
        """What the checkpoint keeps."""
        return {"as_tokens": self.as_tokens}

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        """Leave the declared features: the policy's configuration names what it takes."""
        return features
