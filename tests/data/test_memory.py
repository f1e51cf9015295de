"""A dataset in memory gives the very items of the dataset on disk."""

from pathlib import Path

import pytest
import torch
from lerobot.datasets import LeRobotDataset
from tiny_policies import write_dataset

from lerobot_wam.data.memory import InMemoryDataset

DELTAS = {
    "observation.images.front": [0.0, 0.4, 1.7],
    "observation.state": [-0.2, 0.0, 0.1],
    "action": [0.0, 0.1, 0.2],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("memory") / "arm", (7, 12, 9))


@pytest.mark.parametrize(("episodes", "frames"), [(None, 28), ([0, 2], 16)])
def test_items_are_equal(root: Path, episodes: list[int] | None, frames: int) -> None:
    on_disk = LeRobotDataset(f"local/{root.name}", root=root, episodes=episodes, delta_timestamps=DELTAS)
    in_memory = InMemoryDataset(on_disk)
    assert len(in_memory) == len(on_disk) == frames
    assert in_memory.num_frames == on_disk.num_frames
    for index in range(len(on_disk)):
        expected, item = on_disk[index], in_memory[index]
        assert item.keys() == expected.keys()
        for key, value in expected.items():
            if isinstance(value, torch.Tensor):
                assert item[key].dtype == value.dtype, key
                assert torch.equal(item[key], value), (index, key)
            else:
                assert item[key] == value, key
