"""A policy whose passes are compiled, replayed or quantised, through LeRobot's calls."""

from pathlib import Path

import pytest
import torch
from tiny_policies import build_policy, observe
from torch._dynamo.testing import CompileCounterWithBackend

from lerobot_wam.command_line import SettingError
from lerobot_wam.runtime import acceleration


def test_a_compiled_policy_acts_as_an_eager_one(arm_data: Path, monkeypatch: pytest.MonkeyPatch):
    counter = CompileCounterWithBackend("aot_eager")  # captures graphs; generating code takes minutes
    monkeypatch.setattr(acceleration, "BACKEND", counter)
    torch._dynamo.reset()
    eager, compiled = (build_policy(arm_data, passes=passes).eval() for passes in ("eager", "compile"))
    compiled.load_state_dict(eager.state_dict())
    actions = compiled.select_action(observe(compiled))
    torch.testing.assert_close(actions, eager.select_action(observe(eager)), rtol=0, atol=1e-5)
    assert counter.frame_count > 0
    assert compiled.passes is compiled.runtime.passes  # made once, though the runtime is made anew
    torch._dynamo.reset()


def test_what_cannot_be_done_is_said_once(arm_data: Path, caplog: pytest.LogCaptureFixture):
    policy = build_policy(arm_data, attention="cudnn").eval()
    policy.select_action(observe(policy))
    policy.select_action(observe(policy))
    assert caplog.text.count("attention cudnn: does not run on cpu") == 1


def test_a_policy_that_moves_is_accelerated_anew(arm_data: Path):
    policy = build_policy(arm_data, attention="math").eval()
    before = policy.passes
    assert policy.to("cpu").passes is not before


def test_a_policy_that_quantises_is_not_trained(arm_data: Path):
    policy = build_policy(arm_data, quantization="int8")
    with pytest.raises(SettingError, match="quantization is int8: quantised weights only act"):
        policy.get_optim_params()


def test_quantised_weights_are_not_saved(arm_data: Path, tmp_path: Path):
    pytest.importorskip("torchao")
    policy = build_policy(arm_data, quantization="int8").eval()
    policy.save_pretrained(tmp_path / "before")  # nothing is quantised before the first action
    policy.select_action(observe(policy))
    with pytest.raises(SettingError, match="neither trained nor saved"):
        policy.save_pretrained(tmp_path / "after")
    assert not (tmp_path / "after" / "model.safetensors").exists()
