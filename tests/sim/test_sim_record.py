"""Recording into a LeRobotDataset: contents, interruption, extension."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lerobot")

from lerobot.datasets.lerobot_dataset import LeRobotDataset

from lerobot_wam.sim.episodes import Recipe, make_episode
from lerobot_wam.sim.record import record
from lerobot_wam.sim.tabletop import Tabletop
from lerobot_wam.sim.tasks import select_tasks

RECIPE = Recipe(tasks="left-red,touch-blue", image_size=32)


def contents(root: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, int, str]]:
    dataset = LeRobotDataset("local/x", root=root)
    return [
        (
            item["observation.images.front"].numpy(),
            item["observation.state"].numpy(),
            item["action"].numpy(),
            int(item["episode_index"]),
            item["task"],
        )
        for item in (dataset[i] for i in range(len(dataset)))
    ]


def same(first: Path, second: Path) -> bool:
    a, b = contents(first), contents(second)
    return len(a) == len(b) and all(
        all(np.array_equal(u, v) for u, v in zip(x, y, strict=True)) for x, y in zip(a, b, strict=True)
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "data"
    report = record(root, 4, RECIPE, progress=False)
    assert report.recorded == report.episodes == 4
    assert report.attempts >= 4
    return root


def test_the_dataset_holds_the_episodes(whole: Path):
    dataset = LeRobotDataset("local/x", root=whole)
    assert dataset.num_episodes == 4
    assert dataset.fps == 10
    assert dataset.meta.robot_type == "wam_sim_viperx"
    assert dataset.meta.features["action"]["names"][0] == "waist.pos"
    assert set(dataset.meta.tasks.index) == {"push the red cube to the left", "touch the blue cube"}
    frames = [frame for frame in contents(whole) if frame[3] == 1]
    episode, _ = make_episode(RECIPE, 1)
    assert len(frames) == len(episode.images["front"])
    assert frames[0][4] == episode.text
    assert np.array_equal(np.stack([f[2] for f in frames]), episode.actions)
    assert np.array_equal(np.stack([f[1] for f in frames]), episode.states)
    pixels = np.stack([f[0] for f in frames]).transpose(0, 2, 3, 1) * 255
    assert np.abs(pixels - episode.images["front"]).max() < 0.51
    assert not whole.with_name("data.partial").exists()


def test_an_interrupted_recording_continues_to_the_same_dataset(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen = []

    def stop_at_third(recipe: Recipe, index: int) -> object:
        if index == 2 and not seen:
            seen.append(index)
            raise KeyboardInterrupt
        return make_episode(recipe, index)

    monkeypatch.setattr(Recipe, "make_episode", stop_at_third)
    root = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt):
        record(root, 4, RECIPE, progress=False)
    assert not root.exists()
    assert record(root, 4, RECIPE, progress=False).recorded == 2
    assert same(root, whole)


def test_a_crash_while_writing_loses_nothing(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr(LeRobotDataset, "finalize", lambda self: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            record(root, 4, RECIPE, progress=False)
    assert record(root, 4, RECIPE, progress=False).recorded == 0
    assert same(root, whole)


def test_a_longer_request_extends(whole: Path, tmp_path: Path):
    root = tmp_path / "data"
    record(root, 2, RECIPE, progress=False)
    report = record(root, 4, RECIPE, progress=False)
    assert report.recorded == 2
    assert same(root, whole)
    assert record(root, 3, RECIPE, progress=False).episodes == 4


def test_other_options_are_refused(whole: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="recorded with seed=0, this call asks for seed=1"):
        record(whole, 5, Recipe(tasks=RECIPE.tasks, image_size=32, seed=1), progress=False)
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"has no meta.wam_sim\.json"):
        record(tmp_path / "other", 1, RECIPE, progress=False)


def test_labels_are_clean_and_episodes_hold_still_at_the_end():
    noisy, _ = make_episode(Recipe(tasks="touch-red", image_size=16), 0)
    assert np.array_equal(noisy.actions[-4:], np.repeat(noisy.actions[-1:], 4, axis=0))
    clean, _ = make_episode(Recipe(tasks="touch-red", image_size=16, noise=0.0), 0)
    assert np.array_equal(noisy.actions[0], clean.actions[0])
    assert not np.array_equal(noisy.states[1], clean.states[1])


def test_the_expert_follows_through_after_success():
    recipe = Recipe(tasks="left-red", image_size=16, scattered_starts=0.0, clumsy_starts=0.0)
    longer, _ = make_episode(recipe, 0)
    short, _ = make_episode(replace(recipe, follow_through=0), 0)
    tail, hold = recipe.follow_through, recipe.hold_steps
    assert len(longer.actions) == len(short.actions) + tail
    assert np.array_equal(longer.actions[: -tail - hold], short.actions[:-hold])
    waist = longer.actions[-hold - tail - 1 : -hold, 0]
    assert np.all(np.diff(waist) > 0) or np.all(np.diff(waist) < 0), "the push goes on"


def test_clumsy_starts_begin_in_the_middle_of_an_attempt():
    at_home = Recipe(tasks="left-red", image_size=16, scattered_starts=0.0, clumsy_starts=0.0)
    home = make_episode(at_home, 0)[0].states[0]
    starts = [make_episode(replace(at_home, clumsy_starts=1.0), index)[0].states[0] for index in range(3)]
    assert all(np.abs(start - home).max() > 0.05 for start in starts)
    with pytest.raises(ValueError, match="sum to 1 at most"):
        Recipe(scattered_starts=0.8, clumsy_starts=0.3)


@pytest.fixture
def play_root(tmp_path: Path) -> Path:
    root = tmp_path / "play"
    record(root, 2, Recipe(tasks="play", arm="so101", image_size=16, play_steps=(8, 10)), progress=False)
    return root


def test_play(play_root: Path):
    info = json.loads((play_root / "meta" / "info.json").read_text())
    assert info["robot_type"] == "wam_sim_so101"
    assert 16 <= info["total_frames"] <= 20
    assert {frame[4] for frame in contents(play_root)} == {"play"}


def test_videos(tmp_path: Path):
    root = tmp_path / "video"
    record(root, 2, Recipe(tasks="touch-red", image_size=64), use_videos=True, progress=False)
    dataset = LeRobotDataset("local/x", root=root, video_backend="pyav")
    assert dataset.meta.video_keys == ["observation.images.front"]
    assert dataset[0]["observation.images.front"].shape == (3, 64, 64)


def test_two_cameras_at_twenty_frames_a_second(tmp_path: Path):
    recipe = Recipe(tasks="touch-red", image_size=16, cameras=("side", "front"), fps=20)
    record(tmp_path / "data", 1, recipe, progress=False)
    dataset = LeRobotDataset("local/x", root=tmp_path / "data")
    assert dataset.fps == 20
    assert dataset.meta.camera_keys == ["observation.images.side", "observation.images.front"]
    assert not np.array_equal(dataset[0]["observation.images.side"], dataset[0]["observation.images.front"])


def test_a_second_lasts_a_second_at_every_rate():
    slow, fast = (make_episode(Recipe(tasks="play", image_size=16, fps=fps), 0)[0] for fps in (10, 20))
    assert len(fast.states) == 2 * len(slow.states)
    assert fast.states[0] == pytest.approx(slow.states[0], abs=1e-3)
    speed = [np.abs(np.diff(episode.states, axis=0)).mean() for episode in (slow, fast)]
    assert speed[1] == pytest.approx(speed[0] / 2, rel=0.3)


def test_a_recording_older_than_an_option_has_its_default(whole: Path, tmp_path: Path):
    file = whole / "meta" / Recipe.file
    old = json.loads(file.read_text())
    del old["fps"], old["cameras"]
    file.write_text(json.dumps(old))
    assert record(whole, 4, RECIPE, progress=False).recorded == 0
    with pytest.raises(ValueError, match="recorded with fps=10, this call asks for fps=20"):
        record(whole, 4, replace(RECIPE, fps=20), progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 30}, "fps is 30; the simulator runs at 10 or 20"),
        ({"cameras": ("wrist",)}, r"cameras are \['wrist'\]; expected one or more of front, side, each once"),
        ({"cameras": ()}, "expected one or more of front, side"),
        ({"arm": "kuka"}, "'kuka' is unknown"),
    ],
)
def test_impossible_worlds_are_refused(options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        Recipe(**options)  # type: ignore[arg-type]


def test_named_play_is_called_after_what_happened() -> None:
    """A named episode says what the strict judge says of it; the arm moves as in play without names."""
    world = Tabletop("ur5e")
    plain, named = (Recipe(tasks=kind, arm="ur5e", image_size=16) for kind in ("play", "named_play"))
    texts = set()
    for index in range(8):
        without, _ = make_episode(plain, index, world)
        episode, _ = make_episode(named, index, world)
        np.testing.assert_array_equal(episode.actions[:5], without.actions[:5])
        assert without.text == "play"
        if episode.text != "play":
            texts.add(episode.text)
            assert episode.text in {task.instruction for task in select_tasks("single")}
    assert len(texts) > 2


def test_shares_mix_task_groups_and_play() -> None:
    recipe = Recipe(tasks="single:2,two_stage:1,play:1")
    assert recipe.shares() == ("single", "single", "two_stage", "play")
    with pytest.raises(ValueError, match="whole number"):
        Recipe(tasks="single:many,play:1")
