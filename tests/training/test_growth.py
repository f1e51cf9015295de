"""A new robot joins a checkpoint: the old ones act as before, the new one begins as its nearest relative."""

from pathlib import Path

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from safetensors.torch import load_file, save_file
from tiny_policies import ARM_JOINTS, MOBILE_JOINTS, build_policy, observe, write_dataset

from lerobot_wam.embodiments.datasets import derive_embodiment
from lerobot_wam.embodiments.resolve import stored_embodiment
from lerobot_wam.embodiments.statistics import read_columns
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.training.growth import grow_checkpoint, nearest_robot
from lerobot_wam.weights import PER_ROBOT


def describe(root: Path, name: str, joints: list[str], **options) -> dict:
    """Spec and statistics of a robot with these joints."""
    write_dataset(root, (12,), robot_type=name, joints=joints, **options)
    vector = {"dtype": "float32", "shape": (len(joints),), "names": joints}
    camera = {"observation.images.front": {"dtype": "image", "shape": (32, 32, 3)}}
    spec = derive_embodiment(camera | {"observation.state": vector, "action": vector}, 10, name, video_stride=1)
    return stored_embodiment(spec, read_columns(root))


@pytest.fixture(scope="module")
def lift(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return describe(tmp_path_factory.mktemp("lift") / "data", "lift", MOBILE_JOINTS)


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("arm") / "data", (20,))


def actions(policy: WAMPolicy) -> torch.Tensor:
    policy.reset()
    return torch.cat([policy.eval().select_action(observe(policy, seed=step)) for step in range(10)])


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "20KB", "ema_decay": 0.0}, {"max_embodiments": 1}])
def test_old_robots_act_as_before_and_the_new_one_begins_like_the_nearest(
    arm: Path, lift: dict, tmp_path: Path, options: dict
):
    policy = build_policy(arm, **options)
    policy.save_pretrained(tmp_path / "old")
    (tmp_path / "old/policy_preprocessor.json").write_text("{}")
    assert grow_checkpoint(tmp_path / "old", tmp_path / "new", lift, "lift") == "wam_sim_viperx"
    assert (tmp_path / "new/policy_preprocessor.json").read_text() == "{}"
    grown = WAMPolicy.from_pretrained(tmp_path / "new")
    assert (grown.config.embodiment, grown.category) == ("lift", 1)
    assert grown.config.max_embodiments == max(2, policy.config.max_embodiments)
    assert actions(grown).shape == (10, len(MOBILE_JOINTS))
    own = {name: x for name, x in grown.state_dict().items() if any(part in name for part in PER_ROBOT)}
    assert len(own) > 8
    assert all(torch.equal(x[1], x[0]) for x in own.values())
    for name, x in policy.state_dict().items():
        assert torch.equal(own[name][0] if name in own else grown.state_dict()[name], x[0] if name in own else x)
    config = PreTrainedConfig.from_pretrained(tmp_path / "new")
    config.embodiment = "wam_sim_viperx"
    assert torch.equal(actions(WAMPolicy.from_pretrained(tmp_path / "new", config=config)), actions(policy))


@pytest.mark.parametrize("shard", ["5GB", "20KB"])
def test_training_goes_on_from_the_average_that_acts(arm: Path, lift: dict, tmp_path: Path, shard: str):
    policy = build_policy(arm, max_shard_size=shard)
    assert policy.ema_model is not None
    with torch.no_grad():
        for average in policy.ema_model.parameters():
            average += 0.01
    policy.save_pretrained(tmp_path / "old")
    grow_checkpoint(tmp_path / "old", tmp_path / "new", lift, "lift")
    grown = WAMPolicy.from_pretrained(tmp_path / "new")
    assert grown.ema_model is not None
    for name, average in grown.ema_model.state_dict().items():
        assert torch.equal(grown.model.state_dict()[name], average), name
        rows = [0, 2, 3] if any(part in name for part in PER_ROBOT) else slice(None)
        assert torch.equal(average[rows], policy.ema_model.state_dict()[name][rows]), name


def test_shards_keep_their_files(arm: Path, lift: dict, tmp_path: Path):
    build_policy(arm, max_shard_size="20KB").save_pretrained(tmp_path / "old")
    grow_checkpoint(tmp_path / "old", tmp_path / "new", lift, "lift")
    files = sorted(path.name for path in (tmp_path / "old").glob("model*"))
    assert len(files) > 3
    assert sorted(path.name for path in (tmp_path / "new").glob("model*")) == files


def test_one_row_for_all_robots_becomes_one_for_each(arm: Path, lift: dict, tmp_path: Path):
    """Official checkpoints share their per-robot weights; these load into every category."""
    build_policy(arm).save_pretrained(tmp_path / "old")
    tensors = load_file(tmp_path / "old/model.safetensors")
    shared = {name: x[:1].clone() if any(part in name for part in PER_ROBOT) else x for name, x in tensors.items()}
    save_file(shared, tmp_path / "old/model.safetensors", metadata={"format": "pt"})
    grow_checkpoint(tmp_path / "old", tmp_path / "new", lift, "lift")
    weights = WAMPolicy.from_pretrained(tmp_path / "new").model.action_decoder.layer1.W
    assert len(weights) == 4
    assert torch.equal(weights, weights[:1].expand(4, -1, -1))


def test_nearest_shares_names_then_size(tmp_path: Path, lift: dict):
    short = describe(tmp_path / "short", "short", ["a.pos", "b.pos"])
    long = describe(tmp_path / "long", "long", [*ARM_JOINTS, "lift.pos"])
    new = describe(tmp_path / "new", "new", ["x.pos", "y.pos", "z.pos", "lift.pos"])
    assert nearest_robot({"short": short, "long": long, "lift": lift}, new) == "lift"
    assert nearest_robot({"long": long, "short": short}, new) == "long"
    assert nearest_robot({"long": long, "lift": lift}, short) == "lift"


def test_what_cannot_be_added(arm: Path, lift: dict, tmp_path: Path):
    build_policy(arm, action_dim=6, state_dim=6).save_pretrained(tmp_path / "old")
    wide = describe(tmp_path / "wide", "wide", [f"joint_{i}.pos" for i in range(7)])
    for stored, name, like, message in (
        (lift, "wam_sim_viperx", None, "'wam_sim_viperx' is in the checkpoint already"),
        (lift, "lift", "ur5e", "no embodiment 'ur5e' to begin with: the checkpoint knows wam_sim_viperx"),
        (wide, "wide", None, "'wide' has 7 action dimensions, the checkpoint's network 6"),
    ):
        with pytest.raises(ValueError, match=message):
            grow_checkpoint(tmp_path / "old", tmp_path / "new", stored, name, like)
    (tmp_path / "old/adapter_config.json").touch()
    with pytest.raises(ValueError, match="adapters without their base"):
        grow_checkpoint(tmp_path / "old", tmp_path / "new", lift, "lift")
    assert not (tmp_path / "new").exists()
