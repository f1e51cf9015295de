"""One dataset of a mixture: found, held against its embodiment, and read as windows in the mixture's form."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np
import torch
from huggingface_hub.errors import HFValidationError
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from torch import Tensor

from lerobot_wam.data.batch import (
    ACTION,
    ACTION_IS_PAD,
    CATEGORY,
    SOURCE,
    STATE,
    WINDOW,
    WINDOW_IS_PAD,
)
from lerobot_wam.data.memory import InMemoryDataset
from lerobot_wam.data.recipe import MixtureEntry
from lerobot_wam.data.timing import Timing, retimed, window_timing
from lerobot_wam.data.views import Augmentation, draw_augmentations, tile_views
from lerobot_wam.data.windows import hold_last, steps_until_task_change
from lerobot_wam.embodiments.datasets import EmbodimentMismatchError, check_dataset, derive_embodiment
from lerobot_wam.embodiments.spec import FRAMES_PER_LATENT, EmbodimentSpec, builtin_names, load_embodiment
from lerobot_wam.embodiments.statistics import Columns, read_columns


@dataclass(frozen=True)
class WindowShape:
    """A policy's windows, in the terms of its configuration."""

    chunk_steps: int
    video_stride: int
    max_chunks: int
    image_size: tuple[int, int]
    head_resize: tuple[int, int] | None
    action_dim: int
    state_dim: int
    drop_n_last_frames: int


def open_metadata(entry: MixtureEntry) -> LeRobotDatasetMetadata:
    """Return a dataset's metadata, from its folder, LeRobot's cache or the Hub.

    Raises:
        FileNotFoundError: It is in none of them.
    """
    try:
        return LeRobotDatasetMetadata(entry.repo_id, root=entry.root, revision=entry.revision)
    except (OSError, httpx.HTTPError, HFValidationError) as error:
        raise FileNotFoundError(
            f"{entry.name}: no dataset {entry.repo_id!r} in {entry.root or 'the cache of LeRobot'}, nor does the Hub "
            f"give it ({type(error).__name__}): set `root` to the folder of a LeRobotDataset v3, or correct `repo_id`"
        ) from error


def dataset_features(entry: MixtureEntry, features: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dataset's features under the embodiment's names, without those that the entry leaves out."""
    missing = [camera for camera in entry.cameras.values() if camera not in features]
    if missing:
        raise ValueError(
            f"{entry.name}: no camera {missing[0]!r} among the dataset's features ({', '.join(features)}): correct "
            "`cameras`, which maps the embodiment's camera to the dataset's"
        )
    unread = set(entry.cameras.values()) | (set() if entry.actions else {ACTION, STATE})
    kept = {key: feature for key, feature in features.items() if key not in unread}
    return kept | {own: features[theirs] for own, theirs in entry.cameras.items()}


def resolve_entry(
    entry: MixtureEntry, meta: LeRobotDatasetMetadata, known: Mapping[str, EmbodimentSpec], shape: WindowShape
) -> EmbodimentSpec:
    """Return the embodiment of a dataset, at the policy's rate.

    "auto" takes one of the robot's or the entry's name that fits: a known one, a built-in one; else it derives one
    from the dataset, named after the robot, or after the entry where that name is taken or there is no robot.

    Args:
        entry: The dataset's entry.
        meta: Its metadata.
        known: The checkpoint's embodiments and those of earlier entries.
        shape: The policy's windows.

    Raises:
        ValueError: The dataset does not fit, or the embodiment's name belongs to another one.
    """
    features = dataset_features(entry, meta.features)

    def at_policy_rate(spec: EmbodimentSpec) -> EmbodimentSpec:
        return retimed(spec, shape.video_stride, shape.chunk_steps)

    if entry.embodiment in known:
        spec = known[entry.embodiment]
    elif entry.embodiment != "auto":
        spec = at_policy_rate(load_embodiment(entry.embodiment))
    else:
        built_in = [at_policy_rate(load_embodiment(name)) for name in builtin_names()]
        candidates = [*known.values(), *(spec for spec in built_in if spec.name not in known)]
        for spec in candidates:
            named = meta.robot_type in spec.robot_types or spec.name in (meta.robot_type, entry.name)
            if named and (spec.name in known or ACTION in features or not spec.action) and _fits(spec, features):
                return spec
        spec = at_policy_rate(derive_embodiment(features, meta.fps, meta.robot_type))
        if not meta.robot_type or spec.name in known:
            spec = replace(spec, name=entry.name)
    if known.get(spec.name, spec) != spec:
        raise ValueError(
            f"{entry.name}: the embodiment name {spec.name!r} is taken, with another "
            f"{_first_change(known[spec.name], spec)}: give this one another name in its YAML file"
        )
    unknown = sorted(set(entry.cameras) - {camera.key for camera in spec.cameras})
    if unknown:
        raise ValueError(
            f"{entry.name}: `cameras` names {unknown[0]!r}, which embodiment {spec.name!r} does not have "
            f"({', '.join(camera.key for camera in spec.cameras)})"
        )
    try:
        check_dataset(spec, features, spec.fps)  # rates may differ here
    except EmbodimentMismatchError as error:
        raise EmbodimentMismatchError(f"{entry.name}: {error}, or map its cameras with `cameras`") from error
    return spec


class Source(torch.utils.data.Dataset):
    """The windows of one entry of a mixture, by the index of their first frame in the dataset.

    Args:
        entry: The dataset's entry.
        number: Its place in the recipe.
        spec: The dataset's embodiment at the policy's rate.
        category: The embodiment's place among the policy's.
        shape: The policy's windows.

    Raises:
        ValueError: The dataset is too slow, or no episode is long enough.
    """

    def __init__(
        self, entry: MixtureEntry, number: int, spec: EmbodimentSpec, category: int, shape: WindowShape
    ) -> None:
        self.entry, self.number, self.spec, self.category, self.shape = entry, number, spec, category, shape
        meta = open_metadata(entry)
        own = dataset_features(entry, meta.features)
        self.has_actions = bool(spec.action) and ACTION in own
        self.has_state = bool(spec.state) and STATE in own and self.has_actions == bool(spec.action)
        moving = spec if self.has_actions else replace(spec, action=())
        try:
            self.timing: Timing = window_timing(moving, meta.fps, shape.max_chunks)
        except ValueError as error:
            raise ValueError(f"{entry.name}: {error}") from error
        offsets = {entry.cameras.get(camera.key, camera.key): self.timing.frame_offsets for camera in spec.cameras}
        offsets |= {STATE: self.timing.state_offsets} if self.has_state else {}
        offsets |= {ACTION: self.timing.action_offsets} if self.has_actions else {}
        episodes = entry.chosen_episodes(meta.total_episodes)
        dataset = LeRobotDataset(
            entry.repo_id,
            root=meta.root,
            revision=entry.revision,
            episodes=None if entry.episodes is None or entry.in_memory else episodes,
            delta_timestamps={key: [offset / meta.fps for offset in found] for key, found in offsets.items()},
            return_uint8=True,
        )
        for camera in set(dataset.meta.camera_keys) - set(offsets):
            del dataset.meta.info.features[camera]  # would be decoded too
        self.dataset = InMemoryDataset(dataset) if entry.in_memory else dataset
        self.fps = float(meta.fps)
        columns = read_columns(meta.root)
        horizon = steps_until_task_change(columns.episode_index, columns.task_index)
        self.task_horizon = None if horizon is None else torch.from_numpy(horizon)
        self.episodes, self._first, lengths = _segments(columns.episode_index, episodes)
        self._check_lengths(lengths)
        dropped = round(shape.drop_n_last_frames * self.fps / spec.fps)
        self._starts_until = np.cumsum(np.maximum(lengths - dropped, 0))
        self.frames = int(lengths.sum())

    def _check_lengths(self, lengths: np.ndarray) -> None:
        dropped = round(self.shape.drop_n_last_frames * self.fps / self.spec.fps)
        needed = 1 + max(dropped, self.timing.frame_offsets[FRAMES_PER_LATENT])
        if lengths.max(initial=0) < needed:
            raise ValueError(
                f"{self.entry.name}: the longest episode has {lengths.max(initial=0)} frames, a window needs {needed} "
                f"({self.timing.frame_offsets[FRAMES_PER_LATENT]} behind its first; none starts in an episode's last "
                f"{dropped}, see --policy.drop_n_last_frames): record longer episodes"
            )

    @property
    def starts(self) -> int:
        """How many windows there are."""
        return int(self._starts_until[-1])

    def start(self, number: int) -> int:
        """Return the index of the first frame of a window, 0 <= number < starts."""
        episode = int(np.searchsorted(self._starts_until, number, side="right"))
        return int(self._first[episode]) + number - int(self._starts_until[episode - 1] if episode else 0)

    def columns(self) -> Columns:
        """Return the chosen episodes' numbers at the policy's control rate."""
        columns = read_columns(self.dataset.root)
        steps = np.arange(1 + columns.frame_index.max(initial=0))
        taken = np.floor(np.round(steps * self.fps / self.spec.fps, 9) + 0.5).astype(np.int64)
        rows = np.isin(columns.frame_index, taken) & np.isin(columns.episode_index, self.episodes)
        return Columns(
            columns.episode_index[rows],
            columns.frame_index[rows],
            columns.task_index[rows],
            columns.action[rows] if self.has_actions and columns.action is not None else None,
            columns.state[rows] if self.has_state and columns.state is not None else None,
        )

    def augmentation(self, generator: torch.Generator) -> Augmentation | None:
        """Draw a crop and colours, where the embodiment has them."""
        video = self.spec.video
        return None if video.crop == 1 and not video.color_jitter else draw_augmentations(video, 1, generator)[0]

    def window(self, start: int, augmentation: Augmentation | None = None) -> dict[str, Any]:
        """Return the window that starts at a frame of the dataset, see `data/batch.py` for what it holds."""
        relative = self.dataset.absolute_to_relative_idx
        item = self.dataset[start if relative is None else relative[start]]
        shape, timing = self.shape, self.timing
        horizon = None if self.task_horizon is None else self.task_horizon[start]
        camera = self.entry.cameras.get(self.spec.cameras[0].key, self.spec.cameras[0].key)
        # The frame right after a chunk's last action may already carry the next text.
        frame_real = _real(item[f"{camera}_is_pad"], timing.frame_offsets, None if horizon is None else horizon + 1)
        views = {c.key: self._frames(item, c.key, frame_real) for c in self.spec.cameras}
        picture = tile_views(
            views, self.spec, shape.image_size, shape.head_resize, None if augmentation is None else [augmentation]
        )
        steps = shape.max_chunks * shape.chunk_steps
        action, action_real = torch.zeros(steps, shape.action_dim), torch.zeros(steps, dtype=torch.bool)
        state = torch.zeros(shape.max_chunks, shape.state_dim)
        if self.has_state:
            state[:, : len(self.spec.state)] = item[STATE].reshape(shape.max_chunks, -1)
        if self.has_actions:
            action_real = _real(item[ACTION_IS_PAD], timing.action_offsets, horizon)
            action[:, : len(self.spec.action)] = hold_last(item[ACTION].reshape(1, steps, -1), action_real[None])[0]
        return {
            WINDOW: (picture[0] * 255).round().to(torch.uint8),
            WINDOW_IS_PAD: ~frame_real,
            STATE: state,
            ACTION: action,
            ACTION_IS_PAD: ~action_real,
            CATEGORY: torch.tensor(self.category),
            SOURCE: torch.tensor(self.number),
            "timestamp": item["timestamp"],
            "index": item["index"],
            "task": self.entry.text.replace("{task}", item["task"]),
        }

    def _frames(self, item: dict[str, Any], key: str, real: Tensor) -> Tensor:
        """The frames [1, T, 3, H, W] of one of the embodiment's cameras in [0, 1]."""
        frames = hold_last(item[self.entry.cameras.get(key, key)][None], real[None])
        return frames.float() / 255 if frames.dtype == torch.uint8 else frames


def _fits(spec: EmbodimentSpec, features: Mapping[str, Any]) -> bool:
    try:
        check_dataset(spec, features, spec.fps)
    except EmbodimentMismatchError:
        return False
    return True


def _first_change(old: EmbodimentSpec, new: EmbodimentSpec) -> str:
    """What differs first between two embodiments, for messages."""
    was, now = old.to_dict(), new.to_dict()
    return next(f"{key} ({was[key]}, not {now[key]})" for key in was if was[key] != now[key])


def _segments(episode_index: np.ndarray, chosen: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The chosen episodes that the data has: their numbers, first rows and lengths."""
    numbers, first, lengths = np.unique(episode_index, return_index=True, return_counts=True)
    kept = np.isin(numbers, chosen)
    return numbers[kept], first[kept], lengths[kept]


def _real(is_pad: Tensor, offsets: tuple[int, ...], end: Tensor | None) -> Tensor:
    """Which values lie in the episode and before the offset `end`."""
    return ~is_pad if end is None else ~is_pad & (torch.tensor(offsets) < end)
