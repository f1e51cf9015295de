"""Tiny datasets and tiny policies, built as LeRobot builds them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies import make_policy

from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.modeling_wam import WAMPolicy

SIZE = 32
ARM_JOINTS = [f"{name}.pos" for name in ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")]
MOBILE_JOINTS = ["base.pos", "lift.pos", "gripper.pos"]
TINY: dict[str, Any] = {
    "device": "cpu",
    "push_to_hub": False,
    "dim": 32,
    "num_heads": 2,
    "num_layers": 1,
    "ffn_dim": 32,
    "freq_dim": 16,
    "text_dim": 16,
    "text_length": 8,
    "image_size": (SIZE, SIZE),
    "codec_patch": 16,
    "latent_channels": 24,
    "action_hidden": 16,
    "max_chunks": 2,
    "num_inference_steps": 2,
    "warmup_steps": 2,
}


def tiny_config(**overrides: Any) -> WAMConfig:
    """A nano policy small enough that a training step takes some ten milliseconds."""
    return WAMConfig(**(TINY | overrides))


def write_dataset(
    root: Path,
    lengths: Sequence[int] = (24, 24, 20, 20),
    *,
    robot_type: str | None = "wam_sim_viperx",
    fps: int = 10,
    cameras: Sequence[str] = ("front",),
    joints: Sequence[str] = ARM_JOINTS,
    state: bool = True,
    action: bool = True,
    size: int = SIZE,
    tasks: Callable[[int, int], str] = lambda episode, step: f"push {('red', 'blue')[episode % 2]}",
    change: Callable[[dict[str, Any], int, int], None] | None = None,
) -> Path:
    """Record smooth joint motion under coloured noise images; `change` may edit each frame (frame, episode, step)."""
    vector = {"dtype": "float32", "shape": (len(joints),), "names": list(joints)}
    image = {"dtype": "image", "shape": (size, size, 3), "names": ["height", "width", "channels"]}
    features = {f"observation.images.{camera}": image for camera in cameras}
    features |= {"observation.state": dict(vector)} if state else {}
    features |= {"action": dict(vector)} if action else {}
    dataset = LeRobotDataset.create(
        f"local/{root.name}", fps=fps, features=features, root=root, robot_type=robot_type, use_videos=False
    )
    rng = np.random.default_rng(len(lengths))
    for episode, length in enumerate(lengths):
        phase = rng.uniform(0, 6, len(joints))
        scene = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
        for step in range(length):
            position = np.sin(phase + 0.2 * step).astype(np.float32)
            frame: dict[str, Any] = {f"observation.images.{camera}": np.roll(scene, step, 0) for camera in cameras}
            frame |= {"observation.state": position} if state else {}
            frame |= {"action": np.sin(phase + 0.2 * (step + 1)).astype(np.float32)} if action else {}
            frame["task"] = tasks(episode, step)
            if change is not None:
                change(frame, episode, step)
            dataset.add_frame(frame)
        dataset.save_episode()
    dataset.finalize()
    return root


def load_dataset(root: Path, config: WAMConfig) -> LeRobotDataset:
    """The dataset with the windows that the policy trains on."""
    meta = LeRobotDatasetMetadata(f"local/{root.name}", root=root)
    observations = [index / meta.fps for index in config.observation_delta_indices]
    deltas = {key: observations for key in meta.features if key.startswith("observation.")}
    if "action" in meta.features:
        deltas["action"] = [index / meta.fps for index in config.action_delta_indices]
    return LeRobotDataset(f"local/{root.name}", root=root, delta_timestamps=deltas)


def build_policy(root: Path, config: WAMConfig | None = None, **overrides: Any) -> WAMPolicy:
    """The policy as `lerobot-train` builds it on the dataset at `root`; a new one with weights that are all awake."""
    config = tiny_config(**overrides) if config is None else config
    policy = make_policy(config, ds_meta=LeRobotDatasetMetadata(f"local/{root.name}", root=root))
    assert isinstance(policy, WAMPolicy)
    if config.pretrained_path is None:
        wake(policy)
    return policy


def wake(policy: WAMPolicy) -> None:
    """Move every weight: a fresh model's last layers are zero, which hides what happens before them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    if policy.ema_model is not None:
        policy.ema_model.load_state_dict(policy.model.state_dict())


def make_batch(root: Path, config: WAMConfig, indices: Sequence[int] = (0, 5)) -> dict[str, Any]:
    """A training batch as LeRobot's loader and pre-processor hand it to the policy."""
    dataset = load_dataset(root, config)
    return torch.utils.data.default_collate([dataset[i] for i in indices])


def observe(policy: WAMPolicy, robots: int = 1, seed: int = 0, task: str | list[str] = "push red") -> dict[str, Any]:
    """What an environment of `robots` robots shows, random but for its form."""
    generator = torch.Generator().manual_seed(seed)
    spec = policy.action_spaces[policy.category].spec
    tasks = [task] * robots if isinstance(task, str) else task
    frames = {c.key: torch.rand(robots, 3, SIZE, SIZE, generator=generator) for c in spec.cameras}
    return frames | {"observation.state": torch.rand(robots, len(spec.state), generator=generator), "task": tasks}
