"""The speed dial fills the sampler's fields, and the other settings of the closed loop are checked."""

import json
import sys
from pathlib import Path

import pytest
from lerobot.configs import PreTrainedConfig
from tiny_policies import build_policy, observe, tiny_config

from lerobot_wam.approximations import approximations
from lerobot_wam.command_line import SettingError
from lerobot_wam.configuration_wam import CHOICES, WAMConfig
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.presets import SPEEDS

FIELDS = ("num_inference_steps", "computed_steps", "guidance_scale", "video_final_sigma")
SETTINGS = {
    "exact": (16, "all", 5.0, 0.0),
    "official": (16, "8", 5.0, 0.0),
    "fast": (4, "all", 1.0, 0.0),
    "flash": (1, "all", 1.0, 0.8),
}


def resolved(config: PreTrainedConfig) -> tuple[object, ...]:
    return tuple(getattr(config, name) for name in FIELDS)


@pytest.fixture
def saved(arm_data: Path, tmp_path: Path) -> Path:
    build_policy(arm_data).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("speed", SPEEDS)
def test_the_dial_fills_a_new_policy(speed: str):
    for compat in ("wam", "official"):
        config = WAMConfig(preset="wan2.1-14b", device="cpu", speed=speed, compat=compat)
        assert resolved(config) == SETTINGS[speed]
        assert config.solver == "unipc"


def test_guidance_is_the_presets_own():
    assert WAMConfig(device="cpu", speed="exact").guidance_scale == 1.0
    assert WAMConfig(device="cpu", speed="exact").solver == "euler"


def test_a_checkpoint_keeps_what_the_dial_filled_and_takes_another_setting(saved: Path):
    config = PreTrainedConfig.from_pretrained(saved, cli_overrides=["--speed=flash"])
    policy = WAMPolicy.from_pretrained(saved, config=config)
    assert (policy.runtime.sampler.steps, policy.runtime.sampler.video_final_sigma) == (1, 0.8)
    policy.save_pretrained(saved)
    assert json.loads((saved / "config.json").read_text())["speed"] is None
    assert resolved(PreTrainedConfig.from_pretrained(saved)) == (1, "all", 1.0, 0.8)
    changed = PreTrainedConfig.from_pretrained(saved, cli_overrides=["--num_inference_steps=2"])
    assert resolved(changed) == (2, "all", 1.0, 0.8)
    again = PreTrainedConfig.from_pretrained(saved, cli_overrides=["--speed=official"])
    assert resolved(again) == (16, "8", 1.0, 0.0)


def test_a_flag_beside_the_dial_must_agree_with_it(saved: Path, monkeypatch: pytest.MonkeyPatch):
    message = "speed fast sets num_inference_steps to 4, but num_inference_steps is 8: leave out --policy.num_inf"
    with pytest.raises(SettingError, match=message):
        WAMConfig(device="cpu", speed="fast", num_inference_steps=8)
    assert WAMConfig(device="cpu", speed="fast", num_inference_steps=4).num_inference_steps == 4
    flags = ["--speed=fast", "--num_inference_steps=8"]
    monkeypatch.setattr(sys, "argv", ["lerobot-eval", *(flag.replace("--", "--policy.") for flag in flags)])
    with pytest.raises(SettingError, match=message):
        PreTrainedConfig.from_pretrained(saved, cli_overrides=flags)
    monkeypatch.setattr(sys, "argv", ["lerobot-eval", "--policy.num_inference_steps", "4"])
    assert resolved(PreTrainedConfig.from_pretrained(saved, cli_overrides=flags[:1])) == (4, "all", 1.0, 0.0)


@pytest.mark.parametrize("name", CHOICES)
def test_an_unknown_choice_names_the_known_ones(name: str):
    with pytest.raises(SettingError, match=f"{name} is 'turbo'; expected {', '.join(CHOICES[name])}"):
        tiny_config(**{name: "turbo"})


def test_impossible_wishes_are_refused():
    with pytest.raises(SettingError, match="speed is 'turbo'; expected exact, official, fast, flash"):
        tiny_config(speed="turbo", num_inference_steps=None)
    with pytest.raises(SettingError, match="action_only leaves the video unfinished"):
        tiny_config(action_only=True, save_predicted_video=True)


def test_approximations_are_named_and_exact_has_none():
    assert approximations(tiny_config(speed="exact", num_inference_steps=None)) == []
    assert approximations(WAMConfig(preset="wan2.1-14b", device="cpu", speed="exact")) == []
    official = approximations(
        WAMConfig(preset="wan2.1-14b", device="cpu", speed="official", skipped_steps="extrapolate")
    )
    assert official == ["computed_steps=8 continues the line through the last two velocities in some of 16 steps"]
    assert approximations(WAMConfig(preset="wan2.1-14b", device="cpu", speed="fast", quantization="int8")) == [
        "num_inference_steps=4 solver steps, 16 are exact",
        "guidance_scale=1, the preset's is 5",
        "quantization=int8 rounds the weights of the blocks",
    ]


@pytest.mark.parametrize(("noise_mode", "warned"), [("coupled", True), ("decoupled", False), ("independent", False)])
def test_flash_says_what_training_it_needs(noise_mode: str, warned: bool):
    found = approximations(WAMConfig(device="cpu", speed="flash", noise_mode=noise_mode))
    assert "video_final_sigma=0.8 leaves noise in the imagined video" in found
    assert ("train with --policy.noise_mode=decoupled" in found[-1]) == warned


def test_approximations_are_printed_once_and_reach_the_sampler(arm_data: Path, caplog: pytest.LogCaptureFixture):
    flags = {"num_inference_steps": 16, "computed_steps": "dynamic", "skipped_steps": "extrapolate"}
    policy = build_policy(arm_data, **flags, window_full="slide")
    said = [record.getMessage() for record in caplog.records if record.name == "lerobot_wam.modeling_wam"]
    assert len(said) == 1
    assert said[0].startswith("approximations: computed_steps=dynamic continues the line")
    assert "; window_full=slide keeps" in said[0]
    assert policy.runtime.sampler.skipped_steps == "extrapolate"
    assert policy.select_action(observe(policy.eval())).shape == (1, 6)


def test_flash_training_is_one_flag(arm_data: Path):
    noise = build_policy(arm_data, noise_mode="decoupled").objective.noise
    assert (noise.mode, noise.beta_alpha, noise.action_level_per_chunk) == ("decoupled", 7.0, True)
