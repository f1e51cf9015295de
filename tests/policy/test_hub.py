"""Pushing to and pulling from the Hub, with its real client against a local one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hub_endpoint import Hub
from huggingface_hub import HfApi, ModelCard
from lerobot.configs.default import DatasetConfig
from lerobot.configs.train import TrainPipelineConfig
from lerobot.policies import make_pre_post_processors
from lerobot.scripts import lerobot_train
from tiny_policies import MOBILE_JOINTS, build_policy, observe, tiny_config

from lerobot_wam.modeling_wam import WAMPolicy

REPO = "user/arm"
CHECKPOINT = {"config.json", "model.safetensors", "train_config.json", "README.md"}


def same_actions(first: WAMPolicy, second: WAMPolicy) -> bool:
    return all(
        torch.equal(first.select_action(observe(first, seed=s)), second.select_action(observe(second, seed=s)))
        for s in range(9)
    )


def test_training_pushes_a_checkpoint_that_others_can_load(
    hub: Hub, train: Callable[..., Path], arm_data: Path, tmp_path: Path
):
    run = train(arm_data, tmp_path / "run", tiny_config(push_to_hub=True, repo_id=REPO))
    files = hub.files(REPO)
    assert files.keys() >= CHECKPOINT | {"policy_preprocessor.json", "policy_postprocessor.json"}
    pulled = WAMPolicy.from_pretrained(REPO)
    local = WAMPolicy.from_pretrained(run / "checkpoints/last/pretrained_model")
    assert same_actions(pulled, local)
    make_pre_post_processors(pulled.config, pretrained_path=REPO)

    card = ModelCard(files["README.md"].decode())
    assert (card.data.library_name, card.data.pipeline_tag) == ("lerobot", "robotics")
    assert {"lerobot", "robotics", "wam"} <= set(card.data.tags)
    assert card.data.datasets == ["local/arm"]
    assert "pip install lerobot-policy-wam" in card.text
    assert f"--policy.path={REPO}" in card.text
    assert "| wam_sim_viperx | front | waist.pos, shoulder.pos" in card.text
    assert "wrist_rotate.pos (rad) | 10 Hz, chunks of 8 steps |" in card.text
    assert "| local/arm | wam_sim_viperx | 4 | 88 | 10 Hz | 2 |" in card.text
    assert "| Steps | 2 |" in card.text
    assert "| Optimizer | muon_adamw |" in card.text
    assert '--task="push red"' in card.text


def test_save_pretrained_can_push(hub: Hub, arm_data: Path, tmp_path: Path):
    policy = build_policy(arm_data).eval()
    policy.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id=REPO)
    assert hub.files(REPO).keys() >= {"config.json", "model.safetensors"}
    assert same_actions(policy, WAMPolicy.from_pretrained(REPO))


def test_a_hub_dataset_trains(hub: Hub, mobile_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    HfApi().create_repo("user/mobile", repo_type="dataset")
    HfApi().upload_folder(repo_id="user/mobile", repo_type="dataset", folder_path=mobile_data)
    flags = ["--dataset.repo_id=user/mobile", f"--dataset.root={tmp_path / 'fetched'}", "--dataset.revision=main"]
    flags += ["--num_workers=0", "--steps=1", "--batch_size=1", f"--output_dir={tmp_path / 'run'}", "--env_eval_freq=0"]
    config = {k: v for k, v in vars(tiny_config()).items() if k in ("dim", "num_layers", "num_heads", "max_chunks")}
    flags += ["--policy.type=wam", "--policy.device=cpu", "--policy.push_to_hub=false"]
    flags += [f"--policy.{name}={value}" for name, value in config.items()]
    monkeypatch.setattr("sys.argv", ["lerobot-train", *flags])
    monkeypatch.setattr(lerobot_train, "init_logging", lambda **kwargs: None)
    lerobot_train.train()
    policy = WAMPolicy.from_pretrained(tmp_path / "run/checkpoints/last/pretrained_model")
    spec = policy.action_spaces[0].spec
    assert (spec.name, spec.fps, list(spec.action_names)) == ("mobile_lift", 30, MOBILE_JOINTS)
    assert spec.grid == (1, 2)


def test_a_card_needs_neither_training_settings_nor_metadata(mobile_data: Path):
    """LeRobot 0.6.1's call, a later one with more arguments, and none at all."""
    policy = build_policy(mobile_data)
    bare = policy.generate_model_card()
    assert "base.pos, lift.pos, gripper.pos (unit unknown)" in bare.text
    cfg = TrainPipelineConfig(DatasetConfig("user/mobile"), policy=policy.config, steps=7)
    cfg.optimizer = policy.config.get_optimizer_preset()
    card = policy.generate_model_card("user/mobile", "wam", "mit", ["tag"], cfg=cfg, dataset_meta=None, later=1)
    assert (card.data.license, card.data.datasets) == ("mit", ["user/mobile"])
    assert "tag" in card.data.tags
    assert "| Steps | 7 |" in card.text
