"""Datasets of different robots as one: what stock `lerobot-train` reads of a dataset, and windows of one form.

A mixture has `EPOCH` virtual samples. Which dataset, frame, crop and colours sample i has is a function of the seed and
i alone, and LeRobot's sampler only permutes the i. So a resumed run, and any number of processes, see what one
uninterrupted process would.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from lerobot_wam.data.batch import ACTION, ANCHOR, STATE, WINDOW
from lerobot_wam.data.recipe import MixtureRecipe
from lerobot_wam.data.source import Source, WindowShape, dataset_features, open_metadata, resolve_entry
from lerobot_wam.data.texts import StoredTextCodec
from lerobot_wam.embodiments.resolve import check_numbers, stored_embodiment
from lerobot_wam.embodiments.spec import EmbodimentSpec
from lerobot_wam.embodiments.statistics import Columns

logger = logging.getLogger(__name__)

EPOCH = 2**22
"""Virtual samples of a mixture, before they repeat."""


@dataclass
class MixtureMeta:
    """What LeRobot reads of a dataset's metadata, and what the policy adopts.

    Attributes:
        features: The embodiments' cameras at their recorded sizes, state and action at their largest widths.
        camera_keys: The pictures of an item, which LeRobot scales to [0, 1].
        episodes: One virtual episode, of which the sampler leaves out the end.
        fps: Control steps per second of the first embodiment at the policy's rate.
        robot_type: Of the first dataset that names one.
        text_folders: Cached text tokens.
        embodiments: Name -> {"spec", "statistics"}, in category order: the checkpoint's, then the new ones.
        sources: Names of the recipe's entries.
        datasets: LeRobot's metadata of each entry's dataset.
    """

    recipe: MixtureRecipe
    embodiments: dict[str, Any]
    features: dict[str, Any]
    episodes: dict[str, list[int]]
    fps: float
    robot_type: str | None
    tasks: pd.DataFrame
    total_episodes: int
    total_frames: int
    datasets: list[LeRobotDatasetMetadata]
    text_folders: tuple[Path, ...] = ()
    camera_keys: tuple[str, ...] = (WINDOW, ANCHOR)
    stats: dict[str, Any] = field(default_factory=dict)
    has_language_columns: bool = False
    root: None = None

    @property
    def sources(self) -> list[str]:
        """Names of the recipe's entries, in their order."""
        return [entry.name for entry in self.recipe.datasets]

    @property
    def repo_id(self) -> str:
        """The datasets' names on the Hub."""
        return ", ".join(entry.repo_id for entry in self.recipe.datasets)

    @property
    def total_tasks(self) -> int:
        """Different texts."""
        return len(self.tasks)


class Mixture(torch.utils.data.Dataset):
    """A dataset for `lerobot_train`, whose items are windows of the recipe's datasets.

    Args:
        recipe: The datasets.
        shape: The policy's windows.
        stored: Embodiments of a checkpoint, whose specs and statistics win; None for a new policy.
        seed: Of every draw.
        codec: Tells what makes the policy's latents, where there are cached ones; None uses none of those.

    Raises:
        FileNotFoundError: A dataset that is not there.
        ValueError: One that does not fit; the message begins with its name.
    """

    absolute_to_relative_idx = None
    episodes = None

    def __init__(
        self,
        recipe: MixtureRecipe,
        shape: WindowShape,
        stored: Mapping[str, Any] | None = None,
        seed: int = 0,
        codec: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self.seed = seed
        stored = dict(stored or {})
        specs = {name: EmbodimentSpec.from_dict(kept["spec"], name) for name, kept in stored.items()}
        metas = [open_metadata(entry) for entry in recipe.datasets]
        features = [dataset_features(e, meta.features) for e, meta in zip(recipe.datasets, metas, strict=True)]
        chosen: dict[int, EmbodimentSpec] = {}
        # Video without actions comes last: it joins the robot that it shows.
        for number in sorted(range(len(metas)), key=lambda n: ACTION not in features[n]):
            spec = resolve_entry(recipe.datasets[number], metas[number], specs, shape)
            _check_widths(recipe.datasets[number].name, spec, shape)
            chosen[number] = specs[spec.name] = spec
        names = list(specs)
        self.sources = [
            Source(entry, number, chosen[number], names.index(chosen[number].name), shape, codec)
            for number, entry in enumerate(recipe.datasets)
        ]
        _check_one_form(self.sources)
        weights = np.cumsum([entry.weight for entry in recipe.datasets])
        self._shares_until = weights / weights[-1]
        for source in self.sources:
            logger.info("%s: %s, %s", source.entry.name, source.spec.name, source.timing.text)
        texts = dict.fromkeys(task for source in self.sources for task in source.tasks)
        index = pd.Index(texts, name="task")
        self.meta = MixtureMeta(
            recipe=recipe,
            embodiments={name: self._embodiment(spec, stored.get(name)) for name, spec in specs.items()},
            features=_features(list(chosen.values()), [features[number] for number in chosen]),
            episodes={"dataset_from_index": [0], "dataset_to_index": [EPOCH + shape.drop_n_last_frames]},
            fps=chosen[0].fps,
            robot_type=next((meta.robot_type for meta in metas if meta.robot_type), None),
            tasks=pd.DataFrame({"task_index": range(len(index))}, index=index),
            total_episodes=sum(len(source.episodes) for source in self.sources),
            total_frames=sum(source.frames for source in self.sources),
            datasets=metas,
            text_folders=tuple(f for s in self.sources if s.latents and StoredTextCodec.are_in(f := s.texts_folder)),
        )

    @property
    def num_frames(self) -> int:
        """Recorded frames of all datasets."""
        return self.meta.total_frames

    @property
    def num_episodes(self) -> int:
        """Recorded episodes of all datasets."""
        return self.meta.total_episodes

    def __len__(self) -> int:
        return EPOCH

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return virtual sample `index`, see `data/batch.py` for what it holds."""
        rng = np.random.default_rng([self.seed, index])
        source = self.sources[int(np.searchsorted(self._shares_until, rng.random(), side="right"))]
        return source.sample(rng) | {"index": torch.tensor(index)}

    def _embodiment(self, spec: EmbodimentSpec, stored: dict[str, Any] | None) -> dict[str, Any]:
        """The checkpoint's entry of an embodiment, or a new one with statistics over all its datasets."""
        own = [source for source in self.sources if source.spec.name == spec.name]
        columns = [source.columns() for source in own if source.has_actions or not spec.action]
        where = ", ".join(source.entry.name for source in own)
        try:
            if stored is not None:
                for found in columns:
                    check_numbers(spec, found)
                return stored
            if not columns:
                raise ValueError(
                    f"embodiment {spec.name!r} has actions, but none of its datasets has: add one that does, or set "
                    "`embodiment: auto` to train on the video alone"
                )
            return stored_embodiment(spec, _joined(columns))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def _check_widths(name: str, spec: EmbodimentSpec, shape: WindowShape) -> None:
    for kind, width, found in (
        ("action", shape.action_dim, len(spec.action)),
        ("state", shape.state_dim, len(spec.state)),
    ):
        if found > width:
            raise ValueError(
                f"{name}: {spec.name!r} has {found} {kind} dimensions, the policy {width}: set "
                f"--policy.{kind}_dim={found} or more"
            )


def _check_one_form(sources: list[Source]) -> None:
    """Refuse windows that no batch could hold together."""
    cached = [source.entry.name for source in sources if source.latents]
    others = [source.entry.name for source in sources if not source.latents]
    if cached and others:
        raise ValueError(
            f"{', '.join(cached)} have cached latents, {', '.join(others)} none: run lerobot-wam cache for all, or set "
            "`latents: none` for those that have them"
        )
    grids = {source.spec.grid: source for source in sources}
    if len(grids) > 1 and sources[0].shape.head_resize is None:
        found = ", ".join(f"{source.entry.name} {rows} x {cols}" for (rows, cols), source in grids.items())
        raise ValueError(
            f"the pictures have different numbers of views ({found}), so one batch cannot hold them: set "
            "--policy.head_resize, the size that every tiled picture gets"
        )


def _joined(columns: list[Columns]) -> Columns:
    """Several datasets of one robot as one."""
    episodes, shift = [], 0
    for found in columns:
        episodes.append(found.episode_index + shift)
        shift = int(episodes[-1].max()) + 1

    def joined(name: str) -> Any:
        values = [getattr(found, name) for found in columns]
        return None if any(value is None for value in values) else np.concatenate(values)

    return Columns(np.concatenate(episodes), *(joined(n) for n in ("frame_index", "task_index", "action", "state")))


def _features(specs: list[EmbodimentSpec], features: list[dict[str, Any]]) -> dict[str, Any]:
    """LeRobot's features of all embodiments together."""
    together = {
        camera.key: found[camera.key]
        for spec, found in reversed(list(zip(specs, features, strict=True)))
        for camera in spec.cameras
    }
    for key, vectors in ((STATE, [spec.state for spec in specs]), (ACTION, [spec.action for spec in specs])):
        widest = max(vectors, key=len)
        if widest:
            names = [dimension.name for dimension in widest]
            together[key] = {"dtype": "float32", "shape": (len(widest),), "names": names}
    return together
