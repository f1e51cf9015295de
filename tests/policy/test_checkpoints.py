"""What a checkpoint keeps, and what is said of one that does not fit."""

import json
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


def test_no_embodiment_and_no_data():
    with pytest.raises(ValueError, match="knows no embodiment: train it on a dataset"):
        WAMPolicy(tiny_config())
