"""LoRA through LeRobot's `--peft.*`: the defaults hit the right matrices, and an adapter checkpoint acts as it did."""

import dataclasses
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.configs.default import PeftConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.policies import make_policy, make_pre_post_processors
from lerobot.scripts import lerobot_train
from safetensors.torch import load_file
from tiny_policies import build_policy, make_batch, observe

from lerobot_wam.configuration_wam import WAMConfig

OWN = ("state_encoder", "action_encoder", "action_decoder")


@pytest.fixture
def base(arm_data: Path, tmp_path: Path) -> Path:
    """A checkpoint whose average, which is what acts, differs from its weights."""
    policy = build_policy(arm_data, num_layers=2)
    with torch.no_grad():
        for parameter in policy.ema_model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    policy.save_pretrained(tmp_path / "base")
    for pipeline in make_pre_post_processors(policy.config, dataset_stats={}):
        pipeline.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def config_of(folder: Path) -> WAMConfig:
    config = PreTrainedConfig.from_pretrained(folder)
    config.pretrained_path = folder
    return config


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def actions(policy) -> torch.Tensor:
    policy.reset()
    return torch.cat([policy.select_action(observe(policy, seed=step)) for step in range(10)])


def test_default_targets_train_alone_and_load_again(base: Path, arm_data: Path, tmp_path: Path):
    meta, before = LeRobotDatasetMetadata("local/arm", root=arm_data), digest(base)
    policy = make_policy(config_of(base), ds_meta=meta)
    acted = actions(policy.eval())
    wrapped = policy.wrap_with_peft(peft_cli_overrides=dataclasses.asdict(PeftConfig(r=4)))
    assert torch.equal(actions(wrapped.eval()), acted)  # adapters start as nothing, on the weights that act

    trained = {name for name, p in wrapped.named_parameters() if p.requires_grad}
    adapted = {name.partition(".lora_")[0] for name in trained if ".lora_" in name}
    assert len(adapted) == 2 * (4 + 4 + 2)  # per block: self and cross attention q k v o, and the feed-forward pair
    assert all(".lora_" in name or any(module in name for module in OWN) for name in trained)
    assert all(any(module in name for name in trained) for module in OWN)

    start = {name: p.detach().clone() for name, p in wrapped.named_parameters()}
    optimizer = policy.config.get_optimizer_preset().build(wrapped.get_optim_params())
    wrapped.train()
    for _ in range(2):
        wrapped.forward(make_batch(arm_data, policy.config))[0].backward()
        optimizer.step()
        optimizer.zero_grad()
        wrapped.update()
    changed = {name for name, p in wrapped.named_parameters() if not torch.equal(p, start[name])}
    assert changed <= trained
    assert len(changed) > 0.6 * len(trained)  # cross-attention may see too little to move in two steps

    wrapped.save_pretrained(tmp_path / "adapter")
    policy.config.save_pretrained(tmp_path / "adapter")
    config = config_of(tmp_path / "adapter")
    assert config.use_peft
    again = make_policy(config, ds_meta=meta)
    assert torch.equal(actions(again.eval()), actions(wrapped.eval()))
    assert not torch.equal(actions(again.eval()), acted)
    assert digest(base) == before


def test_lerobot_train_writes_adapters(train: Callable[..., Path], base: Path, arm_data: Path, tmp_path: Path):
    before = digest(base)
    run = train(arm_data, tmp_path / "run", config_of(base), peft=PeftConfig(r=4, target_modules=["self_attn.q"]))
    folder = run / "checkpoints/last/pretrained_model"
    names = load_file(folder / "adapter_model.safetensors")
    assert sum("lora_A" in name for name in names) == 2
    assert all("lora_" in name or any(module in name for module in OWN) for name in names)
    assert not (folder / "model.safetensors").exists()
    policy = make_policy(config_of(folder), ds_meta=LeRobotDatasetMetadata("local/arm", root=arm_data))
    assert torch.isfinite(actions(policy.eval())).all()
    assert digest(base) == before


def test_resumed_adapters_equal_an_uninterrupted_run(
    train: Callable[..., Path], base: Path, arm_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """To the last bit, though the base, which holds most weights, is left as it was."""
    config = config_of(base)
    config.warmup_steps = 0
    run = train(arm_data, tmp_path / "run", config, peft=PeftConfig(r=4), steps=4, save_freq=2)
    half, end = (Path("checkpoints") / f"{step:06d}" for step in (2, 4))
    config_path = run / half / "pretrained_model/train_config.json"
    monkeypatch.setattr(sys, "argv", ["lerobot-train", f"--config_path={config_path}", "--resume=true"])
    cfg = TrainPipelineConfig.from_pretrained(config_path)
    cfg.resume, cfg.output_dir = True, tmp_path / "resumed"
    torch.manual_seed(99)
    lerobot_train.train(cfg)
    start = load_file(run / half / "pretrained_model/adapter_model.safetensors")
    for file in ("pretrained_model/adapter_model.safetensors", "training_state/optimizer_state.safetensors"):
        straight, resumed = load_file(run / end / file), load_file(tmp_path / "resumed" / end / file)
        assert straight.keys() == resumed.keys()
        assert [name for name in straight if not torch.equal(straight[name], resumed[name])] == [], file
    straight = load_file(run / end / "pretrained_model/adapter_model.safetensors")
    assert any(not torch.equal(start[name], straight[name]) for name in start if "lora_A" in name)
