"""The data side against the official implementation, exactly: windows, tilings, video transform, padding, prompts."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_policies import SIZE, tiny_config
from torch import Tensor

from lerobot_wam.data.official_windows import official_windows
from lerobot_wam.data.views import tile_views, transform_view
from lerobot_wam.embodiments.gear import RELEASED
from lerobot_wam.embodiments.prompts import load_prompts, render_prompt
from lerobot_wam.embodiments.spec import (
    CameraView,
    Dimension,
    EmbodimentSpec,
    Normalization,
    VideoTransform,
    ViewLayout,
    load_embodiment,
)
from lerobot_wam.modeling_wam import WAMPolicy


@pytest.fixture(scope="module")
def tensors(golden_dir: Path) -> dict[str, Tensor]:
    return load_file(golden_dir / "f_data.safetensors")


@pytest.fixture(scope="module")
def facts(golden_dir: Path) -> dict[str, Any]:
    return json.loads((golden_dir / "f_data.json").read_text())


@pytest.fixture(scope="module")
def timing(facts: dict[str, Any]) -> tuple[int, int, int]:
    """Steps per chunk, control steps between frames, and chunks per window at most, as the cases show them."""
    selection = facts["selection"][0]
    chunk_steps = selection["n_action"] // len(selection["state_anchors"])
    stride = selection["video"][1] - selection["video"][0]
    longest = max(len(case["video"]) for case in facts["video_window"])
    return chunk_steps, stride, (longest - 1) * stride // chunk_steps


def window(case: dict[str, Any], chunk_steps: int, max_chunks: int) -> tuple[int, int]:
    """Our first step and chunks of a case: an episode of L steps whose text is constant or switches at a step."""
    step = np.arange(case["L"])
    switch = re.fullmatch(r"switch(\d+)", case["lang"])
    assert switch or case["lang"] == "const"
    task = step >= (int(switch[1]) if switch else 0)
    first, chunks = official_windows(np.zeros_like(step), task, chunk_steps, max_chunks)
    return int(first[case["first"]]), int(chunks[case["first"]])


def test_video_windows(facts, timing):
    chunk_steps, stride, max_chunks = timing
    assert facts["video_window"]
    for case in facts["video_window"]:
        first, chunks = window(case, chunk_steps, max_chunks)
        frames = list(range(first, first + chunks * chunk_steps + 1, stride)) if chunks else []
        assert frames == case["video"], case


def test_chunks_of_actions_and_states(facts, timing):
    chunk_steps, stride, max_chunks = timing
    for case in facts["selection"]:
        first, chunks = window(case, chunk_steps, max_chunks)
        assert [first + i * chunk_steps for i in range(chunks)] == case["state_anchors"], case
        assert chunks * chunk_steps == case["n_action"]
        assert list(range(first, first + chunks * chunk_steps + 1, stride)) == case["video"]


def tile(views_TVHWC: Tensor, layout: ViewLayout) -> Tensor:
    """Tile uint8 views, in their order, by a layout; returns uint8 [1, T, 3, H, W]."""
    frames = {f"view{v}": views_TVHWC[None, :, v].movedim(-1, 2) / 255 for v in range(views_TVHWC.shape[1])}
    cameras = tuple(CameraView(key) for key in frames)
    spec = EmbodimentSpec("robot", cameras, (), (), fps=15, video_stride=3, chunk_steps=24, view_layout=layout)
    h, w = views_TVHWC.shape[2:4]
    return (tile_views(frames, spec, (h, w)) * 255).round().to(torch.uint8)


@pytest.mark.parametrize("name", ["oxe_droid", "agibot", "yam"])
def test_tilings_of_the_built_in_robots(tensors, name):
    tiled = tile(tensors["tile.in_tvhwc"], load_embodiment(name).view_layout)
    assert torch.equal(tiled, tensors[f"tile.{name}"])


def test_tiling_of_two_views(tensors):
    assert torch.equal(tile(tensors["tile.in_tvhwc"][:, :2], "two"), tensors["tile.xdof_two_views"])


@pytest.mark.parametrize("name", ["oxe_droid", "agibot", "yam"])
def test_evaluation_video_transform(tensors, name):
    view = tensors["video.in"].movedim(-1, 1)[None] / 255
    expected = tensors["video.eval_out"].movedim(-1, 1)[None]
    out = transform_view(view, load_embodiment(name).video, tuple(expected.shape[-2:]))
    assert torch.equal((out * 255).round().to(torch.uint8), expected)


def test_padding(tensors, timing):
    """The policy's own window, with ranges of [-1, 1] and no bound, so that every number stays what it is."""
    chunk_steps, stride, _ = timing
    action_TA, state_NS = tensors["pad.action"], tensors["pad.state"]
    dims, state_dims = int(tensors["pad.action_mask"][0].sum()), int(tensors["pad.state_mask"][0].sum())
    chunks, steps = len(state_NS), len(action_TA)
    spec = EmbodimentSpec(
        "robot",
        (CameraView("observation.images.front"),),
        state=tuple(Dimension(f"s{i}") for i in range(state_dims)),
        action=tuple(Dimension(f"a{i}") for i in range(dims)),
        fps=15,
        video_stride=stride,
        chunk_steps=chunk_steps,
        normalization=Normalization(clip=None),
    )
    ones = {"action_high": [[1.0] * dims], "state_high": [1.0] * state_dims, "steps": 0, "windows": 0}
    ones |= {"action_low": [[-1.0] * dims], "state_low": [-1.0] * state_dims}
    config = tiny_config(
        chunk_steps=chunk_steps,
        video_stride=stride,
        max_chunks=chunks,
        action_dim=action_TA.shape[1],
        state_dim=state_NS.shape[1],
        embodiments={"robot": {"spec": spec.to_dict(), "statistics": ones}},
    )
    frames = steps // stride + 1
    states = torch.zeros(1, frames, state_dims)
    states[:, : frames - 1 : frames // chunks] = state_NS[:, :state_dims].float()
    batch = {
        "observation.images.front": torch.zeros(1, frames, 3, SIZE, SIZE),
        "observation.state": states,
        "action": action_TA[None, :, :dims].float(),
        "task": ["push"],
    }
    window = WAMPolicy(config).reader.window(batch)
    # The policy computes in single precision; the scaling by 2/2 rounds once.
    torch.testing.assert_close(window.action[0], action_TA.float(), atol=5e-7, rtol=0)
    torch.testing.assert_close(window.state[0], state_NS.float(), atol=5e-7, rtol=0)
    assert torch.equal(window.action_mask[0], tensors["pad.action_mask"])
    assert not window.action[0, :, dims:].any()
    assert not window.state[0, :, state_dims:].any()


def test_prompts(facts, tmp_path):
    """Wordings recovered from one prompt a robot, written as a user's file, give all of its prompts."""
    prompts = [(*key.split("|", 1), text) for key, text in facts["prompts"].items()]
    templates: dict[str, str] = {}
    for name, task, text in sorted(prompts, key=lambda prompt: len(prompt[1])):
        words = task.lower()
        if not words or words.startswith("["):
            continue
        # A task of one letter is also a letter of the wording; it stands at the end in any case.
        templates[name] = text.replace(words, "{task}") if len(words) > 1 else text.removesuffix(words) + "{task}"
    file = tmp_path / "prompts.yaml"
    file.write_text(yaml.safe_dump(templates | {"negative_prompt": facts["negative_prompt"]}))
    loaded = load_prompts(file)
    assert loaded.negative_prompt == facts["negative_prompt"]
    assert any(template.count("{task}") == 2 for template in loaded.templates.values())
    for name, task, text in prompts:
        assert render_prompt(loaded.template(name), task) == text
        if name in RELEASED:
            assert replace(load_embodiment(name), prompt=loaded.template(name)).render_prompt(task) == text
    with pytest.raises(ValueError, match="no prompt for the embodiment 'unknown', found"):
        loaded.template("unknown")


def test_our_robots_carry_official_tags(facts):
    assert set(RELEASED) <= set(facts["embodiment_ids"])


def test_the_eval_crop_is_the_built_in_robots(facts, tensors):
    crops = [re.fullmatch(r"CenterCrop\(size=\((\d+), (\d+)\)\)", text) for _, text in facts["video_transforms"]]
    (crop,) = [found for found in crops if found]
    height, width = tensors["video.in"].shape[1:3]
    for name in RELEASED:
        video: VideoTransform = load_embodiment(name).video
        assert (int(height * video.crop), int(width * video.crop)) == (int(crop[1]), int(crop[2]))
