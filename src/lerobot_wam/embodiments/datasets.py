"""Where an embodiment meets a LeRobot dataset: derive a spec from its features, or check that a spec fits it.

``features`` is the dict of ``meta.features`` in LeRobot: feature name to ``{"dtype", "shape", "names"}``.
"""

import logging
import math
from collections.abc import Mapping
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
    keys = _camera_keys(features)
    if not keys:
        raise ValueError(
            f"no camera among the dataset's features ({', '.join(features)}): a world action model needs video"
        )
    columns = math.ceil(math.sqrt(len(keys)))
    stride = max(1, round(fps / DERIVED_VIDEO_FPS)) if video_stride is None else video_stride
    state = tuple(
        Dimension(name=name, gripper=_is_gripper(name)) for name in _dimension_names(features, STATE, "state")
    )
    state_names = {dimension.name for dimension in state}
    action = tuple(
        Dimension(name=name, relative=name in state_names and not _is_gripper(name), gripper=_is_gripper(name))
        for name in _dimension_names(features, ACTION, "action")
    )
    return EmbodimentSpec(
        name=robot_type or "derived",
        robot_types=(robot_type,) if robot_type else (),
        cameras=tuple(CameraView(key, *divmod(i, columns)) for i, key in enumerate(keys)),
        state=state,
        action=action,
        fps=float(fps),
        video_stride=stride,
        chunk_steps=latents_per_chunk * FRAMES_PER_LATENT * stride,
        normalization=DERIVED_NORMALIZATION,
    )


def check_dataset(spec: EmbodimentSpec, features: Features, fps: float) -> None:
    """Check that a dataset has the cameras, dimensions and rate that ``spec`` describes.

    A dataset without ``action`` is video without actions and passes; so does one that names no dimensions
    but has the right number of them.

    Raises:
        EmbodimentMismatchError: the first misfit, and how to mend it.
    """
    have = _camera_keys(features)
    missing = [camera.key for camera in spec.cameras if camera.key not in have]
    if missing:
        raise EmbodimentMismatchError(
            f"embodiment {spec.name!r} needs the camera {', '.join(missing)}; the dataset has "
            f"{', '.join(have) or 'none'}: rename the camera (--rename_map), or let the dataset decide with "
            "--policy.embodiment=auto"
        )
    if ACTION in features:
        _check_names(spec, features, ACTION, spec.action_names)
        _check_names(spec, features, STATE, spec.state_names)
    if not math.isclose(fps, spec.fps):
        raise EmbodimentMismatchError(
            f"the dataset runs at {fps:g} steps/s, embodiment {spec.name!r} expects {spec.fps:g}: "
            + _timing_advice(spec, fps)
        )


def _timing_advice(spec: EmbodimentSpec, fps: float) -> str:
    other = "choose another embodiment, or derive one with --policy.embodiment=auto"
    stride = spec.video_stride * fps / spec.fps
    if stride >= 1 and math.isclose(stride, round(stride)):
        chunk_steps = spec.frames_per_chunk * round(stride)
        return (
            f"keep its seconds with --policy.video_stride={round(stride)} --policy.chunk_steps={chunk_steps}, {other}"
        )
    return (
        f"no whole stride keeps its seconds ({stride:.2f} would), so set --policy.video_stride=... and "
        f"--policy.chunk_steps=... ({spec.frames_per_chunk} x stride) yourself, {other}"
    )


def _check_names(spec: EmbodimentSpec, features: Features, key: str, expected: tuple[str, ...]) -> None:
    if key not in features:
        if expected:
            raise EmbodimentMismatchError(
                f"embodiment {spec.name!r} needs {key} with {len(expected)} dimensions, the dataset has none: "
                "choose another embodiment, or derive one with --policy.embodiment=auto"
            )
        return
    found = _names_in(features[key]) or ()
    size = _vector_size(features, key)
    if size != len(expected) or (len(found) == size and tuple(found) != expected):
        raise EmbodimentMismatchError(
            f"{key} of the dataset is {size}-dimensional ({', '.join(found) or 'unnamed'}), "
            f"embodiment {spec.name!r} expects {len(expected)} ({', '.join(expected)}): "
            "choose another embodiment, or derive one with --policy.embodiment=auto"
        )


def _camera_keys(features: Features) -> list[str]:
    return [key for key, feature in features.items() if feature.get("dtype") in ("video", "image")]


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
    if names is not None and len(names) == size == len(set(names)):
        return names
    if names is not None:
        logger.warning(
            "%s has %d dimensions but the names %s: numbering them instead, so no action is relative",
            key,
            size,
            names,
        )
    return [f"{fallback}_{i}" for i in range(size)]


def _names_in(feature: Mapping[str, Any]) -> list[str] | None:
    """Names in the forms that LeRobot datasets use: a list, {"motors": [...]}, {"x": 0, "y": 1}, or nothing."""
    names = feature.get("names")
    if isinstance(names, Mapping):
        values = list(names.values())
        if all(isinstance(value, int) for value in values):
            return sorted(names, key=lambda name: names[name])
        return [str(name) for group in values for name in group]
    return [str(name) for name in names] if names else None
