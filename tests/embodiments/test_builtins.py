"""Every embodiment that ships: its file is sane, a tiny policy learns and acts on it, LeRobot's drivers agree."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.motors import Motor, MotorNormMode
from tiny_policies import SIZE, build_policy, make_batch, observe, tiny_config

from lerobot_wam.drivers import describe_driver
from lerobot_wam.embodiments.datasets import ACTION, STATE, check_dataset
from lerobot_wam.embodiments.spec import Dimension, EmbodimentSpec, builtin_names, load_embodiment

ALL = pytest.mark.parametrize("name", builtin_names())
UNITS = {
    MotorNormMode.DEGREES: "deg",
    MotorNormMode.RANGE_M100_100: "%",
    MotorNormMode.RANGE_0_100: "%",
}


def write_dataset_of(spec: EmbodimentSpec, root: Path) -> Path:
    """Two short episodes of smooth motion within the limits, as the robot would be recorded."""
    image = {"dtype": "image", "shape": (SIZE, SIZE, 3), "names": ["height", "width", "channels"]}
    features: dict[str, dict[str, Any]] = {camera.key: image for camera in spec.cameras}
    for key, dimensions in ((STATE, spec.state), (ACTION, spec.action)):
        names = [dimension.name for dimension in dimensions]
        features[key] = {"dtype": "float32", "shape": (len(names),), "names": names}
    dataset = LeRobotDataset.create(
        f"local/{root.name}", int(spec.fps), features, root, robot_type=spec.robot_types[0], use_videos=False
    )
    rng = np.random.default_rng(0)
    for _ in range(2):
        scene = rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        for step in range(20):
            frame: dict[str, Any] = {camera.key: np.roll(scene, step, 0) for camera in spec.cameras}
            frame |= {STATE: _within(spec.state, step), ACTION: _within(spec.action, step + 1)}
            dataset.add_frame(frame | {"task": "pick up the cup"})
        dataset.save_episode()
    dataset.finalize()
    return root


def _within(dimensions: tuple[Dimension, ...], step: int) -> np.ndarray:
    low = np.array([-1 if d.low is None else d.low for d in dimensions])
    high = np.array([1 if d.high is None else d.high for d in dimensions])
    phases = np.arange(len(dimensions)) + 0.2 * step
    return ((low + high) / 2 + (high - low) / 2 * np.sin(phases)).astype(np.float32)


@ALL
def test_a_file_is_sane_and_survives_the_trip_through_json_and_yaml(name: str):
    spec = load_embodiment(name)
    assert spec.name == name
    assert EmbodimentSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert EmbodimentSpec.from_dict(yaml.safe_load(spec.to_yaml())) == spec
    assert "{task}" in spec.prompt
    assert spec.render_prompt("Pick up") == spec.render_prompt("pick up")
    assert 0.1 < spec.chunk_steps / spec.fps < 3, "seconds of a chunk"
    for dimension in (*spec.state, *spec.action):
        # One limit alone is a slip; without a unit numbers are shares, of which 1 is all.
        assert (dimension.low is None) == (dimension.high is None), dimension
        assert dimension.unit or max(abs(dimension.low or 0), abs(dimension.high or 0)) <= 1, dimension
        assert dimension.unit != "rad" or max(abs(dimension.low or 0), abs(dimension.high or 0)) < 6.29, dimension
    twins = {d.name: d for d in spec.state}
    for dimension in spec.action:
        if dimension.relative:
            twin = twins[dimension.name]
            assert (twin.unit, twin.low, twin.high) == (dimension.unit, dimension.low, dimension.high)


def test_a_robot_type_means_one_robot():
    types = [kind for name in builtin_names() for kind in load_embodiment(name).robot_types]
    assert len(types) == len(set(types))
    assert all(load_embodiment(kind).name == kind for kind in types if kind in builtin_names())


@ALL
def test_the_documents_table_says_what_the_file_says(name: str):
    spec = load_embodiment(name)
    numbers = (
        len(spec.state),
        len(spec.action),
        len(spec.cameras),
        f"{spec.fps:g}",
        f"{spec.chunk_steps / spec.fps:.2g} s",
    )
    row = " | ".join(map(str, (f"`{name}`", *numbers)))
    assert f"| {row} |" in (Path(__file__).parents[2] / "docs/embodiments.md").read_text(encoding="utf-8")


@ALL
def test_a_policy_learns_and_acts_on_it(name: str, tmp_path: Path):
    spec = load_embodiment(name)
    root = write_dataset_of(spec, tmp_path / name)
    config = tiny_config(
        embodiment=name, max_chunks=1, action_dim=32, state_dim=32, drop_n_last_frames=0, text_length=64
    )
    policy = build_policy(root, config)
    assert policy.action_spaces[0].spec == spec
    loss, _ = policy.forward(make_batch(root, policy.config, (0, 25)))
    loss.backward()
    optimizer = torch.optim.SGD(policy.parameters(), lr=1e-3)
    before = [parameter.clone() for parameter in policy.parameters()]
    optimizer.step()
    assert torch.isfinite(loss)
    assert any(not torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
    action = policy.eval().select_action(observe(policy))
    assert action.shape == (1, len(spec.action))
    assert torch.isfinite(action).all()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("so101_follower", ()),
        ("so100_follower", ()),
        ("koch_follower", ()),
        ("lekiwi", ()),
        ("unitree_g1", ("--robot.controller=HolosomaLocomotionController",)),
    ],
)
def test_lerobot_s_driver_declares_the_same_numbers(
    kind: str, settings: tuple[str, ...], motor_buses: dict[str, Motor]
):
    spec = load_embodiment(kind)
    driver = describe_driver(kind, settings)
    assert driver.robot_type in spec.robot_types, "what lerobot-record writes"
    check_dataset(spec, {**driver.features, **{c.key: {"dtype": "video"} for c in spec.cameras}}, spec.fps)
    units = {dimension.name: dimension.unit for dimension in spec.action}
    for motor, declared in motor_buses.items():
        if f"{motor}.pos" in units:
            assert units[f"{motor}.pos"] == UNITS[declared.norm_mode]


def test_lekiwi_has_the_cameras_of_its_driver(motor_buses: dict[str, Motor]):
    declared = describe_driver("lekiwi").features
    assert all(camera.key in declared for camera in load_embodiment("lekiwi").cameras)
