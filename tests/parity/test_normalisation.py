"""Relative actions and q99 normalisation against the official implementation, bit by bit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lerobot_wam.embodiments.action_space import ActionSpace, ActionStatistics
from lerobot_wam.embodiments.spec import CameraView, Dimension, EmbodimentSpec


@pytest.fixture(scope="module")
def tensors(golden_dir: Path) -> dict[str, Tensor]:
    return load_file(golden_dir / "f_data.safetensors")


@pytest.fixture(scope="module")
def selections(golden_dir: Path) -> list[dict]:
    return json.loads((golden_dir / "f_data.json").read_text())["selection"]


def make_space(low: Tensor, high: Tensor, chunk_steps: int, relative: int = 0) -> ActionSpace:
    """An action space with these ranges for action and state, whose first ``relative`` dimensions are relative."""
    names = [f"joint_{i}" for i in range(len(low))]
    spec = EmbodimentSpec(
        name="official",
        cameras=(CameraView("observation.images.front"),),
        state=tuple(Dimension(name) for name in names),
        action=tuple(Dimension(name, relative=i < relative) for i, name in enumerate(names)),
        fps=15,
        video_stride=1,
        chunk_steps=chunk_steps,
    )
    low_A, high_A = low.numpy().astype(np.float64), high.numpy().astype(np.float64)
    return ActionSpace(spec, ActionStatistics(low_A[None], high_A[None], low_A, high_A))


def test_q99_forward(tensors):
    x_NA = tensors["q99.x"]
    space = make_space(tensors["q99.q01"], tensors["q99.q99"], chunk_steps=len(x_NA))
    assert torch.equal(space.encode_state(x_NA), tensors["q99.norm"])
    anchor = torch.zeros(1, 1, x_NA.shape[-1], dtype=x_NA.dtype)
    assert torch.equal(space.encode(x_NA[None, None], anchor)[0, 0], tensors["q99.norm"])


def test_q99_inverse(tensors):
    norm_NA = tensors["q99.norm"]
    space = make_space(tensors["q99.q01"], tensors["q99.q99"], chunk_steps=len(norm_NA))
    anchor = torch.zeros(1, 1, norm_NA.shape[-1], dtype=norm_NA.dtype)
    assert torch.equal(space.decode(norm_NA[None, None], anchor)[0, 0], tensors["q99.inverse"])


def test_relative_selections(tensors, selections):
    assert selections
    for selection in selections:
        prefix = f"sel{selection['case']}"
        action_LA, state_LS = tensors[f"{prefix}.action_all"], tensors[f"{prefix}.state_all"]
        relative_NR = tensors[f"{prefix}.action_relative"]
        anchors = selection["state_anchors"]
        horizon, R = selection["n_action"] // len(anchors), relative_NR.shape[1]
        ones = torch.ones(action_LA.shape[1])
        space = make_space(-ones, ones, horizon, relative=R)

        actions_BnHA = torch.stack([action_LA[a : a + horizon] for a in anchors])[None]
        anchor_BnS = state_LS[anchors][None]
        relative_BnHA = space.to_relative(actions_BnHA, anchor_BnS)
        assert torch.equal(anchor_BnS[0, :, :R], tensors[f"{prefix}.state"])
        assert torch.equal(relative_BnHA[0, ..., :R].flatten(0, 1), relative_NR)
        assert torch.equal(relative_BnHA[0, ..., R:].flatten(0, 1), tensors[f"{prefix}.gripper_absolute"])
        torch.testing.assert_close(space.to_absolute(relative_BnHA, anchor_BnS), actions_BnHA)
