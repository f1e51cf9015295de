"""One dataset of a mixture: found, held against its embodiment, and read as windows in the mixture's form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from huggingface_hub.errors import HFValidationError
from lerobot.datasets import LeRobotDataset
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from torch import Tensor

from lerobot_wam.data.batch import ACTION, ACTION_IS_PAD, CATEGORY, SOURCE, STATE, WINDOW, WINDOW_IS_PAD
from lerobot_wam.data.latents import LatentCache, dataset_digest
from lerobot_wam.data.memory import InMemoryDataset
from lerobot_wam.data.recipe import MixtureEntry
from lerobot_wam.data.timing import Timing, retimed, window_timing
from lerobot_wam.data.views import draw_augmentations, tile_views
from lerobot_wam.data.windows import hold_last, steps_until_task_change
from lerobot_wam.embodiments.datasets import EmbodimentMismatchError, check_dataset
from lerobot_wam.embodiments.resolve import find_embodiment
from lerobot_wam.embodiments.spec import FRAMES_PER_LATENT, EmbodimentSpec, load_embodiment
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

    "auto" takes a known one of the robot's or the entry's name that fits, else what `find_embodiment` finds, named
    after the entry where that name is taken or there is no robot.

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
        for spec in known.values():
            named = meta.robot_type in spec.robot_types or spec.name in (meta.robot_type, entry.name)
            if named and _fits(spec, features):
                return spec
        spec = at_policy_rate(find_embodiment("auto", features, meta.fps, meta.robot_type))
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
        codec: Tells what makes the latents that may be there already, see `frozen.video_key`; None looks for none.

    Raises:
        ValueError: The dataset is too slow, no episode is long enough, or its latents are stale.
    """

    def __init__(
        self,
        entry: MixtureEntry,
        number: int,
        spec: EmbodimentSpec,
        category: int,
        shape: WindowShape,
        codec: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self.entry, self.number, self.spec, self.category, self.shape = entry, number, spec, category, shape
        meta = open_metadata(entry)
        self.fps, self.root = float(meta.fps), Path(meta.root)
        own = dataset_features(entry, meta.features)
        self.has_actions = bool(spec.action) and ACTION in own
        self.has_state = bool(spec.state) and STATE in own and self.has_actions == bool(spec.action)
        moving = spec if self.has_actions else replace(spec, action=())
        try:
            self.timing: Timing = window_timing(moving, meta.fps, shape.max_chunks)
        except ValueError as error:
            raise ValueError(f"{entry.name}: {error}") from error
        offsets = {self._recorded(camera.key): self.timing.frame_offsets for camera in spec.cameras}
        offsets |= {STATE: self.timing.state_offsets} if self.has_state else {}
        offsets |= {ACTION: self.timing.action_offsets} if self.has_actions else {}
        episodes = entry.chosen_episodes(meta.total_episodes)
        dataset = LeRobotDataset(
            entry.repo_id,
            root=meta.root,
            revision=entry.revision,
            episodes=None if entry.episodes is None else episodes,
            delta_timestamps={key: [offset / meta.fps for offset in found] for key, found in offsets.items()},
            return_uint8=True,
        )
        columns = read_columns(self.root)
        horizon = steps_until_task_change(columns.episode_index, columns.task_index)
        self.task_horizon = None if horizon is None else torch.from_numpy(horizon)
        self.episodes, self._first, self._lengths = _segments(columns.episode_index, episodes)
        self._dropped = round(shape.drop_n_last_frames * self.fps / spec.fps)
        self._check_lengths()
        self._starts_until = np.cumsum(np.maximum(self._lengths - self._dropped, 0))
        self.latents: LatentCache | None = None
        if codec is not None and entry.latents != "none":
            self.latents = LatentCache.open(self.latents_folder, lambda: self.latents_key(codec()))
            if self.latents is None and entry.latents:
                raise FileNotFoundError(f"{entry.name}: no latents in {entry.latents}: run lerobot-wam cache first")
        self._grid = None if self.latents is None else self.grid(self.latents.phases)
        _leave_out(dataset, {*dataset.meta.camera_keys} - (set() if self.latents else {*offsets}))
        self.dataset = InMemoryDataset(dataset) if entry.in_memory and not self.latents else dataset

    def _check_lengths(self) -> None:
        behind = self.timing.frame_offsets[FRAMES_PER_LATENT]
        needed, longest = 1 + max(self._dropped, behind), self._lengths.max(initial=0)
        if longest < needed:
            raise ValueError(
                f"{self.entry.name}: the longest episode has {longest} frames, a window needs {needed} ({behind} "
                f"behind its first; none starts in an episode's last {self._dropped}, see --policy."
                "drop_n_last_frames): record longer episodes"
            )

    @property
    def frames(self) -> int:
        """Frames of the chosen episodes."""
        return int(self._lengths.sum())

    @property
    def starts(self) -> int:
        """How many windows there are, one a frame."""
        return int(self._starts_until[-1])

    def start(self, number: int) -> int:
        """Return the index of the first frame of a window, 0 <= number < starts."""
        episode = int(np.searchsorted(self._starts_until, number, side="right"))
        return int(self._first[episode]) + number - int(self._starts_until[episode - 1] if episode else 0)

    def grid(self, phases: int) -> np.ndarray:
        """Return the first frames [G] of windows on a grid with `phases` points in the time of a chunk."""
        spacing = self.shape.chunk_steps * self.fps / self.spec.fps / phases
        points = np.unique(np.floor(np.arange(self._lengths.max() / spacing) * spacing + 0.5).astype(np.int64))
        startable = np.maximum(self._lengths - self._dropped, 0)
        return np.concatenate([first + points[points < n] for first, n in zip(self._first, startable, strict=True)])

    @property
    def latents_folder(self) -> Path:
        """Where the dataset's latents are looked for."""
        return Path(self.entry.latents) if self.entry.latents else self.root / "latents" / self.entry.name

    @property
    def texts_folder(self) -> Path:
        """Where its texts' tokens are looked for."""
        return self.latents_folder / "text"

    @property
    def tasks(self) -> list[str]:
        """The dataset's texts, by the entry's template."""
        return [self.entry.text.replace("{task}", str(task)) for task in self.dataset.meta.tasks.index]

    def latents_key(self, codec: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the latents are made from: codec, geometry, time, starts and the dataset itself."""
        spec, shape = self.spec.to_dict(), self.shape
        return {
            "video codec": dict(codec),
            "geometry": {name: spec[name] for name in ("cameras", "view_layout", "video")}
            | {"image_size": shape.image_size, "head_resize": shape.head_resize, "camera map": self.entry.cameras},
            "frames": self.timing.frame_offsets,
            "chunk": shape.chunk_steps * self.fps / self.spec.fps,
            "episodes": self.entry.episodes,
            "drop_n_last_frames": self._dropped,
            "dataset": dataset_digest(self.root),
        }

    def columns(self) -> Columns:
        """Return the chosen episodes' numbers at the policy's control rate."""
        columns = read_columns(self.root)
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

    @property
    def augments(self) -> bool:
        """Whether the embodiment has crops or colours to draw."""
        return self.spec.video.augments

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw a window, its crop and colours, see `data/batch.py` for what it holds."""
        if self.latents is not None and self._grid is not None:
            number = int(rng.integers(self.latents.windows))
            item = self._read(int(self._grid[number // self.latents.crops]))
            return self._numbers(item) | self.latents.read(number)
        start = self.start(int(rng.integers(self.starts)))
        return self.window(start, int(rng.integers(2**63)))

    def window(self, start: int, seed: int | None = None) -> dict[str, Any]:
        """Return the window that starts at a frame of the dataset.

        Its crop and colours are drawn from the seed; without one they are those of a policy that acts.
        """
        item = self._read(start)
        numbers = self._numbers(item)
        real = ~numbers[WINDOW_IS_PAD]
        augmentations = None
        if self.augments and seed is not None:
            augmentations = draw_augmentations(self.spec.video, 1, torch.Generator().manual_seed(seed))
        views = {camera.key: self._frames(item, camera.key, real) for camera in self.spec.cameras}
        picture = tile_views(views, self.spec, self.shape.image_size, self.shape.head_resize, augmentations)
        return numbers | {WINDOW: (picture[0] * 255).round().to(torch.uint8)}

    def _read(self, start: int) -> dict[str, Any]:
        """LeRobot's item of a frame."""
        relative = self.dataset.absolute_to_relative_idx
        return self.dataset[start if relative is None else relative[start]]

    def _numbers(self, item: dict[str, Any]) -> dict[str, Any]:
        """All of a window but its pictures."""
        shape, start = self.shape, int(item["index"])
        episode = int(np.searchsorted(self._first, start, side="right")) - 1
        until_end = int(self._first[episode] + self._lengths[episode]) - start
        until_change = until_end if self.task_horizon is None else int(self.task_horizon[start])
        # The frame right after a chunk's last action may already carry the next text.
        frame_real = torch.tensor(self.timing.frame_offsets) < min(until_end, until_change + 1)
        steps = shape.max_chunks * shape.chunk_steps
        action, action_real = torch.zeros(steps, shape.action_dim), torch.zeros(steps, dtype=torch.bool)
        state = torch.zeros(shape.max_chunks, shape.state_dim)
        if self.has_state:
            state[:, : len(self.spec.state)] = item[STATE].reshape(shape.max_chunks, -1)
        if self.has_actions:
            action_real = torch.tensor(self.timing.action_offsets) < until_change
            action[:, : len(self.spec.action)] = hold_last(item[ACTION].reshape(1, steps, -1), action_real[None])[0]
        return {
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

    def _recorded(self, camera: str) -> str:
        """The dataset's name of one of the embodiment's cameras."""
        return self.entry.cameras.get(camera, camera)

    def _frames(self, item: dict[str, Any], camera: str, real: Tensor) -> Tensor:
        """The frames [1, T, 3, H, W] of one of the embodiment's cameras in [0, 1]."""
        frames = hold_last(item[self._recorded(camera)][None], real[None])
        return frames.float() / 255 if frames.dtype == torch.uint8 else frames


def _leave_out(dataset: LeRobotDataset, cameras: set[str]) -> None:
    """Let LeRobot not decode what nobody looks at."""
    for camera in cameras:
        del dataset.meta.info.features[camera]
        (dataset.reader.delta_indices or {}).pop(camera, None)
    stored = [camera for camera in cameras if camera in dataset.hf_dataset.column_names]
    dataset.reader.hf_dataset = dataset.hf_dataset.remove_columns(stored)


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
