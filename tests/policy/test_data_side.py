"""What an embodiment says about video and words reaches the policy, in training and in acting."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_policies import SIZE, build_policy, make_batch, observe, tiny_config

from lerobot_wam.embodiments.spec import EmbodimentSpec, VideoTransform
from lerobot_wam.modeling_wam import WAMPolicy


@pytest.fixture(scope="module")
def stored(arm_data: Path) -> dict[str, Any]:
    """The arm with DreamZero's crop and colours, as a checkpoint holds it."""
    embodiments = copy.deepcopy(build_policy(arm_data).config.embodiments)
    (embodiment,) = embodiments.values()
    spec = EmbodimentSpec.from_dict(embodiment["spec"])
    video = VideoTransform(crop=0.75, color_jitter=(0.3, 0.4, 0.5, 0.08), uint8=True)
    embodiment["spec"] = replace(spec, video=video).to_dict()
    return embodiments


def policy_of(stored: dict[str, Any], **overrides: Any) -> WAMPolicy:
    return WAMPolicy(tiny_config(embodiments=copy.deepcopy(stored), **overrides))


def pictures(policy: WAMPolicy, batch: dict[str, Any]) -> torch.Tensor:
    """The tiled pictures that a forward pass computes with."""
    seen = []
    tiled = policy.reader.tiled
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy.reader, "tiled", lambda part: seen.append(tiled(part)) or seen[-1])
        policy.forward(batch)
    return torch.cat(seen)


def test_training_augments_and_evaluation_crops_the_centre(arm_data, stored):
    policy = policy_of(stored, noise_seed=0).train()
    batch = make_batch(arm_data, policy.config)
    augmented = pictures(policy, batch)
    assert torch.equal(pictures(policy, batch), augmented)  # a function of seed and step
    policy.config.steps_done += 1
    assert not torch.equal(pictures(policy, batch), augmented)
    view = batch["observation.images.front"][..., 4:-4, 4:-4].flatten(0, 1)
    centre = torch.nn.functional.interpolate(view, (SIZE, SIZE), mode="bilinear", antialias=True)
    assert torch.equal(pictures(policy.eval(), batch).flatten(0, 1), (centre * 255).floor() / 255)


def test_what_acts_sees_the_resized_picture(stored):
    policy = policy_of(stored, head_resize=(16, 16))
    (observation,) = policy._observations(observe(policy))
    assert observation.frame.shape == (3, 16, 16)
    assert policy.select_action(observe(policy)).shape == (1, len(policy.action_spaces[0].spec.action))


def test_a_trained_wording_replaces_the_embodiments_own(stored):
    (name,) = stored
    policy = policy_of(stored, prompt_templates={name: "an arm shall {task}", "another": "{task}"})
    (observation,) = policy._observations(observe(policy, task="Push Red"))
    assert observation.task == "an arm shall push red"
    assert policy_of(stored)._observations(observe(policy, task="Push Red"))[0].task == "push red"
