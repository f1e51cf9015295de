"""Tiny models in closed loops without LeRobot, and what their robots see."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lerobot_wam.codecs.text import WordHashTextCodec
from lerobot_wam.codecs.video import SpaceTimeDCTCodec
from lerobot_wam.diffusion.sampler import SamplerConfig
from lerobot_wam.embodiments.action_space import ActionSpace, ActionStatistics
from lerobot_wam.embodiments.spec import CameraView, Dimension, EmbodimentSpec
from lerobot_wam.model.cache import KVCache
from lerobot_wam.model.config import ModelConfig, VisualSummaryConfig
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.runtime.parallel import Parallel
from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.state import LoopRules, Observation, Savings, Session

SIZE, STEPS, CHUNKS = 32, 8, 3
SPEC = EmbodimentSpec(
    name="two_joints",
    cameras=(CameraView("observation.images.front"),),
    state=(Dimension("a"), Dimension("b")),
    action=(Dimension("a", relative=True), Dimension("b", relative=True)),
    fps=10.0,
    video_stride=1,
    chunk_steps=STEPS,
)
SPACE = ActionSpace(
    SPEC,
    ActionStatistics(
        np.full((1, 2), -0.5), np.full((1, 2), 0.7), state_low=np.full(2, -1.0), state_high=np.full(2, 1.0)
    ),
)


def make_model(**overrides: Any) -> WorldActionModel:
    """A network whose weights are all awake."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "dim": 32,
        "num_heads": 2,
        "num_layers": 2,
        "ffn_dim": 32,
        "text_dim": 16,
        "latent_channels": 24,
        "action_dim": 4,
        "state_dim": 4,
        "freq_dim": 16,
        "patch": (1, 1, 1),
        "action_hidden": 16,
        "actions_per_chunk": STEPS,
        "max_chunks": CHUNKS,
        "visual_summary": VisualSummaryConfig(channels=(4, 4, 4), squeeze=4, hidden=8),
    }
    network = WorldActionModel(ModelConfig(**(sizes | overrides))).eval().requires_grad_(False)
    for parameter in network.parameters():  # a fresh model's last layers are near zero and would hide the rest
        parameter += 0.1 * torch.randn(parameter.shape)
    return network


class ColourCodec:
    """Image tokens of a frame: the mean colours of its four quarters."""

    dim = 3

    def encode(self, frame: Tensor) -> Tensor:
        """Frames [B, 3, H, W] to [B, 4, 3]."""
        return torch.nn.functional.adaptive_avg_pool2d(frame, 2).flatten(2).transpose(1, 2)


def make_runtime(
    model: WorldActionModel,
    execute_steps: int | None = None,
    stride: int = 1,
    rules: LoopRules | None = None,
    savings: Savings | None = None,
    action_only: bool = False,
    parallel: Parallel | None = None,
    **sampler: Any,
) -> Runtime:
    """Two Euler steps a chunk unless `sampler` says otherwise."""
    runtime = Runtime(
        model,
        SpaceTimeDCTCodec(patch=16, channels=24),
        WordHashTextCodec(dim=16, length=6),
        [SPACE],
        SamplerConfig(**({"steps": 2} | sampler)),
        stride,
        execute_steps,
        negative_prompt="blurry",
        image_codec=None if model.config.image_dim is None else ColourCodec(),
        rules=rules or LoopRules(),
        savings=savings or Savings(),
        action_only=action_only,
    )
    if parallel is not None:
        parallel.share(runtime)
    return runtime


def see(step: int, robot: int = 0, task: str = "push red") -> Observation:
    """What robot number `robot` sees at a step, whatever it does."""
    generator = torch.Generator().manual_seed(1000 * robot + step)
    frame = torch.rand(3, SIZE, SIZE, generator=generator) * 2 - 1
    return Observation(frame, torch.rand(2, generator=generator), task)


def run(runtime: Runtime, session: Session, steps: Sequence[int], robot: int = 0, task: str = "push red") -> Tensor:
    """Let a session act at these steps; its actions [steps, A]."""
    return torch.stack([runtime.act([session], [see(step, robot, task)])[0] for step in steps])


def frames(steps: Sequence[int]) -> Tensor:
    """The video [1, 3, T, H, W] of these steps."""
    return torch.stack([see(step).frame for step in steps], dim=1)[None]


def same(first: KVCache, second: KVCache, tolerance: float = 1e-5) -> None:
    """Two caches hold the same."""
    assert first.layout.position.tolist() == second.layout.position.tolist()
    for a, b in zip((*first.keys, *first.values), (*second.keys, *second.values), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)
