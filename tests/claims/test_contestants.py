"""The contestants learn from what they may see, repeat exactly, go on where they stopped, and are tried alike."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.scripts import lerobot_train
from lerobot_commands import in_process
from safetensors.torch import load_file
from tiny_policies import TINY, write_dataset

from benchmarks import common
from benchmarks.claims import budget
from benchmarks.claims.contestants import CONTESTANTS, Condition, Data, evaluate, train
from benchmarks.claims.open_loop import action_errors
from benchmarks.claims.scales import NANO, SMOKE
from benchmarks.claims.text_features import text_features
from lerobot_wam.data.recipe import MixtureEntry, MixtureRecipe
from lerobot_wam.optimizer import FlatThenLinearSchedulerConfig
from lerobot_wam.sim.tasks import COLOURS, SINGLE_TASKS, VERBS, parse_task
from lerobot_wam.training.loop import train as train_mixture

TINY_FLAGS = [
    f"--policy.{name}={value if isinstance(value, str) else json.dumps(value)}"
    for name, value in (TINY | {"image_size": [64, 64], "max_chunks": 1}).items()
]
FAR = 40.0


@pytest.fixture(autouse=True)
def _quiet_programs() -> Iterator[None]:
    with in_process("lerobot-train"), in_process("lerobot-eval"):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """Two episodes to learn from, and two whose motion is far from theirs."""

    def far(frame: dict[str, np.ndarray], episode: int, step: int) -> None:
        if episode > 1:
            frame["action"] = frame["action"] + np.float32(FAR)

    return Data(write_dataset(tmp_path_factory.mktemp("contestants") / "arm", size=64, change=far), "0:2")


@pytest.fixture(scope="module")
def prior(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy trained on video without actions."""
    folder = tmp_path_factory.mktemp("prior") / "training"
    entry = MixtureEntry("local/arm", root=str(data.root), actions=False, in_memory=True)
    run = ["--steps=3", "--batch_size=2", "--seed=5", "--env_eval_freq=0", "--num_workers=0", f"--output_dir={folder}"]
    with in_process("lerobot-train"):
        train_mixture(["--policy.type=wam", *TINY_FLAGS, *run], MixtureRecipe((entry,)))
    return folder / "checkpoints" / "last" / "pretrained_model"


def learn(name: str, data: Data, folder: Path, steps: int = 2, seed: int = 3, prior: Path | None = None) -> Path:
    contestant = CONTESTANTS[name]
    flags = TINY_FLAGS if contestant.policy == "wam" else ()
    return train(contestant, data, steps=steps, batch_size=2, seed=seed, folder=folder, prior=prior, flags=flags)


def weights(policy: Path) -> dict[str, torch.Tensor]:
    return load_file(policy / "model.safetensors")


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("name", ["ours_scratch", "act"])
def test_a_training_repeats_exactly_even_if_it_was_interrupted(name: str, data: Data, tmp_path: Path):
    whole = weights(learn(name, data, tmp_path / "whole", steps=4))
    checkpoints = tmp_path / "whole" / "training" / "checkpoints"
    shutil.rmtree(checkpoints / "000004")
    (checkpoints / "last").unlink()
    if name == "ours_scratch":  # the others begin anew
        (checkpoints / "last").symlink_to("000002")
    assert_same(weights(learn(name, data, tmp_path / "whole", steps=4)), whole)
    other = weights(learn(name, data, tmp_path / "other", steps=4, seed=4))
    assert any(not torch.equal(tensor, other[key]) for key, tensor in whole.items())


def test_what_is_trained_is_not_trained_again(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    policy = learn("act", data, tmp_path)
    monkeypatch.setattr(lerobot_train, "train", lambda: pytest.fail("trained again"))
    assert learn("act", data, tmp_path) == policy


def test_a_policy_is_normalised_by_the_episodes_that_it_may_see(data: Data, tmp_path: Path):
    (file,) = learn("act", data, tmp_path / "act").glob("policy_preprocessor*.safetensors")
    statistics = load_file(file)
    assert statistics["action.max"].max() <= 1 + 1e-6
    assert statistics["action.std"].min() > 0
    config = PreTrainedConfig.from_pretrained(learn("ours_scratch", data, tmp_path / "ours"))
    assert max(config.embodiments["wam_sim_viperx"]["statistics"]["action_high"][0]) < FAR / 2


@pytest.mark.parametrize("name", ["ours_prior", "no_video_prior"])
def test_a_contestant_from_the_prior_begins_with_its_average_and_a_schedule_of_its_own(
    name: str, data: Data, prior: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lengths = []
    build = FlatThenLinearSchedulerConfig.build
    monkeypatch.setattr(
        FlatThenLinearSchedulerConfig,
        "build",
        lambda self, optimizer, steps: lengths.append((self.num_warmup_steps, steps)) or build(self, optimizer, steps),
    )
    policy = learn(name, data, tmp_path, steps=2, prior=prior)
    average, begun = weights(prior), weights(tmp_path / "begun")
    block = "model.blocks.0.ffn.0.weight"
    assert torch.equal(begun[block], average[f"ema_{block}"])
    assert torch.equal(begun[f"ema_{block}"], average[f"ema_{block}"])
    assert lengths == [(TINY["warmup_steps"], 2)]
    config = PreTrainedConfig.from_pretrained(policy)
    assert (config.steps_done, config.noise_seed, config.embodiment) == (2, 3, "wam_sim_viperx")
    assert config.imagines == (name == "ours_prior")
    assert list(config.embodiments)[-1] == "wam_sim_viperx"


def test_a_prior_for_one_that_begins_at_random_is_refused_and_so_is_none_for_one_that_needs_it(
    data: Data, prior: Path, tmp_path: Path
):
    with pytest.raises(ValueError, match="expected None"):
        learn("act", data, tmp_path, prior=prior)
    with pytest.raises(ValueError, match="expected a checkpoint"):
        learn("ours_prior", data, tmp_path)


def test_video_without_actions_is_for_ours_alone(data: Data, tmp_path: Path):
    with pytest.raises(ValueError, match=r"diffusion learns from actions alone: video is \['arm'\]"):
        train(CONTESTANTS["diffusion"], data, steps=1, batch_size=2, seed=0, folder=tmp_path, video=[data.entry])


@pytest.mark.parametrize("name", [name for name, who in CONTESTANTS.items() if not who.starts_from_prior])
def test_every_contestant_is_tried_alike_and_once(
    name: str, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    policy = learn(name, data, tmp_path, steps=1)
    condition = Condition("short", "touch-red", flags=("--env.episode_length=2",))
    trials = evaluate(policy, condition, episodes=3, seed=7, folder=tmp_path / "trials")
    assert len(trials.successes) == len(trials.progress) == 3
    assert all(0 <= progress <= 1 for progress in trials.progress)
    assert not list((tmp_path / "trials").rglob("*.mp4"))
    monkeypatch.setattr("lerobot.scripts.lerobot_eval.eval_main", lambda: pytest.fail("tried again"))
    assert evaluate(policy, condition, episodes=3, seed=7, folder=tmp_path / "trials") == trials
    errors = action_errors(policy, data.root)["frame_3"]
    assert errors["policy"] > 0
    assert FAR / 2 - 2 < errors["hold_still"] < FAR / 2 + 2  # half of the episodes move far


def test_word_features_tell_verbs_and_colours_apart():
    features = text_features([task.instruction for task in SINGLE_TASKS]).double()
    distances = torch.cdist(features, features) + 100 * torch.eye(len(features))
    assert distances.min() > 3
    assert 0.3 < features.pow(2).mean().sqrt() < 1.5
    stages = [task.stages[0] for task in SINGLE_TASKS]
    learned = [i for i, stage in enumerate(stages) if stage.name not in ("left-red", "right-green", "away-blue")]
    for names, kinds in (([stage.verb for stage in stages], VERBS), ([stage.colour for stage in stages], COLOURS)):
        wanted = torch.tensor([[float(name == kind) for kind in kinds] for name in names], dtype=torch.float64)
        ones = torch.ones(len(features), 1, dtype=torch.float64)
        inputs = torch.cat([features, ones], dim=1)
        probe = torch.linalg.pinv(inputs[learned], rtol=1e-6) @ wanted[learned]
        # Read from the nine instructions that are trained on, right for the three that never are.
        assert torch.equal((inputs @ probe).argmax(1), wanted.argmax(1))


def test_word_features_tell_the_order_of_two_stages():
    swapped = text_features([parse_task(name).instruction for name in ("touch-red+touch-blue", "touch-blue+touch-red")])
    assert torch.linalg.vector_norm(swapped[0] - swapped[1]) > 1


def test_costs_are_measured_for_every_network_and_make_a_budget(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scale = replace(SMOKE, sizes={NANO: tuple(TINY_FLAGS), "wider": (*TINY_FLAGS, "--policy.ffn_dim=64")}, batch_size=2)
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(budget, "SCALES", {"smoke": scale})
    monkeypatch.setattr(budget, "demonstrations", lambda scale, labels: (data.root, data.episodes))
    with pytest.raises(FileNotFoundError, match=r"benchmarks\.claims\.budget --scale=smoke"):
        budget.load_costs("smoke")
    budget.main(["--scale=smoke", "--turns=1", "--steps=1", "--repetitions=1"])
    costs = budget.load_costs("smoke")
    ours = {"ours", "ours_wider", "no_video", "no_video_wider"}
    assert set(costs) == ours | {who.network for who in CONTESTANTS.values()}
    for row in costs.values():
        assert row["n_parameters"] > 0
        assert row["chunk_latency_p95_ms"] >= row["chunk_latency_p50_ms"] > 0
    step_s = costs["ours"]["train_step_ms_p50"] / 1000
    assert budget.steps_for(CONTESTANTS["ours_prior"], 7 * step_s, costs) == 7
    assert budget.steps_for(CONTESTANTS["ours_prior"], 7 * step_s, costs, "wider") >= 1
    assert json.loads((tmp_path / "claims/smoke/step_costs.json").read_text())["command"].endswith("--repetitions=1")
