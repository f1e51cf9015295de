"""The recordings behind the claims, made where they are missing.

Episode i of a recording depends on its recipe and i alone, so one that is asked for more episodes keeps those it has.
"""

import os
from bisect import bisect_left
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata

from benchmarks.claims.scales import Scale
from lerobot_wam.data.recipe import MixtureEntry
from lerobot_wam.sim.episodes import Recipe
from lerobot_wam.sim.record import record
from lerobot_wam.sim.tasks import select_tasks

ARM = "viperx"
"""The arm whose demonstrations all claims learn from that do not name another."""
OTHER_ARMS = ("so101", "panda", "ur5e")
DEMONSTRATIONS, HELD_OUT, VIDEO, PRIOR, PLAY, ARMS = 7, 8, 9, 10, 11, 12
"""Seeds of recordings: two of different seeds share no scene."""


def recorded(scale: Scale, name: str, episodes: int, recipe: Recipe) -> Path:
    """Return the folder of a recording with at least so many episodes."""
    root = scale.outputs / "data" / name
    record(root, episodes, recipe, workers=len(os.sched_getaffinity(0)))
    return root


def demonstrations(
    scale: Scale, labels: int, tasks: str | None = None, looks: str | None = None, arm: str = ARM
) -> tuple[Path, str]:
    """Return a recording of expert episodes, and which of them are `labels` of each task.

    Args:
        scale: Its `seen` tasks, in its `looks`, are what is demonstrated.
        labels: Episodes of each task.
        tasks: Others, as `select_tasks` takes them.
        looks: Others.
        arm: Whose they are.
    """
    tasks, looks = tasks or scale.seen, looks or scale.looks
    episodes = labels * len(select_tasks(tasks))
    name = "-".join(["demonstrations", *([] if arm == ARM else [arm]), tasks.replace(",", "_"), looks])
    return recorded(scale, name, episodes, Recipe(tasks, arm, seed=DEMONSTRATIONS, looks=looks)), f"0:{episodes}"


def held_out(scale: Scale, tasks: str, looks: str, arm: str = ARM) -> Path:
    """Return a recording that nothing learns from."""
    name = f"held_out-{arm}-{tasks.replace(',', '_').replace(':', '_')}-{looks}"
    return recorded(scale, name, scale.held_out, Recipe(tasks, arm, seed=HELD_OUT, looks=looks))


def entry(root: Path, episodes: str | None = None) -> MixtureEntry:
    """Return a recording as part of a mixture, kept in memory."""
    return MixtureEntry(f"local/{root.name}", root=str(root), episodes=episodes, in_memory=True)


def video(root: Path, episodes: str | None = None, weight: float = 1.0) -> MixtureEntry:
    """Return the video alone of a recording, as part of a mixture; all arms are one embodiment there."""
    # "auto" would make one of each arm, at 5 frames/s: what fits a real camera, but is half the rate of the arms here.
    embodiment = os.path.relpath(Path(__file__).with_name("tabletop_video.yaml"))
    return replace(entry(root, episodes), weight=weight, actions=False, embodiment=embodiment)


def minutes(root: Path, episodes: str | None = None) -> float:
    """Simulated minutes of a recording's chosen episodes."""
    meta = _meta(root)
    lengths = list(meta.episodes["length"])
    return sum(lengths[episode] for episode in entry(root, episodes).chosen_episodes(len(lengths))) / meta.fps / 60


def first_minutes(scale: Scale, name: str, wanted: float, recipe: Recipe) -> tuple[Path, str]:
    """Return a recording, and which of its episodes, from the first on, reach so many simulated minutes."""
    episodes = 8
    while True:
        root = recorded(scale, name, episodes, recipe)
        meta = _meta(root)
        frames = wanted * 60 * meta.fps
        reached = list(accumulate(meta.episodes["length"]))
        if reached[-1] >= frames:
            return root, f"0:{bisect_left(reached, frames) + 1}"
        episodes = int(len(reached) * frames / reached[-1]) + 8


def _meta(root: Path) -> LeRobotDatasetMetadata:
    return LeRobotDatasetMetadata(f"local/{root.name}", root=root)
