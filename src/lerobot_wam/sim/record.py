"""Records simulated episodes into a LeRobotDataset: of the tabletop, and of whatever else is a `Recipe`.

Finished episodes first go, one file each, to `<root>.partial`, so neither Ctrl-C nor a crash loses one; the dataset
is then written beside it in one pass and moved into place whole. A rerun continues where the last one stopped, and
since episode i depends on (recipe, i) alone the result is the same as without the interruption.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from lerobot_wam.quiet import quiet_writing
from lerobot_wam.sim.episodes import Episode


class Recipe(Protocol):
    """What can be recorded: a frozen dataclass whose fields all have defaults, a simulator's own kind of recipe."""

    @property
    def file(self) -> str:
        """The file in a dataset's `meta` that keeps the recipe; each simulator has its own."""

    @property
    def robot_type(self) -> str:
        """The dataset's."""

    @property
    def fps(self) -> int:
        """Control steps, and frames, per second."""

    @property
    def image_size(self) -> int:
        """Edge of the images (pixels)."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Keys of `Episode.images`."""

    @property
    def state_names(self) -> Sequence[str]:
        """Name of each number in `Episode.states`."""

    @property
    def action_names(self) -> Sequence[str]:
        """Name of each number in `Episode.actions`."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""

    def make_episode(self, index: int) -> tuple[Episode, int]:
        """Return episode `index`, which depends on the recipe and it alone, and the attempts that it took."""


@dataclass(frozen=True)
class RecordReport:
    """What `record` did."""

    root: Path
    """The dataset's folder."""
    episodes: int
    """Episodes in it."""
    recorded: int
    """Episodes simulated by this call."""
    attempts: int
    """Attempts these took; the rest missed strict success and were dropped."""


def dataset_features(recipe: Recipe, use_videos: bool) -> dict[str, dict[str, Any]]:
    """Return the LeRobotDataset features of a recording."""
    image = {
        "dtype": "video" if use_videos else "image",
        "shape": (recipe.image_size, recipe.image_size, 3),
        "names": ["height", "width", "channels"],
    }
    features: dict[str, dict[str, Any]] = {f"observation.images.{camera}": dict(image) for camera in recipe.cameras}
    for key, names in (("observation.state", recipe.state_names), ("action", recipe.action_names)):
        features[key] = {"dtype": "float32", "shape": (len(names),), "names": list(names)}
    return features


def record(
    root: str | Path,
    episodes: int,
    recipe: Recipe,
    *,
    repo_id: str | None = None,
    use_videos: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> RecordReport:
    """Record `episodes` episodes into a LeRobotDataset (v3) at `root`, continuing what is there.

    Args:
        root: the dataset's folder; `<root>.partial` is used beside it until all is written.
        episodes: how many the dataset shall hold. One that holds fewer is extended.
        recipe: what to record.
        repo_id: name in the dataset's metadata; `local/<folder>` if absent.
        use_videos: encode the images as video; PNG loads faster at these sizes.
        workers: processes that simulate.
        progress: show a progress bar.

    Raises:
        ValueError: `root` holds another recipe, or something else.
    """
    root = Path(root)
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}; expected 1 or more")
    journal = root.with_name(root.name + ".partial")
    old = root.with_name(root.name + ".old")
    if old.exists() and not root.exists():  # stopped between the two renames of an extension
        old.rename(root)
    present = _episodes_present(root, recipe, use_videos)
    journal.mkdir(parents=True, exist_ok=True)
    _check_recipe(journal / recipe.file, recipe, use_videos)
    missing = [i for i in range(present, episodes) if not _episode_file(journal, i).is_file()]
    attempts = 0
    bar = tqdm(
        total=episodes,
        initial=episodes - len(missing),
        unit="episode",
        desc=f"simulating {root.name}",
        disable=not progress,
    )
    with bar:
        for count in _simulate(recipe, missing, journal, workers):
            attempts += count
            bar.update()
    if present < episodes:
        new = tqdm(range(present, episodes), unit="episode", desc=f"writing {root.name}", disable=not progress)
        _assemble(root, journal, old, new, recipe, repo_id, use_videos)
    shutil.rmtree(journal)
    return RecordReport(root, max(present, episodes), len(missing), attempts)


def _episode_file(journal: Path, index: int) -> Path:
    return journal / f"episode_{index:06d}.npz"


def _check_recipe(path: Path, recipe: Recipe, use_videos: bool) -> None:
    """Write the recipe to `path`, or make sure that the one there is the same."""
    wanted = {**recipe.to_json(), "use_videos": use_videos}
    if not path.is_file():
        path.write_text(json.dumps(wanted, indent=1) + "\n")
        return
    # A recording older than an option was made with its default.
    found = {**type(recipe)().to_json(), **json.loads(path.read_text())}
    for key, value in wanted.items():
        if found[key] != value:
            raise ValueError(
                f"{path.parent} was recorded with {key}={found[key]!r}, this call asks for {key}={value!r}; "
                "use the same options or another folder"
            )


def _episodes_present(root: Path, recipe: Recipe, use_videos: bool) -> int:
    """Return how many episodes the dataset at `root` holds, 0 if there is none."""
    if not root.exists():
        return 0
    file = Path("meta") / recipe.file
    if not (root / file).is_file():
        raise ValueError(f"{root} exists and has no {file}; expected a recording of this simulator or nothing")
    _check_recipe(root / file, recipe, use_videos)
    return int(json.loads((root / "meta" / "info.json").read_text())["total_episodes"])


def _simulate_one(recipe: Recipe, index: int, path: Path) -> int:
    """Simulate one episode into `path`; return the attempts."""
    episode, attempts = recipe.make_episode(index)
    episode.save(path)
    return attempts


def _simulate(recipe: Recipe, missing: list[int], journal: Path, workers: int) -> Iterator[int]:
    """Simulate the missing episodes; yield the attempts of each as it is done."""
    if workers <= 1:
        for index in missing:
            yield _simulate_one(recipe, index, _episode_file(journal, index))
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_simulate_one, recipe, i, _episode_file(journal, i)) for i in missing]
        for job in as_completed(jobs):
            yield job.result()


def _assemble(
    root: Path,
    journal: Path,
    old: Path,
    indices: Iterable[int],
    recipe: Recipe,
    repo_id: str | None,
    use_videos: bool,
) -> None:
    """Write the journal's episodes to a fresh dataset, or to a copy of the one at `root`, and move it into place."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    draft = journal / "dataset"
    shutil.rmtree(draft, ignore_errors=True)
    repo_id = repo_id or f"local/{root.name}"
    if root.exists():
        shutil.copytree(root, draft)
        dataset = LeRobotDataset.resume(repo_id, root=draft)
    else:
        dataset = LeRobotDataset.create(
            repo_id,
            fps=recipe.fps,
            features=dataset_features(recipe, use_videos),
            root=draft,
            robot_type=recipe.robot_type,
            use_videos=use_videos,
        )
    with quiet_writing():
        for index in indices:
            episode = Episode.load(_episode_file(journal, index))
            for step, (state, action) in enumerate(zip(episode.states, episode.actions, strict=True)):
                images = {f"observation.images.{camera}": frames[step] for camera, frames in episode.images.items()}
                dataset.add_frame({**images, "observation.state": state, "action": action, "task": episode.text})
            dataset.save_episode()
        dataset.finalize()
    _check_recipe(draft / "meta" / recipe.file, recipe, use_videos)
    if root.exists():
        root.rename(old)
    root.parent.mkdir(parents=True, exist_ok=True)
    draft.rename(root)
    shutil.rmtree(old, ignore_errors=True)
