"""A policy behind a real server, in a thread of this process, and a policy to put there."""

import numpy as np
import torch
from lerobot.configs import FeatureType, PolicyFeature
from tiny_policies import tiny_config, wake

from benchmarks.served import Served, served
from lerobot_wam.embodiments.resolve import stored_embodiment
from lerobot_wam.embodiments.spec import EmbodimentSpec
from lerobot_wam.embodiments.statistics import Columns
from lerobot_wam.modeling_wam import WAMPolicy

__all__ = ["Served", "served", "untrained_policy"]


def untrained_policy(spec: EmbodimentSpec, picture_size: tuple[int, int]) -> WAMPolicy:
    """A tiny policy for a robot with pictures of this height and width, and statistics of random motion."""
    rng, steps = np.random.default_rng(0), 60
    zeros = np.zeros(steps, dtype=np.int64)
    state, action = rng.normal(size=(steps, len(spec.state))), rng.normal(size=(steps, len(spec.action)))
    stored = stored_embodiment(spec, Columns(zeros, np.arange(steps), zeros, action, state))
    features = {camera.key: PolicyFeature(FeatureType.VISUAL, (3, *picture_size)) for camera in spec.cameras}
    features["observation.state"] = PolicyFeature(FeatureType.STATE, (len(spec.state),))
    config = tiny_config(
        chunk_steps=spec.chunk_steps,
        video_stride=spec.video_stride,
        embodiment=spec.name,
        embodiments={spec.name: stored},
        input_features=features,
        output_features={"action": PolicyFeature(FeatureType.ACTION, (len(spec.action),))},
    )
    torch.manual_seed(0)
    policy = WAMPolicy(config).eval()
    wake(policy)
    return policy
