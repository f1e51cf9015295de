"""What the comparison of the adaptation benchmark rests on: a robot that knows nothing, and paired scenes."""

from pathlib import Path

import pytest
import torch
from lerobot.policies import make_pre_post_processors
from tiny_policies import build_policy, write_dataset

from benchmarks import adaptation, paired
from lerobot_wam.modeling_wam import WAMPolicy


def test_the_change_is_of_pairs_and_so_is_its_interval():
    before = [1.0] * 50 + [0.0] * 50
    found = paired.compared(before, [1.0] * 49 + [0.0] * 48 + [1.0] * 3)
    assert found["scenes"] == 100
    assert found["change"] == pytest.approx(0.02)
    low, high = found["change_95"]
    assert -0.03 < low < 0 < high < 0.06  # unpaired it would be as wide as 0.28
    assert paired.by_scene([[True, False], [True, True], [True, False]]) == pytest.approx([1, 1 / 3])


def test_heads_from_scratch_begin_at_random_in_an_unchanged_network(tmp_path: Path):
    policy = build_policy(write_dataset(tmp_path / "arm", (20,)))
    policy.save_pretrained(tmp_path / "base")
    for pipeline in make_pre_post_processors(policy.config, dataset_stats={}):
        pipeline.save_pretrained(tmp_path / "base")
    folder = adaptation.with_random_robot(tmp_path / "base", tmp_path / "blank", seed=0)
    blank = WAMPolicy.from_pretrained(folder)
    assert list(blank.config.embodiments) == ["wam_sim_viperx", adaptation.SCRATCH]
    old, new = policy.model.action_encoder.W1.W, blank.model.action_encoder.W1.W
    assert torch.equal(new[0], old[0])
    assert not torch.equal(new[1], old[0])
    assert new[1].std().item() == pytest.approx(0.02, rel=0.3)  # the official initialisation
    assert torch.equal(blank.ema_model.action_encoder.W1.W[1], new[1])
    assert torch.equal(blank.model.patch_embedding.weight, policy.model.patch_embedding.weight)
    assert (folder / "policy_preprocessor.json").is_file()
    assert not list(tmp_path.glob("tmp*"))
