"""DreamZero's windows: they grow both ways around a sampled step, in whole chunks, and stay in one task (spec §2.3).

LeRobot's windows begin at the sampled step and only look forward, which is our default: every step of an episode starts
a window, and what lies behind its end is masked. `OfficialWindows` gives DreamZero's instead.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lerobot.datasets import LeRobotDataset


def official_windows(
    episode_index: np.ndarray, task_index: np.ndarray, chunk_steps: int, max_chunks: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return, for every step as the sampled one, the window's first step and its chunks.

    Around the sampled step a, chunks start at a - chunk_steps, a + chunk_steps, a - 2 chunk_steps and so on, until
    there are `max_chunks`. A direction ends at the episode's border, and where the task at a chunk's start is another
    one; the task inside a chunk is not looked at. A chunk counts if all its steps exist. The window ends with the frame
    behind its last chunk; where the episode lacks it, the last chunk is dropped.

    Args:
        episode_index: Episode of each step [N], in dataset order.
        task_index: Task of each step [N]; anything that can be compared.
        chunk_steps: Actions per chunk.
        max_chunks: Chunks per window at most.

    Returns:
        First step [N] (an index into the dataset) and chunks [N]. Chunk i starts at first + i * chunk_steps: there its
        state is read, from there its actions and frames run. 0 chunks: the step has no window.
    """
    step = np.arange(len(episode_index))
    starts = np.flatnonzero(np.diff(episode_index, prepend=episode_index[0] - 1))
    episode = np.searchsorted(starts, step, side="right") - 1
    begin, end = starts[episode], np.append(starts[1:], len(step))[episode]
    first: np.ndarray = step.copy()
    chunks = (step + chunk_steps <= end).astype(np.int64)
    is_open = {-1: np.ones(len(step), dtype=bool), 1: np.ones(len(step), dtype=bool)}
    for reach in range(1, max_chunks + 1):
        for side, growing in is_open.items():
            anchor = step + side * reach * chunk_steps
            inside = (begin <= anchor) & (anchor < end)
            growing &= inside & (task_index[np.where(inside, anchor, step)] == task_index)
            added = growing & (anchor + chunk_steps <= end) & (chunks < max_chunks)
            chunks += added
            first = np.where(added, np.minimum(first, anchor), first)
    last_frame_missing = first + chunks * chunk_steps >= end
    return first, np.maximum(chunks - last_frame_missing, 0)


class OfficialWindows(torch.utils.data.Dataset):
    """A LeRobotDataset whose items are DreamZero's windows, one for every step that has a window.

    Every other attribute is the dataset's own. Items carry no `index`: what belongs to a window is decided here, and
    without it the policy does not cut windows where the task changes.

    Args:
        dataset: A dataset with the policy's forward windows as its `delta_timestamps`.
        chunk_steps: The policy's.
        max_chunks: The policy's.
        instruction_keys: Text features (DROID in LeRobot's format has three) of which one that is not empty is drawn
            anew for each item, as DreamZero does, in place of `task`.

    Raises:
        ValueError: No step has a window, or the dataset yields single frames.
    """

    def __init__(
        self, dataset: LeRobotDataset, chunk_steps: int, max_chunks: int, instruction_keys: Sequence[str] = ()
    ) -> None:
        self._inner, self._chunk_steps, self._instruction_keys = dataset, chunk_steps, tuple(instruction_keys)
        if not dataset.delta_timestamps:
            raise ValueError("the dataset yields single frames: give it the policy's windows as delta_timestamps")
        self._offsets = {
            key: torch.tensor([round(delta * dataset.fps) for delta in deltas])
            for key, deltas in dataset.delta_timestamps.items()
        }
        table = dataset.hf_dataset.with_format("numpy")
        first, chunks = official_windows(table["episode_index"][:], table["task_index"][:], chunk_steps, max_chunks)
        sampled = np.flatnonzero(chunks)
        if not len(sampled):
            raise ValueError(
                f"no episode of {dataset.repo_id} holds a window: the shortest has {chunk_steps + 1} steps of one task"
            )
        self._first, self._chunks = first[sampled], chunks[sampled]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not yet set while unpickling
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __len__(self) -> int:
        return len(self._first)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the window around the sampled step; what follows its last chunk is flagged in `*_is_pad`."""
        item = dict(self._inner[int(self._first[index])])
        del item["index"]
        steps = int(self._chunks[index]) * self._chunk_steps
        for key, offsets in self._offsets.items():
            item[f"{key}_is_pad"] = offsets >= steps if key == "action" else offsets > steps
        texts = [item[key] for key in self._instruction_keys if item[key]]
        if texts:
            item["task"] = texts[int(torch.randint(len(texts), ()))]
        return item
