"""The launch files fit accelerate and the policy; sharded and averaged training starts right or not at all."""

import functools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate.state
import pytest
import torch
import torch.multiprocessing
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env
from tiny_policies import build_policy, make_batch, write_dataset
from torch.distributed.fsdp import FullStateDictConfig, MixedPrecision, ShardingStrategy, StateDictType
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP  # noqa: N817
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

from lerobot_wam.command_line import SettingError
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.model.transformer import Block
from lerobot_wam.model.world_action_model import WorldActionModel
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.presets import PRESETS

FILES = sorted((Path(__file__).parents[1] / "launch").glob("*.yaml"))
SHARDED = [path for path in FILES if "fsdp" in path.name]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "arm")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_takes_the_file(path: Path):
    config = ClusterConfig.from_yaml_file(path)
    expected = DistributedType.FSDP if path in SHARDED else DistributedType.MULTI_GPU
    assert config.distributed_type == expected
    assert (config.num_machines > 1) == ("multinode" in path.name)
    assert config.num_processes == 8 * config.num_machines


@pytest.mark.parametrize("path", SHARDED, ids=lambda path: path.stem)
def test_what_accelerate_hands_on_shards_our_blocks(path: Path, monkeypatch: pytest.MonkeyPatch, data: Path):
    """From the file through accelerate's launcher and environment to the plugin that wraps the policy."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    words = [f"--config_file={path}", "--num_processes=8", "-m", "lerobot.scripts.lerobot_train"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    environment = prepare_multi_gpu_env(args)
    for name, value in environment.items():
        if name.startswith(("FSDP_", "ACCELERATE_USE_FSDP")):
            monkeypatch.setenv(name, value)
    plugin = accelerate.FullyShardedDataParallelPlugin()
    assert (plugin.fsdp_version, plugin.sharding_strategy) == (1, ShardingStrategy.FULL_SHARD)
    assert (plugin.state_dict_type, plugin.use_orig_params) == (StateDictType.FULL_STATE_DICT, True)
    assert plugin.activation_checkpointing is False
    assert WAMPolicy._fsdp_wrap_modules == plugin.transformer_cls_names_to_wrap == ["Block"]
    policy = build_policy(data)
    plugin.set_auto_wrap_policy(policy)
    assert plugin.auto_wrap_policy.keywords == {"transformer_layer_cls": {Block}}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_sharded(preset: str):
    """FSDP refuses parameters without a dimension, and shards what stands in blocks."""
    with torch.device("meta"):
        model = WorldActionModel(WAMConfig(preset=preset, device="cpu").model_config)
    assert [name for name, p in model.named_parameters() if p.ndim == 0 or p.numel() == 0] == []
    in_blocks = sum(p.numel() for p in model.blocks.parameters())
    assert {type(block) for block in model.blocks} == {Block}
    assert preset == "nano" or in_blocks > 0.8 * sum(p.numel() for p in model.parameters())


@pytest.fixture
def sharding(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """accelerate's state as it is when LeRobot builds a policy that will be sharded in bfloat16."""
    precision = MixedPrecision(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)
    state = SimpleNamespace(
        distributed_type=DistributedType.FSDP, fsdp_plugin=SimpleNamespace(mixed_precision_policy=precision)
    )
    monkeypatch.setattr(accelerate.state, "is_initialized", lambda: True)
    monkeypatch.setattr(accelerate.state, "AcceleratorState", lambda: state)
    return state


def test_sharded_batches_and_gradient_sums_keep_full_precision(sharding: SimpleNamespace, data: Path):
    build_policy(data, ema_decay=0.0, optimizer="adamw")
    precision = sharding.fsdp_plugin.mixed_precision_policy
    assert (precision.param_dtype, precision.reduce_dtype) == (torch.bfloat16, torch.float32)
    assert precision.cast_root_forward_inputs is False


@pytest.mark.parametrize(("settings", "way_out"), [({}, "ema_decay=0"), ({"ema_decay": 0.0}, "optimizer=adamw")])
def test_what_cannot_be_sharded_is_refused_at_the_start(
    sharding: SimpleNamespace, data: Path, settings: dict[str, Any], way_out: str
):
    with pytest.raises(SettingError, match=way_out):
        build_policy(data, **settings)


def test_our_average_steps_aside_for_that_of_lerobot(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(sys, "argv", ["lerobot-train", "--ema.enable=true"])
    policy = build_policy(data)
    assert policy.ema_model is None
    assert policy.config.ema_decay == 0
    assert "LeRobot averages the weights (--ema.enable): policy.ema_decay=0.99 steps aside" in caplog.text


# Several processes


def shard_and_compare(rank: int, root: Path, store: Path) -> None:
    """One of two processes: the loss, gradient and update of sharded weights beside those of the whole."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    settings: dict[str, Any] = {"ema_decay": 0.0, "optimizer": "adamw", "num_layers": 2, "noise_seed": 1}
    torch.manual_seed(0)
    whole = build_policy(root, **settings).train()
    torch.manual_seed(0)
    policy = build_policy(root, **settings).train()
    build = policy.config.get_optimizer_preset().build
    optimizer, expected_optimizer = build(policy.get_optim_params()), build(whole.get_optim_params())
    wrap = functools.partial(transformer_auto_wrap_policy, transformer_layer_cls={Block})
    sharded = FSDP(policy, auto_wrap_policy=wrap, use_orig_params=True, device_id=torch.device("cpu"))
    held, total = (sum(p.numel() for p in module.parameters()) for module in (sharded, whole))
    assert held == pytest.approx(total / 2, rel=0.01)

    indices = [0, 9, 5, 14]
    expected = whole.forward(make_batch(root, whole.config, indices))[0]
    loss = sharded(make_batch(root, whole.config, indices[2 * rank : 2 * rank + 2]))[0]
    expected.backward()
    loss.backward()
    mean = loss.detach() / 2
    torch.distributed.all_reduce(mean)
    torch.testing.assert_close(mean, expected.detach())
    norm = torch.nn.utils.clip_grad_norm_(whole.parameters(), 1.0)
    torch.testing.assert_close(sharded.clip_grad_norm_(1.0), norm)
    optimizer.step()
    expected_optimizer.step()
    with FSDP.state_dict_type(sharded, StateDictType.FULL_STATE_DICT, FullStateDictConfig(offload_to_cpu=False)):
        state = sharded.state_dict()
    assert state.keys() == whole.state_dict().keys()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=1e-5, msg=name)
    # Windows of two lengths here and of one there: both must call every block equally often, or they wait forever.
    sharded(make_batch(root, whole.config, [0, (5, 40)[rank]]))[0].backward()
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.is_available(), reason="forks, which CUDA forbids")
def test_two_processes_with_half_the_weights_each_train_as_one_with_all(data: Path, tmp_path: Path):
    torch.multiprocessing.start_processes(shard_and_compare, (data, tmp_path / "store"), nprocs=2, start_method="fork")
