"""`lerobot-wam doctor`: what it says of checkpoints of every kind, and when it ends with 1."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.configs.default import PeftConfig
from lerobot.robots import Robot, RobotConfig
from safetensors.torch import load_file, save_file
from tiny_policies import ARM_JOINTS, MOBILE_JOINTS, build_policy, make_batch, write_dataset

from lerobot_wam.cli.main import BAD_INPUT, main
from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.doctor.memory import geometry, memory
from lerobot_wam.embodiments.spec import load_embodiment
from lerobot_wam.model.world_action_model import WorldActionModel


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "arm", (24, 24))


@pytest.fixture
def saved(data: Path, tmp_path: Path) -> Path:
    build_policy(data, max_shard_size="1MB").save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def doctor(capsys: pytest.CaptureFixture, *words: str | Path) -> tuple[int, dict[str, Any]]:
    code = main(["doctor", *map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_describes_a_policy(saved: Path, data: Path, capsys: pytest.CaptureFixture):
    code, found = doctor(capsys, saved, "--dataset", data)
    assert (code, found["problems"]) == (0, [])
    policy = build_policy(data)
    assert sum(found["facts"]["parameters"].values()) == sum(p.numel() for p in policy.model.parameters())
    robot = found["facts"]["robots"]["wam_sim_viperx"]
    assert [d["name"] for d in robot["action"]] == ARM_JOINTS
    statistics = policy.config.embodiments["wam_sim_viperx"]["statistics"]
    assert [d["high"] for d in robot["state"]] == statistics["state_high"]
    assert found["notes"][-1].endswith("2 episodes, 48 frames, 2 tasks such as 'push red'")

    assert main(["doctor", str(saved)]) == 0
    text = capsys.readouterr().out
    assert "\n    waist.pos " in text
    assert text.rstrip().endswith("all fits")
    assert max(map(len, text.splitlines())) <= 120


def test_what_does_not_fit_ends_with_1(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    other = write_dataset(tmp_path / "mobile", (30,), robot_type="mobile_lift", fps=30, joints=MOBILE_JOINTS)
    code, found = doctor(capsys, saved, "--dataset", other)
    assert code == 1
    assert "expects 6" in found["problems"][0]
    shard = max(saved.glob("model-*"), key=lambda path: path.stat().st_size)
    state = load_file(shard)
    save_file({f"x{name}": value for name, value in state.items()}, shard)
    code, found = doctor(capsys, saved)
    assert code == 1
    assert f"{2 * len(state)} tensors do not fit config.json: missing" in found["problems"][0]
    shard.unlink()
    code, found = doctor(capsys, saved)
    assert (code, found["problems"][0].split(":")[1]) == (1, f" {shard.name}; copy or download them again")


def test_approximations_and_missing_parts_are_said(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    config = json.loads((saved / "config.json").read_text())
    config |= {"computed_steps": "dynamic", "window_full": "slide", "video_codec": "wan2.1", "dtype": "bfloat16"}
    for source, says in (
        ("user/repo@main#vae", "0.3 GB are downloaded"),
        (str(tmp_path / "gone"), "neither a folder"),
    ):
        (saved / "config.json").write_text(json.dumps(config | {"video_codec_source": source}))
        code, found = doctor(capsys, saved)
        assert code == (1 if "gone" in source else 0)
        said = "\n".join(found["notes"] + found["problems"])
        assert all(words in said for words in (says, "computed_steps=dynamic repeats", "window_full=slide"))


def test_verifies_an_import(saved: Path, capsys: pytest.CaptureFixture):
    assert main(["doctor", str(saved), "--verify"]) == BAD_INPUT
    assert "no manifest.json to verify" in capsys.readouterr().err
    name = sorted(saved.glob("model-*"))[0].name
    manifest = {"origin": {"source": "GEAR-Dreams/DreamZero-DROID"}, "files": {name: "0" * 64}}
    (saved / "manifest.json").write_text(json.dumps(manifest))
    code, found = doctor(capsys, saved)
    assert code == 0
    assert "robot wam_sim_viperx: no prompt template, so the instructions' wording is our own" in found["notes"]
    code, found = doctor(capsys, saved, "--verify")
    assert (code, found["problems"]) == (1, [f"missing or changed since the import: {name}; import again"])


def test_others_checkpoints_get_the_import_command(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "config.json").write_text('{"architectures": ["VLA"]}')
    code, found = doctor(capsys, tmp_path)
    assert (code, found["kind"]) == (1, "official DreamZero checkpoint")
    assert found["problems"] == [f"not a policy yet: lerobot-wam import {tmp_path} --out DIR"]
    (tmp_path / "config.json").write_text('{"type": "act"}')
    assert main(["doctor", str(tmp_path)]) == BAD_INPUT
    assert "found: act" in capsys.readouterr().err


def test_adapters_name_their_base(saved: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    policy = build_policy(data)
    policy.config.pretrained_path = saved
    wrapped = policy.wrap_with_peft(peft_cli_overrides=vars(PeftConfig(r=4)))
    wrapped.save_pretrained(tmp_path / "adapter")
    policy.config.save_pretrained(tmp_path / "adapter")
    code, found = doctor(capsys, tmp_path / "adapter")
    assert code == 0
    assert found["facts"]["adapter"] == {"base": str(saved), "type": "LORA", "rank": 4}
    saved.rename(tmp_path / "moved")
    assert doctor(capsys, tmp_path / "adapter")[0] == 1


def test_reads_a_repository_without_its_weights(hub: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    build_policy(data).save_pretrained(tmp_path / "pushed", push_to_hub=True, repo_id="user/arm")
    code, found = doctor(capsys, "user/arm")
    assert (code, found["facts"]["weight_files"]["dtypes"]) == (0, ["F32"])
    assert list(Path(tmp_path / "hub_cache").rglob("*.safetensors")) == []


@RobotConfig.register_subclass("doctors_arm")
@dataclass
class DoctorsArmConfig(RobotConfig):
    """A robot with a port that has no default, as LeRobot's have."""

    port: str


class DoctorsArm(Robot):
    """Six joints; nothing moves."""

    config_class, name = DoctorsArmConfig, "doctors_arm"
    observation_features = action_features = dict.fromkeys(ARM_JOINTS, float)
    is_connected = is_calibrated = False
    connect = calibrate = configure = get_observation = send_action = disconnect = None


DoctorsArm.__abstractmethods__ = frozenset()


def test_checks_a_robot_type(saved: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    code, found = doctor(capsys, saved, "--robot", "doctors_arm")
    assert (code, found["problems"]) == (0, [])
    assert found["notes"][-1] == "robot doctors_arm: run it with cameras named front at 10 steps/s"
    monkeypatch.setattr(DoctorsArm, "action_features", {"wheel.vel": float})
    code, found = doctor(capsys, saved, "--robot", "doctors_arm")
    assert code == 1
    assert "robot doctors_arm: action of the dataset is 1-dimensional (wheel.vel)" in found["problems"][0]
    assert main(["doctor", str(saved), "--robot", "toaster"]) == BAD_INPUT


@pytest.mark.parametrize(
    ("preset", "parameters", "frame_tokens", "training_tokens"),
    [("wan2.1-14b", 16_484_292_448, 880, 16 * 880 + 100), ("wan2.2-5b", 5_606_692_832, 50, 16 * 50 + 100)],
)
def test_full_size(
    preset: str, parameters: int, frame_tokens: int, training_tokens: int, tmp_path: Path, capsys: pytest.CaptureFixture
):
    """The sizes of the specification (§1.1); the file is as long as the real one, and holds nothing but its header."""
    spec = load_embodiment("oxe_droid")
    states, actions = len(spec.state), len(spec.action)
    statistics = {"state_low": [0.0] * states, "state_high": [1.0] * states, "steps": 1, "windows": 1}
    statistics |= {"action_low": [[0.0] * actions], "action_high": [[1.0] * actions]}
    embodiments = {spec.name: {"spec": spec.to_dict(), "statistics": statistics}}
    config = WAMConfig(
        preset=preset, device="cpu", max_embodiments=1, weights_dtype="bfloat16", embodiments=embodiments
    )
    config._save_pretrained(tmp_path)
    with torch.device("meta"):
        network = WorldActionModel(config.model_config)
    write_header(tmp_path / "model.safetensors", network)
    code, found = doctor(capsys, tmp_path)
    assert (code, found["problems"]) == (0, [])
    assert sum(found["facts"]["parameters"].values()) == parameters
    sizes = found["facts"]["geometry"]
    assert (sizes["frame_tokens"], sizes["training_tokens"]) == (frame_tokens, training_tokens)
    needs = found["facts"]["memory"]
    assert needs["act"]["weights"] == 2 * parameters
    assert needs["full"]["weights"] + needs["full"]["states"] == (16 + 2) * parameters
    assert needs["lora"]["states"] < 0.05 * needs["full"]["states"]
    assert found["facts"]["text_encoder_bytes"] == 2 * 5_680_910_336


def write_header(path: Path, network: torch.nn.Module) -> None:
    """A safetensors file of the network's bfloat16 weights, whose data takes no room on the disk."""
    header, end = {}, 0
    for name, tensor in network.state_dict().items():
        start, end = end, end + 2 * tensor.numel()
        header[f"model.{name}"] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


SIZES = {"dim": 64, "num_heads": 2, "ffn_dim": 128, "num_layers": 4, "image_size": (64, 64), "max_chunks": 4}
PLAIN = {"visual_summary": False, "auxiliary_bc_weight": 0.0, "absolute_positions": False, "ema_decay": 0.0}


def test_the_memory_rule_holds_for_a_small_policy(data: Path):
    """Weights, gradients and moments to the byte; what the backward pass keeps within a third."""
    policy = build_policy(data, optimizer="adamw", **SIZES, **PLAIN).train()
    config, spec = policy.config, policy.action_spaces[0].spec
    parameters = sum(p.numel() for p in policy.parameters())
    robots = sum(p.numel() for name, p in policy.named_parameters() if "coder" in name)
    needs = memory(config, geometry(config, spec), parameters, robots, frozen=0)["full"]
    batch = make_batch(data, config, indices=[0])
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = policy.forward(batch)[0]
    for parameter in policy.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    loss.backward()
    optimizer = config.get_optimizer_preset().build(policy.get_optim_params())
    for parameter in policy.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    held = [*policy.parameters(), *(p.grad for p in policy.parameters()), *moments]
    assert sum(t.numel() * t.element_size() for t in held) == needs["weights"] + needs["states"]
    assert needs["activations"] == pytest.approx(sum(kept.values()), rel=1 / 3)
