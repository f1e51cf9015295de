"""The training loss through LeRobot's `forward`: batch-correct, masked, and at home with video alone."""

from pathlib import Path

import pytest
import torch
from tiny_policies import build_policy, make_batch, write_dataset

from lerobot_wam.modeling_wam import WAMPolicy


def rows(batch: dict, row: int) -> dict:
    return {key: value[row : row + 1] for key, value in batch.items()}


def test_a_batch_is_the_mean_of_its_samples(arm_data: Path):
    """Whole windows and windows that run 1 to 13 steps past their episode's end."""
    policy = build_policy(arm_data).train()
    indices = [0, 6, 12, 15, 20]
    batch = make_batch(arm_data, policy.config, indices)
    assert batch["action_is_pad"].sum(dim=1).tolist() == [0, 0, 4, 7, 12]
    loss, parts = policy.forward(batch)
    single = [policy.forward(rows(batch, row)) for row in range(len(indices))]
    torch.testing.assert_close(loss, torch.stack([s[0] for s in single]).mean(), rtol=1e-5, atol=1e-5)
    for name, value in parts.items():
        assert value == pytest.approx(sum(s[1][name] for s in single) / len(single), abs=1e-5)
    each, _ = policy.forward(batch, reduction="none")
    torch.testing.assert_close(each, torch.stack([s[0] for s in single]), rtol=1e-5, atol=1e-5)


def test_early_windows_weigh_more(arm_data: Path):
    plain = build_policy(arm_data, early_anchor_steps=0, noise_seed=1).train()
    batch = make_batch(arm_data, plain.config, [3, 4, 24])  # 24 is the second episode's first
    weighted = build_policy(arm_data, early_anchor_weight=3.0, early_anchor_steps=4, noise_seed=1).train()
    weighted.load_state_dict(plain.state_dict())
    ratio = weighted.forward(batch, reduction="none")[0] / plain.forward(batch, reduction="none")[0]
    torch.testing.assert_close(ratio, torch.tensor([3.0, 1.0, 3.0]))


def test_padded_chunks_do_not_count(arm_data: Path):
    """Of a window with 7 steps left, the second chunk is as good as not there, beside a whole window too."""
    policy = build_policy(arm_data).train()
    batch = make_batch(arm_data, policy.config, [0, 17])
    assert policy.reader.window(batch).latent.shape[2] == 5
    loss = policy.forward(batch)[0]
    batch["action"][1, 8:] = 7.0
    batch["observation.images.front"][1, 9:] = 0.5
    assert policy.forward(batch)[0] == loss
    batch["action"][1, 6] += 0.1
    assert policy.forward(batch)[0] != loss


@pytest.mark.parametrize("state", [True, False])
@pytest.mark.parametrize("robot_type", ["wam_sim_viperx", None])
def test_video_alone_trains(tmp_path: Path, state: bool, robot_type: str | None):
    data = write_dataset(tmp_path / "video", (20, 20), state=state, action=False, robot_type=robot_type)
    policy = build_policy(data).train()
    assert policy.action_spaces[0].spec.action == ()
    assert len(policy.action_spaces[0].spec.state) == (6 if state else 0)
    loss, parts = policy.forward(make_batch(data, policy.config))
    loss.backward()
    assert parts["video_loss"] > 0
    assert parts["action_loss"] == parts["bc_loss"] == 0
    assert policy.model.patch_embedding.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="has no actions, only video: this policy can dream, not act"):
        policy.select_action({"observation.images.front": torch.rand(1, 3, 32, 32)})


def test_a_robot_policy_goes_on_with_video_alone(arm_data: Path, tmp_path: Path):
    data = write_dataset(tmp_path / "video", (20, 20), action=False)
    robot = build_policy(arm_data)
    robot.save_pretrained(tmp_path / "robot")
    config = WAMPolicy.from_pretrained(tmp_path / "robot").config
    config.pretrained_path = tmp_path / "robot"
    policy = build_policy(data, config).train()
    assert len(policy.action_spaces[0].spec.action) == 6
    _, parts = policy.forward(make_batch(data, policy.config))
    assert parts["action_loss"] == 0 < parts["video_loss"]


def test_windows_end_where_the_task_changes(tmp_path: Path):
    """Two tasks in an episode: what comes after the change is as good as not there."""
    data = write_dataset(tmp_path / "two", (24, 24), tasks=lambda episode, step: "push" if step < 13 else "touch")
    policy = build_policy(data).train()
    batch = make_batch(data, policy.config, [1, 30])
    window = policy.reader.window(batch)
    real = window.action_mask[..., 0].sum(dim=1).tolist()
    assert real == [12, 7]  # to step 13 of each episode, from steps 1 and 6
    # A latent is real if all its four frames are: the frame that shows the last action's result counts.
    assert window.frame_mask.tolist() == [[True, True, True, True, False], [True, True, False, False, False]]
    loss = policy.forward(batch)[0]
    after = torch.arange(16) >= torch.tensor([[12], [7]])
    batch["action"] = torch.where(after[..., None], torch.zeros(()), batch["action"])
    shown_after = torch.arange(17) > torch.tensor([[12], [7]])
    front = batch["observation.images.front"]
    batch["observation.images.front"] = torch.where(shown_after[..., None, None, None], 1 - front, front)
    assert policy.forward(batch)[0] == loss
