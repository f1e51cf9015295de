"""A small LeRobotDataset held in memory: every image is decoded once, so one core need not decode for the other.

LeRobot decodes the images of a window anew for every key that it queries, at every step. For the few thousand small
frames of a demonstration that costs more than training on them.
"""

import io
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from lerobot.datasets import LeRobotDataset
from PIL import Image
from torch import Tensor

_INDICES = ("index", "episode_index", "frame_index", "task_index", "timestamp")


class InMemoryDataset(torch.utils.data.Dataset):
    """Gives the same items as the dataset it was made from, and passes every other attribute on.

    Args:
        dataset: A local dataset, or some of its episodes, whose cameras are stored as images.

    Raises:
        ValueError: The dataset holds video files.
    """

    def __init__(self, dataset: LeRobotDataset) -> None:
        self._inner = dataset
        if dataset.meta.video_keys:
            raise ValueError(
                f"dataset {dataset.repo_id} has video files: only datasets of stored images can be held in memory"
            )
        self._windows: dict[str, np.ndarray] = {}
        for key, deltas in (dataset.delta_timestamps or {}).items():
            self._windows[key] = np.array([round(delta * dataset.fps) for delta in deltas])
        chosen = None if dataset.episodes is None else pc.field("episode_index").isin(dataset.episodes)
        table = pq.ParquetDataset(sorted((dataset.root / "data").glob("**/*.parquet")), filters=chosen).read()
        table = table.sort_by("index")
        self._columns: dict[str, Tensor] = {}
        for key, feature in dataset.features.items():
            column = table[key].to_pylist()
            if feature["dtype"] == "image":
                pixels = np.stack([np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in column])
                self._columns[key] = torch.from_numpy(pixels).movedim(-1, 1)
            else:
                self._columns[key] = torch.tensor(column, dtype=getattr(torch, feature["dtype"]))
        episodes = self._columns["episode_index"].numpy()
        starts = np.flatnonzero(np.diff(episodes, prepend=-1))
        ends = np.append(starts[1:], len(episodes))
        segment = np.searchsorted(starts, np.arange(len(episodes)), side="right") - 1
        self._start, self._end = starts[segment], ends[segment]
        self._tasks = [str(task) for task in dataset.meta.tasks.sort_values("task_index").index]

    def column(self, key: str) -> Tensor:
        """Return a feature of all frames [frames, ...], as it is stored."""
        return self._columns[key]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not yet set while unpickling
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __len__(self) -> int:
        return len(self._start)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the window that starts at frame `index`, padded with the episode's edge frames."""
        item: dict[str, Any] = {key: self._columns[key][index] for key in _INDICES}
        for key, column in self._columns.items():
            if key in _INDICES:
                continue
            if key not in self._windows:
                item[key] = _scaled(column[index])
                continue
            wanted = index + self._windows[key]
            inside = np.clip(wanted, self._start[index], self._end[index] - 1)
            item[key] = _scaled(column[torch.from_numpy(inside)])
            item[f"{key}_is_pad"] = torch.from_numpy(wanted != inside)
        item["task"] = self._tasks[int(item["task_index"])]
        return item


def _scaled(values: Tensor) -> Tensor:
    return values.float() / 255 if values.dtype == torch.uint8 else values
