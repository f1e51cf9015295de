"""`lerobot-rollout` on the simulated robot, policy and arm in one process: what passes between the two."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco")

from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.policies import make_pre_post_processors
from lerobot.rollout.strategies import dagger
from lerobot_commands import run
from tiny_policies import build_policy, write_dataset
from torch import Tensor

from lerobot_wam.embodiments.spec import load_embodiment
from lerobot_wam.runtime.session import Runtime
from lerobot_wam.runtime.state import Dream, Observation, Session
from lerobot_wam.sim.arm_robot import WAMSimArm

STEPS = 8
TASK = "push the red cube to the left"
EXPERT = ("--teleop.type=wam_sim_expert", "--teleop.tasks=left-red")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy of the ViperX, whose actions are relative; a window holds two chunks."""
    folder = tmp_path_factory.mktemp("near")
    policy = build_policy(write_dataset(folder / "arm"))
    policy.save_pretrained(folder / "policy")
    for pipeline in make_pre_post_processors(policy.config, dataset_stats={}):
        pipeline.save_pretrained(folder / "policy")
    return folder / "policy"


@dataclass
class Drive:
    """What passed between policy and arm.

    Attributes:
        shown: Observations that the arm gave.
        seen: Observations that reached a session, and which.
        dreams: Chunks, the session of each and the state that it was planned at.
        sent: Joint targets [A] that reached the arm.
    """

    shown: list[dict[str, Any]] = field(default_factory=list)
    seen: list[tuple[Session, Observation]] = field(default_factory=list)
    dreams: list[tuple[Session, Dream, Tensor]] = field(default_factory=list)
    sent: list[Tensor] = field(default_factory=list)

    @property
    def planned(self) -> Tensor:
        """Every planned action [n, A]."""
        return torch.cat([dream.actions for _, dream, _ in self.dreams])


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Drive:
    """Look on at every seam; the robot's operator presses Ctrl-C after 20 looks at it."""
    log = Drive()
    look, send, observe, plan = WAMSimArm.get_observation, WAMSimArm.send_action, Runtime.observe, Runtime.plan

    def get_observation(arm: WAMSimArm) -> dict[str, Any]:
        if len(log.shown) == 20:
            raise KeyboardInterrupt
        log.shown.append(look(arm))
        return log.shown[-1]

    def send_action(arm: WAMSimArm, action: dict[str, Any]) -> dict[str, Any]:
        log.sent.append(torch.tensor(list(action.values())))
        return send(arm, action)

    def note(runtime: Runtime, session: Session, observation: Observation) -> None:
        log.seen.append((session, observation))
        observe(runtime, session, observation)

    def noted_plan(runtime: Runtime, sessions: list[Session], observations: list[Observation], **rest: Any) -> Any:
        dreams = plan(runtime, sessions, observations, **rest)
        log.dreams += zip(sessions, dreams, [o.state for o in observations], strict=True)
        return dreams

    monkeypatch.setattr(WAMSimArm, "get_observation", get_observation)
    monkeypatch.setattr(WAMSimArm, "send_action", send_action)
    monkeypatch.setattr(Runtime, "observe", note)
    monkeypatch.setattr(Runtime, "plan", noted_plan)
    return log


def limited(targets: Tensor) -> Tensor:
    """What the joints of the arm allow of targets [n, A]."""
    joints = load_embodiment("wam_sim_viperx").action
    low, high = (torch.tensor([getattr(joint, side) for joint in joints]) for side in ("low", "high"))
    return targets.clamp(low, high)


def rollout(checkpoint: Path, *words: str) -> None:
    policy = (f"--policy.path={checkpoint}", "--policy.device=cpu", f"--task={TASK}")
    sizes = ("--robot.type=wam_sim_arm", "--robot.image_size=32", "--return_to_initial_position=false")
    run("lerobot-rollout", *policy, *sizes, *words)


def recording(root: Path, *words: str) -> tuple[str, ...]:
    names = ("--dataset.repo_id=local/rollout_near", f"--dataset.root={root}", "--dataset.fps=10", "--fps=10")
    return *names, "--dataset.push_to_hub=false", "--play_sounds=false", *words


def recorded(root: Path) -> LeRobotDataset:
    return LeRobotDataset("local/rollout_near", root=root)


def column(dataset: LeRobotDataset, key: str) -> np.ndarray:
    return np.stack(dataset.hf_dataset.with_format("numpy")[key])


def test_every_control_steps_picture_and_state_reach_the_session(checkpoint: Path, drive: Drive):
    rollout(checkpoint, "--fps=10")
    assert len(drive.seen) == 19  # LeRobot takes the first look at the arm to know its pose
    assert len({id(session) for session, _ in drive.seen}) == 1
    for shown, (_, observation) in zip(drive.shown[1:], drive.seen, strict=True):
        frame = torch.from_numpy(shown["front"]).permute(2, 0, 1) / 255 * 2 - 1
        torch.testing.assert_close(observation.frame, frame)
        assert observation.state.tolist() == pytest.approx([v for k, v in shown.items() if k.endswith(".pos")])
        assert observation.task == TASK
    # The second chunk reads them all; then the window of two chunks is full.
    assert [dream.starts_window for _, dream, _ in drive.dreams] == [True, False, True]


def test_relative_actions_become_targets_once_per_chunk(checkpoint: Path, drive: Drive):
    """LeRobot's own step for relative actions would anchor them anew at every tick, and refuses this loop."""
    rollout(checkpoint, "--fps=10")
    torch.testing.assert_close(limited(torch.stack(drive.sent)), limited(drive.planned[: len(drive.sent)]))
    states = [observation.state for _, observation in drive.seen]
    assert all(torch.equal(at, states[STEPS * i]) for i, (_, _, at) in enumerate(drive.dreams))
    assert (states[0] - states[STEPS]).abs().max() > 0.01  # the arm moved, so another anchor would be another target


def test_a_faster_arm_gets_steps_in_between_and_the_policy_sees_its_own_rate(checkpoint: Path, drive: Drive):
    rollout(checkpoint, "--fps=10", "--robot.fps=20", "--interpolation_multiplier=2")
    sent, targets = torch.stack(drive.sent), limited(drive.planned)
    assert len(drive.seen) == 10
    torch.testing.assert_close(sent[::2], targets[: len(sent[::2])])
    torch.testing.assert_close(sent[1::2], (targets[: len(sent[1::2])] + targets[1 : 1 + len(sent[1::2])]) / 2)


def test_real_time_chunks_each_start_a_window(checkpoint: Path, drive: Drive):
    rollout(checkpoint, "--fps=10", "--inference.type=rtc", "--inference.queue_threshold=4")
    assert len(drive.dreams) > 1
    assert all(dream.starts_window for _, dream, _ in drive.dreams)
    assert len({id(session) for session, _, _ in drive.dreams}) == len(drive.dreams)


def test_every_recorded_episode_begins_without_memory(checkpoint: Path, drive: Drive, tmp_path: Path):
    words = ("--dataset.num_episodes=2", "--dataset.episode_time_s=0.5", "--dataset.reset_time_s=0")
    flags = ("--strategy.type=episodic", "--strategy.reset_to_initial_position=false", "--dataset.video=false")
    rollout(checkpoint, *flags, *recording(tmp_path / "data", *words))
    dataset = recorded(tmp_path / "data")
    assert dataset.num_episodes == 2
    assert len({id(session) for session, _ in drive.seen}) == 2
    assert column(dataset, "action") == pytest.approx(torch.stack(drive.sent).numpy())


def test_a_continuous_recording_holds_what_was_seen_and_sent(checkpoint: Path, drive: Drive, tmp_path: Path):
    rollout(checkpoint, "--strategy.type=sentry", *recording(tmp_path / "data"))
    dataset = recorded(tmp_path / "data")
    assert dataset.num_episodes == 1
    assert column(dataset, "action") == pytest.approx(torch.stack(drive.sent).numpy())
    assert column(dataset, "observation.state") == pytest.approx(torch.stack([o.state for _, o in drive.seen]).numpy())


def test_after_a_persons_correction_the_policy_begins_anew(
    checkpoint: Path, drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    keys = {4: "space", 6: "tab", 10: "tab", 12: "space"}
    shown = WAMSimArm.get_observation

    def press(dispatch: Any, **help: str) -> None:
        def get_observation(arm: WAMSimArm) -> dict[str, Any]:
            observation = shown(arm)
            if key := keys.pop(len(drive.shown), None):
                dispatch(key)
            return observation

        monkeypatch.setattr(WAMSimArm, "get_observation", get_observation)

    monkeypatch.setattr(dagger, "create_key_listener", press)
    words = ("--strategy.type=dagger", "--strategy.num_episodes=2", "--strategy.smooth_handover=false")
    rollout(checkpoint, *words, *EXPERT, "--dataset.video=false", *recording(tmp_path / "data"))
    assert not keys
    dataset = recorded(tmp_path / "data")
    assert (dataset.num_episodes, dataset.num_frames) == (1, 4)
    assert column(dataset, "intervention").all()
    assert len({id(session) for session, _ in drive.seen}) == 2
    assert [dream.starts_window for _, dream, _ in drive.dreams] == [True, True]


def test_another_rate_than_the_policys_is_refused_before_the_arm_moves(
    checkpoint: Path, drive: Drive, capsys: pytest.CaptureFixture
):
    with pytest.raises(SystemExit):
        rollout(checkpoint)
    assert "--fps is 30 (LeRobot's default)" in capsys.readouterr().err
    assert not drive.shown
