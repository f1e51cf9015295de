"""Mixtures as they are written."""

from pathlib import Path

import pytest

from lerobot_wam.data.recipe import MixtureEntry, MixtureRecipe, difference, load_recipe


def recipe_of(tmp_path: Path, text: str) -> MixtureRecipe:
    file = tmp_path / "mix.yaml"
    file.write_text(text)
    return load_recipe(file)


def test_a_short_entry_takes_the_defaults(tmp_path: Path):
    assert recipe_of(tmp_path, "datasets: [{repo_id: me/arm}]").datasets == (
        MixtureEntry(repo_id="me/arm", name="arm", weight=1.0, embodiment="auto", text="{task}", actions=True),
    )


def test_every_key_is_read(tmp_path: Path):
    (entry,) = recipe_of(
        tmp_path,
        """
datasets:
  - repo_id: me/so101_play
    root: outputs/play
    revision: v1
    name: play
    weight: 2
    embodiment: robots/so101.yaml
    cameras: {observation.images.front: observation.images.webcam}
    episodes: [0, "3:5"]
    text: "play: {task}"
    actions: false
    in_memory: true
""",
    ).datasets
    assert entry == MixtureEntry(
        repo_id="me/so101_play",
        root="outputs/play",
        revision="v1",
        name="play",
        weight=2.0,
        embodiment=str(tmp_path / "robots/so101.yaml"),
        cameras={"observation.images.front": "observation.images.webcam"},
        episodes="0,3:5",
        text="play: {task}",
        actions=False,
        in_memory=True,
    )


@pytest.mark.parametrize(
    ("episodes", "chosen"),
    [(None, [0, 1, 2, 3, 4, 5]), ("1:3", [1, 2]), ("4:", [4, 5]), ("5,0,-2:", [0, 4, 5]), ("::3", [0, 3])],
)
def test_episodes_are_numbers_and_slices(episodes: str | None, chosen: list[int]):
    assert MixtureEntry("me/arm", episodes=episodes).chosen_episodes(6) == chosen


@pytest.mark.parametrize("episodes", ["6", "7:9", "2,8"])
def test_an_episode_that_is_not_there_is_refused(episodes: str):
    with pytest.raises(ValueError, match=f"arm: episodes is '{episodes}', the dataset has 0 to 5"):
        MixtureEntry("me/arm", episodes=episodes).chosen_episodes(6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: []", "datasets is empty"),
        ("datasets: [{repo_id: me/a, weight: 0}, {repo_id: me/b, weight: 0}]", "the weights sum to zero"),
        ("datasets: [{repo_id: me/a, weight: -1}]", "a: weight is -1.0, expected 0 or more"),
        ("datasets: [{repo_id: me/a, weigth: 1}]", "unknown key 'weigth': did you mean 'weight'?"),
        ("datasets: [{root: outputs/a}]", "lacks repo_id"),
        ("datasets: [{repo_id: me/a}, {repo_id: you/a}]", "2 entries are named 'a'"),
        ("datasets: [{repo_id: me/a, episodes: some}]", "episodes is 'some', expected numbers and slices"),
        ("datasets: [{repo_id: me/a, cameras: [front]}]", "expected a mapping of names"),
        ("- repo_id: me/a", "expected a mapping"),
    ],
)
def test_bad_recipes_are_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        recipe_of(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"mix\.yaml does not exist"):
        load_recipe(tmp_path / "mix.yaml")


def test_a_recipe_survives_json():
    recipe = MixtureRecipe((MixtureEntry("me/a", cameras={"x": "y"}), MixtureEntry("me/b", weight=0.5, episodes="1:")))
    assert MixtureRecipe.from_dict(recipe.to_dict()) == recipe


def test_differences_are_named():
    old = MixtureRecipe((MixtureEntry("me/a"), MixtureEntry("me/b", weight=2)))
    assert difference(old, old) is None
    assert difference(old, MixtureRecipe((old.datasets[0],))) == "its datasets are a, not a, b"
    heavier = MixtureRecipe((old.datasets[0], MixtureEntry("me/b", weight=3)))
    assert difference(old, heavier) == "weight of b is 3, not 2"


def test_where_a_dataset_lies_is_no_difference():
    assert difference(*(MixtureRecipe((MixtureEntry("me/a", root=root),)) for root in ("here", "there"))) is None
