"""`lerobot-wam adapt` from a checkpoint and a recording to a policy and its page; its options; its one-line errors."""

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from lerobot.policies import make_pre_post_processors
from lerobot.scripts import lerobot_train
from tiny_policies import ARM_JOINTS, build_policy, write_dataset

from lerobot_wam.cli import adapt as verb
from lerobot_wam.cli.main import main
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.training.adapt_plan import AdaptPlan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `checkpoint`, and `play` of an arm with another name for its camera and twice the rate."""
    folder = tmp_path_factory.mktemp("adapt")
    policy = build_policy(write_dataset(folder / "arm", (20, 20)), drop_n_last_frames=2)
    policy.save_pretrained(folder / "checkpoint")
    for pipeline in make_pre_post_processors(policy.config, dataset_stats={}):
        pipeline.save_pretrained(folder / "checkpoint")
    write_dataset(
        folder / "play", (48, 40, 48), fps=20, robot_type="arm_b", joints=ARM_JOINTS[:3], tasks=lambda *_: "play"
    )
    return folder


@pytest.fixture
def call(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setattr(lerobot_train, "init_logging", lambda **kwargs: None)
    AcceleratorState._reset_state(reset_partial_state=True)

    def run(*options: str) -> int:
        data = ["--dataset.repo_id=local/play", f"--dataset.root={folder / 'play'}"]
        return main(["adapt", f"--policy.path={folder / 'checkpoint'}", *data, f"--out={tmp_path / 'out'}", *options])

    return run


def test_from_a_recording_to_a_policy_and_its_page(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture
):
    sizes = ["--steps=2", "--eval-every=1", "--batch-size=2", "--windows=6", "--dreams=2"]
    assert call(*sizes, "--num_workers=0", "--log_freq=0") == 0
    shown = capsys.readouterr().out
    assert "Old skills may fade" in shown
    assert "arm_b, begun like wam_sim_viperx: action error on 1 held-out episodes" in shown
    policy = WAMPolicy.from_pretrained(tmp_path / "out/policy")
    assert policy.action_spaces[policy.category].spec.action_names == tuple(ARM_JOINTS[:3])
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    numbers = json.loads((tmp_path / "out/adaptation.json").read_text())
    for kind in ("hold_still", "copy_last_motion"):
        assert all(f"<td>{error:.4f}</td>" in page for error in numbers[kind]["errors"])
    video = json.loads((tmp_path / "out/video.json").read_text())
    assert f"<td>{video['imagined, after']['psnr']:.1f} dB</td>" in page
    assert page.count("<article>") == 2
    assert "ARM".lower() in page


def test_the_options_defaults_are_the_plans():
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    args = vars(parser.parse_args(["--policy.path=x", "--dataset.repo_id=y", "--out=z"]))
    defaults = {f.name: f.default for f in dataclasses.fields(AdaptPlan) if f.default is not dataclasses.MISSING}
    assert {name: args[name] for name in defaults if name != "flags"} == {
        name: value for name, value in defaults.items() if name != "flags"
    }


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--policy.path=absent", "no checkpoint at absent: expected a folder with config.json"),
        ("--camera=front", "--camera is 'front', expected the robot's camera = the recording's"),
        ("--camera=observation.images.a=observation.images.b", "no camera 'observation.images.b'"),
        ("--cotrain=absent.yaml", "mixture file absent.yaml does not exist"),
        ("--eval-split=2", "--eval-split is 2.0, expected a share"),
        ("--embodiment=arm_c", "unknown embodiment 'arm_c'"),
    ],
)
def test_bad_input_is_one_line(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture, option: str, message: str
):
    assert call(option) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert not (tmp_path / "out").exists()
