"""The guard in LeRobot's pipelines, around a policy: what comes out behind the post-processor."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies import make_pre_post_processors
from lerobot.processor import create_transition, policy_action_to_transition
from tiny_policies import build_policy, observe, tiny_config

from lerobot_wam.command_line import SettingError
from lerobot_wam.embodiments.spec import CameraView, Dimension, EmbodimentSpec
from lerobot_wam.guard.contract import Contract
from lerobot_wam.guard.guard import GuardError
from lerobot_wam.guard.note import Answer
from lerobot_wam.guard.settings import GuardSettings
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.processor_wam import GuardStep, guard_steps, make_wam_pre_post_processors

WAIST = 0


class Loop:
    """A policy between its pipelines, loaded as LeRobot loads them."""

    def __init__(self, policy: WAMPolicy, folder: Path, live: bool = True) -> None:
        policy.save_pretrained(folder)
        for pipeline in make_wam_pre_post_processors(policy.config, {}):
            pipeline.save_pretrained(folder)
        self.policy = policy
        self.before, self.after = make_pre_post_processors(policy.config, pretrained_path=str(folder))
        if live:  # as every rollout of LeRobot begins
            self.reset()

    @property
    def guard(self) -> GuardStep:
        step = self.after.steps[-1]
        assert isinstance(step, GuardStep)
        return step

    def reset(self) -> None:
        for each in (self.policy, self.before, self.after):
            each.reset()

    def act(self, batch: dict[str, Any]) -> torch.Tensor:
        return self.after(self.policy.select_action(self.before(dict(batch))))

    def chunk(self, batch: dict[str, Any]) -> torch.Tensor:
        return self.after(self.policy.predict_action_chunk(self.before(dict(batch))))


@pytest.fixture
def policy(arm_data: Path) -> WAMPolicy:
    torch.manual_seed(0)
    return build_policy(arm_data).eval()


@pytest.fixture
def loop(policy: WAMPolicy, tmp_path: Path) -> Loop:
    return Loop(policy, tmp_path / "policy")


def poison(policy: WAMPolicy, value: float = torch.nan) -> None:
    with torch.no_grad():
        policy.acting_model.action_decoder.layer2.b.fill_(value)


def keeps_the_contract(policy: WAMPolicy, actions: torch.Tensor) -> bool:
    contract = Contract.of(policy.action_spaces[0].spec)
    flat = actions.double().numpy()
    return bool(
        np.isfinite(flat).all() and (flat >= contract.low - 1e-6).all() and (flat <= contract.high + 1e-6).all()
    )


def test_a_process_that_only_loads_the_policy_finds_the_steps_of_its_pipelines():
    program = (
        "import lerobot_wam.modeling_wam\n"
        "from lerobot.processor import ProcessorStepRegistry\n"
        "print(ProcessorStepRegistry.get('wam_watch'), ProcessorStepRegistry.get('wam_guard'))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_is_within_the_limits_is_not_touched(policy: WAMPolicy, loop: Loop):
    """On and off its rhythm, for one robot and for several, to the last bit."""
    contract = Contract.of(policy.action_spaces[0].spec)

    def within(actions: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(contract.limited(actions.numpy())).float()

    for robots in (1, 3):
        batches = [observe(policy, robots, seed=step) for step in range(10)]
        policy.reset()
        bare = [policy.select_action(batch) for batch in batches]
        loop.reset()
        assert all(torch.equal(loop.act(batch), within(action)) for batch, action in zip(batches, bare, strict=True))
        assert torch.equal(loop.chunk(batches[0]), within(policy.predict_action_chunk(batches[0])))
    assert [guard.tally.faults.total() for guard in loop.guard.guards] == [0, 0, 0]


def test_positions_beyond_the_limits_are_clipped_and_counted(policy: WAMPolicy, loop: Loop, caplog: Any):
    batch = observe(policy)
    batch["observation.state"][0, WAIST] = 4  # a turn too far; actions are relative to it
    action = loop.act(batch)
    assert action[0, WAIST] == torch.tensor(3.14158)
    assert keeps_the_contract(policy, action)
    assert loop.guard.guards[0].tally.clipped[WAIST] == 1
    loop.reset()
    assert "guard of wam_sim_viperx: 1 control steps; waist.pos clipped 1 times" in caplog.text


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_move_nothing(policy: WAMPolicy, loop: Loop, value: float, caplog: Any):
    """The arm stays where it is; after `guard_patience` such actions the run ends."""
    poison(policy, value)
    policy.config.guard_patience = 3
    batch = observe(policy)
    for _ in range(3):
        assert torch.equal(loop.act(batch), batch["observation.state"])
    assert "guard of wam_sim_viperx holds: step 0, inputs " in caplog.text
    with pytest.raises(GuardError, match="4 faults in a row"):
        loop.act(batch)


def test_the_last_good_command_is_held(policy: WAMPolicy, loop: Loop):
    good = [loop.act(observe(policy, seed=step)) for step in range(policy.config.chunk_steps)][-1]
    poison(policy)
    assert torch.equal(loop.act(observe(policy, seed=99)), good)


def test_a_chunk_that_is_not_finite_is_held_as_a_whole(policy: WAMPolicy, loop: Loop):
    poison(policy)
    batch = observe(policy)
    held = batch["observation.state"][:, None].expand(1, policy.config.chunk_steps, -1)
    assert torch.equal(loop.chunk(batch), held)


def test_one_picture_that_is_not_finite_costs_one_step(policy: WAMPolicy, loop: Loop):
    """It would stay in the window's cache: after a refused action the policy begins a new one."""
    batch = observe(policy)
    spoilt = batch | {"observation.images.front": torch.full_like(batch["observation.images.front"], torch.nan)}
    assert torch.equal(loop.act(spoilt), batch["observation.state"])
    for step in range(10):
        assert keeps_the_contract(policy, loop.act(observe(policy, seed=step)))
    assert loop.guard.guards[0].tally.faults == {"not finite": 1}


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_state_that_is_not_finite_sends_nothing(policy: WAMPolicy, loop: Loop, value: float):
    batch = observe(policy)
    batch["observation.state"][0, WAIST] = value
    with pytest.raises(ValueError, match=r"state 'waist.pos' is (nan|inf)"):
        loop.act(batch)


def test_one_robot_of_a_batch_is_held_and_the_others_go_on(policy: WAMPolicy, loop: Loop):
    batch = observe(policy, 3)
    bare = policy.select_action(batch)
    policy.reset()
    batch["observation.images.front"][1] = torch.nan
    actions = loop.act(batch)
    assert torch.equal(actions[1], batch["observation.state"][1])
    torch.testing.assert_close(actions[[0, 2]], bare[[0, 2]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("overlaps", [True, False])
def test_a_chunk_goes_on_from_the_command_before_it(monkeypatch: Any, overlaps: bool):
    """In place of the rest of the last chunk, 0.3 s old and 0.1 s in the making; or behind the last chunk."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    lift = Dimension("lift.pos", max_rate=2.0)
    spec = EmbodimentSpec("lift", (CameraView("observation.images.front"),), (lift,), (lift,), 10.0, 1, 8)
    watch, guard = guard_steps()
    sent = []
    for start, chunk in enumerate([torch.linspace(0.1, 0.8, 8), torch.full((8,), -9.0)]):
        clock[0] = 0.3 * start
        state = {"observation.state": torch.zeros(1, 1)}
        watch(create_transition(observation=state))
        watch.note.answer = Answer(spec, GuardSettings(), 0, [clock[0]], overlaps)
        clock[0] += 0.05
        sent.append(guard(create_transition(action=chunk[None, :, None]))["action"][0, :, 0].tolist())
    expected = [0.4, 0.5, 0.3, 0.1, -0.1, -0.3, -0.5, -0.7] if overlaps else [0.6, 0.4, 0.2, 0, -0.2, -0.4, -0.6, -0.8]
    assert sent[1] == pytest.approx(expected, abs=1e-6)


def test_an_old_picture_is_not_acted_on_and_the_next_one_is(policy: WAMPolicy, loop: Loop, monkeypatch: Any):
    """A chunk that took 60 s is dropped as a whole: the arm waits one step and plans from what it sees then."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    think = policy.codecs.rest
    seconds = iter([60.0])

    def late() -> None:
        clock[0] += next(seconds, 0.0)
        think()

    monkeypatch.setattr(policy.codecs, "rest", late)
    batch = observe(policy)
    assert torch.equal(loop.act(batch), batch["observation.state"])
    for step in range(3):
        clock[0] += 0.1
        assert not torch.equal(loop.act(observe(policy, seed=step)), batch["observation.state"])
    assert policy._sessions[0].chunks == 2
    clock[0] += 20  # a camera that hangs in the middle of a chunk
    loop.act(observe(policy, seed=5))
    loop.act(observe(policy, seed=6))
    assert loop.guard.guards[0].tally.faults == {"late": 2}
    assert policy._sessions[0].chunks == 3


def test_an_evaluation_whose_world_waits_is_never_late(policy: WAMPolicy, tmp_path: Path, monkeypatch: Any):
    clock = iter(range(0, 100000, 60))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    loop = Loop(policy, tmp_path / "policy", live=False)
    loop.act(observe(policy))
    assert loop.guard.guards[0].tally.faults.total() == 0


def test_an_evaluations_next_episode_begins_without_a_last_command(policy: WAMPolicy, tmp_path: Path):
    """LeRobot's evaluation resets the policy alone."""
    loop = Loop(policy, tmp_path / "policy", live=False)
    loop.act(observe(policy))
    policy.reset()
    poison(policy)
    batch = observe(policy, seed=1)
    assert torch.equal(loop.act(batch), batch["observation.state"])


def test_flags_of_the_policy_reach_the_guard_of_a_saved_checkpoint(loop: Loop, tmp_path: Path):
    flags = ["--guard=ramp", "--guard_max_age_s=1", "--guard_patience=0"]
    config = PreTrainedConfig.from_pretrained(tmp_path / "policy", cli_overrides=flags)
    other = WAMPolicy.from_pretrained(tmp_path / "policy", config=config)
    loop.policy = other.eval()
    loop.act(observe(other))
    settings = loop.guard.guards[0].settings
    assert (settings.on_fault, settings.max_age_s, settings.patience) == ("ramp", 1.0, 0)


def test_a_guard_that_is_off_says_so_once(policy: WAMPolicy, loop: Loop, caplog: Any):
    policy.config.guard = "none"
    poison(policy)
    for _ in range(2):
        assert loop.act(observe(policy)).isnan().all()
    assert caplog.text.count("guard=none: NO ACTION IS CHECKED") == 1


def test_an_unknown_setting_is_refused_in_a_line():
    with pytest.raises(SettingError, match="guard is 'stop'; expected hold, ramp, none"):
        tiny_config(guard="stop")


def test_without_a_policy_that_answers_only_what_is_not_finite_is_refused(caplog: Any):
    _, guard = guard_steps()
    with caplog.at_level(logging.WARNING):
        guard(policy_action_to_transition(torch.ones(1, 6)))
    assert "no policy tells the guard what robot this is" in caplog.text
    with pytest.raises(GuardError, match="not finite, and the guard does not know the robot"):
        guard(policy_action_to_transition(torch.full((1, 6), torch.nan)))


def test_training_batches_carry_no_note(policy: WAMPolicy, loop: Loop):
    batch = observe(policy) | {"action": torch.zeros(1, 6)}
    assert not any("note" in key for key in loop.before(batch))


def test_a_checkpoint_without_a_guard_says_so(policy: WAMPolicy, loop: Loop, tmp_path: Path, caplog: Any):
    file = tmp_path / "policy" / "policy_postprocessor.json"
    saved = json.loads(file.read_text())
    saved["steps"] = [step for step in saved["steps"] if step["registry_name"] != "wam_guard"]
    file.write_text(json.dumps(saved))
    with caplog.at_level(logging.WARNING):
        WAMPolicy.from_pretrained(tmp_path / "policy")
    assert "NO GUARD" in caplog.text
