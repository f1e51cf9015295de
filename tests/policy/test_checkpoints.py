"""What a checkpoint keeps, and what is said of one that does not fit."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import draccus
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from safetensors.torch import load_file, save_file
from tiny_policies import build_policy, observe, tiny_config

from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.presets import PRESETS
from lerobot_wam.weights import read_weights

ACTION_WEIGHT = "model.action_decoder.layer1.W"


@pytest.fixture
def saved(arm_data: Path, tmp_path: Path) -> Path:
    """A checkpoint whose average differs from its weights."""
    policy = build_policy(arm_data)
    with torch.no_grad():
        for parameter in policy.ema_model.parameters():
            parameter += 0.01
    policy.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def rewrite(saved: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(saved / "model.safetensors")
    change(state)
    save_file(state, saved / "model.safetensors")


def test_round_trip_keeps_everything(saved: Path, arm_data: Path):
    first, second = (WAMPolicy.from_pretrained(saved) for _ in range(2))
    second.save_pretrained(saved.with_name("again"))
    third = WAMPolicy.from_pretrained(saved.with_name("again"))
    assert draccus.encode(first.config) == draccus.encode(third.config)
    state = third.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.state_dict().items())
    for step in range(10):
        assert torch.equal(*(p.select_action(observe(p, seed=step)) for p in (first, third)))


def test_stored_fields_win_over_the_preset(saved: Path, monkeypatch: pytest.MonkeyPatch):
    changed = {"solver": "unipc", "num_inference_steps": 9, "ema_decay": 0.5, "state_self_only": False, "state_dim": 7}
    monkeypatch.setitem(PRESETS, "nano", PRESETS["nano"] | changed)
    assert WAMConfig(device="cpu").solver == "unipc"
    config = WAMPolicy.from_pretrained(saved).config
    assert (config.solver, config.num_inference_steps, config.ema_decay) == ("euler", 2, 0.99)
    assert (config.state_self_only, config.state_dim) == (True, 16)


def test_command_line_wins_over_the_stored_fields(saved: Path):
    flags = ["--n_action_steps=4", "--num_inference_steps=1", "--solver=unipc"]
    config = PreTrainedConfig.from_pretrained(saved, cli_overrides=flags)
    policy = WAMPolicy.from_pretrained(saved, config=config)
    assert (policy.runtime.execute_steps, policy.runtime.sampler.steps) == (4, 1)
    assert policy.select_action(observe(policy)).shape == (1, 6)


def test_json_holds_plain_values_only(saved: Path):
    config = json.loads((saved / "config.json").read_text())
    assert config["type"] == "wam"
    assert config["embodiments"]["wam_sim_viperx"]["statistics"]["steps"] == 88
    assert None not in [config[name] for name, value in PRESETS["nano"].items() if value is not None]


def test_without_an_average_the_averaged_weights_act(saved: Path):
    stored = load_file(saved / "model.safetensors")
    config = PreTrainedConfig.from_pretrained(saved, cli_overrides=["--ema_decay=0"])
    policy = WAMPolicy.from_pretrained(saved, config=config)
    assert policy.ema_model is None
    assert all(torch.equal(p, stored[f"ema_model.{name}"]) for name, p in policy.model.named_parameters())


def test_an_average_that_was_not_stored_starts_from_the_weights(saved: Path):
    rewrite(saved, lambda state: [state.pop(name) for name in list(state) if name.startswith("ema_model.")])
    policy = WAMPolicy.from_pretrained(saved)
    weights = dict(policy.model.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in policy.ema_model.named_parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("model.head.head.weight"), r"1 tensors: missing model.head.head.weight$"),
        (lambda state: state.update(spare=torch.zeros(1)), r"1 tensors: unexpected spare$"),
        (
            lambda state: state.update({"model.head.head.bias": torch.zeros(5)}),
            r"1 tensors: model.head.head.bias is \[5\], expected \[24\]$",
        ),
    ],
)
def test_a_misfit_names_the_tensors(saved: Path, change: Callable, message: str):
    rewrite(saved, change)
    with pytest.raises(ValueError, match=message) as error:
        WAMPolicy.from_pretrained(saved)
    assert len(str(error.value).splitlines()) == 1


def test_another_size_names_some_tensors_and_counts_all(saved: Path):
    config = PreTrainedConfig.from_pretrained(saved, cli_overrides=["--dim=64"])
    with pytest.raises(ValueError, match=r"does not fit the configuration in \d\d+ tensors: .* expected \[.* \.\.\.$"):
        WAMPolicy.from_pretrained(saved, config=config)


def test_a_damaged_file_is_named(saved: Path):
    data = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged \(.*\): copy or download it again"):
        WAMPolicy.from_pretrained(saved)


def test_missing_and_damaged_shards_are_named(saved: Path):
    sharded = resave(saved, max_shard_size="100KB")
    shards = sorted(sharded.glob("model-*.safetensors"))
    assert len(shards) > 2
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{shards[1].name} is damaged"):
        WAMPolicy.from_pretrained(sharded)
    shards[1].unlink()
    with pytest.raises(FileNotFoundError, match=rf"lacks 1 of {len(shards)} weight files: {shards[1].name};"):
        WAMPolicy.from_pretrained(sharded)
    (sharded / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"index.json is damaged \(KeyError\('weight_map'\)\)"):
        WAMPolicy.from_pretrained(sharded)
    (sharded / "model.safetensors.index.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"expected model.safetensors or model.safetensors.index.json"):
        WAMPolicy.from_pretrained(sharded)


def resave(saved: Path, **settings: str) -> Path:
    """The same checkpoint, saved with other settings."""
    flags = [f"--{name}={value}" for name, value in settings.items()]
    policy = WAMPolicy.from_pretrained(saved, config=PreTrainedConfig.from_pretrained(saved, cli_overrides=flags))
    folder = saved.with_name("-".join(settings.values()))
    policy.save_pretrained(folder)
    return folder


def test_shards_hold_the_same_checkpoint(saved: Path):
    sharded = resave(saved, max_shard_size="100KB")
    assert not (sharded / "model.safetensors").exists()
    assert len(list(sharded.glob("model-*.safetensors"))) > 2
    first, second = (WAMPolicy.from_pretrained(folder) for folder in (saved, sharded))
    state = second.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.state_dict().items())
    assert torch.equal(*(p.select_action(observe(p)) for p in (first, second)))


def test_half_precision_is_kept_and_can_be_left(saved: Path):
    half = resave(saved, weights_dtype="bfloat16")
    assert {value.dtype for value in load_file(half / "model.safetensors").values()} == {torch.bfloat16}
    policy = WAMPolicy.from_pretrained(half)
    assert {p.dtype for p in policy.parameters()} == {torch.bfloat16}
    assert torch.isfinite(policy.select_action(observe(policy))).all()
    full = WAMPolicy.from_pretrained(resave(half, weights_dtype="float32"))
    rounded = WAMPolicy.from_pretrained(saved).to(torch.bfloat16).state_dict()
    assert all(torch.equal(value.to(torch.bfloat16), rounded[name]) for name, value in full.state_dict().items())
    assert {p.dtype for p in full.parameters()} == {torch.float32}


def test_one_shared_category_fills_all(saved: Path):
    """As official checkpoints have it, for a policy with weights of their own for several robots."""

    def keep_first(state: dict[str, torch.Tensor]) -> None:
        for name in state:
            if any(part in name for part in ("state_encoder", "action_encoder", "action_decoder", "bc_head.layer")):
                state[name] = state[name][:1].clone()

    rewrite(saved, keep_first)
    policy = WAMPolicy.from_pretrained(saved)
    weight = policy.model.action_decoder.layer1.W
    assert weight.shape[0] == 4
    assert torch.equal(weight, load_file(saved / "model.safetensors")[ACTION_WEIGHT].expand_as(weight))
    assert torch.isfinite(policy.select_action(observe(policy))).all()


def test_loading_draws_no_weights(saved: Path):
    """The network is made without memory, so a big one needs its own size once."""
    before = torch.get_rng_state()
    WAMPolicy.from_pretrained(saved)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("old_size", "new_size"), [("5GB", "50KB"), ("50KB", "5GB"), ("50KB", "90KB")])
def test_a_killed_save_leaves_a_whole_checkpoint(arm_data: Path, tmp_path: Path, old_size: str, new_size: str):
    """Kill the saving process before each single change it makes to the disk: what is left is all old or all new."""
    small = {"visual_summary": False, "auxiliary_bc_weight": 0.0, "ema_decay": 0.0}
    policy = build_policy(arm_data, max_shard_size=old_size, **small)
    policy.save_pretrained(tmp_path / "old")
    expected = {policy.config.seed: {name: value.clone() for name, value in policy.state_dict().items()}}
    policy.config.max_shard_size, policy.config.seed = new_size, 7
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 1
    expected[7] = policy.state_dict()

    seeds, target, killed = [], tmp_path / "target", True
    while killed:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(tmp_path / "old", target)
        killed = save_and_die(policy, target, point=len(seeds))
        seeds.append(json.loads((target / "config.json").read_text())["seed"])  # LeRobot reads it first
        weights = read_weights(target, policy.state_dict(), "cpu")
        assert all(torch.equal(weights[name], value) for name, value in expected[seeds[-1]].items())
    assert seeds == sorted(seeds)
    assert 2 < seeds.count(0) < len(seeds) - 2
    policy.save_pretrained(tmp_path / "new")
    assert {path.name for path in target.iterdir()} == {path.name for path in (tmp_path / "new").iterdir()}
    assert torch.equal(*(p.select_action(observe(p)) for p in (policy.eval(), WAMPolicy.from_pretrained(target))))


CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def save_and_die(policy: WAMPolicy, folder: Path, point: int) -> bool:
    """Save in a process that dies by SIGKILL just before its change number `point`; False where it had fewer."""
    child = os.fork()
    if child == 0:
        changes = iter(range(point))

        def die(event: str, args: tuple) -> None:
            writes = event == "open" and isinstance(args[1], str) and args[1].strip("bt") != "r"
            if (event in CHANGES or writes) and next(changes, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die)
        policy.save_pretrained(folder)
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


def test_a_failed_save_cleans_up(saved: Path, monkeypatch: pytest.MonkeyPatch):
    policy = WAMPolicy.from_pretrained(saved)
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(policy.config, "_save_pretrained", full_disk)
    with pytest.raises(OSError, match="No space left"):
        policy.save_pretrained(saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_no_embodiment_and_no_data():
    with pytest.raises(ValueError, match="knows no embodiment: train it on a dataset"):
        WAMPolicy(tiny_config())
