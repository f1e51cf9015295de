"""Where an embodiment meets a LeRobot dataset: derive a spec from its features, or check that a spec fits it.

``features`` is the dict of ``meta.features`` in LeRobot: feature name to ``{"dtype", "shape", "names"}``.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

from lerobot_wam.embodiments.spec import (
    FRAMES_PER_LATENT,
    LATENTS_PER_CHUNK,
    CameraView,
    Dimension,
    EmbodimentSpec,
    Normalization,
)

logger = logging.getLogger(__name__)

ACTION = "action"
STATE = "observation.state"
_OTHER = "choose another embodiment, or derive one with --policy.embodiment=auto"
DERIVED_VIDEO_FPS = 5.0
"""Video frames per second that a derived embodiment aims at: DreamZero's on DROID (spec §2.3)."""
DERIVED_NORMALIZATION = Normalization(gripper_mode="min_max", min_half_range=1e-3)
"""DreamZero's, but a gripper keeps its extremes and a constant dimension maps to 0 instead of passing raw."""

type Features = Mapping[str, Mapping[str, Any]]


class EmbodimentMismatchError(ValueError):
    """A dataset does not fit the embodiment it was to be used with."""


def derive_embodiment(
    features: Features,
    fps: float,
    robot_type: str | None = None,
    video_stride: int | None = None,
    latents_per_chunk: int = LATENTS_PER_CHUNK,
) -> EmbodimentSpec:
    """A spec for a robot that has no YAML, from what its dataset says about itself.

    All cameras are tiled in a near-square grid. An action is relative when a state dimension has the same
    name, except grippers (recognised by "gripper" in the name). A dataset without actions and state gives a
    video-only spec.

    Args:
        features: the dataset's features.
        fps: its frames per second.
        robot_type: its ``robot_type``; also the spec's name.
        video_stride: control steps between two video frames; default: the one that comes closest to 5 video
            frames/s.
        latents_per_chunk: latent frames per chunk; with the stride it fixes ``chunk_steps``.

    Raises:
        ValueError: no camera, or state or action is not a vector.
    """
    cameras = cameras_of(features)
    if not cameras:
        raise ValueError(
            f"no camera among the dataset's features ({', '.join(features)}): a world action model needs video"
        )
    stride = max(1, round(fps / DERIVED_VIDEO_FPS)) if video_stride is None else video_stride
    state = tuple(
        Dimension(name=name, gripper=_is_gripper(name)) for name in _dimension_names(features, STATE, "state")
    )
    state_names = {dimension.name for dimension in state}
    action = tuple(
        Dimension(
            name=name,
            relative=name in state_names and not _is_gripper(name),
            gripper=_is_gripper(name),
            rest=0.0 if name.endswith(".vel") else None,  # LeRobot's name for a velocity
        )
        for name in _dimension_names(features, ACTION, "action")
    )
    return EmbodimentSpec(
        name=robot_type or "derived",
        robot_types=(robot_type,) if robot_type else (),
        cameras=cameras,
        state=state,
        action=action,
        fps=float(fps),
        video_stride=stride,
        chunk_steps=latents_per_chunk * FRAMES_PER_LATENT * stride,
        normalization=DERIVED_NORMALIZATION,
    )


def check_dataset(spec: EmbodimentSpec, features: Features, fps: float, way_out: str | None = None) -> None:
    """Check that a dataset has the cameras, dimensions and rate that ``spec`` describes.

    A dataset without ``action`` is video without actions and passes; so does one that names no dimensions
    but has the right number of them. ``way_out`` is as :func:`misfits` takes it.

    Raises:
        EmbodimentMismatchError: the first misfit, and how to mend it.
    """
    for misfit in misfits(spec, features, fps, way_out=way_out):
        raise EmbodimentMismatchError(misfit)


def misfits(
    spec: EmbodimentSpec, features: Features, fps: float, source: str = "the dataset", way_out: str | None = None
) -> Iterator[str]:
    """What :func:`check_dataset` checks, every misfit in words.

    Args:
        spec: the embodiment.
        features: a dataset's, or a robot's.
        fps: its steps per second.
        source: whose features they are.
        way_out: what helps where no other embodiment can be chosen; None where one can.
    """
    other = way_out or _OTHER
    have = [camera.key for camera in cameras_of(features)]
    missing = [camera.key for camera in spec.cameras if camera.key not in have]
    if missing:
        yield (
            f"embodiment {spec.name!r} needs the camera {', '.join(missing)}; {source} has "
            f"{', '.join(have) or 'none'}: rename the camera (--rename_map), or "
            f"{way_out or 'let the dataset decide with --policy.embodiment=auto'}"
        )
    if ACTION in features:
        yield from _misnamed(spec, features, ACTION, spec.action_names, source, other)
        yield from _misnamed(spec, features, STATE, spec.state_names, source, other)
    if not math.isclose(fps, spec.fps):
        yield (
            f"{source} runs at {fps:g} steps/s, embodiment {spec.name!r} expects {spec.fps:g}: "
            + (way_out or _timing_advice(spec, fps))
        )


def _timing_advice(spec: EmbodimentSpec, fps: float) -> str:
    stride = spec.video_stride * fps / spec.fps
    if stride >= 1 and math.isclose(stride, round(stride)):
        chunk_steps = spec.frames_per_chunk * round(stride)
        return (
            f"keep its seconds with --policy.video_stride={round(stride)} --policy.chunk_steps={chunk_steps}, {_OTHER}"
        )
    return (
        f"no whole stride keeps its seconds ({stride:.2f} would), so set --policy.video_stride=... and "
        f"--policy.chunk_steps=... ({spec.frames_per_chunk} x stride) yourself, {_OTHER}"
    )


def _misnamed(
    spec: EmbodimentSpec, features: Features, key: str, expected: tuple[str, ...], source: str, other: str
) -> Iterator[str]:
    found = _names_in(features[key]) if key in features else []
    size = _vector_size(features, key) if key in features else 0
    if size != len(expected) or (len(found) == size and tuple(found) != expected):
        is_there = f"is {size}-dimensional ({', '.join(found) or 'unnamed'})" if size else "is missing"
        yield (
            f"{key} of {source} {is_there}, embodiment {spec.name!r} expects {len(expected)} "
            f"({', '.join(expected) or 'none'}): {other}"
        )


def cameras_of(features: Features) -> tuple[CameraView, ...]:
    """A dataset's cameras in a near-square grid, in its order. Depth maps are no pictures and stay out."""
    keys = [key for key, f in features.items() if f.get("dtype") in ("video", "image") and not _is_depth(f)]
    columns = math.ceil(math.sqrt(len(keys)))
    return tuple(CameraView(key, *divmod(i, columns)) for i, key in enumerate(keys))


def _is_depth(feature: Mapping[str, Any]) -> bool:
    """Whether LeRobot stored a depth map: a flag of the feature's info, in older datasets of its video_info."""
    info = {**(feature.get("video_info") or {}), **(feature.get("info") or {})}
    return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))


def _is_gripper(name: str) -> bool:
    return "gripper" in name.lower()


def _vector_size(features: Features, key: str) -> int:
    shape = tuple(features[key]["shape"])
    if len(shape) != 1:
        raise ValueError(f"{key} has shape {shape}, expected a vector: flatten it in the dataset")
    return int(shape[0])


def _dimension_names(features: Features, key: str, fallback: str) -> list[str]:
    """One unique name per dimension; ``action_0`` ... when the dataset gives none, and then nothing is relative."""
    if key not in features:
        return []
    size = _vector_size(features, key)
    names = _names_in(features[key])
    if len(names) == size == len(set(names)):
        return names
    if names:
        logger.warning(
            "%s has %d dimensions but the names %s: numbering them instead, so no action is relative",
            key,
            size,
            names,
        )
    return [f"{fallback}_{i}" for i in range(size)]


def _names_in(feature: Mapping[str, Any]) -> list[str]:
    """Names in the forms that LeRobot datasets use: [...], [[...]], {"motors": [...]}, {"x": 0, "y": 1}, or nothing."""
    return _flat(feature.get("names"))


def _flat(names: Any) -> list[str]:
    if isinstance(names, Mapping):
        numbered = all(isinstance(value, int) for value in names.values())
        names = sorted(names, key=lambda name: names[name]) if numbered else list(names.values())
    if isinstance(names, list | tuple):
        return [name for group in names for name in _flat(group)]
    return [] if names is None else [str(names)]
