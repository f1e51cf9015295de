"""What the closed loop saves changes nothing: every switch of `Savings`, alone and all together, against none."""

from dataclasses import fields
from typing import Any

import pytest
import torch
from tiny_loops import CHUNKS, STEPS, make_model, make_runtime, see
from torch import Tensor

from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.runtime.state import Savings

NAMES = [field.name for field in fields(Savings)]
TICKS = STEPS * (CHUNKS + 1) + 1  # past a window that is full
LOOPS: dict[str, dict[str, Any]] = {
    "one branch": {"guidance": 1.0},
    "guidance": {"guidance": 2.0, "solver": "unipc", "steps": 3},
    "guidance, actions alone": {"guidance": 2.0, "steps": 3, "action_only": True},
    "half a chunk": {"guidance": 2.0, "execute_steps": STEPS // 2},
}


@pytest.fixture(scope="module")
def model() -> WorldActionModel:
    return make_model(image_dim=3, condition_channels=28)


@pytest.fixture(scope="module")
def plain(model: WorldActionModel) -> dict[str, list[Tensor]]:
    return {loop: act(model, loop, ()) for loop in LOOPS}


def act(model: WorldActionModel, loop: str, switched_on: tuple[str, ...]) -> list[Tensor]:
    """Actions, and imagined video where there is any, of two robots, the second of which is told something new."""
    runtime = make_runtime(model, savings=Savings(**{name: name in switched_on for name in NAMES}), **LOOPS[loop])
    sessions = [runtime.new_session(seed) for seed in range(2)]
    found = []
    for tick in range(TICKS):
        tasks = ("push red", "push red" if tick < STEPS + 4 else "touch blue")
        found += runtime.act(sessions, [see(tick, robot, task) for robot, task in enumerate(tasks)])
        found += [s.dream.latents for s in sessions if s.dream is not None and s.dream.latents is not None]
    return found


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("switched_on", [*((name,) for name in NAMES), tuple(NAMES)], ids=[*NAMES, "all"])
def test_a_saving_changes_no_result(
    model: WorldActionModel, plain: dict[str, list[Tensor]], switched_on: tuple[str, ...], loop: str
):
    for saved, expected in zip(act(model, loop, switched_on), plain[loop], strict=True):
        torch.testing.assert_close(saved, expected, rtol=0, atol=1e-5)


def test_every_saving_is_on_unless_switched_off():
    assert all(getattr(Savings(), name) is True for name in NAMES)
