"""Training, resuming and evaluating through LeRobot's own functions."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.policies import make_policy
from lerobot.scripts import lerobot_train
from safetensors.torch import load_file
from tiny_policies import build_policy, make_batch, observe, tiny_config

from lerobot_wam.modeling_wam import WAMPolicy

Train = Callable[..., Path]


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"{step:06d}"


def test_trains_and_the_checkpoint_loads(train: Train, arm_data: Path, tmp_path: Path):
    run = train(arm_data, tmp_path / "run", tiny_config(), steps=3)
    folder = checkpoint(run, 3) / "pretrained_model"
    policy = WAMPolicy.from_pretrained(folder)
    stored = load_file(folder / "model.safetensors")
    state = policy.state_dict()
    assert stored.keys() == state.keys()
    assert all(torch.equal(stored[name], state[name]) for name in stored)
    assert policy.config.steps_done == 3
    assert list(policy.config.embodiments) == ["wam_sim_viperx"]
    torch.manual_seed(1000)  # LeRobot's default seed
    start = make_policy(tiny_config(), ds_meta=LeRobotDatasetMetadata("local/arm", root=arm_data))
    moved = [name for name, p in start.named_parameters() if not torch.equal(p, state[name])]
    assert len(moved) > 0.9 * len(list(start.named_parameters()))


@pytest.mark.parametrize("optimizer", ["muon_adamw", "adamw"])
def test_resumed_run_equals_an_uninterrupted_one(
    train: Train, arm_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
):
    """To the last bit: weights, averages, optimizer. Within an epoch; beyond it LeRobot 0.6.1 repeats data (#4692)."""
    half = 3
    run = train(arm_data, tmp_path / "run", tiny_config(optimizer=optimizer), steps=2 * half, save_freq=half)
    config_path = checkpoint(run, half) / "pretrained_model" / "train_config.json"
    monkeypatch.setattr(sys, "argv", ["lerobot-train", f"--config_path={config_path}", "--resume=true"])
    cfg = TrainPipelineConfig.from_pretrained(config_path)
    cfg.resume, cfg.output_dir = True, tmp_path / "resumed"
    torch.manual_seed(99)  # nothing may hang on the global generator's place
    lerobot_train.train(cfg)
    for file in ("pretrained_model/model.safetensors", "training_state/optimizer_state.safetensors"):
        straight = load_file(checkpoint(run, 2 * half) / file)
        resumed = load_file(checkpoint(tmp_path / "resumed", 2 * half) / file)
        assert straight.keys() == resumed.keys()
        different = [name for name in straight if not torch.equal(straight[name], resumed[name])]
        assert different == [], file
    assert any(name.startswith("ema_model.") for name in load_file(config_path.with_name("model.safetensors")))


def test_noise_is_a_function_of_seed_and_step(arm_data: Path):
    policy = build_policy(arm_data).train()
    batch = make_batch(arm_data, policy.config)
    loss = policy.forward(batch)[0].item()
    assert policy.forward(batch)[0].item() == loss
    policy.config.steps_done += 1
    later = policy.forward(batch)[0].item()
    policy.config.steps_done -= 1
    policy.config.noise_seed += 1
    assert len({loss, later, policy.forward(batch)[0].item()}) == 3


def test_the_average_follows_fast_at_first_and_slowly_later(arm_data: Path):
    policy = build_policy(arm_data, ema_decay=0.9)
    average, weight = policy.ema_model.head.head.bias, policy.model.head.head.bias
    for step, decay in ((0, 2 / 11), (4, 6 / 15), (999, 0.9)):
        policy.config.steps_done = step
        with torch.no_grad():
            average.zero_(), weight.fill_(1.0)
        policy.update()
        torch.testing.assert_close(average, torch.full_like(average, 1 - decay))
        assert policy.config.steps_done == step + 1


def test_held_out_loss(train: Train, arm_data: Path, tmp_path: Path):
    """`--dataset.eval_split` and `--eval_steps` work; the weights that act are the ones that are measured."""
    train(arm_data, tmp_path / "run", tiny_config(), eval_split=0.5, eval_steps=1, max_eval_samples=2)
    policy = build_policy(arm_data)
    batch = make_batch(arm_data, policy.config)
    losses = {mode: policy.train(mode).forward(batch)[0].item() for mode in (True, False)}
    assert losses[True] == losses[False]
    with torch.no_grad():
        policy.ema_model.patch_embedding.weight *= 2
    assert policy.train().forward(batch)[0].item() == losses[True]
    assert policy.eval().forward(batch)[0].item() != losses[True]


def test_bfloat16_trains_with_full_precision_weights(train: Train, arm_data: Path, tmp_path: Path):
    run = train(arm_data, tmp_path / "run", tiny_config(dtype="bfloat16", gradient_checkpointing=True))
    for file in ("pretrained_model/model.safetensors", "training_state/optimizer_state.safetensors"):
        stored = load_file(checkpoint(run, 2) / file)
        assert {value.dtype for value in stored.values() if value.is_floating_point()} == {torch.float32}, file
        assert all(torch.isfinite(value).all() for value in stored.values()), file


def test_distributed_training_wraps_it(arm_data: Path, tmp_path: Path):
    """As accelerate does, here with one process: video alone leaves heads unused, buffers are broadcast each step."""
    policy = build_policy(arm_data).train()
    batch = make_batch(arm_data, policy.config)
    expected = policy.forward(batch)[0].item()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(policy, find_unused_parameters=True)
        assert wrapped.forward(batch)[0].item() == expected
        for _ in range(2):
            wrapped.forward({key: value for key, value in batch.items() if key != "action"})[0].backward()
            wrapped.module.update()
    finally:
        torch.distributed.destroy_process_group()
    assert policy.config.steps_done == 2


def test_evaluates_in_the_tabletop_and_shows_what_it_imagined(
    train: Train, arm_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """`lerobot-eval` runs the checkpoint with more robots than one, and with fewer actions per chunk."""
    pytest.importorskip("mujoco")
    import imageio.v3 as iio
    from lerobot.configs.default import EvalConfig
    from lerobot.configs.eval import EvalPipelineConfig
    from lerobot.scripts.lerobot_eval import eval_main

    from lerobot_wam.sim.config_tabletop import WAMTabletopEnv

    folder = checkpoint(train(arm_data, tmp_path / "run", tiny_config()), 2) / "pretrained_model"
    videos = {}
    for executed in (8, 4):
        flags = [f"--policy.path={folder}", "--policy.save_predicted_video=true", f"--policy.n_action_steps={executed}"]
        monkeypatch.setattr(sys, "argv", ["lerobot-eval", *flags])
        output = tmp_path / f"eval{executed}"
        cfg = EvalPipelineConfig(
            env=WAMTabletopEnv(image_size=32, episode_length=20, visualization_size=32),
            eval=EvalConfig(n_episodes=2, batch_size=2),
            output_dir=output,
        )
        output.mkdir()
        eval_main(cfg)
        info = json.loads((output / "eval_info.json").read_text())
        assert len(info["per_task"][0]["metrics"]["successes"]) == 2
        videos[executed] = iio.imread(next(output.rglob("pred_episode_0.mp4"))).shape
    # Behind the first frame, which was observed, 20 steps show 3 chunks of 8 frames, or the first 4 of 5 chunks.
    assert videos == {8: (25, 32, 32, 3), 4: (21, 32, 32, 3)}


def test_acting_before_training_leaves_gradients_alone(arm_data: Path):
    """LeRobot evaluates under inference_mode; nothing cached there may reach the next training step."""
    policy = build_policy(arm_data)
    with torch.inference_mode():
        for step in range(18):
            policy.select_action(observe(policy, seed=step))
    policy.train()
    policy.forward(make_batch(arm_data, policy.config))[0].backward()
    assert sum(p.grad.abs().sum() for p in policy.model.parameters() if p.grad is not None) > 0
