"""A contestant, trained on so many demonstrations for so many steps, and then tried under several conditions.

A run's folder is named after all that it depends on, so cells of different claims share the runs that they have in
common.
"""

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE

from benchmarks.claims.budget import load_costs, steps_for
from benchmarks.claims.contestants import CONTESTANTS, Condition, Data, evaluate, train
from benchmarks.claims.data import ARM, demonstrations
from benchmarks.claims.prior import prior_folder, trained_prior
from benchmarks.claims.scales import NANO, Scale
from benchmarks.claims.training import last_checkpoint
from benchmarks.paired import outcomes
from lerobot_wam.data.recipe import MixtureEntry

FIRST_SCENE = 100_000
"""All contestants are tried on scenes 100000, 100001, ... of a condition."""
VARIANTS = {
    "independent_noise": ("--policy.noise_mode=independent",),
    # Not 0, for that would remove the head that the prior's weights have.
    "no_cloning": ("--policy.auxiliary_bc_weight=1e-9",),
    "light_video": ("--policy.video_loss_weight=0.1",),
    "remembers": ("--policy.max_chunks=4",),
}
"""Ours otherwise than it is: flags of its training."""


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        contestant: Its name.
        labels: Demonstrations of each task.
        steps: Optimizer steps.
        seed: Of training.
        size: Of the network, a key of `Scale.sizes`; only ours has sizes.
        tasks: What is demonstrated; None takes the scale's seen tasks.
        looks: Of the demonstrations' scenes; None takes the scale's.
        video: Name of the `videos` that are trained on besides.
        variant: A key of `VARIANTS`; only ours has them.
        arm: Whose demonstrations.
    """

    contestant: str
    labels: int
    steps: int
    seed: int
    size: str = NANO
    tasks: str | None = None
    looks: str | None = None
    video: str = "no_video"
    variant: str | None = None
    arm: str = ARM

    @property
    def name(self) -> str:
        """All of it but the seed and the prior."""
        parts = [f"{self.contestant}_{self.size}", f"{self.labels}_labels", f"{self.steps}_steps"]
        others = (self.tasks, self.looks, self.variant, None if self.arm == ARM else self.arm)
        parts += [part.replace(",", "_") for part in others if part]
        return "-".join([*parts, self.video])


def ours(contestant: str) -> bool:
    """Whether a contestant is our network, in whatever training."""
    return contestant.startswith(("ours_", "no_video_"))


def steps(scale: Scale, budget: str, contestant: str, size: str = NANO) -> int:
    """Return the optimizer steps of a contestant.

    Args:
        scale: Its `seconds` are the time of all under "clock", and of nano under "samples".
        budget: "clock" or "samples".
        contestant: Its name.
        size: Of its network.
    """
    if scale.steps is not None:
        return scale.steps
    whose = (contestant, size) if budget == "clock" else ("ours_scratch", NANO)
    return steps_for(CONTESTANTS[whose[0]], scale.seconds, load_costs(scale.name), whose[1])


def trained(scale: Scale, run: Run, videos: Sequence[MixtureEntry] = ()) -> Path:
    """Return a run's last checkpoint, trained as far as it is not."""
    contestant = CONTESTANTS[run.contestant]
    root, episodes = demonstrations(scale, run.labels, run.tasks, run.looks, run.arm)
    return train(
        contestant,
        Data(root, episodes),
        steps=run.steps,
        batch_size=scale.batch_size,
        seed=run.seed,
        folder=_folder(scale, "policies", run),
        device=scale.device,
        prior=trained_prior(scale, run.size) if contestant.starts_from_prior else None,
        video=videos,
        flags=_flags(scale, run) if ours(run.contestant) else (),
    )


def measured(
    scale: Scale, run: Run, conditions: Sequence[Condition], videos: Sequence[MixtureEntry] = ()
) -> dict[str, Any]:
    """Train a run and try it; what a cell's file holds of it, with `paired.outcomes` of every condition."""
    policy = trained(scale, run, videos)
    found = {}
    for condition in conditions:
        folder = _folder(scale, "trials", run) / condition.name
        trials = evaluate(
            policy, condition, episodes=scale.episodes, seed=FIRST_SCENE, folder=folder, device=scale.device
        )
        found[condition.name] = outcomes(trials.successes) | {"progress": statistics.fmean(trials.progress)}
    return {
        "contestant": run.contestant,
        "size": run.size,
        "labels_per_task": run.labels,
        "steps": run.steps,
        "batch_size": scale.batch_size,
        "first_scene": FIRST_SCENE,
        **({"prior_sha256": _digest(scale, run.size)} if CONTESTANTS[run.contestant].starts_from_prior else {}),
        "conditions": found,
    }


def conditions(
    scale: Scale, seen: str | None = None, unseen: str | None = None, arm: str = ARM
) -> tuple[Condition, ...]:
    """Seen tasks in the scenes of the demonstrations; unseen tasks there; seen tasks in scenes never seen.

    Args:
        scale: Its tasks, in its looks.
        seen: Other seen tasks.
        unseen: Other unseen tasks.
        arm: Whose body it is.
    """
    seen, unseen = seen or scale.seen, unseen or scale.unseen
    return (
        Condition("seen", seen, scale.looks, arm),
        Condition("unseen_tasks", unseen, scale.looks, arm),
        Condition("unseen_scenes", seen, "unseen", arm),
    )


def _digest(scale: Scale, size: str) -> str:
    """Of the prior's weights: two priors of one recipe are two beginnings."""
    with (last_checkpoint(prior_folder(scale, size)) / SAFETENSORS_SINGLE_FILE).open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()[:12]


def _flags(scale: Scale, run: Run) -> tuple[str, ...]:
    return (*scale.flags, *scale.sizes[run.size], *(VARIANTS[run.variant] if run.variant else ()))


def _folder(scale: Scale, kind: str, run: Run) -> Path:
    start = [prior_folder(scale, run.size).name] if CONTESTANTS[run.contestant].starts_from_prior else []
    return scale.outputs / kind / "-".join([run.name, *start]) / f"seed_{run.seed}"
