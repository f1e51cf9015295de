"""DreamZero's windows on LeRobot data; the rule itself is compared with the official one in tests/parity."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_policies import build_policy, load_dataset, tiny_config, write_dataset

from lerobot_wam.data.official_windows import OfficialWindows, official_windows


def change_task_at(step: int):
    return lambda _, now: "go left" if now < step else "go right"


def test_episodes_are_borders():
    episode = np.repeat([3, 7], [20, 25])
    first, chunks = official_windows(episode, np.zeros(45, int), chunk_steps=8, max_chunks=2)
    # The first episode's last chunk starts at 11: it needs the frame behind its 8 steps.
    assert (first[0], chunks[0]) == (0, 2)
    assert (first[12], chunks[12]) == (4, 1)
    # Taking the chunk before first, then the one behind.
    assert (first[20 + 9], chunks[20 + 9]) == (20 + 1, 2)
    assert (first[20 + 0], chunks[20 + 0]) == (20, 2)
    assert np.all(first[20:][chunks[20:] > 0] >= 20)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "arm", (24, 20), tasks=change_task_at(18))


def test_items_are_flagged_behind_the_last_chunk(data):
    config = tiny_config()
    dataset = load_dataset(data, config)
    windows = OfficialWindows(dataset, config.chunk_steps, config.max_chunks)
    task = np.repeat([0, 1, 0, 1], [18, 6, 18, 2])
    first, chunks = official_windows(np.repeat([0, 1], [24, 20]), task, chunk_steps=8, max_chunks=2)
    sampled = np.flatnonzero(chunks)
    assert len(windows) == len(sampled) < len(dataset)
    assert windows.fps == dataset.fps
    lengths = set()
    for i, step in enumerate(sampled):
        item = windows[i]
        steps = int(chunks[step]) * 8
        lengths.add(steps)
        assert torch.equal(item["action"], dataset[int(first[step])]["action"])
        assert (~item["action_is_pad"]).sum() == steps
        assert (~item["observation.images.front_is_pad"]).sum() == 1 + steps
        assert "index" not in item
    assert lengths == {8, 16}


def test_the_policy_trains_on_them_whole(data):
    """A window whose last chunk runs into the next task is kept whole, as DreamZero does, unlike our own rule."""
    policy = build_policy(data)
    config = policy.config
    dataset = load_dataset(data, config)
    windows = OfficialWindows(dataset, config.chunk_steps, config.max_chunks)
    loader = torch.utils.data.DataLoader(windows, batch_size=len(windows))
    (batch,) = loader
    _, action_real = policy.reader.real_steps(batch)
    steps = action_real.sum(dim=1)
    assert set(steps.tolist()) == {8, 16}
    loss, _ = policy.forward(batch)
    assert torch.isfinite(loss)
    forward = torch.utils.data.default_collate([dataset[2]])
    assert policy.reader.real_steps(forward)[1].sum() == 16  # steps 2..17 are of one task
    assert policy.reader.real_steps(torch.utils.data.default_collate([dataset[4]]))[1].sum() == 14


def test_an_instruction_is_drawn_among_those_that_are_there(data):
    config = tiny_config()
    dataset = load_dataset(data, config)

    class Annotated(torch.utils.data.Dataset):
        def __getattr__(self, name):
            return getattr(dataset, name)

        def __getitem__(self, index):
            return dataset[index] | {"text_1": "push", "text_2": "", "text_3": "shove"}

    windows = OfficialWindows(Annotated(), config.chunk_steps, config.max_chunks, ("text_1", "text_2", "text_3"))
    torch.manual_seed(0)
    assert {windows[0]["task"] for _ in range(20)} == {"push", "shove"}


def test_what_does_not_work_is_said(data):
    config = tiny_config()
    dataset = load_dataset(data, config)
    with pytest.raises(ValueError, match="the shortest has 25 steps of one task"):
        OfficialWindows(dataset, 24, 2)
    dataset.delta_timestamps = None
    with pytest.raises(ValueError, match="yields single frames"):
        OfficialWindows(dataset, 8, 2)
