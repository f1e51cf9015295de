"""Meta-World recorded into a LeRobotDataset, by the tabletop's recorder, and found by policies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot")
pytest.importorskip("metaworld")

from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_wam.cli.main import main
from lerobot_wam.embodiments.resolve import find_embodiment
from lerobot_wam.metaworld.episodes import Recipe
from lerobot_wam.sim.episodes import Recipe as TabletopRecipe
from lerobot_wam.sim.record import record

RECIPE = Recipe(tasks="handle-press-v3,coffee-button-v3", image_size=16)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("metaworld") / "data"
    words = ("--world=metaworld", f"--tasks={RECIPE.tasks}", "--image-size=16", "--episodes=2", "--workers=1")
    assert main(["record", f"--root={root}", *words]) == 0
    return root


def test_the_dataset_holds_the_episodes(root: Path):
    dataset = LeRobotDataset("local/x", root=root)
    assert (dataset.num_episodes, dataset.fps, dataset.meta.robot_type) == (2, 20, "wam_metaworld_sawyer")
    assert set(dataset.meta.tasks.index) == {"Press a handle down", "Push a button on the coffee machine"}
    frames = [frame for frame in (dataset[i] for i in range(len(dataset))) if frame["episode_index"] == 1]
    episode, _ = RECIPE.make_episode(1)
    assert frames[0]["task"] == episode.text == "Push a button on the coffee machine"
    np.testing.assert_array_equal(np.stack([frame["action"] for frame in frames]), episode.actions)
    np.testing.assert_array_equal(np.stack([frame["observation.state"] for frame in frames]), episode.states)
    pixels = np.stack([frame["observation.images.corner"] for frame in frames]).transpose(0, 2, 3, 1) * 255
    assert np.abs(pixels - episode.images["corner"]).max() < 0.51


def test_a_longer_request_extends(root: Path):
    assert record(root, 3, RECIPE, progress=False).recorded == 1
    dataset = LeRobotDataset("local/x", root=root)
    assert dataset.num_episodes == 3
    episode, _ = RECIPE.make_episode(2)
    np.testing.assert_array_equal([dataset[-1 - i]["action"] for i in range(3)], episode.actions[:-4:-1])


def test_another_recipe_and_another_simulator_are_refused(root: Path):
    with pytest.raises(ValueError, match=r"recorded with noise=0\.1, this call asks for noise=0\.2"):
        record(root, 4, replace(RECIPE, noise=0.2), progress=False)
    with pytest.raises(ValueError, match=r"has no meta.wam_sim\.json"):
        record(root, 4, TabletopRecipe(), progress=False)


def test_options_of_the_tabletop_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["record", f"--root={tmp_path / 'x'}", "--episodes=1", "--world=metaworld", "--arm=panda"]) != 0
    assert "--world=metaworld has no arm" in capsys.readouterr().err


def test_labels_are_clean():
    noisy, clean = (replace(RECIPE, noise=noise).make_episode(0)[0] for noise in (0.1, 0.0))
    np.testing.assert_array_equal(noisy.actions[0], clean.actions[0])
    assert not np.array_equal(noisy.states[1], clean.states[1])
    assert np.abs(noisy.actions).max() <= 1


def test_the_expert_goes_on_after_success():
    longer, short = (replace(RECIPE, follow_through=steps).make_episode(0)[0] for steps in (4, 0))
    assert len(longer.actions) == len(short.actions) + 4
    np.testing.assert_array_equal(longer.actions[:-4], short.actions)


def test_a_policy_finds_the_embodiment(root: Path):
    meta = LeRobotDataset("local/x", root=root).meta
    spec = find_embodiment("auto", meta.features, meta.fps, meta.robot_type)
    assert spec.name == "wam_metaworld_sawyer"
    assert not any(dimension.relative for dimension in spec.action)
