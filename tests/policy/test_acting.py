"""`select_action` and `predict_action_chunk` as LeRobot calls them."""

from pathlib import Path

import pytest
import torch
from tiny_policies import build_policy, observe

from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.processor_wam import make_wam_pre_post_processors
from lerobot_wam.runtime.state import LoopRules
from lerobot_wam.runtime.stitching import smooth


@pytest.fixture
def policy(arm_data: Path) -> WAMPolicy:
    """A policy whose random weights act on what they see."""
    torch.manual_seed(0)
    return build_policy(arm_data).eval()


def one(batch: dict, row: int) -> dict:
    return {key: value[row : row + 1] for key, value in batch.items()}


def test_several_robots_equal_single_runs(policy: WAMPolicy):
    """Also at other tasks, and at other places of their windows: robot 1 is told something else at step 3."""
    tasks = lambda step: ["push red", "push red" if step < 3 else "push blue", "touch it"]  # noqa: E731
    batches = [observe(policy, 3, seed=step, task=tasks(step)) for step in range(20)]
    together = torch.stack([policy.select_action(batch) for batch in batches], dim=1)
    seed = policy.config.seed
    for row in range(3):
        policy.reset()
        policy.config.seed = seed + row
        alone = torch.cat([policy.select_action(one(batch, row)) for batch in batches])
        torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-5)
    assert len({tuple(actions.flatten().tolist()) for actions in together}) == 3


def test_a_chunk_asked_for_on_the_side_disturbs_nobody(policy: WAMPolicy):
    batches = [observe(policy, 2, seed=step) for step in range(20)]
    undisturbed = [policy.select_action(batch) for batch in batches]
    policy.reset()
    chunks = []
    for step, batch in enumerate(batches):
        assert torch.equal(policy.select_action(batch), undisturbed[step])
        chunks.append(policy.predict_action_chunk(batch))
    assert chunks[0].shape == (2, 8, 6)
    assert not chunks[0].requires_grad
    assert torch.equal(chunks[0][:, 0], undisturbed[0])  # at the first step both know the same
    assert torch.equal(chunks[3], policy.predict_action_chunk(batches[3]))


def test_reset_repeats_and_seed_changes(policy: WAMPolicy):
    batch = observe(policy)
    first = policy.select_action(batch)
    policy.reset()
    assert torch.equal(policy.select_action(batch), first)
    policy.reset()
    policy.config.seed += 1
    assert not torch.equal(policy.select_action(batch), first)


def test_actions_are_absolute_and_physical(policy: WAMPolicy):
    """With the velocity held at zero the noise is the normalised action: decode it by hand, from the anchor state."""
    for layer in (policy.acting_model.action_decoder.layer2, policy.acting_model.action_decoder.layer1):
        torch.nn.init.zeros_(layer.W)
        torch.nn.init.zeros_(layer.b)
    batch = observe(policy)
    generator = torch.Generator().manual_seed(policy.config.seed)
    torch.randn(24, 2, 2, 2, generator=generator)  # the video's share of the session's stream
    noise = torch.randn(8, 16, generator=generator)[:, :6]
    statistics = policy.config.embodiments["wam_sim_viperx"]["statistics"]
    low, high = (torch.tensor(statistics[f"action_{side}"]) for side in ("low", "high"))
    relative = ((noise.double() + 1) / 2 * (high - low) + low).float()
    expected = batch["observation.state"] + relative
    torch.testing.assert_close(policy.predict_action_chunk(batch)[0], expected, rtol=0, atol=1e-4)
    moved = batch | {"observation.state": batch["observation.state"] + 0.3}
    torch.testing.assert_close(policy.predict_action_chunk(moved)[0], expected + 0.3, rtol=0, atol=1e-4)


def test_processors_leave_physical_units_alone(policy: WAMPolicy):
    """LeRobot's pipelines only batch, move and rename; a single robot's observation gets its batch dimension."""
    before, after = make_wam_pre_post_processors(policy.config, {})
    batch = observe(policy)
    single = {key: value[0] for key, value in batch.items()}
    processed = before(single)
    assert torch.equal(processed["observation.state"], batch["observation.state"])
    action = policy.select_action(processed)
    assert torch.equal(after(action), action)


def test_fewer_steps_per_chunk_restart_the_window(arm_data: Path):
    policy = build_policy(arm_data, n_action_steps=3).eval()
    starts = []
    for step in range(9):
        policy.select_action(observe(policy, seed=step))
        starts.append((policy._sessions[0].chunks, policy._sessions[0].dream.starts_window))
    assert starts == [(1, True)] * 3 + [(2, True)] * 3 + [(3, True)] * 3


def test_smoothing_filters_every_chunk(policy: WAMPolicy):
    batch = observe(policy)
    raw = policy.predict_action_chunk(batch)[0]
    policy.config.smoothing = True
    filtered = smooth(raw, [False] * 6)
    torch.testing.assert_close(policy.predict_action_chunk(batch)[0], filtered)
    assert not torch.allclose(filtered, raw, atol=1e-2)


def test_two_cameras_are_tiled(mobile_data: Path):
    policy = build_policy(mobile_data).eval()
    batch = observe(policy)
    head, wrist = batch["observation.images.head"], batch["observation.images.wrist"]
    tiled = policy._observations(batch)[0].frame
    torch.testing.assert_close(tiled, torch.cat([head, wrist], dim=3)[0] * 2 - 1)
    assert policy.select_action(batch).shape == (1, 3)


def test_one_dial_makes_the_loop_and_the_loss_official(arm_data: Path):
    """`compat=official` reaches the network, the loop, the sampler and the objective; ours differs in each."""
    official, ours = (
        build_policy(arm_data, compat=compat, solver="unipc", num_inference_steps=16) for compat in ("official", "wam")
    )
    loop = official.runtime
    assert loop.rules == LoopRules(restart_frame="official", noise_stream="fixed", padded_actions="noise")
    assert ours.runtime.rules == LoopRules()
    assert (loop.sampler.computed_steps, ours.runtime.sampler.computed_steps) == ("8", "all")
    assert (loop.model.config.state_self_only, ours.model.config.state_self_only) == (False, True)
    assert (official.objective.averaging, official.objective.noise.action_level_per_chunk) == ("official", False)
    batches = [observe(official, seed=step) for step in range(2 * official.config.chunk_steps + 1)]
    actions = [official.eval().select_action(batch) for batch in batches]
    official.reset()
    again = [official.select_action(batch) for batch in batches]  # the same noise for every chunk of every episode
    assert torch.equal(torch.cat(actions), torch.cat(again))
