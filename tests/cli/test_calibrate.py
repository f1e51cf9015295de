"""From held-out episodes to a policy that knows when it is surprised, and what it then does."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lerobot.configs import PreTrainedConfig
from tiny_policies import build_policy, observe, write_dataset

from lerobot_wam.cli.main import main
from lerobot_wam.modeling_wam import WAMPolicy

ROBOT = "wam_sim_viperx"


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("calibration") / "held_out", (20, 20))


@pytest.fixture(scope="module")
def calibrated(held_out: Path) -> Path:
    """A checkpoint whose threshold is the median of its own errors."""
    folder = held_out.with_name("checkpoint")
    build_policy(held_out).save_pretrained(folder)
    options = [f"--policy.path={folder}", f"--dataset.root={held_out}", "--quantile=0.5"]
    assert main(["calibrate", *options, "--episodes=0:2"]) == 0
    return folder


def load(folder: Path, *flags: str) -> WAMPolicy:
    return WAMPolicy.from_pretrained(folder, config=PreTrainedConfig.from_pretrained(folder, cli_overrides=list(flags)))


def test_the_checkpoint_says_what_it_was_calibrated_on(calibrated: Path):
    config = json.loads((calibrated / "config.json").read_text())
    stored = config["surprise"][ROBOT]
    assert stored["source"] == f"local/held_out, 2 episodes, {ROBOT}"
    assert stored["quantile"] == 0.5
    # Episodes of 20 steps: their chunks begin at 0, 8 and 16, and the last one's second latent frame is cut off.
    assert stored["latents"] == [4, 4]
    assert config["chunk_steps"] == 8


def test_too_few_episodes_are_refused_and_nothing_is_written(
    calibrated: Path, held_out: Path, capsys: pytest.CaptureFixture
):
    before = (calibrated / "config.json").read_text()
    assert main(["calibrate", f"--policy.path={calibrated}", f"--dataset.root={held_out}"]) == 2
    assert "a quantile of 0.98 needs 49: add held-out episodes" in capsys.readouterr().err
    assert (calibrated / "config.json").read_text() == before


def test_what_cannot_be_calibrated_is_one_line(calibrated: Path, capsys: pytest.CaptureFixture):
    good = f"--policy.path={calibrated}"
    for options, message in {
        ("--policy.path=absent",): "no checkpoint at absent",
        (good, "--quantile=1"): "--quantile is 1.0, expected a share between 0 and 1",
        (good, "--policy.embodiment=koch"): f"is 'koch'; this checkpoint knows {ROBOT}",
        (good,): "no dataset given",
    }.items():
        assert main(["calibrate", *options]) == 2
        assert message in capsys.readouterr().err


def test_a_calibrated_policy_asks_for_help_once_and_holds_until_the_next_episode(
    calibrated: Path, caplog: pytest.LogCaptureFixture
):
    policy = load(calibrated, "--on_surprise=hand_over")
    assert policy.alarm is not None
    easily = {0: replace(policy.alarm.calibrations[0], threshold=[1e-9, 1e-9])}
    policy.alarm = replace(policy.alarm, calibrations=easily)
    frames = [observe(policy, seed=step) for step in range(10)]
    with caplog.at_level(logging.WARNING):
        actions = [policy.select_action(frame) for frame in frames]
    assert policy.wants_help
    assert torch.equal(torch.stack(actions[4:]), torch.stack([actions[3]] * 6))
    assert sum("until a person takes over" in record.message for record in caplog.records) == 1
    policy.reset()
    assert not policy.wants_help
    assert not torch.equal(policy.select_action(frames[0]), actions[3])


def test_another_sampler_is_not_judged_by_this_calibration(calibrated: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        assert load(calibrated, "--num_inference_steps=1").alarm is None
    assert f"surprise of {ROBOT} is not measured: it was calibrated with another steps" in caplog.text
    with pytest.raises(ValueError, match="on_surprise=replan needs a calibration"):
        load(calibrated, "--num_inference_steps=1", "--on_surprise=replan")
