"""The benchmark of two-stage instructions: whom it tells what, and what it counts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco")

from benchmarks import common, two_stages
from lerobot_wam.sim.env import TabletopEnv


def test_a_stage_is_told_alone_and_the_next_one_when_it_is_done(monkeypatch: pytest.MonkeyPatch):
    policy = common.nano_policy("cpu", 0, num_inference_steps=1, num_layers=1, ema_decay=0.0)
    env, told, sessions = TabletopEnv("left-red+touch-blue"), [], []
    seen, _ = env.reset(seed=0)
    at_once, alone = (two_stages.driven(policy, stage_by_stage)(env, 0) for stage_by_stage in (False, True))

    def act(runtime: object, given: list[object], observations: list[object]) -> list[torch.Tensor]:
        told.append(env.task_description)
        sessions.append(given[0])
        return [torch.zeros(6)]

    monkeypatch.setattr(type(policy.runtime), "act", act)
    at_once(seen)
    alone(seen)
    alone(seen)
    cubes = env.world.cubes + np.array([[0, -0.06, 0], [0, 0, 0], [0, 0, 0]])
    env.judge.update(cubes, env.world.tip)
    alone(seen)
    first, second = "push the red cube to the left", "touch the blue cube"
    assert told == [f"{first}, then {second}", first, first, second]
    assert sessions[1] is sessions[2]
    assert sessions[2] is not sessions[3]


def test_a_run_counts_how_episodes_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    policy = common.nano_policy("cpu", 0, num_inference_steps=1, num_layers=1, ema_decay=0.0)
    policy.save_pretrained(tmp_path / "policy")
    two_stages.main([f"--checkpoint={tmp_path / 'policy'}", "--episodes=2", "--episode-length=30"])
    metrics = json.loads((tmp_path / "two_stages.json").read_text())["metrics"]
    assert metrics["expert"]["ends"] == {"2 stages done, success": 2}
    assert metrics["expert"]["progress"] == 1
    assert metrics["expert"]["steps_max"] <= 30
    assert sum(metrics["told_stage_by_stage"]["ends"].values()) == 2
