"""Policies of full size with random weights, made in place on their device: no download, and no memory but their own.

Time does not depend on what weights say, so a speed can be measured without a checkpoint. Frozen parts are of full size
too.
"""

from typing import Any

import numpy as np
import torch

from lerobot_wam.bench.random_weights import VAE, filled, random_image_codec, random_text_codec, random_video_codec
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.embodiments.resolve import stored_embodiment
from lerobot_wam.embodiments.spec import load_embodiment
from lerobot_wam.embodiments.statistics import Columns
from lerobot_wam.modeling_wam import WAMPolicy

ROBOTS = {"nano": "wam_sim_viperx"}
"""Whose cameras and joints a preset is measured with; the others with DROID's, as DreamZero is."""


def random_config(preset: str, device: str, seed: int = 0, **fields: Any) -> WAMConfig:
    """Configure a policy for the preset's robot, whose statistics are random too.

    Args:
        preset: Name of the preset.
        device: Where the policy computes.
        seed: Of the statistics.
        fields: Other fields of the configuration.
    """
    robot, rng, steps = load_embodiment(ROBOTS.get(preset, "oxe_droid")), np.random.default_rng(seed), 100
    zeros = np.zeros(steps, dtype=np.int64)
    action, state = (rng.normal(size=(steps, len(dimensions))) for dimensions in (robot.action, robot.state))
    stored = stored_embodiment(robot, Columns(zeros, np.arange(steps), zeros, action, state))
    own = {"preset": preset, "device": device, "embodiment": robot.name, "embodiments": {robot.name: stored}}
    return WAMConfig(**(own | {"ema_decay": 0.0} | fields))


def random_policy(config: WAMConfig, seed: int = 0) -> WAMPolicy:
    """Build a policy in evaluation mode with random weights of the types that it would load.

    Args:
        config: The policy's.
        seed: Of the weights. They are the same on every device, and in float32 what they are in bfloat16.
    """
    policy = WAMPolicy(config, weights_follow=True)
    device = torch.device(config.device or "cpu")
    filled(policy.model, policy.model.dtype, device, seed)
    number = getattr(torch, config.dtype)
    if config.text_codec == "umt5":
        policy.codecs.text = random_text_codec(config.text_length, number, config.text_device or "cpu", seed)
    if config.video_codec in VAE:
        policy.codecs.video = random_video_codec(config.video_codec, device, seed)
    if config.image_codec == "clip":
        policy.codecs.image = random_image_codec(number, device, seed)
    return policy.eval()
