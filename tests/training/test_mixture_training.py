"""`lerobot-wam train`: several robots and video alone through LeRobot's own loop."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_policies import ARM_JOINTS, MOBILE_JOINTS, SIZE, TINY, write_dataset

from lerobot_wam.cli.main import main
from lerobot_wam.data.mixture import Mixture
from lerobot_wam.data.recipe import load_recipe
from lerobot_wam.modeling_wam import WAMPolicy
from lerobot_wam.training.loop import StopTraining, train, window_shape
from lerobot_wam.weights import PER_ROBOT

FLAGS = [
    "--policy.type=wam",
    *(f"--policy.{name}={list(value) if isinstance(value, tuple) else value}" for name, value in TINY.items()),
    f"--policy.head_resize=[{SIZE},{SIZE}]",
    "--policy.drop_n_last_frames=2",
    "--policy.noise_seed=1",
    "--batch_size=6",
    "--num_workers=0",
    "--env_eval_freq=0",
    "--log_freq=1",
]


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three robots and video without one: other cameras, rates and dimensions each."""
    folder = tmp_path_factory.mktemp("mixture")
    write_dataset(folder / "arm", (24, 20))
    write_dataset(folder / "fast", (60, 60), robot_type="fast_arm", fps=30, cameras=("left", "right"))
    write_dataset(folder / "mobile", (24, 24), robot_type="mobile", joints=MOBILE_JOINTS, size=2 * SIZE)
    write_dataset(folder / "humans", (50, 50), robot_type=None, fps=25, cameras=("phone",), state=False, action=False)
    datasets = [
        {"repo_id": f"local/{name}", "root": str(folder / name)} for name in ("arm", "fast", "mobile", "humans")
    ]
    datasets[0] |= {"weight": 2, "text": "please {task}"}
    file = folder / "mix.yaml"
    file.write_text(yaml.safe_dump({"datasets": datasets}))
    return file


@pytest.fixture
def tracked() -> Iterator[list[dict]]:
    """What LeRobot logs at every step. It clears all handlers, but filters stay."""
    entries: list[dict] = []

    class Collect(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if hasattr(record.msg, "to_dict"):
                entries.append(record.msg.to_dict())
            return True

    collect = Collect()
    logging.getLogger().addFilter(collect)
    yield entries
    logging.getLogger().removeFilter(collect)


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"{step:06d}"


def fresh(mixture: Path, run: Path, steps: int, *flags: str) -> Path:
    assert main(["train", f"--mixture={mixture}", *FLAGS, f"--output_dir={run}", f"--steps={steps}", *flags]) == 0
    return run


def test_a_mixture_trains_and_resumes_to_the_last_bit(mixture: Path, tmp_path: Path, tracked: list[dict]):
    run = fresh(mixture, tmp_path / "run", 4, "--save_freq=2")
    straight = load_file(checkpoint(run, 4) / "pretrained_model" / "model.safetensors")
    assert len(tracked) == 4
    assert all({f"loss/{name}" for name in ("arm", "fast", "mobile", "humans")} <= entry.keys() for entry in tracked)
    optimizer = load_file(checkpoint(run, 4) / "training_state" / "optimizer_state.safetensors")
    config_path = checkpoint(run, 2) / "pretrained_model" / "train_config.json"
    resume = [f"--config_path={config_path}", "--resume=true", f"--output_dir={tmp_path / 'resumed'}"]
    torch.manual_seed(99)
    assert main(["train", *resume]) == 0  # the checkpoint knows its mixture
    again = checkpoint(tmp_path / "resumed", 4)
    resumed = load_file(again / "pretrained_model" / "model.safetensors")
    assert [name for name in straight if not torch.equal(straight[name], resumed[name])] == []
    resumed_optimizer = load_file(again / "training_state" / "optimizer_state.safetensors")
    assert [name for name in optimizer if not torch.equal(optimizer[name], resumed_optimizer[name])] == []


def test_the_checkpoint_knows_every_robot_and_acts_as_each(mixture: Path, tmp_path: Path):
    folder = checkpoint(fresh(mixture, tmp_path / "run", 1), 1) / "pretrained_model"
    policy = WAMPolicy.from_pretrained(folder)
    assert list(policy.config.embodiments) == ["wam_sim_viperx", "fast_arm", "mobile", "humans"]
    assert [entry["name"] for entry in policy.config.mixture["datasets"]] == ["arm", "fast", "mobile", "humans"]
    meta = Mixture(load_recipe(mixture), window_shape(policy.config), policy.config.embodiments).meta
    assert "| local/humans | unknown | 2 | 100 |" in str(policy.generate_model_card(dataset_meta=meta))
    front, view = "observation.images.front", torch.rand(1, 3, SIZE, SIZE)
    arm = {front: view, "observation.state": torch.zeros(1, len(ARM_JOINTS)), "task": ["push red"]}
    mobile = {front: view, "observation.state": torch.zeros(1, len(MOBILE_JOINTS)), "task": ["push red"]}
    assert policy.select_action(arm).shape == (1, len(ARM_JOINTS))  # who observes is who acts
    policy.reset()
    assert policy.select_action(mobile).shape == (1, len(MOBILE_JOINTS))
    policy.reset()
    with pytest.raises(ValueError, match=r"say which one acts with --policy\.embodiment=wam_sim_viperx"):
        policy.select_action({front: view, "observation.state": torch.zeros(1, 5)})
    policy.config.embodiment = "humans"
    with pytest.raises(ValueError, match="'humans' has no actions, only video"):
        WAMPolicy(policy.config).select_action({"observation.images.phone": view})


def test_a_resumed_run_keeps_its_mixture(mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = fresh(mixture, tmp_path / "run", 1)
    other = tmp_path / "other.yaml"
    other.write_text(mixture.read_text().replace("weight: 2", "weight: 3"))
    config_path = checkpoint(run, 1) / "pretrained_model" / "train_config.json"
    capsys.readouterr()
    assert main(["train", f"--mixture={other}", f"--config_path={config_path}", "--resume=true", "--steps=2"]) == 2
    error = capsys.readouterr().err
    assert "another mixture: weight of arm is 3" in error
    assert "--policy.path" in error


def test_one_dataset_is_a_mixture_of_one(mixture: Path, tmp_path: Path):
    arm = mixture.parent / "arm"
    flags = [f"--dataset.root={arm}", "--dataset.repo_id=local/arm", *FLAGS, f"--output_dir={tmp_path / 'run'}"]
    assert main(["train", *flags, "--steps=1", "--policy.trainable=heads"]) == 0
    policy = WAMPolicy.from_pretrained(checkpoint(tmp_path / "run", 1) / "pretrained_model")
    assert list(policy.config.embodiments) == ["wam_sim_viperx"]
    assert policy.config.embodiment == "wam_sim_viperx"


def test_a_mixture_goes_on_from_other_weights(mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    start = checkpoint(fresh(mixture, tmp_path / "run", 1), 1) / "pretrained_model"
    recipe = load_recipe(mixture)
    flags = [f"--policy.path={start}", "--policy.push_to_hub=false", "--policy.trainable=heads", "--batch_size=6"]
    flags += ["--policy.heads_lr=0.1", "--num_workers=0", "--env_eval_freq=0", f"--output_dir={tmp_path / 'heads'}"]

    def stop(policy: WAMPolicy, step: int) -> None:
        assert policy.config.steps_done == 1 + step
        if step == 2:
            raise StopTraining

    train([*flags, "--steps=50"], recipe, stop)
    assert json.loads((checkpoint(tmp_path / "heads", 2) / "training_state" / "training_step.json").read_text())
    assert not checkpoint(tmp_path / "heads", 3).exists()
    before = load_file(start / "model.safetensors")
    after = load_file(checkpoint(tmp_path / "heads", 2) / "pretrained_model" / "model.safetensors")
    moved = {name for name in before if name.startswith("model.") and not torch.equal(before[name], after[name])}
    assert moved
    assert [name for name in moved if not any(part in name for part in PER_ROBOT)] == []
    stranger = write_dataset(tmp_path / "stranger", robot_type="stranger", joints=["a.pos", "b.pos"])
    alone = ["--dataset.repo_id=local/stranger", f"--dataset.root={stranger}", *flags[:4], "--steps=1"]
    assert main(["train", *alone, f"--output_dir={tmp_path / 'no'}"]) == 2
    assert "has the embodiment stranger" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--dataset.eval_split=0.5", "--dataset.eval_split is 0.5, which a mixture does not follow"),
        ("--dataset.streaming=true", "--dataset.streaming is True"),
    ],
)
def test_settings_that_a_mixture_cannot_follow_are_refused(
    mixture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, message: str
):
    run = ["train", f"--mixture={mixture}", *FLAGS, f"--output_dir={tmp_path / 'run'}", "--steps=1"]
    assert main([*run, flag]) == 2
    assert message in capsys.readouterr().err
