"""What a training dataset makes of a policy's configuration."""

from pathlib import Path
from typing import Any

import torch
import yaml
from lerobot.configs import parser
from torch import Tensor

from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.data.mixture import MixtureMeta
from lerobot_wam.data.windows import steps_until_task_change
from lerobot_wam.embodiments.datasets import check_dataset
from lerobot_wam.embodiments.resolve import (
    check_numbers,
    load_stored_embodiment,
    resolve_embodiment,
    stored_embodiment,
)
from lerobot_wam.embodiments.statistics import read_columns


def adopt_dataset(config: WAMConfig, meta: Any) -> Tensor | None:
    """Fill the configuration's embodiment from the training data, or check the data against the stored one.

    Args:
        config: A new policy's configuration, which gets its embodiment here, or a stored one.
        meta: LeRobot's metadata of the dataset, or a mixture's.

    Returns:
        For every frame of the dataset the steps until its task changes [frames]; None where none ever does, and for a
        mixture, which cuts its windows itself.

    Raises:
        ValueError: The dataset does not fit; the message names what and the way out.
    """
    config.validate_features()
    if isinstance(meta, MixtureMeta):
        _adopt_mixture(config, meta)
        return None
    columns = read_columns(Path(meta.root))
    if not config.embodiments:
        spec = resolve_embodiment(
            config.embodiment, meta.features, meta.fps, meta.robot_type, config.video_stride, config.chunk_steps
        )
        config.embodiments = {spec.name: stored_embodiment(spec, columns)}
        config.embodiment = spec.name
    else:
        name = config.embodiment if config.embodiment in config.embodiments else next(iter(config.embodiments))
        spec, _ = load_stored_embodiment(name, config.embodiments[name])
        # LeRobot renames the columns of batches, and tells the policy of it in no other way.
        renamed = yaml.safe_load(parser.parse_arg("rename_map") or "{}")
        features = {renamed.get(key, key): f for key, f in meta.features.items()}
        check_dataset(spec, features, meta.fps, "give the checkpoint this robot with `lerobot-wam adapt`")
        check_numbers(spec, columns)
    _check_widths(config, len(spec.action), len(spec.state))
    _check_episode_lengths(config, columns.episode_index)
    horizon = steps_until_task_change(columns.episode_index, columns.task_index)
    return None if horizon is None else torch.from_numpy(horizon)


def _adopt_mixture(config: WAMConfig, meta: MixtureMeta) -> None:
    """Take what a mixture has checked already: its robots, where the policy knows none yet, and its recipe."""
    if not config.embodiments:
        config.max_embodiments = max(config.max_embodiments, len(meta.embodiments))
        config.embodiments = meta.embodiments
        # Which one acts is for those to say who deploy it, unless there is no choice.
        config.embodiment = next(iter(meta.embodiments)) if len(meta.embodiments) == 1 else "auto"
    unknown = [name for name in meta.embodiments if name not in config.embodiments]
    if unknown:
        raise ValueError(
            f"the mixture has the embodiment {', '.join(unknown)}, the checkpoint knows "
            f"{', '.join(config.embodiments)}: give it the new one with `lerobot-wam adapt`, or correct `embodiment`"
        )
    config.mixture = meta.recipe.to_dict()


def _check_widths(config: WAMConfig, actions: int, states: int) -> None:
    for kind, width, found in (("action", config.action_dim, actions), ("state", config.state_dim, states)):
        if found > width:
            raise ValueError(
                f"the dataset has {found} {kind} dimensions, the model {width}: set --policy.{kind}_dim={found} or more"
            )


def _check_episode_lengths(config: WAMConfig, episode_index: Any) -> None:
    _, lengths = torch.unique(torch.from_numpy(episode_index.copy()), return_counts=True)
    if lengths.max() <= config.drop_n_last_frames:
        raise ValueError(
            f"the longest episode has {int(lengths.max())} steps, but windows may not start in an episode's last "
            f"{config.drop_n_last_frames}: record longer episodes, or set --policy.drop_n_last_frames=0 to train on "
            "masked tails"
        )
