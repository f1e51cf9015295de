"""Turns a folder of video clips and captions into a LeRobotDataset without actions: people or robots at work.

Each clip first becomes a small dataset of its own in `<out>.partial`, put in place whole, so neither Ctrl-C nor a crash
loses a finished one. LeRobot then joins them without encoding anything again, and the result is moved into place.
"""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lerobot.datasets.aggregate import aggregate_datasets
from lerobot.datasets.dataset_metadata import LeRobotDatasetMetadata
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from tqdm import tqdm

from lerobot_wam.quiet import quiet_writing
from lerobot_wam.training.clips import Clip, Shape, find_clips, pictures, probe

logger = logging.getLogger(__name__)

RECIPE_FILE = Path("meta") / "wam_ingest.json"
"""Where an ingested dataset keeps what it was made from."""
SHORT_SIDE = 256
"""Shorter side of the pictures, in pixels, where no size is asked for."""
_SHOWN = 5


@dataclass(frozen=True)
class IngestSettings:
    """How clips become episodes.

    Attributes:
        fps: Frames per second of the dataset; of a clip, the frame nearest in time is taken.
        size: Height and width in pixels, even numbers; None takes the first clip's shape, its shorter side scaled to
            at most 256.
        letterbox: Fit the whole picture in with black bars; else it fills the size and its overhang is cut off evenly.
        camera: Name of the camera, `observation.images.<camera>`.
        robot_type: The dataset's robot type: the name of its embodiment in a policy.
        max_seconds: Longer clips become several episodes, of which the last may be short; None keeps them whole.
    """

    fps: int = 10
    size: tuple[int, int] | None = None
    letterbox: bool = False
    camera: str = "video"
    robot_type: str = "video"
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.fps < 1:
            raise ValueError(f"fps is {self.fps}; expected 1 or more")
        if self.size is not None and any(side < 16 or side % 2 for side in self.size):
            raise ValueError(f"size is {self.size[0]}x{self.size[1]}; expected even numbers of 16 or more pixels")
        if self.max_seconds is not None and self.max_seconds * self.fps < 2:
            raise ValueError(f"max_seconds is {self.max_seconds:g}; an episode needs 2 frames, {2 / self.fps:g} s")


@dataclass(frozen=True)
class IngestReport:
    """What `ingest` made: the dataset's folder and size, and one line for each thing that was left out."""

    root: Path
    episodes: int
    frames: int
    skipped: list[str]


def ingest(
    folder: Path, out: Path, settings: IngestSettings, captions: Path | None = None, skip_bad: bool = False
) -> IngestReport:
    """Write the clips of a folder to a LeRobotDataset v3 with one camera and no actions or state.

    Args:
        folder: See `find_clips`.
        out: The dataset's folder; `<out>.partial` is used beside it until all is written.
        settings: How clips become episodes.
        captions: See `find_clips`.
        skip_bad: Leave out clips that cannot be read and captions of clips that are not there.

    Raises:
        FileNotFoundError: There is no folder, no video in it, or no such file of captions.
        ValueError: Something is bad and `skip_bad` is off; or `out` holds something else.
    """
    found, skipped = find_clips(folder, captions)
    shapes: dict[Clip, Shape] = {}
    for clip in tqdm(found, unit="clip", desc=f"checking {folder.name}"):
        try:
            shapes[clip] = probe(clip)
        except ValueError as error:
            skipped.append(str(error))
    _judge(skipped, skip_bad)
    if not shapes:
        raise ValueError(f"none of the {len(found)} videos in {folder} can be read; the first: {skipped[-1]}")
    settings = _state(settings, shapes)
    recipes = {clip: _recipe(clip, settings) for clip in shapes}
    if not out.exists():
        skipped += _write(recipes, out, settings, skip_bad)
    elif not (out / RECIPE_FILE).is_file() or json.loads((out / RECIPE_FILE).read_text()) != list(recipes.values()):
        raise ValueError(f"{out} exists and was not made from these clips with these options: give a new folder")
    meta = LeRobotDatasetMetadata(f"local/{out.name}", root=out)
    return IngestReport(out, meta.total_episodes, meta.total_frames, skipped)


def _judge(problems: Sequence[str], skip_bad: bool) -> None:
    if problems and not skip_bad:
        raise ValueError(f"{len(problems)} bad: {_some(problems, '; ')}\nmend or remove them, or pass --skip-bad")
    for problem in problems:
        logger.warning("left out %s", problem)


def _some(words: Sequence[str], separator: str = ", ") -> str:
    return separator.join(words[:_SHOWN]) + (f"{separator}... ({len(words)})" if len(words) > _SHOWN else "")


def _state(settings: IngestSettings, shapes: dict[Clip, Shape]) -> IngestSettings:
    """Say what becomes of the pictures, and return the settings with their size."""
    first = next(iter(shapes.values()))
    if settings.size is None:
        scale = min(1.0, SHORT_SIDE / min(first.height, first.width))
        settings = replace(settings, size=(2 * round(first.height * scale / 2), 2 * round(first.width * scale / 2)))
    assert settings.size is not None
    way = "in black bars" if settings.letterbox else "cut at the centre"
    logger.info(
        "%d clips, the first %dx%d at %.4g frames/s -> %dx%d %s, the frames nearest to %d per second",
        *(len(shapes), first.height, first.width, first.fps, *settings.size, way, settings.fps),
    )
    slow = [clip.name for clip, shape in shapes.items() if shape.fps < settings.fps]
    if slow:
        logger.warning("slower than %d frames/s, so frames repeat: %s", settings.fps, _some(slow))
    nameless = [clip.name for clip in shapes if not clip.captioned]
    if nameless:
        logger.warning("no caption, so the file name is the task: %s", _some(nameless))
    return settings


def _recipe(clip: Clip, settings: IngestSettings) -> dict[str, Any]:
    """What a clip's episodes depend on, as JSON values."""
    status = clip.path.stat()
    source = {"file": clip.name, "bytes": status.st_size, "modified": status.st_mtime, "task": clip.caption}
    return json.loads(json.dumps(source | asdict(settings)))


def _write(recipes: dict[Clip, dict[str, Any]], out: Path, settings: IngestSettings, skip_bad: bool) -> list[str]:
    """Write the dataset; return one line for each clip that turned out bad on the way."""
    journal = out.with_name(out.name + ".partial")
    parts, spoilt = [], []
    with quiet_writing():
        for clip, recipe in tqdm(recipes.items(), unit="clip", desc=f"writing {out.name}"):
            part = journal / "clips" / quote(clip.name, safe="")
            if not (part / RECIPE_FILE).is_file() or json.loads((part / RECIPE_FILE).read_text()) != recipe:
                shutil.rmtree(part, ignore_errors=True)
                try:
                    _write_clip(clip, journal / "draft", settings)
                except ValueError as error:
                    spoilt.append(str(error))
                    _judge(spoilt[-1:], skip_bad)
                    continue
                (journal / "draft" / RECIPE_FILE).write_text(json.dumps(recipe))
                part.parent.mkdir(exist_ok=True)
                (journal / "draft").rename(part)
            parts.append(part)
        if not parts:
            raise ValueError(f"none of the {len(recipes)} videos can be read; the first: {spoilt[0]}")
        shutil.rmtree(journal / "draft", ignore_errors=True)
        names = [f"local/{part.name}" for part in parts]
        aggregate_datasets(names, f"local/{out.name}", roots=parts, aggr_root=journal / "draft")
    (journal / "draft" / RECIPE_FILE).write_text(json.dumps(list(recipes.values()), indent=1))
    (journal / "draft").rename(out)
    shutil.rmtree(journal)
    return spoilt


def _write_clip(clip: Clip, draft: Path, settings: IngestSettings) -> None:
    """Write one clip's episodes as a dataset.

    Raises:
        ValueError: The clip cannot be decoded.
    """
    shutil.rmtree(draft, ignore_errors=True)
    assert settings.size is not None
    camera = f"observation.images.{settings.camera}"
    feature = {"dtype": "video", "shape": (*settings.size, 3), "names": ["height", "width", "channels"]}
    dataset = LeRobotDataset.create(
        f"local/{draft.name}",
        fps=settings.fps,
        features={camera: feature},
        root=draft,
        robot_type=settings.robot_type,
    )
    limit = None if settings.max_seconds is None else int(settings.max_seconds * settings.fps)
    try:
        for index, picture in enumerate(pictures(clip, settings.fps, settings.size, settings.letterbox)):
            if limit and index and index % limit == 0:
                dataset.save_episode()
            dataset.add_frame({camera: picture, "task": clip.caption})
        dataset.save_episode()
    finally:
        dataset.finalize()
