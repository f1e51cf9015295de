"""Recordings that outlive a killed process."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lerobot.datasets import LeRobotDataset
from lerobot.datasets.io_utils import load_episodes


@contextmanager
def finished_episodes_kept() -> Iterator[None]:
    """Put every episode that is saved into files of its own, and close them at once.

    LeRobot keeps its Parquet files open until the recording ends. An open one has no footer and cannot be read, so a
    process that is killed loses every episode that it has saved. The next episode is then added as LeRobot adds one to
    a recording that it resumes.
    """
    save = LeRobotDataset.save_episode

    def save_and_close(dataset: LeRobotDataset, *args: Any, **kwargs: Any) -> None:
        save(dataset, *args, **kwargs)
        writer, meta = dataset.writer, dataset.meta
        writer.close_writer()
        meta._close_writer()
        meta.episodes = load_episodes(meta.root)
        writer._latest_episode = meta.latest_episode = None

    LeRobotDataset.save_episode = save_and_close
    try:
        yield
    finally:
        LeRobotDataset.save_episode = save
