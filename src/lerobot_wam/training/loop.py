"""LeRobot's own training, on datasets of several robots.

`lerobot_train.train` does the work; what it asks for its dataset gets a `Mixture`. Flags, checkpoints, resuming,
several processes, adapters and logging are LeRobot's.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

from lerobot.configs.train import TrainPipelineConfig

from lerobot_wam.configuration_wam import WAMConfig
from lerobot_wam.data.mixture import Mixture
from lerobot_wam.data.recipe import MixtureEntry, MixtureRecipe, difference
from lerobot_wam.data.source import WindowShape
from lerobot_wam.frozen import video_key
from lerobot_wam.modeling_wam import WAMPolicy

logger = logging.getLogger(__name__)

PROGRAM = "lerobot-wam-train"


class StopTraining(Exception):  # noqa: N818  (a request, no error)
    """Raised by `after_step`: the step's checkpoint is the last one."""


def train(
    arguments: Sequence[str],
    recipe: MixtureRecipe | None = None,
    after_step: Callable[[WAMPolicy, int], None] | None = None,
) -> None:
    """Train as `lerobot-train` does with these arguments, on a mixture.

    Args:
        arguments: Flags of `lerobot-train`. With a recipe, `--dataset.*` need not be among them.
        recipe: The datasets. None takes those of the checkpoint that is resumed, else the one of `--dataset.*`.
        after_step: Called after every optimizer step with the policy and the step's number, counted from 1.

    Raises:
        ValueError: Data that does not fit, or a resumed run whose mixture was another.
        FileNotFoundError: A dataset that is not there.
    """
    from lerobot.scripts import lerobot_train

    steps = _Steps(after_step, lerobot_train)
    with (
        swapped(sys, argv=command_line(arguments, recipe)),
        swapped(
            lerobot_train,
            make_train_eval_datasets=lambda config: (make_mixture(config, recipe), None),
            update_policy=steps.update_policy,
            should_save_checkpoint=steps.should_save_checkpoint,
        ),
    ):
        try:
            lerobot_train.train()
        except StopTraining:
            logger.info("stopped after step %d", steps.done)


def command_line(arguments: Sequence[str], recipe: MixtureRecipe | None) -> list[str]:
    """Return a training's program and flags as LeRobot's parser takes them."""
    if recipe is None or any(argument.startswith("--dataset.repo_id") for argument in arguments):
        return [PROGRAM, *arguments]
    # LeRobot insists on one name; it becomes the dataset's in the model card.
    return [PROGRAM, *arguments, f"--dataset.repo_id={recipe.datasets[0].repo_id}"]


def make_mixture(config: TrainPipelineConfig, recipe: MixtureRecipe | None, cached: bool = True) -> Mixture:
    """Return the mixture of a training run.

    Args:
        config: LeRobot's configuration of the run.
        recipe: The datasets, see `train`.
        cached: Use cached latents where all datasets have them.

    Raises:
        ValueError: A setting that a mixture cannot follow, or another mixture than the resumed run's.
    """
    policy = config.policy
    if not isinstance(policy, WAMConfig):
        raise ValueError(f"--policy.type is {policy.type if policy else None}; a mixture needs wam")
    for flag, given, way_out in (
        ("--dataset.eval_split", config.dataset.eval_split, "name the held-out `episodes` in the mixture"),
        ("--dataset.streaming", config.dataset.streaming, "download the datasets"),
        ("--dataset.image_transforms", config.dataset.image_transforms.enable, "use an embodiment's `video`"),
        ("--rename_map", config.rename_map, "use `cameras` in the mixture"),
    ):
        if given:
            raise ValueError(f"{flag} is {given}, which a mixture does not follow: {way_out}")
    before = MixtureRecipe.from_dict(policy.mixture) if config.resume and policy.mixture else None
    if before is not None and recipe is not None and (change := difference(before, recipe)):
        raise ValueError(
            f"the run that is resumed had another mixture: {change}. Leave --mixture out, or start a new run from its "
            "weights with --policy.path"
        )
    found = recipe or before or MixtureRecipe((_entry_of(config),))
    stored = policy.embodiments
    if policy.embodiment != "auto" and policy.embodiment not in stored:
        found = MixtureRecipe(
            tuple(
                replace(entry, embodiment=policy.embodiment) if entry.embodiment == "auto" else entry
                for entry in found.datasets
            )
        )
    codec = cache(partial(video_key, policy)) if cached else None  # may read gigabytes, so once, and if at all
    return Mixture(found, window_shape(policy), stored, config.seed or 0, codec)


def window_shape(config: WAMConfig) -> WindowShape:
    """Return what a policy's windows look like."""
    return WindowShape(
        config.chunk_steps,
        config.video_stride,
        config.max_chunks,
        config.image_size,
        config.head_resize,
        config.action_dim,
        config.state_dim,
        config.drop_n_last_frames,
    )


def _entry_of(config: TrainPipelineConfig) -> MixtureEntry:
    dataset = config.dataset
    episodes = None if dataset.episodes is None else ",".join(map(str, dataset.episodes))
    return MixtureEntry(dataset.repo_id, root=dataset.root, revision=dataset.revision, episodes=episodes)


@contextmanager
def swapped(target: Any, **attributes: Any) -> Iterator[None]:
    """Give a module or class other attributes for a while. LeRobot offers no other way to its loop's parts."""
    before = {name: getattr(target, name) for name in attributes}
    try:
        for name, value in attributes.items():
            setattr(target, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(target, name, value)


class _Steps:
    """Counts LeRobot's optimizer steps, and ends the run after one of them with its checkpoint."""

    def __init__(self, after_step: Callable[[WAMPolicy, int], None] | None, lerobot_train: Any) -> None:
        self.after_step = after_step
        self.done = 0
        self.stopping = False
        self._update, self._should_save = lerobot_train.update_policy, lerobot_train.should_save_checkpoint

    def update_policy(self, tracker: Any, policy: Any, *args: Any, **kwargs: Any) -> Any:
        """Do LeRobot's step, then ours."""
        if self.stopping:
            raise StopTraining
        result = self._update(tracker, policy, *args, **kwargs)
        self.done = tracker.steps + 1
        if self.after_step is not None:
            try:
                self.after_step(kwargs["accelerator"].unwrap_model(policy), self.done)
            except StopTraining:
                self.stopping = True
        return result

    def should_save_checkpoint(self, *args: Any, **kwargs: Any) -> bool:
        """Decide as LeRobot does, or because this step is the last one."""
        return self.stopping or self._should_save(*args, **kwargs)
