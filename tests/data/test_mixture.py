"""Datasets of different robots as one."""

import multiprocessing.reduction
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.sampler import EpisodeAwareSampler
from tiny_policies import ARM_JOINTS, MOBILE_JOINTS, SIZE, write_dataset

from lerobot_wam.data.batch import (
    ACTION,
    ACTION_IS_PAD,
    CATEGORY,
    SOURCE,
    STATE,
    WINDOW,
    WINDOW_IS_PAD,
)
from lerobot_wam.data.mixture import EPOCH, Mixture
from lerobot_wam.data.recipe import MixtureEntry, MixtureRecipe
from lerobot_wam.data.source import WindowShape
from lerobot_wam.embodiments.spec import EmbodimentSpec

SHAPE = WindowShape(
    chunk_steps=8,
    video_stride=1,
    max_chunks=2,
    image_size=(SIZE, SIZE),
    head_resize=(SIZE, SIZE),
    action_dim=8,
    state_dim=8,
    drop_n_last_frames=0,
)
FRONT = "observation.images.front"


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A robot with a description, one with two cameras and without, people, and a recording with two tasks in one."""
    folder = tmp_path_factory.mktemp("mixture")
    return {
        "arm": write_dataset(folder / "arm", (24, 20)),
        "mobile": write_dataset(
            folder / "mobile",
            (60, 70),
            robot_type="mobile",
            fps=30,
            cameras=("left", "right"),
            joints=MOBILE_JOINTS,
            size=48,
        ),
        "people": write_dataset(folder / "people", (40,), robot_type=None, fps=5, state=False, action=False, size=24),
        "changing": write_dataset(folder / "changing", (24,), tasks=lambda _, step: "red" if step < 10 else "blue"),
    }


def entry(roots: dict[str, Path], dataset: str, **options: Any) -> MixtureEntry:
    return MixtureEntry(**({"repo_id": f"local/{dataset}", "root": str(roots[dataset])} | options))


def mix(*entries: MixtureEntry, shape: WindowShape = SHAPE, **options: Any) -> Mixture:
    return Mixture(MixtureRecipe(entries), shape, **options)


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a
    )


def test_robots_of_every_kind_collate(roots: dict[str, Path]):
    mixture = mix(entry(roots, "arm"), entry(roots, "mobile"), entry(roots, "people"))
    loader = torch.utils.data.DataLoader(mixture, batch_size=24)
    batch = next(iter(loader))
    assert batch[WINDOW].shape == (24, 17, 3, SIZE, SIZE)
    assert batch[WINDOW].dtype == torch.uint8
    assert batch[WINDOW_IS_PAD].shape == (24, 17)
    assert batch[STATE].shape == (24, 2, 8)
    assert batch[ACTION].shape == (24, 16, 8)
    assert batch[ACTION_IS_PAD].shape == (24, 16)
    assert batch[SOURCE].unique().tolist() == [0, 1, 2]
    assert torch.equal(batch[CATEGORY], batch[SOURCE])
    assert list(mixture.meta.embodiments) == ["wam_sim_viperx", "mobile", "people"]
    assert mixture.meta.sources == ["arm", "mobile", "people"]


def test_a_window_of_the_policys_own_rate_is_what_lerobot_reads(roots: dict[str, Path]):
    source = mix(entry(roots, "arm")).sources[0]
    dataset = LeRobotDataset(
        "local/arm",
        root=roots["arm"],
        delta_timestamps={
            FRONT: [i / 10 for i in range(17)],
            STATE: [0, 0.8],
            ACTION: [i / 10 for i in range(16)],
        },
    )
    for start in (0, 10, 30):
        item, window = dataset[start], source.window(start)
        assert torch.equal(window[WINDOW], (item[FRONT] * 255).round().to(torch.uint8))
        assert torch.equal(window[STATE][:, :6], item[STATE])
        assert torch.equal(window[ACTION][:, :6], item[ACTION])
        assert torch.equal(window[WINDOW_IS_PAD], item[f"{FRONT}_is_pad"])
        assert torch.equal(window[ACTION_IS_PAD], item[ACTION_IS_PAD])
        assert (window["task"], window["index"], window["timestamp"]) == (item["task"], start, item["timestamp"])
        assert not window[STATE][:, 6:].any()
        assert not window[ACTION][:, 6:].any()


def test_a_faster_dataset_is_read_at_the_policys_rate(roots: dict[str, Path]):
    """Derived: 5 video frames/s, so 8 steps in 1.6 s of a dataset with 30 frames/s."""
    source = mix(entry(roots, "mobile")).sources[0]
    assert source.spec.fps == 5
    every = LeRobotDataset("local/mobile", root=roots["mobile"])
    window = source.window(2)
    expected = torch.stack([every[2 + 6 * step][ACTION] for step in range(9)])
    assert torch.equal(window[ACTION][:9, :3], expected)
    assert torch.equal(window[STATE][1, :3], every[2 + 48][STATE])
    assert window[ACTION_IS_PAD].tolist() == [False] * 10 + [True] * 6  # 58 frames are left


def test_statistics_are_those_of_the_policys_rate(roots: dict[str, Path]):
    """Of relative actions at most 8 steps of 1/5 s; at the recording's rate the range would be smaller."""
    statistics = mix(entry(roots, "mobile")).meta.embodiments["mobile"]["statistics"]
    assert statistics["steps"] == 10 + 12
    every = LeRobotDataset("local/mobile", root=roots["mobile"])
    drift = [float(every[48][ACTION][0] - every[6][STATE][0]), float(every[6][ACTION][0] - every[6][STATE][0])]
    assert statistics["action_low"][0][0] <= min(drift)
    assert statistics["action_high"][0][0] >= max(drift)


def test_statistics_are_pooled_over_a_robots_datasets(roots: dict[str, Path]):
    first = entry(roots, "arm", episodes="0", name="first")
    second = entry(roots, "arm", episodes="1", name="second")
    pooled = mix(first, second).meta.embodiments
    assert pooled == mix(entry(roots, "arm")).meta.embodiments
    assert pooled != mix(first).meta.embodiments


def test_a_checkpoints_statistics_win(roots: dict[str, Path]):
    stored = mix(entry(roots, "arm", episodes="0")).meta.embodiments
    mixture = mix(entry(roots, "mobile"), entry(roots, "arm"), stored=stored)
    assert list(mixture.meta.embodiments) == ["wam_sim_viperx", "mobile"]
    assert mixture.meta.embodiments["wam_sim_viperx"] == stored["wam_sim_viperx"]
    assert [source.category for source in mixture.sources] == [1, 0]


def test_every_derived_embodiment_of_a_checkpoint_is_recognised(roots: dict[str, Path]):
    entries = [entry(roots, name) for name in ("people", "mobile", "arm")]
    stored = mix(*entries).meta.embodiments
    assert mix(*entries, stored=stored).meta.embodiments == stored


def test_a_sample_is_a_function_of_seed_and_index(roots: dict[str, Path]):
    entries = [entry(roots, "arm"), entry(roots, "people")]
    mixture, again, other = (mix(*entries, seed=seed) for seed in (3, 3, 4))
    assert all(equal(mixture[i], again[i]) for i in (5, 0, EPOCH - 1))
    assert not equal(mixture[5], other[5])
    assert not equal(mixture[5], mixture[6])


def test_weights_are_shares_of_the_samples(roots: dict[str, Path]):
    mixture = mix(entry(roots, "arm", weight=3), entry(roots, "people", weight=0), entry(roots, "changing", weight=1))
    counts = torch.bincount(torch.stack([mixture[i][SOURCE] for i in range(120)]), minlength=3).tolist()
    assert counts[1] == 0
    assert 75 <= counts[0] <= 105


def test_the_sampler_of_lerobot_visits_every_virtual_sample(roots: dict[str, Path]):
    mixture = mix(entry(roots, "arm"), shape=replace(SHAPE, drop_n_last_frames=6))
    episodes = mixture.meta.episodes
    sampler = EpisodeAwareSampler(
        episodes["dataset_from_index"], episodes["dataset_to_index"], drop_n_last_frames=6, shuffle=False
    )
    assert len(sampler) == len(mixture) == EPOCH


def test_windows_do_not_start_in_the_last_frames(roots: dict[str, Path]):
    """Frames are counted in the policy's steps: 6 of 1/5 s are 36 of 1/30 s."""
    shape = replace(SHAPE, drop_n_last_frames=6)
    source = mix(entry(roots, "mobile"), shape=shape).sources[0]
    assert [source.start(i) for i in range(source.starts)] == [*range(24), *range(60, 60 + 34)]


def test_chosen_episodes_alone_are_read(roots: dict[str, Path]):
    source = mix(entry(roots, "mobile", episodes="1")).sources[0]
    assert [source.start(i) for i in range(source.starts)] == list(range(60, 130))
    assert source.window(60)["index"] == 60
    assert equal(source.window(75), mix(entry(roots, "mobile")).sources[0].window(75))


def test_what_lies_behind_a_change_of_task_is_masked_and_hidden(roots: dict[str, Path]):
    window = mix(entry(roots, "changing")).sources[0].window(4)
    assert window["task"] == "red"
    assert window[ACTION_IS_PAD].tolist() == [False] * 6 + [True] * 10
    assert window[WINDOW_IS_PAD].tolist() == [False] * 7 + [True] * 10
    assert (window[WINDOW][6:] == window[WINDOW][6]).all()
    assert (window[ACTION][5:] == window[ACTION][5]).all()


def test_the_text_template_is_filled(roots: dict[str, Path]):
    mixture = mix(entry(roots, "arm", text="play: {task}"))
    assert mixture[0]["task"] in ("play: push red", "play: push blue")
    assert sorted(mixture.meta.tasks.index) == ["play: push blue", "play: push red"]


def test_without_actions_a_dataset_is_video(roots: dict[str, Path]):
    mixture = mix(entry(roots, "arm", actions=False, name="watched"))
    window = mixture.sources[0].window(0)
    assert window[ACTION_IS_PAD].all()
    assert not window[ACTION].any()
    assert not window[STATE].any()
    assert (mixture.sources[0].spec.action, mixture.sources[0].spec.state) == ((), ())


def test_video_of_a_known_robot_joins_it(roots: dict[str, Path]):
    mixture = mix(entry(roots, "arm", actions=False, name="watched"), entry(roots, "arm"))
    assert list(mixture.meta.embodiments) == ["wam_sim_viperx"]
    assert mixture.meta.embodiments == mix(entry(roots, "arm")).meta.embodiments


def test_actions_need_no_state(tmp_path: Path):
    write_dataset(tmp_path / "blind", (20,), robot_type=None, state=False)
    mixture = mix(MixtureEntry("local/blind", root=str(tmp_path / "blind")))
    window = mixture.sources[0].window(0)
    assert window[ACTION][:, :6].any()
    assert not window[ACTION_IS_PAD].all()
    assert not window[STATE].any()


def test_cameras_are_mapped_to_the_embodiments(roots: dict[str, Path]):
    cameras = {FRONT: "observation.images.right"}
    mixture = mix(entry(roots, "mobile", cameras=cameras))
    spec = EmbodimentSpec.from_dict(mixture.meta.embodiments["mobile"]["spec"])
    assert [camera.key for camera in spec.cameras] == ["observation.images.left", FRONT]
    assert mixture.meta.features[FRONT]["shape"] == (48, 48, 3)
    plain = mix(entry(roots, "mobile")).sources[0].window(3)
    assert torch.equal(mixture.sources[0].window(3)[WINDOW], plain[WINDOW])


def test_a_dataset_in_memory_gives_the_same_samples(roots: dict[str, Path]):
    for options in ({}, {"episodes": "1"}):
        on_disk = mix(entry(roots, "mobile", **options))
        in_memory = mix(entry(roots, "mobile", in_memory=True, **options))
        assert all(equal(on_disk[i], in_memory[i]) for i in range(6))


def test_pictures_of_several_sizes_need_one_they_all_get(roots: dict[str, Path]):
    with pytest.raises(ValueError, match=r"numbers of views \(arm 1 x 1, mobile 1 x 2\).*set --policy.head_resize"):
        mix(entry(roots, "arm"), entry(roots, "mobile"), shape=replace(SHAPE, head_resize=None))


def test_crops_and_colours_follow_the_sample(roots: dict[str, Path], tmp_path: Path):
    spec = mix(entry(roots, "arm")).sources[0].spec
    file = tmp_path / "cropped.yaml"
    file.write_text(
        replace(spec, name="cropped", video=replace(spec.video, crop=0.5, color_jitter=(0.3, 0.3, 0.3, 0))).to_yaml()
    )
    mixture = mix(entry(roots, "arm", embodiment=str(file)))
    assert equal(mixture[0], mixture[0])
    first, second = (mixture.sources[0].window(0, seed)[WINDOW] for seed in (0, 1))
    assert not torch.equal(first, second)


def test_lerobot_finds_what_it_reads_of_a_dataset(roots: dict[str, Path]):
    mixture = mix(entry(roots, "people"), entry(roots, "arm"), entry(roots, "mobile"))
    meta = mixture.meta
    assert set(meta.features) == {
        FRONT,
        "observation.images.left",
        "observation.images.right",
        STATE,
        ACTION,
    }
    assert meta.features[ACTION] == {"dtype": "float32", "shape": (6,), "names": ARM_JOINTS}
    assert meta.robot_type == "wam_sim_viperx"
    assert (meta.total_episodes, meta.total_frames) == (mixture.num_episodes, mixture.num_frames) == (5, 40 + 44 + 130)
    assert meta.repo_id == "local/people, local/arm, local/mobile"


def test_loader_processes_can_be_sent_a_mixture(roots: dict[str, Path]):
    mixture = mix(entry(roots, "arm"), entry(roots, "mobile", in_memory=True))
    assert len(multiprocessing.reduction.ForkingPickler.dumps(mixture)) > 1000


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("arm", {"root": "nowhere"}, FileNotFoundError, "arm: no dataset 'local/arm' in nowhere, nor does the Hub"),
        ("arm", {"embodiment": "so999"}, ValueError, "unknown embodiment 'so999'"),
        (
            "mobile",
            {"embodiment": "wam_sim_viperx"},
            ValueError,
            "mobile: embodiment 'wam_sim_viperx' needs the camera",
        ),
        ("arm", {"cameras": {FRONT: "observation.images.top"}}, ValueError, "no camera 'observation.images.top'"),
        (
            "arm",
            {"cameras": {"observation.images.x": FRONT}, "embodiment": "wam_sim_viperx"},
            ValueError,
            "arm: `cameras` names 'observation.images.x', which embodiment 'wam_sim_viperx' does not have",
        ),
        ("arm", {"episodes": "7"}, ValueError, "arm: episodes is '7', the dataset has 0 to 1"),
    ],
)
def test_bad_entries_are_named(
    roots: dict[str, Path], name: str, options: dict[str, Any], error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        mix(entry(roots, name, **options))


def test_a_dataset_that_is_not_there_leaves_no_folder(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        mix(MixtureEntry("local/arm", root=str(tmp_path / "nowhere")))
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_with_one_frame_is_refused(tmp_path: Path):
    write_dataset(tmp_path / "still", (1,))
    with pytest.raises(ValueError, match="still: the longest episode has 1 frames, a window needs 5"):
        mix(MixtureEntry("local/still", root=str(tmp_path / "still")))


def test_episodes_shorter_than_what_is_dropped_are_refused(roots: dict[str, Path]):
    with pytest.raises(ValueError, match=r"24 frames, a window needs 31.*drop_n_last_frames"):
        mix(entry(roots, "arm"), shape=replace(SHAPE, drop_n_last_frames=30))


def test_a_dataset_too_slow_for_its_embodiment_is_refused(tmp_path: Path):
    write_dataset(tmp_path / "slow", (40,), fps=5)
    with pytest.raises(ValueError, match="slow: the dataset has 5 frames/s, 'wam_sim_viperx' needs 10 actions/s"):
        mix(MixtureEntry("local/slow", root=str(tmp_path / "slow")))


def test_a_robot_wider_than_the_policy_is_refused(roots: dict[str, Path]):
    with pytest.raises(ValueError, match=r"arm: 'wam_sim_viperx' has 6 action dimensions, the policy 5: set --policy"):
        mix(entry(roots, "arm"), shape=replace(SHAPE, action_dim=5))


def test_an_embodiment_name_that_is_taken_is_refused(roots: dict[str, Path], tmp_path: Path):
    spec = mix(entry(roots, "arm")).sources[0].spec
    (tmp_path / "mine.yaml").write_text(replace(spec, prompt="please {task}").to_yaml())
    with pytest.raises(ValueError, match=r"mine: the embodiment name 'wam_sim_viperx' is taken, with another prompt"):
        mix(entry(roots, "arm"), entry(roots, "arm", name="mine", embodiment=str(tmp_path / "mine.yaml")))


def test_a_number_that_is_none_is_named_with_its_dataset(tmp_path: Path):
    def broken(frame: dict[str, Any], episode: int, step: int) -> None:
        if step == 3:
            frame["action"][2] = float("nan")

    write_dataset(tmp_path / "broken", (20,), change=broken)
    with pytest.raises(ValueError, match=r"broken: action 'elbow.pos' \(index 2\) is nan at step 3"):
        mix(MixtureEntry("local/broken", root=str(tmp_path / "broken")))


def test_actions_without_any_data_are_refused(roots: dict[str, Path]):
    with pytest.raises(ValueError, match="watched: embodiment 'wam_sim_viperx' has actions, but none of its datasets"):
        mix(entry(roots, "arm", name="watched", actions=False, embodiment="wam_sim_viperx"))
