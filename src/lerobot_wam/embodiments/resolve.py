"""Find the embodiment that a policy is to be trained for, and measure its statistics."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lerobot_wam.embodiments.action_space import ActionStatistics
from lerobot_wam.embodiments.datasets import (
    ACTION,
    Features,
    cameras_of,
    check_dataset,
    derive_embodiment,
    misfits,
)
from lerobot_wam.embodiments.spec import EmbodimentSpec, builtin_for, builtin_names, load_embodiment
from lerobot_wam.embodiments.statistics import Columns, compute_statistics


def resolve_embodiment(
    name: str, features: Features, fps: float, robot_type: str | None, video_stride: int, chunk_steps: int
) -> EmbodimentSpec:
    """Return the spec that fits a dataset, in a policy with a timing of its own.

    Args:
        name: As for `find_embodiment`.
        features: The dataset's features.
        fps: The dataset's control steps per second.
        robot_type: The dataset's robot type.
        video_stride: Control steps between video frames that the policy was configured with. Where it differs from
            the embodiment's, it was set on purpose, for a dataset of another rate.
        chunk_steps: Actions per chunk that the policy was configured with.

    Raises:
        EmbodimentMismatchError: The dataset does not fit the named embodiment; the message names the fix.
    """
    spec = find_embodiment(name, features, fps, robot_type)
    if name == "auto" or (spec.video_stride, spec.chunk_steps) != (video_stride, chunk_steps):
        spec = replace(spec, fps=float(fps), video_stride=video_stride, chunk_steps=chunk_steps)
    check_dataset(spec, features, fps)
    return spec


def find_embodiment(name: str, features: Features, fps: float, robot_type: str | None) -> EmbodimentSpec:
    """Return the embodiment of a dataset, with a timing of its own that need not be the dataset's.

    "auto" takes the body from the built-in embodiment of `robot_type` and the eyes from the dataset: the built-in
    cameras and their places where the dataset has exactly these, else all that it has, in a grid. A robot that is not
    built in, one whose numbers are others, and video without actions are derived from the dataset.

    Args:
        name: "auto", the name or robot type of a built-in embodiment, or the path of a YAML file.
        features: The dataset's features.
        fps: The dataset's control steps per second; a derived embodiment's timing comes from it.
        robot_type: The dataset's robot type.

    Raises:
        ValueError: No such embodiment, or none can be derived.
    """
    if name != "auto":
        return load_embodiment(name)
    body = builtin_for(robot_type)
    if body is not None and (ACTION in features or not body.action):
        cameras = cameras_of(features)
        if {camera.key for camera in cameras} != {camera.key for camera in body.cameras}:
            body = replace(body, cameras=cameras, view_layout="grid")
        if not any(misfits(body, features, body.fps)):
            return body
    derived = derive_embodiment(features, fps, robot_type)
    # Weights are stored by name, and this robot is not the built-in one of that name.
    return replace(derived, name=f"{derived.name}_derived") if derived.name in builtin_names() else derived


def stored_embodiment(spec: EmbodimentSpec, columns: Columns) -> dict[str, Any]:
    """Return what a checkpoint keeps of an embodiment: its spec and the statistics of its data, as JSON values."""
    return {"spec": spec.to_dict(), "statistics": compute_statistics(columns, spec).to_dict()}


def check_numbers(spec: EmbodimentSpec, columns: Columns) -> None:
    """Refuse numbers that a stored embodiment cannot take; states or actions that the data lacks are left out.

    Raises:
        ValueError: A column has another width than the spec's, or holds NaN or infinity.
    """
    state = () if columns.state is None else spec.state
    action = () if columns.action is None else spec.action
    compute_statistics(columns, replace(spec, state=state, action=action))


def load_stored_embodiment(
    name: str, stored: Mapping[str, Any], prompt: str | None = None
) -> tuple[EmbodimentSpec, ActionStatistics]:
    """The inverse of `stored_embodiment`; a `prompt` that the weights were trained with replaces the spec's own."""
    spec = EmbodimentSpec.from_dict(stored["spec"], where=f"stored embodiment {name}")
    return spec if prompt is None else replace(spec, prompt=prompt), ActionStatistics.from_dict(stored["statistics"])
