"""The description of one robot: cameras and their places, state and action dimensions, timing, prompt, normalisation.

A spec is plain frozen data. It is written once as YAML in this folder (or derived from a dataset, see
``datasets.py``), and travels inside a checkpoint's ``config.json`` as the dict of
:meth:`EmbodimentSpec.to_dict`.
"""

import dataclasses
import difflib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from lerobot_wam.embodiments.prompts import render_prompt
from lerobot_wam.embodiments.schema import load_yaml, parse

LATENTS_PER_CHUNK = 2
"""Latent frames that are denoised together with one chunk of actions (spec §1.1: nfpb)."""
FRAMES_PER_LATENT = 4
"""Raw video frames in one latent frame (spec §1.7)."""

RangeMode = Literal["quantile", "min_max"]
ViewLayout = Literal["grid", "one", "two", "three", "droid"]


@dataclass(frozen=True)
class Cell:
    """A view's place in the tiled picture, in cells from the top left; every pixel is repeated ``width`` times."""

    row: int
    col: int
    width: int = 1


LAYOUTS: dict[str, tuple[tuple[int, int], tuple[Cell, ...]]] = {
    "one": ((1, 1), (Cell(0, 0),)),
    "two": ((2, 2), (Cell(0, 0), Cell(1, 0))),
    "three": ((2, 2), (Cell(0, 0), Cell(1, 0), Cell(0, 1))),
    "droid": ((2, 2), (Cell(1, 0), Cell(1, 1), Cell(0, 0, width=2))),
}
"""DreamZero's tilings (spec §2.5): rows and columns of the picture, and each camera's cell in the order of listing."""


@dataclass(frozen=True)
class CameraView:
    """A camera and, in the layout "grid", its cell in the tiled picture.

    Attributes:
        key: the dataset's feature, such as ``observation.images.front``.
        row: cell row, 0 at the top.
        col: cell column, 0 at the left.
    """

    key: str
    row: int = 0
    col: int = 0

    def __post_init__(self) -> None:
        if self.row < 0 or self.col < 0:
            raise ValueError(f"camera {self.key!r} sits at row {self.row}, col {self.col}: both must be 0 or more")


@dataclass(frozen=True)
class Dimension:
    """One number of the state or action vector.

    Attributes:
        name: as in the dataset's feature names, such as ``waist.pos``.
        unit: physical unit, for people ("rad", "deg", "m"); empty when unknown.
        low: lower limit in that unit, None when unknown or unlimited.
        high: upper limit in that unit.
        relative: (actions) the model sees action minus the same-named state at the chunk's start.
        gripper: a gripper opening, which has its own normalisation mode.
        max_rate: (actions) largest change per second in that unit, None for no limit. The guard spreads it over the
            control steps.
        rest: (actions) the value at which a velocity or a delta stands still, usually 0; None for a position, which
            stands where it is.
    """

    name: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    relative: bool = False
    gripper: bool = False
    max_rate: float | None = None
    rest: float | None = None

    def __post_init__(self) -> None:
        if self.max_rate is not None and self.max_rate <= 0:
            raise ValueError(f"dimension {self.name!r} has max_rate={self.max_rate}, expected more than 0 per second")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"dimension {self.name!r} has low={self.low}, high={self.high}: low must be below high")


@dataclass(frozen=True)
class Normalization:
    """How physical numbers become numbers around [-1, 1]. The defaults are DreamZero's (spec §2.4).

    Attributes:
        mode: range that maps to [-1, 1]: the 1 % and 99 % quantiles, or the extremes.
        gripper_mode: the same for gripper dimensions; quantiles would cut off the rare end of an open-shut
            signal.
        per_step: action ranges per horizon step (nano) instead of pooled over the horizon (DreamZero).
        min_half_range: floor of half a range, in physical units; keeps near-constant dimensions from being
            blown up. 0 is DreamZero's behaviour, see
            :class:`~lerobot_wam.embodiments.action_space.ActionSpace`.
        clip: bound of normalised numbers on the way in, None for no bound.
    """

    mode: RangeMode = "quantile"
    gripper_mode: RangeMode = "quantile"
    per_step: bool = False
    min_half_range: float = 0.0
    clip: float | None = 1.0

    def __post_init__(self) -> None:
        if self.min_half_range < 0:
            raise ValueError(f"min_half_range is {self.min_half_range}, expected 0 or more (physical units)")
        if self.clip is not None and self.clip < 1:
            raise ValueError(f"clip is {self.clip}, expected 1 or more (or null): less would cut the normal range")


@dataclass(frozen=True)
class VideoTransform:
    """What happens to every view besides the resize to its cell. Off by default; DreamZero's values in brackets.

    Attributes:
        crop: share of height and width that is kept [0.95]: the centre, in training a random place.
        color_jitter: in training, the largest relative change of brightness, contrast and saturation and the
            largest shift of hue, in turns [0.3, 0.4, 0.5, 0.08]; empty for none.
        uint8: round down to whole levels of 255 at the end, as a pipeline does that stores uint8 pictures [true].
    """

    crop: float = 1.0
    color_jitter: tuple[float, ...] = ()
    uint8: bool = False

    @property
    def augments(self) -> bool:
        """Whether training draws crops or colours."""
        return self.crop < 1 or bool(self.color_jitter)

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is {self.crop}, expected a share of the view above 0 and at most 1")
        if len(self.color_jitter) not in (0, 4) or min(self.color_jitter, default=0) < 0:
            raise ValueError(
                f"color_jitter is {list(self.color_jitter)}, expected [brightness, contrast, saturation, hue], each "
                "0 or more, or nothing"
            )


@dataclass(frozen=True)
class EmbodimentSpec:
    """One robot as the model sees it.

    Attributes:
        name: unique name; statistics and per-robot weights are stored under it.
        robot_types: LeRobot ``robot_type`` strings that mean this robot; a built-in one answers to them as to its name.
        cameras: the views. Their order matters in every layout but "grid".
        view_layout: how the views are tiled: "grid" by each camera's row and col, or one of ``LAYOUTS``. Named for
            DreamZero's use: "three" is main, left, right camera; "droid" is left, right exterior, wrist camera.
        video: crop and colours.
        state: dimensions of ``observation.state``, in the dataset's order.
        action: dimensions of ``action``, in the dataset's order. Empty together with ``state`` for video
            without a robot.
        fps: control steps per second of the data.
        video_stride: control steps between two video frames that the model sees.
        chunk_steps: actions per chunk; a chunk's actions and its video frames span the same time.
        prompt: text around the task, with the placeholder ``{task}``.
        normalization: how states and actions are scaled.
    """

    name: str
    cameras: tuple[CameraView, ...]
    state: tuple[Dimension, ...]
    action: tuple[Dimension, ...]
    fps: float
    video_stride: int
    chunk_steps: int
    robot_types: tuple[str, ...] = ()
    prompt: str = "{task}"
    normalization: Normalization = field(default_factory=Normalization)
    view_layout: ViewLayout = "grid"
    video: VideoTransform = field(default_factory=VideoTransform)

    def __post_init__(self) -> None:
        _require_unique("camera", (camera.key for camera in self.cameras))
        _require_unique("state dimension", self.state_names)
        _require_unique("action dimension", self.action_names)
        if not self.cameras:
            raise ValueError("cameras is empty: a world action model needs at least one view")
        if self.view_layout == "grid":
            _require_unique("camera cell (row, col)", ((cell.row, cell.col) for cell in self.cells))
        elif len(self.cameras) != len(self.cells) or any(camera.row or camera.col for camera in self.cameras):
            raise ValueError(
                f"view_layout {self.view_layout!r} places {len(self.cells)} cameras by their order, found "
                f"{', '.join(f'{c.key} (row {c.row}, col {c.col})' for c in self.cameras)}: list as many and leave row "
                "and col out, or use the layout grid"
            )
        if self.fps <= 0 or self.video_stride < 1 or self.chunk_steps < 1:
            raise ValueError(
                f"fps={self.fps}, video_stride={self.video_stride}, chunk_steps={self.chunk_steps}: "
                "all must be positive"
            )
        if "{task}" not in self.prompt:
            raise ValueError(f"prompt {self.prompt!r} has no place for the task: put {{task}} into it")
        for dimension in self.action:
            if dimension.relative and dimension.name not in self.state_names:
                raise ValueError(
                    f"action {dimension.name!r} is relative but no state dimension has that name "
                    f"(state: {', '.join(self.state_names) or 'none'}): rename it or set relative to false"
                )

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state dimensions, in order."""
        return tuple(dimension.name for dimension in self.state)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the action dimensions, in order."""
        return tuple(dimension.name for dimension in self.action)

    @property
    def frames_per_chunk(self) -> int:
        """Video frames in the time of one chunk."""
        return self.chunk_steps // self.video_stride

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Each camera's place in the tiled picture."""
        if self.view_layout == "grid":
            return tuple(Cell(camera.row, camera.col) for camera in self.cameras)
        return LAYOUTS[self.view_layout][1]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the tiled picture."""
        if self.view_layout == "grid":
            return 1 + max(cell.row for cell in self.cells), 1 + max(cell.col for cell in self.cells)
        return LAYOUTS[self.view_layout][0]

    def render_prompt(self, task: str) -> str:
        """The model's text for a task, see :func:`~lerobot_wam.embodiments.prompts.render_prompt`."""
        return render_prompt(self.prompt, task)

    def check_chunk(self, latents_per_chunk: int = LATENTS_PER_CHUNK) -> None:
        """Check that one chunk of actions spans exactly ``latents_per_chunk`` latent frames.

        Raises:
            ValueError: with the chunk_steps that would fit.
        """
        frames = latents_per_chunk * FRAMES_PER_LATENT
        if self.chunk_steps != frames * self.video_stride:
            raise ValueError(
                f"{self.name}: chunk_steps is {self.chunk_steps}, expected {frames * self.video_stride} "
                f"({frames} video frames per chunk x video_stride {self.video_stride}): change one of the two"
            )

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON values; :meth:`from_dict` gives it back equal."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def to_yaml(self) -> str:
        """The text of a file that :func:`load_embodiment` reads; fields that hold their defaults are left out."""
        return yaml.safe_dump(_without_defaults(self), sort_keys=False, default_flow_style=None, width=120)

    @classmethod
    def from_dict(cls, data: Any, where: str = "embodiment") -> "EmbodimentSpec":
        """A spec from plain values, checked strictly; ``where`` names the source in errors (SchemaError)."""
        return parse(cls, data, where)


def builtin_names() -> list[str]:
    """Names of the embodiments that ship with the package, sorted."""
    folder = resources.files("lerobot_wam.embodiments")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def builtin_for(robot_type: str | None) -> EmbodimentSpec | None:
    """The built-in embodiment that lists this LeRobot robot type, None if none does."""
    return next((spec for name in builtin_names() if robot_type in (spec := _builtin(name)).robot_types), None)


def load_embodiment(name_or_path: str | Path, latents_per_chunk: int = LATENTS_PER_CHUNK) -> EmbodimentSpec:
    """A built-in embodiment by its name or one of its robot types, or one's own from the path of a ``.yaml`` file.

    Raises:
        ValueError: neither a built-in name nor a YAML path, the file's content is wrong, or it gives the name of a
            built-in embodiment to a robot with other dimensions.
        FileNotFoundError: the YAML path does not exist.
    """
    name = str(name_or_path)
    if Path(name).suffix in (".yaml", ".yml"):
        spec = _own(Path(name))
    elif name in builtin_names():
        spec = _builtin(name)
    elif (known := builtin_for(name)) is not None:
        spec = known
    else:
        close = difflib.get_close_matches(name, builtin_names(), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"unknown embodiment {name!r}: {hint}Built in: {', '.join(builtin_names())}. "
            "Or give the path of your own .yaml file."
        )
    spec.check_chunk(latents_per_chunk)
    return spec


@cache
def _builtin(name: str) -> EmbodimentSpec:
    text = (resources.files("lerobot_wam.embodiments") / f"{name}.yaml").read_text(encoding="utf-8")
    return EmbodimentSpec.from_dict(load_yaml(text, name), where=name)


def _own(path: Path) -> EmbodimentSpec:
    if not path.is_file():
        raise FileNotFoundError(f"embodiment file {path} does not exist: expected the path of a YAML file")
    spec = EmbodimentSpec.from_dict(load_yaml(path.read_text(encoding="utf-8"), str(path)), where=str(path))
    if spec.name in builtin_names():
        known = _builtin(spec.name)
        if (spec.state_names, spec.action_names) != (known.state_names, known.action_names):
            raise ValueError(
                f"{path}: the name {spec.name!r} belongs to a built-in robot with other dimensions (state "
                f"{len(known.state)}, action {len(known.action)}), and weights are stored by name: choose another name"
            )
    return spec


def _without_defaults(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_without_defaults(item) for item in value]
    if not dataclasses.is_dataclass(value):
        return value
    kept = {}
    for entry in dataclasses.fields(value):
        made = entry.default_factory
        default = entry.default if made is dataclasses.MISSING else made()
        if getattr(value, entry.name) != default:
            kept[entry.name] = _without_defaults(getattr(value, entry.name))
    return kept


def _require_unique(what: str, values: Iterable[object]) -> None:
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise ValueError(f"{what} {repeated[0]!r} appears more than once: each must be unique")
